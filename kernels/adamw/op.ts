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
import { destroyTensor, elementsOf, rows, slicesOf, type Tensor } from "../core/tensor.ts";
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
  /**
   * Steps taken, this one included, for the bias correction; from 1. As a trainer counts, those are among them that were
   * skipped and left the moments as they were, which are then corrected by too little: where the first is skipped, the second
   * moves the weights by 0.74 of what it should (betas of 0.9 and 0.999), and the error dies away as 1 - beta^step nears 1.
   */
  step: number;
  /** Largest global gradient norm that is not scaled down. */
  clip: number;
}

/** Which of all parameters an optimiser has, where others have the rest. */
export interface PlaceAmongAll {
  /** Which of {@link AdamW.squares} are its own, in the order of its parameters. */
  rows: readonly number[];
  /** Rows of all optimisers together. */
  of: number;
}

/** Rows and elements of each that a parameter of some shape is updated by: elements of a vector one by one. */
function matrixOf(shape: readonly number[]): { shape: readonly number[]; rowLength: number } {
  const matrix = shape.length > 1 ? shape : [shape[0], 1];
  return { shape: matrix, rowLength: elementsOf(matrix.slice(1)) };
}

/** How many of {@link AdamW.squares} a parameter has: more than one where it is larger than a binding. */
export function rowsOfSquares(shape: readonly number[], maxBindingBytes: number): number {
  const { shape: [rowCount], rowLength } = matrixOf(shape);
  return slicesOf(rowCount, rowLength, maxBindingBytes).length;
}

/** A compiled optimiser. */
export interface AdamW {
  configure(settings: AdamWSettings): void;
  /**
   * Sums of squares of the gradients, a row for each parameter (for each slice of one that is larger than a binding), of
   * which {@link AdamW.update} makes the norm: overwritten by {@link AdamW.measure} in its own parameters' rows. Where
   * other optimisers have other parameters, their rows must be filled in between.
   */
  readonly squares: Tensor;
  /** Overwrites `squares`. */
  measure(recorder: Recorder): void;
  /** As {@link AdamW.record}, behind {@link AdamW.measure}. */
  update(recorder: Recorder, tensors: { update: Tensor }): void;
  /**
   * Updates weights and moments from the gradients. Overwrites `update` [4]: the gradient norm before clipping, the
   * clipping factor, 1 if the norm was not finite and nothing was changed, 0.
   */
  record(recorder: Recorder, tensors: { update: Tensor }): void;
  /** Frees what it holds beside the parameters. */
  destroy(): void;
}

/** Partial sums of a parameter's squares: their bytes are what a binding's offset is a multiple of. */
const GROUPS = 64;
/**
 * Lanes that sum one of them, and loads of each lane at a time. Of a GPU's memory 2 MiB are then on their way; 64 lanes that
 * waited for each load took 3.7 ms of GPT-2's step on an H100.
 */
const SUMMING = { software: { lanes: 64, loads: 1 }, hardware: { lanes: 256, loads: 8 } };

/**
 * Compiles the optimiser for these parameters.
 *
 * @param place where others have further parameters, under the same norm; left out: there are no others
 */
export async function prepareAdamW(
  gpu: Gpu,
  parameters: OptimisedParameter[],
  place?: PlaceAmongAll,
): Promise<AdamW> {
  const pieces = parameters.flatMap((parameter) => {
    const { shape: matrix, rowLength } = matrixOf(parameter.weight.shape);
    const columns = parameter.weight.shape.at(-1)!;
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
  if (place && place.rows.length !== pieces.length) {
    throw new RangeError(
      `Cannot prepare AdamW for some of all parameters as they take ${pieces.length} rows of squares: ` +
        `${place.rows.length} given`,
    );
  }
  const { lanes, loads } = SUMMING[gpu.adapter.software ? "software" : "hardware"];
  const { rows: places, of: allPlaces } = place ?? { rows: [...pieces.keys()], of: pieces.length };
  const squares = gpu.tensor("squared gradient sums", [allPlaces, GROUPS]);
  const kernels = await Promise.all(pieces.map(async ({ weight, columns, decayFrom }) => {
    const { alias, width, elements } = elementwise(weight.length, columns, decayFrom);
    const ofSquares = elementwise(weight.length);
    return {
      elements,
      squares: await compile(gpu, {
        label: "gradient squares",
        source: ofSquares.alias + sum + squaresSource,
        constants: {
          ELEMENTS: ofSquares.elements,
          GROUPS,
          LANES: lanesOf(gpu, lanes),
          LOADS: loads,
        },
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
    constants: { COUNT: allPlaces * GROUPS, LANES: lanesOf(gpu, 256) },
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

  function measure(recorder: Recorder): void {
    pieces.forEach(({ gradient }, index) => {
      const partials = rows(squares, places[index], 1);
      recorder.dispatch(kernels[index].squares, { gradient, partials }, [GROUPS]);
    });
  }

  function updateAll(recorder: Recorder, { update }: { update: Tensor }): void {
    recorder.dispatch(clipKernel, { clip: clip.tensor, partials: squares, update }, [1]);
    pieces.forEach(({ weight, gradient, first, second, rate }, index) => {
      recorder.dispatch(
        kernels[index].adamw,
        { optimiser: optimisers.get(rate)!.tensor, update, gradient, weight, first, second },
        linearGrid(kernels[index].elements, 64),
      );
    });
  }

  return {
    squares,
    measure,
    update: updateAll,
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
    record(recorder, tensors) {
      measure(recorder);
      updateAll(recorder, tensors);
    },
    destroy() {
      destroyTensor(gpu, squares);
      for (const uniform of [clip, ...optimisers.values()]) uniform.destroy();
    },
  };
}
