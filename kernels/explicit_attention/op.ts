/**
 * Attention whose pattern and gates are stored, so that they can be read and replaced: for short prompts, as it holds
 * T × T for every head. What nobody replaced gives what gated attention gives.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { type Heads, headsSourceOf } from "../core/heads.ts";
import { compile } from "../core/kernel.ts";
import { lanesOf } from "../core/lanes.ts";
import { linearGrid, type Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import { createUniform } from "../core/uniform.ts";
import mixSource from "./mix.wgsl" with { type: "text" };
import patternSource from "./pattern.wgsl" with { type: "text" };

/** Shapes; compiled in. */
export interface ExplicitAttentionConfig extends Heads {
  batch: number;
  /** Positions T. */
  positions: number;
  /** The bias b of the gates, open where score + b > 0; left out: all are open. */
  gateBias?: number;
}

/** Compiled attention. */
export interface ExplicitAttention {
  /**
   * Overwrites `pattern` (batch, head, query, key) by the softmax over all causal keys, and `gates` (as pattern) by 1
   * where a gate is open and 0 elsewhere, from `qkv` (batch, position, H + 2 K, D): query heads, then key heads, then
   * value heads.
   */
  pattern(recorder: Recorder, tensors: Record<"qkv" | "pattern" | "gates", Tensor>): void;
  /** Overwrites `y` (batch, position, head, D) by the values weighted with gate times pattern. */
  mix(recorder: Recorder, tensors: Record<"qkv" | "pattern" | "gates" | "y", Tensor>): void;
  /** Frees what it holds on the device. */
  destroy(): void;
}

/**
 * Compiles both steps for one shape.
 *
 * @throws {RangeError} when an extent is not a positive integer, or the key heads do not divide the heads
 */
export async function prepareExplicitAttention(
  gpu: Gpu,
  config: ExplicitAttentionConfig,
): Promise<ExplicitAttention> {
  const { batch, heads, positions, headSize, gateBias } = config;
  const of = headsSourceOf("explicit attention", config, { batch, positions });
  const lanes = lanesOf(gpu, 64);
  const shape = { ...of.constants, T: positions };
  const [patternKernel, mixKernel] = await Promise.all([
    compile(gpu, {
      label: "explicit attention pattern",
      source: of.source + patternSource,
      constants: { ...shape, LANES: lanes, SCALE: { f32: 1 / Math.sqrt(headSize) } },
      flags: { GATED: gateBias !== undefined },
      textures: ["qkv"],
    }),
    compile(gpu, {
      label: "explicit attention mix",
      source: of.source + mixSource,
      constants: { ...shape, BATCH: batch },
      textures: ["qkv", "pattern", "gates"],
    }),
  ]);
  const gate = createUniform(gpu, "gate of explicit attention", [["bias", "f32"]]);
  gate.set({ bias: gateBias ?? 0 });
  return {
    pattern(recorder, { qkv, pattern, gates }) {
      const grid = [Math.ceil(positions / lanes), heads, batch] as const;
      recorder.dispatch(patternKernel, { gate: gate.tensor, qkv, pattern, gates }, grid);
    },
    mix(recorder, { qkv, pattern, gates, y }) {
      const grid = linearGrid(batch * positions * heads * of.constants.CHUNKS, 64);
      recorder.dispatch(mixKernel, { qkv, pattern, gates, y }, grid);
    },
    destroy: () => gate.destroy(),
  };
}
