/**
 * Attention whose pattern and gates are stored, so that they can be read and replaced: for short prompts, as it holds
 * T × T for every head. What nobody replaced gives what gated attention gives.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { compile } from "../core/kernel.ts";
import { linearGrid, type Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import { createUniform } from "../core/uniform.ts";
import mixSource from "./mix.wgsl" with { type: "text" };
import patternSource from "./pattern.wgsl" with { type: "text" };

/** Shapes; compiled in. */
export interface ExplicitAttentionConfig {
  batch: number;
  heads: number;
  /** Positions T. */
  positions: number;
  /** Head size D. */
  headSize: number;
  /** The bias b of the gates, open where score + b > 0; left out: all are open. */
  gateBias?: number;
}

/** Compiled attention. */
export interface ExplicitAttention {
  /**
   * Overwrites `pattern` (batch, head, query, key) by the softmax over all causal keys, and `gates` (as pattern) by 1
   * where a gate is open and 0 elsewhere, from `qkv` (batch, position, 3, head, D).
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
 * @throws {RangeError} when an extent is not a positive integer
 */
export async function prepareExplicitAttention(
  gpu: Gpu,
  { batch, heads, positions, headSize, gateBias }: ExplicitAttentionConfig,
): Promise<ExplicitAttention> {
  for (const [name, value] of Object.entries({ batch, heads, positions, headSize })) {
    if (!Number.isInteger(value) || value < 1) {
      throw new RangeError(
        `Cannot prepare explicit attention as ${name} must be a positive integer: ${value}`,
      );
    }
  }
  const vector = headSize % 4 === 0;
  const chunks = vector ? headSize / 4 : headSize;
  const lanes = gpu.adapter.software ? 8 : 64;
  const element = vector
    ? "alias ELEMENT = vec4f;\nfn dot_element(a: vec4f, b: vec4f) -> f32 { return dot(a, b); }\n"
    : "alias ELEMENT = f32;\nfn dot_element(a: f32, b: f32) -> f32 { return a * b; }\n";
  const shape = { HEADS: heads, T: positions, CHUNKS: chunks, WIDTH: heads * chunks };
  const [patternKernel, mixKernel] = await Promise.all([
    compile(gpu, {
      label: "explicit attention pattern",
      source: element + patternSource,
      constants: { ...shape, LANES: lanes, SCALE: { f32: 1 / Math.sqrt(headSize) } },
      flags: { GATED: gateBias !== undefined },
      textures: ["qkv"],
    }),
    compile(gpu, {
      label: "explicit attention mix",
      source: element + mixSource,
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
      const grid = linearGrid(batch * positions * heads * chunks, 64);
      recorder.dispatch(mixKernel, { qkv, pattern, gates, y }, grid);
    },
    destroy: () => gate.destroy(),
  };
}
