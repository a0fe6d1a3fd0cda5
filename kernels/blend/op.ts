/**
 * A weighted sum of two tensors: a step on the straight line between two inputs, or one tensor negated.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { elementwise } from "../core/elementwise.ts";
import { compile } from "../core/kernel.ts";
import { linearGrid, type Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import { createUniform } from "../core/uniform.ts";
import blendSource from "./blend.wgsl" with { type: "text" };

/** A compiled blend. */
export interface Blend {
  /** Sets the weights that the next submissions see; 1 and 1 until told otherwise. */
  configure(weights: { a: number; b: number }): void;
  /** Overwrites `sum`, which may be neither `a` nor `b`, with their weighted sum. */
  forward(recorder: Recorder, tensors: Record<"a" | "b" | "sum", Tensor>): void;
  /** Frees what it holds on the device. */
  destroy(): void;
}

/** Compiles the blend of `length` elements. */
export async function prepareBlend(gpu: Gpu, { length }: { length: number }): Promise<Blend> {
  const { alias, elements } = elementwise(length);
  const kernel = await compile(gpu, {
    label: "blend",
    source: alias + blendSource,
    constants: { N: elements },
  });
  const weights = createUniform(gpu, "weights of a blend", [["ofA", "f32"], ["ofB", "f32"]]);
  weights.set({ ofA: 1, ofB: 1 });
  const grid = linearGrid(elements, 64);
  return {
    configure: ({ a, b }) => weights.set({ ofA: a, ofB: b }),
    forward: (recorder, { a, b, sum }) =>
      recorder.dispatch(kernel, { weights: weights.tensor, a, b, sum }, grid),
    destroy: () => weights.destroy(),
  };
}
