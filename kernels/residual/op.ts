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
import addToSource from "./add_to.wgsl" with { type: "text" };

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

/** A compiled addition to what stands: adds `a` to `sum`. */
export interface AdditionTo {
  record(recorder: Recorder, tensors: Record<"a" | "sum", Tensor>): void;
}

/** Compiles the addition of `length` elements to as many. */
export async function prepareAdditionTo(gpu: Gpu, { length }: { length: number }): Promise<AdditionTo> {
  const { alias, elements } = elementwise(length);
  const kernel = await compile(gpu, {
    label: "addition to a sum",
    source: alias + addToSource,
    constants: { N: elements },
  });
  const grid = linearGrid(elements, 64);
  return { record: (recorder, { a, sum }) => recorder.dispatch(kernel, { a, sum }, grid) };
}
