/**
 * GELU (Hendrycks and Gimpel, arXiv 1606.08415) in GPT-2's tanh form (`gelu_new`) or the exact one, forward and backward.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { elementwise } from "../core/elementwise.ts";
import { GELU_SOURCES, type GeluForm } from "../core/gelu.ts";
import { compile } from "../core/kernel.ts";
import { linearGrid, type Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import backwardSource from "./backward.wgsl" with { type: "text" };
import backwardExactSource from "./backward_exact.wgsl" with { type: "text" };
import forwardSource from "./forward.wgsl" with { type: "text" };

/** A compiled GELU. Both directions overwrite their output. */
export interface Gelu {
  forward(recorder: Recorder, tensors: Record<"x" | "y", Tensor>): void;
  /** `dx` may not be `dy`. */
  backward(recorder: Recorder, tensors: Record<"x" | "dy" | "dx", Tensor>): void;
}

/** What is activated, and how; compiled in. */
export interface GeluConfig {
  /** Elements of x. */
  length: number;
  /** The tanh form when left out. */
  form?: GeluForm;
  /** Whether x and y are f16, and the gradients not; the length must then be a multiple of 4. */
  half?: boolean;
}

/** Compiles GELU over `length` elements. */
export async function prepareGelu(
  gpu: Gpu,
  { length, form = "tanh", half = false }: GeluConfig,
): Promise<Gelu> {
  const { alias, elements } = elementwise(length);
  const constants = { N: elements };
  const kernel = (label: string, source: string, inHalf: string[]) =>
    compile(gpu, {
      label: form === "tanh" ? `gelu ${label}` : `exact gelu ${label}`,
      source: alias + source,
      constants,
      half: half ? inHalf : [],
    });
  const [forward, backward] = await Promise.all([
    kernel("forward", GELU_SOURCES[form] + forwardSource, ["x", "y"]),
    kernel("backward", form === "tanh" ? backwardSource : GELU_SOURCES.exact + backwardExactSource, ["x"]),
  ]);
  const grid = linearGrid(elements, 64);
  return {
    forward: (recorder, { x, y }) => recorder.dispatch(forward, { x, y }, grid),
    backward: (recorder, { x, dy, dx }) => recorder.dispatch(backward, { x, dy, dx }, grid),
  };
}
