/**
 * Attention whose scores, pattern and gates are stored, so that they can be read and replaced: for short prompts, as it holds
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
import openSource from "./open.wgsl" with { type: "text" };
import patternSource from "./pattern.wgsl" with { type: "text" };
import scoresSource from "./scores.wgsl" with { type: "text" };

/** Shapes; compiled in. */
export interface ExplicitAttentionConfig extends Heads {
  batch: number;
  /** Positions T. */
  positions: number;
  /** The bias b of the gates, open where score + b > 0; left out: all are open. */
  gateBias?: number;
}

/** What stands for a key behind its query in place of a score or a gate's logit: WGSL has no infinity. */
export const MASKED = Math.fround(-3e38);

/** Compiled attention. What is replaced between two of its steps is what the next one reads. */
export interface ExplicitAttention {
  /**
   * Overwrites `scores` (batch, head, query, key) by q · k / √D, {@link MASKED} for keys behind the query, from `qkv`
   * (batch, position, H + 2 K, D): query heads, then key heads, then value heads.
   */
  scores(recorder: Recorder, tensors: Record<"qkv" | "scores", Tensor>): void;
  /**
   * Overwrites the scores in `pattern` by the softmax over all causal keys that are not {@link MASKED}, and `gates` (as it)
   * by the logits of gates, score + b, or 1 where all are open, and {@link MASKED} for keys behind the query.
   */
  pattern(recorder: Recorder, tensors: Record<"pattern" | "gates", Tensor>): void;
  /** Overwrites the logits of `gates` by 1 where a gate is open and 0 elsewhere. */
  open(recorder: Recorder, tensors: Record<"gates", Tensor>): void;
  /** Overwrites `y` (batch, position, head, D) by the values weighted with gate times pattern. */
  mix(recorder: Recorder, tensors: Record<"qkv" | "pattern" | "gates" | "y", Tensor>): void;
  /** Frees what it holds on the device. */
  destroy(): void;
}

/**
 * Compiles all steps for one shape.
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
  const [scoresKernel, patternKernel, openKernel, mixKernel] = await Promise.all([
    compile(gpu, {
      label: "explicit attention scores",
      source: of.source + scoresSource,
      constants: { ...shape, LANES: lanes, SCALE: { f32: 1 / Math.sqrt(headSize) } },
      textures: ["qkv"],
    }),
    compile(gpu, {
      label: "explicit attention pattern",
      source: patternSource,
      constants: { HEADS: heads, T: positions, LANES: lanes },
      flags: { GATED: gateBias !== undefined },
    }),
    compile(gpu, {
      label: "explicit attention open gates",
      source: openSource,
      constants: { BATCH: batch, HEADS: heads, T: positions },
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
  const rows = [Math.ceil(positions / lanes), heads, batch] as const;
  return {
    scores(recorder, { qkv, scores }) {
      recorder.dispatch(scoresKernel, { qkv, scores }, rows);
    },
    pattern(recorder, { pattern, gates }) {
      recorder.dispatch(patternKernel, { gate: gate.tensor, pattern, gates }, rows);
    },
    open(recorder, { gates }) {
      recorder.dispatch(openKernel, { gates }, linearGrid(batch * heads * positions * positions, 64));
    },
    mix(recorder, { qkv, pattern, gates, y }) {
      const grid = linearGrid(batch * positions * heads * of.constants.CHUNKS, 64);
      recorder.dispatch(mixKernel, { qkv, pattern, gates, y }, grid);
    },
    destroy: () => gate.destroy(),
  };
}
