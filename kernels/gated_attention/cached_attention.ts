/**
 * Gated attention of a few new positions to all positions before them, whose keys and values are kept: for generating
 * text. There is no noise and no backward.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { type Heads, headsSourceOf } from "../core/heads.ts";
import { compile } from "../core/kernel.ts";
import { laneFunctions, lanesOf } from "../core/lanes.ts";
import { linearGrid, type Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import { createUniform } from "../core/uniform.ts";
import cacheSource from "./cache.wgsl" with { type: "text" };
import appendSource from "./cached_append.wgsl" with { type: "text" };
import forwardSource from "./cached_forward.wgsl" with { type: "text" };
import type { GateMode } from "./op.ts";

/** Shapes; compiled in. Layers of the same shape can take turns with one. */
export interface CachedAttentionConfig extends Heads {
  /** Rows B, which are all at the same position. */
  batch: number;
  /** Whether qkv, keys, values and y are f16; the head size must then be a multiple of 4. */
  half?: boolean;
}

/** Where the new positions stand, and the gates. */
export interface CachePlace {
  /** Positions in the cache before the new ones. */
  filled: number;
  /** New positions n of every row. */
  count: number;
  /** b in g = l + b; dense attention does not look at it. */
  bias: number;
}

/** Compiled attention with a cache. */
export interface CachedAttention {
  /**
   * Sets what the next submissions see; to be called before they are recorded.
   *
   * @throws {RangeError} when there are no new positions
   */
  configure(place: CachePlace): void;
  /**
   * Writes the new positions of `keys` and `values` (position, batch, key head, D), which may have room for any number of
   * positions, from `qkv` (batch, n, H + 2 K, D): query heads, then key heads, then value heads.
   *
   * @throws {RangeError} when there is no room for them
   */
  append(recorder: Recorder, tensors: Record<"qkv" | "keys" | "values", Tensor>): void;
  /** Overwrites `y` (batch, n, head, D) from the queries in `qkv`, after `append`. */
  forward(
    recorder: Recorder,
    mode: Exclude<GateMode, "sampled">,
    tensors: Record<"qkv" | "keys" | "values" | "y", Tensor>,
  ): void;
  /** Frees what it holds on the device. */
  destroy(): void;
}

/**
 * Compiles both modes for one shape.
 *
 * @throws {RangeError} when an extent is not a positive integer, or the key heads do not divide the heads
 */
export async function prepareCachedAttention(
  gpu: Gpu,
  config: CachedAttentionConfig,
): Promise<CachedAttention> {
  const { batch, heads, headSize, half = false } = config;
  const of = headsSourceOf("cached attention", config, { batch });
  const lanes = lanesOf(gpu, 64);
  const constants = { ...of.constants, BATCH: batch };
  const stored = half ? ["qkv", "keys", "values"] : [];
  const overLanes = laneFunctions(gpu, [
    { name: "max_over_lanes", of: "max", type: "f32" },
    { name: "sum_over_lanes", of: "sum", type: "f32" },
    { name: "sum_of_elements", of: "sum", type: "ELEMENT" },
  ]);
  const forwardKernel = (mode: "dense" | "deterministic") =>
    compile(gpu, {
      label: `cached attention forward, ${mode}`,
      source: of.source + cacheSource + overLanes + forwardSource,
      constants: { ...constants, LANES: lanes, SCALE: { f32: 1 / Math.sqrt(headSize) } },
      flags: { GATED: mode === "deterministic" },
      half: half ? [...stored, "y"] : [],
      textures: ["qkv", "keys", "values"],
    });
  const [appendKernel, dense, deterministic] = await Promise.all([
    compile(gpu, {
      label: "cached attention append",
      source: of.source + cacheSource + appendSource,
      constants,
      half: stored,
    }),
    forwardKernel("dense"),
    forwardKernel("deterministic"),
  ]);
  const kernels = { dense, deterministic };
  const cache = createUniform(gpu, "place in the cache of attention", [
    ["filled", "u32"],
    ["count", "u32"],
    ["bias", "f32"],
  ]);
  let [filled, count] = [0, 0];
  return {
    configure(place) {
      const isWhole = (value: number, lowest: number) => Number.isInteger(value) && value >= lowest;
      if (!isWhole(place.filled, 0) || !isWhole(place.count, 1)) {
        throw new RangeError(
          `Cannot attend to a cache as new positions must be 1 or more behind 0 or more: ${place.count} behind ${place.filled}`,
        );
      }
      ({ filled, count } = place);
      cache.set({ ...place });
    },
    append(recorder, { qkv, keys, values }) {
      const room = Math.min(keys.length, values.length) / (batch * of.keyValueHeads * headSize);
      if (filled + count > room) {
        throw new RangeError(
          `Cannot attend to a cache as it has room for ${room} positions: ${count} behind ${filled}`,
        );
      }
      const grid = linearGrid(batch * count * of.keyValueHeads * of.constants.CHUNKS, 64);
      recorder.dispatch(appendKernel, { cache: cache.tensor, qkv, keys, values }, grid);
    },
    forward(recorder, mode, { qkv, keys, values, y }) {
      recorder.dispatch(kernels[mode], { cache: cache.tensor, qkv, keys, values, y }, [count, heads, batch]);
    },
    destroy: () => cache.destroy(),
  };
}
