/**
 * The residual stream's addition. Its backward passes the gradient to both addends unchanged, so there is none to run.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { elementwise } from "../core/elementwise.ts";
import { compile } from "../core/kernel.ts";
import { linearGrid, type Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import addSource from "./add.wgsl" with { type: "text" };

/** A compiled addition: overwrites `sum`, which may be neither `a` nor `b`. */
export interface Residual {
  forward(recorder: Recorder, tensors: Record<"a" | "b" | "sum", Tensor>): void;
}

/** Compiles the addition of `length` elements. */
export async function prepareResidual(gpu: Gpu, { length }: { length: number }): Promise<Residual> {
  const { alias, elements } = elementwise(length);
  const kernel = await compile(gpu, {
    label: "residual",
    source: alias + addSource,
    constants: { N: elements },
  });
  const grid = linearGrid(elements, 64);
  return { forward: (recorder, { a, b, sum }) => recorder.dispatch(kernel, { a, b, sum }, grid) };
}
