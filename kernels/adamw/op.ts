/**
 * AdamW with global gradient-norm clipping, over all parameters of a model. The norm, the clipping factor and the
 * decision to skip a non-finite step stay on the device.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { elementwise } from "../core/elementwise.ts";
import { compile } from "../core/kernel.ts";
import { laneFunctions, lanesOf } from "../core/lanes.ts";
import { linearGrid, type Recorder } from "../core/recorder.ts";
import { destroyTensor, rows, slicesOf, type Tensor } from "../core/tensor.ts";
import { createUniform } from "../core/uniform.ts";
import adamwSource from "./adamw.wgsl" with { type: "text" };
import clipSource from "./clip.wgsl" with { type: "text" };
import squaresSource from "./squares.wgsl" with { type: "text" };

/** A parameter and all that is kept beside it; four tensors of one shape. */
export interface OptimisedParameter {
  weight: Tensor;
  gradient: Tensor;
  /** Moving average of the gradient. */
  first: Tensor;
  /** Moving average of its square. */
  second: Tensor;
  /** First column (of the last axis) that weight decay applies to; Infinity or the column count for none. */
  decayFrom: number;
  /** What the learning rate is multiplied by; left out: 1. */
  rate?: number;
}

/** Values of one step. */
export interface AdamWSettings {
  /** Step size. */
  learningRate: number;
  /** Decay of the first moment. */
  beta1: number;
  /** Decay of the second moment. */
  beta2: number;
  /** Added to the root of the second moment. */
  epsilon: number;
  /** Share of a parameter that decays, times the learning rate. */
  weightDecay: number;
  /** Steps taken, this one included, for the bias correction; from 1. */
  step: number;
  /** Largest global gradient norm that is not scaled down. */
  clip: number;
}

/** A compiled optimiser. */
export interface AdamW {
  configure(settings: AdamWSettings): void;
  /**
   * Updates weights and moments from the gradients. Overwrites `update` [4]: the gradient norm before clipping, the
   * clipping factor, 1 if the norm was not finite and nothing was changed, 0.
   */
  record(recorder: Recorder, tensors: { update: Tensor }): void;
  /** Frees what it holds beside the parameters. */
  destroy(): void;
}

const GROUPS = 64;

/** Compiles the optimiser for these parameters. */
export async function prepareAdamW(gpu: Gpu, parameters: OptimisedParameter[]): Promise<AdamW> {
  const pieces = parameters.flatMap((parameter) => {
    const matrix = parameter.weight.shape.length > 1 ? parameter.weight.shape : [parameter.weight.length, 1];
    const columns = parameter.weight.shape.at(-1)!;
    const rowLength = parameter.weight.length / matrix[0];
    return slicesOf(matrix[0], rowLength, gpu.maxBindingBytes).map(({ start, count }) => {
      const slice = (tensor: Tensor) => rows({ ...tensor, shape: matrix }, start, count);
      return {
        columns,
        rate: parameter.rate ?? 1,
        decayFrom: Math.min(parameter.decayFrom, columns),
        weight: slice(parameter.weight),
        gradient: slice(parameter.gradient),
        first: slice(parameter.first),
        second: slice(parameter.second),
      };
    });
  });
  const sum = laneFunctions(gpu, [{ name: "sum_over_lanes", of: "sum", type: "f32" }]);
  const partials = gpu.tensor("squared gradient sums", [pieces.length * GROUPS]);
  const kernels = await Promise.all(pieces.map(async ({ weight, columns, decayFrom }, index) => {
    const { alias, width, elements } = elementwise(weight.length, columns, decayFrom);
    const ofSquares = elementwise(weight.length);
    return {
      elements,
      squares: await compile(gpu, {
        label: "gradient squares",
        source: ofSquares.alias + sum + squaresSource,
        constants: { ELEMENTS: ofSquares.elements, FIRST: index * GROUPS, GROUPS, LANES: lanesOf(gpu, 64) },
      }),
      adamw: await compile(gpu, {
        label: "adamw",
        source: alias + adamwSource,
        constants: { N: elements, COLUMNS: columns / width, DECAY_FROM: decayFrom / width },
      }),
    };
  }));
  const clipKernel = await compile(gpu, {
    label: "gradient clip",
    source: sum + clipSource,
    constants: { COUNT: pieces.length * GROUPS, LANES: lanesOf(gpu, 256) },
  });
  const clip = createUniform(gpu, "gradient clip", [["limit", "f32"]]);
  /** One for each learning rate. */
  const optimisers = new Map([...new Set(pieces.map(({ rate }) => rate))].map((rate) => [
    rate,
    createUniform(gpu, "adamw", [
      ["learningRate", "f32"],
      ["beta1", "f32"],
      ["beta2", "f32"],
      ["epsilon", "f32"],
      ["weightDecay", "f32"],
      ["correction1", "f32"],
      ["correction2", "f32"],
    ]),
  ]));
  return {
    configure({ step, clip: limit, ...settings }) {
      clip.set({ limit });
      for (const [rate, optimiser] of optimisers) {
        optimiser.set({
          ...settings,
          learningRate: rate * settings.learningRate,
          correction1: 1 - settings.beta1 ** step,
          correction2: 1 - settings.beta2 ** step,
        });
      }
    },
    record(recorder, { update }) {
      pieces.forEach(({ gradient }, index) => {
        recorder.dispatch(kernels[index].squares, { gradient, partials }, [GROUPS]);
      });
      recorder.dispatch(clipKernel, { clip: clip.tensor, partials, update }, [1]);
      pieces.forEach(({ weight, gradient, first, second, rate }, index) => {
        recorder.dispatch(
          kernels[index].adamw,
          { optimiser: optimisers.get(rate)!.tensor, update, gradient, weight, first, second },
          linearGrid(kernels[index].elements, 64),
        );
      });
    },
    destroy() {
      destroyTensor(gpu, partials);
      for (const uniform of [clip, ...optimisers.values()]) uniform.destroy();
    },
  };
}
