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
  /** Which parameters there are, a weight and a bias when left out. */
  affine?: "both" | "weight" | "none";
  /** How many gradients `dy` holds of each row, one whole `y` behind the other, as `dx` then does; 1 when left out. */
  gradients?: number;
  /** Whether `y` is f16; the width must then be a multiple of 4. */
  half?: boolean;
}

/** A compiled layer norm. */
export interface LayerNorm {
  /**
   * Overwrites `y` (row, width) and `statistics` (row, 2: mean, 1 / standard deviation). What `affine` does not name is
   * not looked at, here and in backward.
   */
  forward(
    recorder: Recorder,
    tensors: Record<"x" | "y" | "statistics", Tensor> & { weight?: Tensor; bias?: Tensor },
  ): void;
  /**
   * Overwrites `dx`, with `dresidual` added where given (it may not be `dx` itself), and adds to `dweight` and
   * `dbias` of `parameters`, where given; with several gradients, from the first of them.
   */
  backward(
    recorder: Recorder,
    tensors: Record<"x" | "statistics" | "dy" | "dx", Tensor> & {
      weight?: Tensor;
      dresidual?: Tensor;
      parameters?: { dweight?: Tensor; dbias?: Tensor };
    },
  ): void;
}

/** Compiles layer norm for one shape. */
export async function prepareLayerNorm(
  gpu: Gpu,
  { rows, width, epsilon, affine = "both", gradients = 1, half = false }: LayerNormConfig,
): Promise<LayerNorm> {
  const { alias, elements } = elementwise(width);
  const constants = {
    ROWS: rows,
    N: width,
    ELEMENTS: elements,
    LANES: lanesOf(gpu, 64),
    EPSILON: { f32: epsilon },
  };
  const flags = { WEIGHT: affine !== "none", BIAS: affine === "both" };
  /** What is bound of a weight and a bias, or of their gradients. */
  const present = (weight: Record<string, Tensor | undefined>, bias: typeof weight = {}) => ({
    ...(flags.WEIGHT && weight),
    ...(flags.BIAS && bias),
  });
  const kernel = (label: string, over: LaneFunction, source: string, options: Partial<KernelSource> = {}) =>
    compile(gpu, {
      label: `layer norm ${label}`,
      source: alias + laneFunctions(gpu, [over]) + source,
      constants,
      flags,
      ...options,
    });
  const backwardOf = (label: string, residual: boolean) =>
    kernel(label, { name: "pair_over_lanes", of: "sum", type: "vec2f" }, backwardSource, {
      constants: { ...constants, GRADIENTS: gradients },
      flags: { ...flags, RESIDUAL: residual },
      textures: ["x", ...(flags.WEIGHT ? ["weight"] : []), "statistics", "dy"],
    });
  const [forward, backward, backwardResidual, parameterGradient] = await Promise.all([
    kernel("forward", { name: "sum_over_lanes", of: "sum", type: "f32" }, forwardSource, {
      half: half ? ["y"] : [],
      textures: ["x", ...(flags.WEIGHT ? ["weight"] : []), ...(flags.BIAS ? ["bias"] : [])],
    }),
    backwardOf("backward", false),
    backwardOf("backward with residual", true),
    flags.WEIGHT
      ? kernel(
        "parameter gradient",
        { name: "element_over_lanes", of: "sum", type: "ELEMENT" },
        parameterGradientSource,
        { textures: ["x", "statistics", "dy"] },
      )
      : undefined,
  ]);
  const gridOf = (count: number) => [Math.min(count, MAX_WORKGROUPS)] as const;
  return {
    forward(recorder, { x, weight, bias, y, statistics }) {
      recorder.dispatch(forward, { x, ...present({ weight }, { bias }), y, statistics }, gridOf(rows));
    },
    backward(recorder, { x, weight, statistics, dy, dx, dresidual, parameters }) {
      recorder.dispatch(
        dresidual ? backwardResidual : backward,
        { x, ...present({ weight }), statistics, dy, dresidual: dresidual ?? dy, dx },
        gridOf(gradients * rows),
      );
      if (!parameters || !parameterGradient) return;
      const { dweight, dbias } = parameters;
      const bindings = { x, statistics, dy, ...present({ dweight }, { dbias }) };
      recorder.dispatch(parameterGradient, bindings, [elements]);
    },
  };
}
