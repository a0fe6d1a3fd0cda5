/**
 * Causal self-attention with a binary gate on every edge (arXiv 2512.05865), forward and backward. Nothing of size
 * T × T is ever stored: backward recomputes scores, noise and masks from q, k and the log-sum-exp of each row.
 *
 * @module
 */
import type { Contest, Gpu } from "../core/gpu.ts";
import { type Heads, headsSourceOf } from "../core/heads.ts";
import { compile, type Kernel } from "../core/kernel.ts";
import { laneFunctions, lanesOf } from "../core/lanes.ts";
import randomSource from "../core/random.wgsl" with { type: "text" };
import type { Recorder } from "../core/recorder.ts";
import { destroyTensor, elementBytes, elementsOf, type ElementType, type Tensor } from "../core/tensor.ts";
import { createUniform } from "../core/uniform.ts";
import backwardKeyValueSource from "./backward_key_value.wgsl" with { type: "text" };
import backwardQuerySource from "./backward_query.wgsl" with { type: "text" };
import forwardSource from "./forward.wgsl" with { type: "text" };
import gateSource from "./gate.wgsl" with { type: "text" };
import handSource from "./hand.wgsl" with { type: "text" };
import tiledGateSource from "./tiled_gate.wgsl" with { type: "text" };
import tileSource from "./tile.wgsl" with { type: "text" };
import tiledBackwardKeyValueSource from "./tiled_backward_key_value.wgsl" with { type: "text" };
import tiledBackwardQuerySource from "./tiled_backward_query.wgsl" with { type: "text" };
import tiledForwardSource from "./tiled_forward.wgsl" with { type: "text" };
import headSumsSource from "./head_sums.wgsl" with { type: "text" };
import { distanceWeight, MOST_DISTANCE_POWER } from "./distance.ts";
import { type AttentionVariant, possibleVariants, SIDE, tilingOf } from "./variants.ts";

export { type AttentionVariant, chooseAttentionVariant } from "./variants.ts";

