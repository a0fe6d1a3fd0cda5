/**
 * Root mean square norm over the last axis (Zhang and Sennrich 2019, arXiv 1910.07467), forward and backward.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { elementwise } from "../core/elementwise.ts";
import { compile, type KernelSource } from "../core/kernel.ts";
import { type LaneFunction, laneFunctions, lanesOf } from "../core/lanes.ts";
import { linearGrid, MAX_WORKGROUPS, type Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import backwardSource from "./backward.wgsl" with { type: "text" };
import forwardSource from "./forward.wgsl" with { type: "text" };
import partsSource from "./parts.wgsl" with { type: "text" };
import weightGradientSource from "./weight_gradient.wgsl" with { type: "text" };

/** The shape of x (rows, width); compiled in. */
export interface RmsNormConfig {
  rows: number;
  width: number;
  epsilon: number;
  /** How many gradients `dy` holds of each row, one whole `y` behind the other, as `dx` then does; 1 when left out. */
  gradients?: number;
  /** Whether `y` is f16; the width must then be a multiple of 4. */
  half?: boolean;
}

/** A compiled RMS norm. */
export interface RmsNorm {
  /** Overwrites `y` (row, width) and `statistics` (row, 1: 1 / root mean square). */
  forward(recorder: Recorder, tensors: Record<"x" | "weight" | "y" | "statistics", Tensor>): void;
  /**
   * Overwrites `dx`, with `dresidual` added where given (it may not be `dx` itself), and adds to `dweight`, where given;
   * with several gradients, from the first of them.
   */
  backward(
    recorder: Recorder,
    tensors: Record<"x" | "weight" | "statistics" | "dy" | "dx", Tensor> & {
      dresidual?: Tensor;
      dweight?: Tensor;
    },
  ): void;
}

/** What a CPU driver reads by texture, backward. */
const OPERANDS = ["x", "weight", "statistics", "dy"];

/** Compiles RMS norm for one shape. */
export async function prepareRmsNorm(
  gpu: Gpu,
  { rows, width, epsilon, gradients = 1, half = false }: RmsNormConfig,
): Promise<RmsNorm> {
  const { alias, elements } = elementwise(width);
  const constants = {
    ROWS: rows,
    N: width,
    ELEMENTS: elements,
    LANES: lanesOf(gpu, 64),
    EPSILON: { f32: epsilon },
  };
  const numbers: LaneFunction = { name: "sum_over_lanes", of: "sum", type: "f32" };
  const kernel = (label: string, source: string, options: Partial<KernelSource>, over = numbers) =>
    compile(gpu, {
      label: `rms norm ${label}`,
      source: alias + laneFunctions(gpu, [over]) + source,
      constants,
      ...options,
    });
  const backwardOf = (label: string, residual: boolean) =>
    kernel(label, backwardSource, {
      constants: { ...constants, GRADIENTS: gradients },
      flags: { RESIDUAL: residual },
      textures: OPERANDS,
    });
  const [forward, backward, backwardResidual, weightGradient] = await Promise.all([
    kernel("forward", forwardSource, { half: half ? ["y"] : [], textures: ["x", "weight"] }),
    backwardOf("backward", false),
    backwardOf("backward with residual", true),
    kernel("weight gradient", weightGradientSource, { textures: ["x", "statistics", "dy"] }, {
      name: "element_over_lanes",
      of: "sum",
      type: "ELEMENT",
    }),
  ]);
  const gridOf = (count: number) => [Math.min(count, MAX_WORKGROUPS)] as const;
  return {
    forward(recorder, { x, weight, y, statistics }) {
      recorder.dispatch(forward, { x, weight, y, statistics }, gridOf(rows));
    },
    backward(recorder, { x, weight, statistics, dy, dx, dresidual, dweight }) {
      recorder.dispatch(
        dresidual ? backwardResidual : backward,
        { x, weight, statistics, dy, dresidual: dresidual ?? dy, dx },
        gridOf(gradients * rows),
      );
      if (dweight) recorder.dispatch(weightGradient, { x, statistics, dy, dweight }, [elements]);
    },
  };
}

/** What several addends of x give of its norm: with the statistics of x itself, the norm is linear. */
export interface RmsNormParts {
  /**
   * Overwrites `parts` (part, row, width) by parts · statistics · weight + residual; `statistics` are of the norm of the
   * sum of the parts.
   */
  record(recorder: Recorder, tensors: Record<"parts" | "statistics" | "weight" | "residual", Tensor>): void;
}

/** Compiles it for `count` parts, each `stride` elements behind the one before, as those of `residual` are. */
export async function prepareRmsNormParts(
  gpu: Gpu,
  { rows, width, count, stride }: { rows: number; width: number; count: number; stride: number },
): Promise<RmsNormParts> {
  const { alias, width: lanes, elements } = elementwise(width, stride);
  const kernel = await compile(gpu, {
    label: "rms norm of parts",
    source: alias + partsSource,
    constants: { PARTS: count, ROWS: rows, ELEMENTS: elements, STRIDE: stride / lanes },
  });
  const grid = linearGrid(count * rows * elements, 64);
  return {
    record: (recorder, { parts, statistics, weight, residual }) =>
      recorder.dispatch(kernel, { statistics, weight, residual, parts }, grid),
  };
}
