/**
 * Layer norm over the last axis (Ba, Kiros, Hinton 2016, arXiv 1607.06450), forward and backward.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { elementwise } from "../core/elementwise.ts";
import { compile, type KernelSource } from "../core/kernel.ts";
import { type LaneFunction, laneFunctions, lanesOf } from "../core/lanes.ts";
import { MAX_WORKGROUPS, type Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import backwardSource from "./backward.wgsl" with { type: "text" };
import forwardSource from "./forward.wgsl" with { type: "text" };
import parameterGradientSource from "./parameter_gradient.wgsl" with { type: "text" };

/** The shape of x (rows, width); compiled in. */
export interface LayerNormConfig {
  rows: number;
  width: number;
  epsilon: number;
  /** How many gradients `dy` holds of each row, one whole `y` behind the other, as `dx` then does; 1 when left out. */
  gradients?: number;
  /** Whether `y` is f16; the width must then be a multiple of 4. */
  half?: boolean;
}

/** A compiled layer norm. */
export interface LayerNorm {
  /** Overwrites `y` (row, width) and `statistics` (row, 2: mean, 1 / standard deviation). */
  forward(recorder: Recorder, tensors: Record<"x" | "weight" | "bias" | "y" | "statistics", Tensor>): void;
  /**
   * Overwrites `dx`, with `dresidual` added where given (it may not be `dx` itself), and adds to `dweight` and
   * `dbias` of `parameters`, where given; with several gradients, from the first of them.
   */
  backward(
    recorder: Recorder,
    tensors: Record<"x" | "weight" | "statistics" | "dy" | "dx", Tensor> & {
      dresidual?: Tensor;
      parameters?: Record<"dweight" | "dbias", Tensor>;
    },
  ): void;
}

/** What a CPU driver reads by texture, backward. */
const OPERANDS = ["x", "weight", "statistics", "dy"];

/** Compiles layer norm for one shape. */
export async function prepareLayerNorm(
  gpu: Gpu,
  { rows, width, epsilon, gradients = 1, half = false }: LayerNormConfig,
): Promise<LayerNorm> {
  const { alias, elements } = elementwise(width);
  const constants = {
    ROWS: rows,
    N: width,
    ELEMENTS: elements,
    LANES: lanesOf(gpu, 64),
    EPSILON: { f32: epsilon },
  };
  const kernel = (label: string, over: LaneFunction, source: string, options: Partial<KernelSource> = {}) =>
    compile(gpu, {
      label: `layer norm ${label}`,
      source: alias + laneFunctions(gpu, [over]) + source,
      constants,
      ...options,
    });
  const pairs: LaneFunction = { name: "pair_over_lanes", of: "sum", type: "vec2f" };
  const [forward, backward, backwardResidual, parameterGradient] = await Promise.all([
    kernel("forward", { name: "sum_over_lanes", of: "sum", type: "f32" }, forwardSource, {
      half: half ? ["y"] : [],
      textures: ["x", "weight", "bias"],
    }),
    kernel("backward", pairs, backwardSource, {
      constants: { ...constants, GRADIENTS: gradients },
      flags: { RESIDUAL: false },
      textures: OPERANDS,
    }),
    kernel("backward with residual", pairs, backwardSource, {
      constants: { ...constants, GRADIENTS: gradients },
      flags: { RESIDUAL: true },
      textures: OPERANDS,
    }),
    kernel(
      "parameter gradient",
      { name: "element_over_lanes", of: "sum", type: "ELEMENT" },
      parameterGradientSource,
      { textures: ["x", "statistics", "dy"] },
    ),
  ]);
  const gridOf = (count: number) => [Math.min(count, MAX_WORKGROUPS)] as const;
  return {
    forward(recorder, { x, weight, bias, y, statistics }) {
      recorder.dispatch(forward, { x, weight, bias, y, statistics }, gridOf(rows));
    },
    backward(recorder, { x, weight, statistics, dy, dx, dresidual, parameters }) {
      recorder.dispatch(
        dresidual ? backwardResidual : backward,
        { x, weight, statistics, dy, dresidual: dresidual ?? dy, dx },
        gridOf(gradients * rows),
      );
      if (!parameters) return;
      const { dweight, dbias } = parameters;
      recorder.dispatch(parameterGradient, { x, statistics, dy, dweight, dbias }, [elements]);
    },
  };
}
