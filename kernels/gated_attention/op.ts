/**
 * Causal self-attention with a binary gate on every edge (arXiv 2512.05865), forward and backward. Nothing of size
 * T × T is ever stored: backward recomputes scores, noise and masks from q, k and the log-sum-exp of each row.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { type Heads, headsSourceOf } from "../core/heads.ts";
import { compile } from "../core/kernel.ts";
import { laneFunctions, lanesOf } from "../core/lanes.ts";
import randomSource from "../core/random.wgsl" with { type: "text" };
import type { Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import { createUniform } from "../core/uniform.ts";
import backwardKeyValueSource from "./backward_key_value.wgsl" with { type: "text" };
import backwardQuerySource from "./backward_query.wgsl" with { type: "text" };
import forwardSource from "./forward.wgsl" with { type: "text" };
import gateSource from "./gate.wgsl" with { type: "text" };
import handSource from "./hand.wgsl" with { type: "text" };
import tileSource from "./tile.wgsl" with { type: "text" };
import tiledBackwardKeyValueSource from "./tiled_backward_key_value.wgsl" with { type: "text" };
import tiledBackwardQuerySource from "./tiled_backward_query.wgsl" with { type: "text" };
import tiledForwardSource from "./tiled_forward.wgsl" with { type: "text" };
import headSumsSource from "./head_sums.wgsl" with { type: "text" };

const SOURCES = {
  registers: {
    forward: handSource + forwardSource,
    backwardQuery: handSource + backwardQuerySource,
    backwardKeyValue: handSource + backwardKeyValueSource,
  },
  tiled: {
    forward: tileSource + tiledForwardSource,
    backwardQuery: tileSource + tiledBackwardQuerySource,
    backwardKeyValue: tileSource + tiledBackwardKeyValueSource,
  },
};

/** What a CPU driver reads by texture. */
const TEXTURES = {
  forward: ["qkv"],
  backwardQuery: ["qkv", "y", "dy", "log_sum_exp"],
  backwardKeyValue: ["qkv", "dy", "log_sum_exp", "delta"],
};

/**
 * How edges are gated: `dense` not at all, `deterministic` open where g > 0 (evaluation), `sampled` open where
 * g + logistic noise > 0 (training).
 */
export type GateMode = "dense" | "deterministic" | "sampled";

/** The shape of one layer's attention; compiled in. */
export interface GatedAttentionConfig extends Heads {
  /** Rows B. */
  batch: number;
  /** Positions T. */
  positions: number;
  /** Index of the layer: keys the noise and places its heads in `headSums`. */
  layer: number;
  /** Whether `backward` will be called; true when left out. */
  training?: boolean;
  /** Whether qkv and y are f16; the head size must then be a multiple of 4. Gradients are not. */
  half?: boolean;
  /** Which kernels; left out, {@link chooseAttentionVariant} chooses. */
  variant?: AttentionVariant;
}

/**
 * The kernels there are.
 *
 * - `registers`: an invocation goes over the keys for a query that it holds in registers, with no barrier; for CPU
 *   drivers, which pay dearly for barriers, and for any head size.
 * - `tiled`: a workgroup of 256 works on 64 queries by 64 keys at a time in workgroup memory; for GPUs.
 */
export type AttentionVariant = "registers" | "tiled";

/** Rows and columns of a tile. */
const SIDE = 64;

/** Bytes of workgroup memory that the tiled kernels take for a head size. */
function tiledBytes(headSize: number): number {
  const [slabA, slabB, tile] = [256, 16 * Math.max(16, headSize / 4), SIDE * 17];
  return 16 * (slabA + slabB + tile) + 4 * (256 + SIDE) + 4;
}

/** The kernels for heads of this size on this adapter. */
export function chooseAttentionVariant(gpu: Gpu, headSize: number): AttentionVariant {
  const { maxComputeWorkgroupStorageSize } = gpu.device.limits;
  return gpu.adapter.software || headSize % 4 !== 0 || tiledBytes(headSize) > maxComputeWorkgroupStorageSize
    ? "registers"
    : "tiled";
}

/** What may change from call to call. */
export interface GateSettings {
  /** Keys the gates' noise. */
  seed: number;
  /** Counts the noise on, from 0. */
  step: number;
  /** First row of the batch times heads, where a batch is cut in micro-batches. */
  firstRow: number;
  /** b in g = l + b. */
  bias: number;
  /** τg of the straight-through relaxation. */
  temperature: number;
  /** One edge's share of the mean over layers, rows and causal pairs. */
  edgeWeight: number;
  /** ρ of the pull on saturated gates, mean of relu(|g| − bound)². */
  saturationWeight: number;
  /** Gate logit beyond which it pulls. */
  saturationBound: number;
}

/** A compiled layer of attention. */
export interface GatedAttention {
  /** Sets what the next submissions see. */
  configure(settings: GateSettings): void;
  /**
   * Overwrites `y` (batch, position, head, D), `logSumExp` (batch, head, query) and `rowSums` (batch, head, query, 4)
   * from `qkv` (batch, position, H + 2 K, D): query heads, then key heads, then value heads. What stands for a head has
   * one for each query head.
   */
  forward(
    recorder: Recorder,
    mode: GateMode,
    tensors: { qkv: Tensor; y: Tensor; logSumExp: Tensor; rowSums: Tensor },
  ): void;
  /**
   * Overwrites `dqkv` (as qkv) from `dy` (as y). `edgeScale` [1] multiplies the edge objective's gradient;
   * `delta` (batch, head, query) is scratch.
   */
  backward(
    recorder: Recorder,
    mode: GateMode,
    tensors: Record<"qkv" | "y" | "dy" | "logSumExp" | "edgeScale" | "delta" | "dqkv", Tensor>,
  ): void;
  /**
   * Adds the row sums of the first `configureRows` batch rows to `headSums` (layer, head, 8): open probability, open
   * gates as used, saturation, open gates without noise, queries with no open gate as used and without noise, 0, 0.
   */
  sumHeads(recorder: Recorder, tensors: { rowSums: Tensor; headSums: Tensor }): void;
  /** How many of the batch's rows `sumHeads` counts; all until told otherwise. */
  configureRows(batch: number): void;
  /** Frees what it holds on the device. */
  destroy(): void;
}

