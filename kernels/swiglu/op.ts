/**
 * SwiGLU without its products (Shazeer 2020, arXiv 2002.05202): silu(gate) · up, forward and backward.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { elementwise } from "../core/elementwise.ts";
import { compile } from "../core/kernel.ts";
import { linearGrid, type Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import backwardSource from "./backward.wgsl" with { type: "text" };
import forwardSource from "./forward.wgsl" with { type: "text" };

/** The shape of y (rows, width), x being (rows, 2 · width); compiled in. */
export interface SwigluConfig {
  rows: number;
  width: number;
  /** Whether x and y are f16, and the gradients not; the width must then be a multiple of 4. */
  half?: boolean;
}

/** A compiled SwiGLU. Both directions overwrite their output. */
export interface Swiglu {
  /** `x` (row, 2 · width) holds the gate's columns, then those of what it gates; `y` is (row, width). */
  forward(recorder: Recorder, tensors: Record<"x" | "y", Tensor>): void;
  /** `dx` as `x`, `dy` as `y`. */
  backward(recorder: Recorder, tensors: Record<"x" | "dy" | "dx", Tensor>): void;
}

/** Compiles SwiGLU for one shape. */
export async function prepareSwiglu(
  gpu: Gpu,
  { rows, width, half = false }: SwigluConfig,
): Promise<Swiglu> {
  const { alias, elements } = elementwise(width);
  const constants = { N: rows * elements, COLUMNS: elements };
  const kernel = (label: string, source: string, inHalf: string[]) =>
    compile(gpu, { label: `swiglu ${label}`, source: alias + source, constants, half: half ? inHalf : [] });
  const [forward, backward] = await Promise.all([
    kernel("forward", forwardSource, ["x", "y"]),
    kernel("backward", backwardSource, ["x"]),
  ]);
  const grid = linearGrid(rows * elements, 64);
  return {
    forward: (recorder, { x, y }) => recorder.dispatch(forward, { x, y }, grid),
    backward: (recorder, { x, dy, dx }) => recorder.dispatch(backward, { x, dy, dx }, grid),
  };
}
