/**
 * Distillation: KL(softmax(teacher logits) ‖ softmax(student logits)), a block of positions at a time as the
 * cross-entropy.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { compile } from "../core/kernel.ts";
import { laneFunctions, lanesOf } from "../core/lanes.ts";
import { linearGrid, type Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import { createUniform } from "../core/uniform.ts";
import backwardSource from "./backward.wgsl" with { type: "text" };
import forwardSource from "./forward.wgsl" with { type: "text" };

/** Shapes; compiled in. */
export interface DistillationConfig {
  vocabularySize: number;
  /** Elements from one row of logits to the next: a multiple of 4, at least the vocabulary. */
  stride: number;
}

/** A compiled distillation loss. */
export interface Distillation {
  /** Sets the weight of each counted position in the gradient: w / (counted positions of the whole batch). */
  configure(settings: { weight: number }): void;
  /**
   * Overwrites `rows` (position, 4): KL, the teacher's log-sum-exp, the student's, 1 if the position counts. `teacher`
   * and `student` are logits (position, stride). All of one block's positions.
   */
  forward(recorder: Recorder, tensors: Record<"teacher" | "student" | "targets" | "rows", Tensor>): void;
  /** Turns the `teacher` logits into the gradient with respect to the student's, times `scale` [1]. */
  backward(recorder: Recorder, tensors: Record<"teacher" | "student" | "rows" | "scale", Tensor>): void;
  /** Frees what it holds on the device. */
  destroy(): void;
}

/**
 * Compiles the distillation loss for one shape.
 *
 * @throws {RangeError} when the stride is no multiple of 4, or less than the vocabulary
 */
export async function prepareDistillation(gpu: Gpu, config: DistillationConfig): Promise<Distillation> {
  const { vocabularySize, stride } = config;
  if (stride % 4 !== 0 || stride < vocabularySize) {
    throw new RangeError(
      `Cannot prepare distillation as the stride must be a multiple of 4 and at least ${vocabularySize}: ${stride}`,
    );
  }
  const constants = { V: vocabularySize, STRIDE4: stride / 4, LANES: lanesOf(gpu, 64) };
  const functions = laneFunctions(gpu, [
    { name: "max_over_lanes", of: "max", type: "f32" },
    { name: "sum_over_lanes", of: "sum", type: "f32" },
  ]);
  // Backward reads each element once, but from the textures that forward has had made.
  const textures = ["teacher", "student"];
  const [forward, backward] = await Promise.all([
    compile(gpu, { label: "distillation forward", source: functions + forwardSource, constants, textures }),
    compile(gpu, { label: "distillation backward", source: backwardSource, constants, textures }),
  ]);
  const loss = createUniform(gpu, "distillation", [["weight", "f32"]]);
  return {
    configure: (settings) => loss.set(settings),
    forward(recorder, { teacher, student, targets, rows }) {
      recorder.dispatch(forward, { teacher, student, targets, rows }, linearGrid(rows.shape[0], 1));
    },
    backward(recorder, { teacher, student, rows, scale }) {
      const bindings = { loss: loss.tensor, student, rows, scale, teacher };
      recorder.dispatch(backward, bindings, linearGrid(rows.shape[0], 1));
    },
    destroy: () => loss.destroy(),
  };
}
