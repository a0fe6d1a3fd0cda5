/**
 * Queries, keys and values kept within a limit (`clip_qkv` of OLMo, Groeneveld et al. 2024, arXiv 2402.00838), forward
 * and backward.
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

/** What is clipped; compiled in. */
export interface ClipConfig {
  /** Elements of x. */
  length: number;
  /** The largest magnitude of y, above 0. */
  limit: number;
  /** Whether x and y are f16, and the gradients not; the length must then be a multiple of 4. */
  half?: boolean;
}

/** A compiled clip. Both directions overwrite their output. */
export interface Clip {
  forward(recorder: Recorder, tensors: Record<"x" | "y", Tensor>): void;
  /** `dx` may not be `dy`. */
  backward(recorder: Recorder, tensors: Record<"x" | "dy" | "dx", Tensor>): void;
}

/**
 * Compiles the clip.
 *
 * @throws {RangeError} when the limit is not a positive number
 */
export async function prepareClip(gpu: Gpu, { length, limit, half = false }: ClipConfig): Promise<Clip> {
  if (!(limit > 0 && Number.isFinite(limit))) {
    throw new RangeError(`Cannot prepare clip as the limit must be a positive number: ${limit}`);
  }
  const { alias, elements } = elementwise(length);
  const constants = { N: elements, LIMIT: { f32: limit } };
  const kernel = (label: string, source: string, inHalf: string[]) =>
    compile(gpu, { label: `clip ${label}`, source: alias + source, constants, half: half ? inHalf : [] });
  const [forward, backward] = await Promise.all([
    kernel("forward", forwardSource, ["x", "y"]),
    kernel("backward", backwardSource, ["x"]),
  ]);
  const grid = linearGrid(elements, 64);
  return {
    forward: (recorder, { x, y }) => recorder.dispatch(forward, { x, y }, grid),
    backward: (recorder, { x, dy, dx }) => recorder.dispatch(backward, { x, dy, dx }, grid),
  };
}
