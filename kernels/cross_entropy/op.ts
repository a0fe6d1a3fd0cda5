/**
 * Cross-entropy over a block of positions at a time, so that all logits of a batch are never held at once: the caller
 * makes one block's logits, turns them into gradients here, uses them, and goes on to the next.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { compile } from "../core/kernel.ts";
import type { Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import { createUniform } from "../core/uniform.ts";
import backwardSource from "./backward.wgsl" with { type: "text" };
import forwardSource from "./forward.wgsl" with { type: "text" };
import totalsSource from "./totals.wgsl" with { type: "text" };

/** A target that does not count in the loss. */
export const IGNORED_TARGET = 0xffffffff;

/** One block of positions; compiled in. */
export interface CrossEntropyBlock {
  /** Position in the batch of the block's first row. */
  first: number;
  /** Rows of the block. */
  count: number;
}

/** Shapes; compiled in. */
export interface CrossEntropyConfig {
  /** Positions in the batch. */
  rows: number;
  vocabularySize: number;
  /** Elements from one row of logits to the next, at least the vocabulary. */
  stride: number;
  blocks: CrossEntropyBlock[];
}

/** A compiled cross-entropy. */
export interface CrossEntropy {
  /** Sets the weight of each counted position in the gradient, 1 / (counted positions of the whole batch). */
  configure(settings: { weight: number }): void;
  /**
   * Overwrites the block's part of `rows` (position, 4): loss, 1 if no logit exceeds the target's, log-sum-exp, 1 if
   * the position counts. `logits` is (block row, stride).
   */
  forward(recorder: Recorder, block: number, tensors: Record<"logits" | "targets" | "rows", Tensor>): void;
  /** Turns `logits` into their gradient, times `scale` [1], plus `extra` (as logits) where given. */
  backward(
    recorder: Recorder,
    block: number,
    tensors: Record<"logits" | "targets" | "rows" | "scale", Tensor> & { extra?: Tensor },
  ): void;
  /** Adds the sums of (loss, correct, 0, counted) over all positions to `totals` [4]. */
  total(recorder: Recorder, tensors: Record<"rows" | "totals", Tensor>): void;
}

/** Compiles the cross-entropy for one shape. */
export async function prepareCrossEntropy(gpu: Gpu, config: CrossEntropyConfig): Promise<CrossEntropy> {
  const { rows, vocabularySize, stride, blocks } = config;
  const kernels = await Promise.all(blocks.map(async ({ first }) => {
    const constants = { FIRST: first, V: vocabularySize, STRIDE: stride, LANES: 64 };
    const backward = (extra: boolean) =>
      compile(gpu, {
        label: "cross-entropy backward",
        source: backwardSource,
        constants,
        flags: { EXTRA: extra },
      });
    return {
      forward: await compile(gpu, { label: "cross-entropy forward", source: forwardSource, constants }),
      backward: await backward(false),
      backwardExtra: await backward(true),
    };
  }));
  const totalsKernel = await compile(gpu, {
    label: "cross-entropy totals",
    source: totalsSource,
    constants: { ROWS: rows },
  });
  const loss = createUniform(gpu, "cross-entropy", [["weight", "f32"]]);
  return {
    configure: (settings) => loss.set(settings),
    forward(recorder, block, { logits, targets, rows }) {
      recorder.dispatch(kernels[block].forward, { logits, targets, rows }, [blocks[block].count]);
    },
    backward(recorder, block, { logits, targets, rows, scale, extra }) {
      recorder.dispatch(
        extra ? kernels[block].backwardExtra : kernels[block].backward,
        { loss: loss.tensor, targets, rows, scale, extra: extra ?? scale, logits },
        [blocks[block].count],
      );
    },
    total: (recorder, { rows, totals }) => recorder.dispatch(totalsKernel, { rows, totals }, [1]),
  };
}