const SOURCES = {
  registers: {
    forward: handSource + forwardSource,
    backwardQuery: handSource + backwardQuerySource,
    backwardKeyValue: handSource + backwardKeyValueSource,
  },
  tiled: {
    forward: tiledGateSource + tileSource + tiledForwardSource,
    backwardQuery: tiledGateSource + tileSource + tiledBackwardQuerySource,
    backwardKeyValue: tiledGateSource + tileSource + tiledBackwardKeyValueSource,
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
  /**
   * Power of 1 + i − j by which an edge weighs less in the mean of the open probabilities that backward descends; left out,
   * or 0: all weigh alike. Row sums know nothing of it.
   */
  distancePower?: number;
  /** Which kernels; left out, what the device's tuner measured of each, or {@link chooseAttentionVariant}. */
  variant?: AttentionVariant;
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

/** The kernels of one mode: their names, what may be f16, and the results that they sum up for each row. */
const KERNELS = {
  forward: { label: "forward", half: ["qkv", "y"], results: 1 },
  backwardQuery: { label: "backward query", half: ["qkv", "y"], results: 1 },
  backwardKeyValue: { label: "backward key value", half: ["qkv"], results: 2 },
} as const;
type KernelName = keyof typeof KERNELS;

/** Uniform values of the gate, as gate.wgsl has them. */
const GATE_FIELDS = [
  ["seed", "u32"],
  ["step", "u32"],
  ["layer", "u32"],
  ["firstRow", "u32"],
  ["bias", "f32"],
  ["inverseTemperature", "f32"],
  ["edgeWeight", "f32"],
  ["saturationWeight", "f32"],
  ["saturationBound", "f32"],
] as const;

/** Compiles one kernel in a variant. */
function compileKernel(
  gpu: Gpu,
  config: GatedAttentionConfig,
  name: KernelName,
  mode: GateMode,
  variant: AttentionVariant,
): Promise<Kernel> {
  const { batch, positions, headSize, half = false, distancePower = 0 } = config;
  const weighted = mode !== "dense" && name !== "forward" && distancePower !== 0;
  const of = headsSourceOf("gated attention", config, { batch, positions });
  const { label, half: inHalf } = KERNELS[name];
  const handed = gpu.lanes !== undefined;
  const hands = handed ? lanesOf(gpu, 64) : 1;
  const tiled = variant !== "registers";
  return compile(gpu, {
    label: `gated attention ${label}, ${mode}`,
    source: of.source + randomSource + gateSource + SOURCES[tiled ? "tiled" : "registers"][name],
    constants: {
      ...of.constants,
      T: positions,
      SCALE: { f32: 1 / Math.sqrt(headSize) },
      DISTANCE_POWER: { f32: weighted ? distancePower : 0 },
      DISTANCE_WEIGHT: { f32: weighted ? distanceWeight(positions, distancePower) : 1 },
      // What is written out compiles slowly on a CPU driver, which has tiles in tests alone.
      ...(tiled ? tilingOf(variant, headSize, gpu.adapter.software ? 1 : 4).constants : {
        LANES: lanesOf(gpu, 64),
        HANDS: hands,
        PARTS: Math.ceil(of.constants.CHUNKS / hands),
      }),
    },
    flags: {
      GATED: mode !== "dense",
      NOISE: mode === "sampled",
      WEIGHTED: weighted,
      BACKWARD: name !== "forward",
      LOADED: !handed,
      ROLLED: gpu.adapter.software,
    },
    half: half ? inHalf : [],
    textures: tiled ? [] : TEXTURES[name],
  });
}

/** Workgroups of a kernel. */
function gridOf(
  gpu: Gpu,
  { batch, heads, keyValueHeads = heads, positions }: GatedAttentionConfig,
  name: KernelName,
  variant: AttentionVariant,
): readonly [number, number, number] {
  const ofHeads = name === "backwardKeyValue" ? keyValueHeads : heads;
  if (variant === "registers") return [Math.ceil(positions / lanesOf(gpu, 64)), ofHeads, batch];
  return [ofHeads, batch, Math.ceil(positions / SIDE)];
}

/** Pairs of rows by elements of a head below which no kernel is worth measuring: it takes a small part of any step. */
const LEAST_TERMS = 1 << 24;

/** The variant of each kernel: the one that was measured to be the fastest, where there is a tuner and it has time. */
async function variantsOf(
  gpu: Gpu,
  config: GatedAttentionConfig,
): Promise<Record<KernelName, AttentionVariant>> {
  const { batch, heads, positions, headSize, training = true, half = false, variant } = config;
  const { keyValueHeads = heads } = config;
  const possible = (name: KernelName): AttentionVariant[] =>
    variant ? [variant] : possibleVariants(gpu, headSize, KERNELS[name].results);
  const variants = {
    forward: possible("forward")[0],
    backwardQuery: possible("backwardQuery")[0],
    backwardKeyValue: possible("backwardKeyValue")[0],
  };
  if (!gpu.tuner || batch * heads * positions ** 2 * headSize < LEAST_TERMS) return variants;
  for (const name of training ? Object.keys(KERNELS) as KernelName[] : ["forward"] as const) {
    const names = possible(name);
    if (names.length === 1) continue;
    const shape = `${batch} x ${positions}, ${heads} heads of ${headSize} by ${keyValueHeads}`;
    const key = ["attention", KERNELS[name].label, shape, ...(half ? ["half"] : [])].join(" ");
    const chosen = await gpu.tuner.choose(gpu, key, names, () => contestOf(gpu, config, name, names));
    variants[name] = names.find((one) => one === chosen) ?? variants[name];
  }
  return variants;
}

/** The variants of a kernel on numbers of no meaning; undefined where the device cannot hold these beside what is there. */
async function contestOf(
  gpu: Gpu,
  config: GatedAttentionConfig,
  name: KernelName,
  variants: readonly AttentionVariant[],
): Promise<Contest | undefined> {
  const { batch, heads, keyValueHeads = heads, positions, headSize, training = true, half = false } = config;
  const type = half ? "f16" : "f32";
  const rows = [batch * positions];
  const inputs = [...rows, (heads + 2 * keyValueHeads) * headSize];
  const results = [...rows, heads * headSize];
  const ofQueries = [batch * heads * positions];
  const backward = name !== "forward";
  const operands: Record<string, { shape: number[]; type: ElementType }> = {
    qkv: { shape: inputs, type },
    ...(name !== "backwardKeyValue" && { y: { shape: results, type } }),
    log_sum_exp: { shape: ofQueries, type: "f32" },
    ...(!backward && { row_sums: { shape: [...ofQueries, 4], type: "f32" } }),
    ...(backward && {
      dy: { shape: results, type: "f32" },
      delta: { shape: ofQueries, type: "f32" },
      edge_scale: { shape: [1], type: "f32" },
      dqkv: { shape: inputs, type: "f32" },
    }),
  };
  const sizes = Object.values(operands).map((of) => elementBytes(of.type) * elementsOf(of.shape));
  if (!await gpu.canHold(sizes)) return undefined;
  const mode = training ? "sampled" : "deterministic";
  const kernels = await Promise.all(
    variants.map((variant) => compileKernel(gpu, config, name, mode, variant)),
  );
  const gate = createUniform(gpu, "gate to measure with", GATE_FIELDS);
  gate.set({
    seed: 1,
    step: 0,
    layer: 0,
    firstRow: 0,
    bias: 0,
    inverseTemperature: 1,
    edgeWeight: 0,
    saturationWeight: 0,
    saturationBound: 1,
  });
  const tensors = Object.fromEntries(
    Object.entries(operands).map(([of, { shape, type }]) => [
      of,
      gpu.tensor(`${of} to measure with`, shape, type),
    ]),
  );
  // Of zeros all gradients would be zero, and their tiles left out.
  for (const input of [tensors.qkv, tensors.dy]) {
    if (!input) continue;
    const values = new Float32Array(input.length);
    for (let n = 0; n < values.length; n++) values[n] = (Math.imul(n, 40503) & 0xffff) / 0x10000 - 0.5;
    gpu.write(input, values);
  }
  return {
    candidates: new Map(
      variants.map((variant, index) => [
        variant,
        (recorder) =>
          recorder.dispatch(
            kernels[index],
            { gate: gate.tensor, ...tensors },
            gridOf(gpu, config, name, variant),
          ),
      ]),
    ),
    destroy() {
      gate.destroy();
      for (const tensor of Object.values(tensors)) destroyTensor(gpu, tensor);
    },
  };
}

/**
 * Compiles the three modes for one shape. Pipelines are shared between layers of the same shape.
 *
 * @example Dense attention of two heads over five positions
 * ```ts
 * import assert from "node:assert/strict";
 * import { Gpu, prepareGatedAttention } from "../../mod.ts";
 *
 * const gpu = await Gpu.open();
 * const [batch, heads, positions, headSize] = [1, 2, 5, 4];
 * const attention = await prepareGatedAttention(gpu, {
 *   ...{ batch, heads, keyValueHeads: heads, positions, headSize },
 *   layer: 0,
 *   training: false,
 * });
 * const tensors = {
 *   qkv: gpu.tensor("qkv", [batch, positions, 3 * heads, headSize]),
 *   y: gpu.tensor("y", [batch, positions, heads, headSize]),
 *   logSumExp: gpu.tensor("log-sum-exp", [batch, heads, positions]),
 *   rowSums: gpu.tensor("row sums", [batch, heads, positions, 4]),
 * };
 * gpu.write(tensors.qkv, new Float32Array(tensors.qkv.length).fill(1));
 * gpu.submit("attention", (recorder) => attention.forward(recorder, "dense", tensors));
 * assert((await gpu.read(tensors.y)).every((value) => Math.abs(value - 1) < 1e-6));
 * attention.destroy();
 * gpu.close();
 * ```
 *
 * @throws {RangeError} when an extent is not a positive integer, the key heads do not divide the heads, or the power of the
 *   distance is out of range
 */
export async function prepareGatedAttention(gpu: Gpu, config: GatedAttentionConfig): Promise<GatedAttention> {
  const { batch, heads, positions, layer, training = true, distancePower = 0 } = config;
  headsSourceOf("gated attention", config, { batch, positions });
  if (!(distancePower >= 0 && distancePower <= MOST_DISTANCE_POWER)) {
    throw new RangeError(
      `Cannot prepare gated attention as the power of the distance must be from 0 to ${MOST_DISTANCE_POWER}: ` +
        `${distancePower}`,
    );
  }
  const variants = await variantsOf(gpu, config);
  const build = async (mode: GateMode) => {
    const kernel = (name: KernelName) => compileKernel(gpu, config, name, mode, variants[name]);
    const [forward, backwardQuery, backwardKeyValue] = await Promise.all([
      kernel("forward"),
      training ? kernel("backwardQuery") : undefined,
      training ? kernel("backwardKeyValue") : undefined,
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
  const gate = createUniform(gpu, `gate of layer ${layer}`, GATE_FIELDS);
  const rows = createUniform(gpu, `rows of layer ${layer}`, [["layer", "u32"], ["batch", "u32"]]);
  rows.set({ layer, batch });
  const grid = (name: KernelName) => gridOf(gpu, config, name, variants[name]);
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
      }, grid("forward"));
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
      recorder.dispatch(backwardQuery, { ...shared, y }, grid("backwardQuery"));
      recorder.dispatch(backwardKeyValue, shared, grid("backwardKeyValue"));
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