/** Values in `headSums` for each head, in order. */
export const HEAD_SUMS = [
  "openProbability",
  "openUsed",
  "saturation",
  "open",
  "deadUsed",
  "dead",
  "unused0",
  "unused1",
] as const;

/**
 * Compiles the three modes for one shape. Pipelines are shared between layers of the same shape.
 *
 * @throws {RangeError} when an extent is not a positive integer, or the key heads do not divide the heads
 */
export async function prepareGatedAttention(gpu: Gpu, config: GatedAttentionConfig): Promise<GatedAttention> {
  const { batch, heads, positions, headSize, layer, training = true, half = false } = config;
  const of = headsSourceOf("gated attention", config, { batch, positions });
  const variant = config.variant ?? chooseAttentionVariant(gpu, headSize);
  const handed = gpu.lanes !== undefined;
  const lanes = lanesOf(gpu, 64);
  const hands = handed ? lanes : 1;
  const constants = {
    ...of.constants,
    T: positions,
    LANES: lanes,
    HANDS: hands,
    PARTS: Math.ceil(of.constants.CHUNKS / hands),
    SCALE: { f32: 1 / Math.sqrt(headSize) },
    SLAB: 16 * Math.max(16, headSize / 4),
    GROUPS: Math.ceil(headSize / SIDE),
  };
  const sources = SOURCES[variant];
  const build = async (mode: GateMode) => {
    const kernel = (name: keyof typeof sources, label: string, inHalf: string[]) =>
      compile(gpu, {
        label: `gated attention ${label}, ${mode}`,
        source: of.source + randomSource + gateSource + sources[name],
        constants,
        flags: {
          GATED: mode !== "dense",
          NOISE: mode === "sampled",
          BACKWARD: name !== "forward",
          LOADED: !handed,
          ROLLED: gpu.adapter.software,
        },
        half: half ? inHalf : [],
        textures: variant === "registers" ? TEXTURES[name] : [],
      });
    const [forward, backwardQuery, backwardKeyValue] = await Promise.all([
      kernel("forward", "forward", ["qkv", "y"]),
      training ? kernel("backwardQuery", "backward query", ["qkv", "y"]) : undefined,
      training ? kernel("backwardKeyValue", "backward key value", ["qkv"]) : undefined,
    ]);
    return { forward, backwardQuery, backwardKeyValue };
  };
  const [dense, deterministic, sampled] = await Promise.all([
    build("dense"),
    build("deterministic"),
    build("sampled"),
  ]);
  const kernels = { dense, deterministic, sampled };
  const headSumsKernel = await compile(gpu, {
    label: "gated attention head sums",
    source: laneFunctions(gpu, [{ name: "sum_over_lanes", of: "sum", type: "vec4f" }]) + headSumsSource,
    constants: { HEADS: heads, T: positions, LANES: lanesOf(gpu, 64) },
    textures: ["row_sums"],
  });
  const gate = createUniform(gpu, `gate of layer ${layer}`, [
    ["seed", "u32"],
    ["step", "u32"],
    ["layer", "u32"],
    ["firstRow", "u32"],
    ["bias", "f32"],
    ["inverseTemperature", "f32"],
    ["edgeWeight", "f32"],
    ["saturationWeight", "f32"],
    ["saturationBound", "f32"],
  ]);
  const rows = createUniform(gpu, `rows of layer ${layer}`, [["layer", "u32"], ["batch", "u32"]]);
  rows.set({ layer, batch });
  const rowsOfWorkgroup = variant === "tiled" ? SIDE : lanes;
  const queryGrid = [Math.ceil(positions / rowsOfWorkgroup), heads, batch] as const;
  const keyGrid = [queryGrid[0], of.keyValueHeads, batch] as const;
  return {
    configure({ temperature, ...settings }) {
      gate.set({ ...settings, layer, inverseTemperature: 1 / temperature });
    },
    forward(recorder, mode, { qkv, y, logSumExp, rowSums }) {
      recorder.dispatch(kernels[mode].forward, {
        gate: gate.tensor,
        qkv,
        y,
        log_sum_exp: logSumExp,
        row_sums: rowSums,
      }, queryGrid);
    },
    backward(recorder, mode, { qkv, y, dy, logSumExp, edgeScale, delta, dqkv }) {
      const shared = {
        gate: gate.tensor,
        qkv,
        dy,
        log_sum_exp: logSumExp,
        edge_scale: edgeScale,
        delta,
        dqkv,
      };
      const { backwardQuery, backwardKeyValue } = kernels[mode];
      if (!backwardQuery || !backwardKeyValue) {
        throw new RangeError(
          "Cannot go backward through gated attention as it was prepared without training",
        );
      }
      recorder.dispatch(backwardQuery, { ...shared, y }, queryGrid);
      recorder.dispatch(backwardKeyValue, shared, keyGrid);
    },
    sumHeads(recorder, { rowSums, headSums }) {
      recorder.dispatch(headSumsKernel, { rows: rows.tensor, row_sums: rowSums, head_sums: headSums }, [
        heads,
      ]);
    },
    configureRows(count) {
      rows.set({ layer, batch: count });
    },
    destroy() {
      for (const uniform of [gate, rows]) uniform.destroy();
    },
  };
}
