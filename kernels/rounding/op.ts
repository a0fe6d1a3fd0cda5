/**
 * Copies in half precision of what is kept in single: the weights that products read while training, beside the ones that
 * the optimiser updates.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { compile } from "../core/kernel.ts";
import { linearGrid, type Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import source from "./round.wgsl" with { type: "text" };

/** A compiled copy. */
export interface Rounding {
  /** Overwrites `rounded` (f16) with the nearest of `values`; past ±65504 with that, where one is NaN with that. */
  record(recorder: Recorder, tensors: Record<"values" | "rounded", Tensor>): void;
}

/**
 * Compiles the copy of `length` elements.
 *
 * @throws {RangeError} when the length is no multiple of 4
 */
export async function prepareRounding(gpu: Gpu, { length }: { length: number }): Promise<Rounding> {
  if (length % 4 !== 0) {
    throw new RangeError(`Cannot prepare rounding as the length must be a multiple of 4: ${length}`);
  }
  const kernel = await compile(gpu, {
    label: "rounding",
    source,
    constants: { N: length / 4 },
    half: ["rounded"],
  });
  const grid = linearGrid(length / 4, 64);
  return {
    record: (recorder, { values, rounded }) => recorder.dispatch(kernel, { values, rounded }, grid),
  };
}
