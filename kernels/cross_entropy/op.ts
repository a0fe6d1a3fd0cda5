/**
 * Cross-entropy and its gradient in one kernel, over as many positions as the caller gives: it makes a block of logits,
 * has them turned into gradients here, uses them, and goes on to the next, so that all logits of a batch are never held.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { compile } from "../core/kernel.ts";
import { laneFunctions, lanesOf } from "../core/lanes.ts";
import { linearGrid, type Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import { createUniform } from "../core/uniform.ts";
import lossSource from "./loss.wgsl" with { type: "text" };
import totalsSource from "./totals.wgsl" with { type: "text" };

/** Shapes; compiled in. */
export interface CrossEntropyConfig {
  /** Positions in the batch, of all blocks. */
  rows: number;
  vocabularySize: number;
  /** Elements from one row of logits to the next: a multiple of 4, at least the vocabulary. */
  stride: number;
  /** Whether each position has a weight of its own in the gradient, such as an advantage; left out: none has. */
  weighted?: boolean;
}

/** A compiled cross-entropy. */
export interface CrossEntropy {
  /** Sets the weight of each counted position in the gradient, 1 / (counted positions of the whole batch). */
  configure(settings: { weight: number }): void;
  /**
   * Overwrites `rows` (position, 4): loss, 1 if no logit exceeds the target's, log-sum-exp, 1 if the position counts.
   * `logits` is (position, stride); with `gradient` they are turned into their gradient, times `scale` [1], plus
   * `extra` (as logits) where given. All of one block's positions. Where positions are weighted, each one's gradient is
   * also multiplied by its entry of `weights` (position), of any sign, which `rows` knows nothing of.
   */
  record(
    recorder: Recorder,
    tensors: Record<"logits" | "targets" | "rows", Tensor>,
    gradient?: { scale: Tensor; extra?: Tensor; weights?: Tensor },
  ): void;
  /** Adds the sums of (loss, correct, 0, counted) over all positions to `totals` [4]. */
  total(recorder: Recorder, tensors: Record<"rows" | "totals", Tensor>): void;
  /** Frees what it holds on the device. */
  destroy(): void;
}

/**
 * Compiles the cross-entropy for one shape.
 *
 * @throws {RangeError} when the stride is no multiple of 4
 */
export async function prepareCrossEntropy(gpu: Gpu, config: CrossEntropyConfig): Promise<CrossEntropy> {
  const { rows, vocabularySize, stride, weighted = false } = config;
  if (stride % 4 !== 0 || stride < vocabularySize) {
    throw new RangeError(
      `Cannot prepare cross-entropy as the stride must be a multiple of 4 and at least ${vocabularySize}: ${stride}`,
    );
  }
  const lanes = lanesOf(gpu, 256);
  const constants = { V: vocabularySize, STRIDE4: stride / 4, LANES: lanes };
  const functions = laneFunctions(gpu, [
    { name: "max_over_lanes", of: "max", type: "f32" },
    { name: "sum_over_lanes", of: "sum", type: "f32" },
  ]);
  const kernel = (label: string, flags: { GRADIENT: boolean; EXTRA: boolean; WEIGHTED: boolean }) =>
    compile(gpu, {
      label: `cross-entropy ${label}${flags.WEIGHTED ? ", weighted" : ""}`,
      source: functions + lossSource,
      constants,
      flags,
      textures: ["logits"],
    });
  const [loss, gradient, gradientExtra, totals] = await Promise.all([
    kernel("forward", { GRADIENT: false, EXTRA: false, WEIGHTED: false }),
    kernel("backward", { GRADIENT: true, EXTRA: false, WEIGHTED: weighted }),
    kernel("backward with distillation", { GRADIENT: true, EXTRA: true, WEIGHTED: weighted }),
    compile(gpu, {
      label: "cross-entropy totals",
      source: laneFunctions(gpu, [{ name: "sum_over_lanes", of: "sum", type: "vec4f" }]) + totalsSource,
      constants: { ROWS: rows, LANES: lanes },
    }),
  ]);
  const weight = createUniform(gpu, "cross-entropy", [["weight", "f32"]]);
  return {
    configure: (settings) => weight.set(settings),
    record(recorder, { logits, targets, rows }, backward) {
      const { extra, weights } = backward ?? {};
      if (backward && weighted !== (weights !== undefined)) {
        throw new RangeError(
          `Cannot record a gradient ${weighted ? "without" : "with"} weights as it was prepared ${
            weighted ? "with" : "without"
          } them`,
        );
      }
      const kernel = !backward ? loss : extra ? gradientExtra : gradient;
      const bindings = {
        loss: weight.tensor,
        targets,
        rows,
        logits,
        ...(backward ? { scale: backward.scale } : {}),
        ...(extra ? { extra } : {}),
        ...(weights ? { weights } : {}),
      };
      recorder.dispatch(kernel, bindings, linearGrid(rows.shape[0], 1));
    },
    total: (recorder, { rows, totals: sums }) => recorder.dispatch(totals, { rows, totals: sums }, [1]),
    destroy: () => weight.destroy(),
  };
}
