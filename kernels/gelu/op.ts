/**
 * GELU in GPT-2's tanh form (`gelu_new`; Hendrycks and Gimpel, arXiv 1606.08415), forward and backward.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { elementwise } from "../core/elementwise.ts";
import { compile } from "../core/kernel.ts";
import { linearGrid, type Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import geluSource from "../core/gelu.wgsl" with { type: "text" };
import backwardSource from "./backward.wgsl" with { type: "text" };
import forwardSource from "./forward.wgsl" with { type: "text" };

/** A compiled GELU. Both directions overwrite their output. */
export interface Gelu {
  forward(recorder: Recorder, tensors: Record<"x" | "y", Tensor>): void;
  /** `dx` may not be `dy`. */
  backward(recorder: Recorder, tensors: Record<"x" | "dy" | "dx", Tensor>): void;
}

/** Compiles GELU over `length` elements; with `half`, x and y are f16 and the gradients are not. */
export async function prepareGelu(
  gpu: Gpu,
  { length, half = false }: { length: number; half?: boolean },
): Promise<Gelu> {
  const { alias, elements } = elementwise(length);
  const constants = { N: elements };
  const kernel = (label: string, source: string, inHalf: string[]) =>
    compile(gpu, { label: `gelu ${label}`, source: alias + source, constants, half: half ? inHalf : [] });
  const [forward, backward] = await Promise.all([
    kernel("forward", geluSource + forwardSource, ["x", "y"]),
    kernel("backward", backwardSource, ["x"]),
  ]);
  const grid = linearGrid(elements, 64);
  return {
    forward: (recorder, { x, y }) => recorder.dispatch(forward, { x, y }, grid),
    backward: (recorder, { x, dy, dx }) => recorder.dispatch(backward, { x, dy, dx }, grid),
  };
}
