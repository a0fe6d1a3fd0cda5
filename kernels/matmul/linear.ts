/**
 * A linear layer, y = x W + b, and its gradients, where W may be larger than a binding: its rows are then bound in
 * slices, and the products with them added up.
 *
 * @module
 */
import type { GeluForm } from "../core/gelu.ts";
import type { Gpu } from "../core/gpu.ts";
import { INT8_BLOCK, INT8_SCALE_BYTES } from "../core/int8.ts";
import type { Recorder } from "../core/recorder.ts";
import { rows as rowsOf, type Slice, slicesOf, type Tensor } from "../core/tensor.ts";
import { type MatmulConfig, prepareBiasGradient, prepareMatmul } from "./op.ts";

/** The sizes of a linear layer. */
export interface LinearShape {
  /** Rows of x and y. */
  rows: number;
  /** Columns of x, rows of W. */
  inputs: number;
  /** Columns of W and y. */
  outputs: number;
  /** Whether there is b. */
  bias: boolean;
  /** Which of x, W and y are f16. Gradients are not. */
  half: { x: boolean; weight: boolean; y: boolean };
  /**
   * Whether y is added to what stands in it, or in `partial` where {@link needsPartial}, and dx to what stands in dx: low-rank
   * products are there before (low_rank.ts).
   */
  accumulate?: boolean;
  /** Whether W and b have no gradients. */
  frozen?: boolean;
  /** Whether W, then frozen, is int8. */
  int8?: boolean;
}

/** What is done to y where it is stored. */
export interface LinearEnding {
  /** A matrix like y is added, such as the residual stream. */
  residual?: boolean;
  /** GELU(y) in this form is written too. */
  gelu?: GeluForm;
}

/** A compiled linear layer. */
export interface Linear {
  /** `x` is [rows, inputs]; overwrites `y` [rows, outputs], and `partial` where {@link needsPartial}. */
  record(
    recorder: Recorder,
    tensors: Record<"x" | "weight" | "y", Tensor> & {
      bias?: Tensor;
      residual?: Tensor;
      activated?: Tensor;
      partial?: Tensor;
    },
  ): void;
}

/** Its compiled gradients. */
export interface LinearGradient {
  /**
   * Overwrites `dx` [rows, inputs], where there is one, from `dy` [rows, outputs], or adds to it where the shape says so;
   * adds to `dweight` and `dbias` where there are any.
   */
  record(
    recorder: Recorder,
    tensors: Record<"x" | "weight" | "dy", Tensor> & { dx?: Tensor },
    gradients?: { dweight?: Tensor; dbias?: Tensor },
  ): void;
}

/** Runs of the rows of W that fit a binding each, as f32, which its gradient is where it has one. */
function slicesOfWeight(
  { inputs, outputs, half, frozen, int8 }: LinearShape,
  maxBindingBytes: number,
): Slice[] {
  return int8
    ? slicesOf(inputs, outputs, maxBindingBytes, {
      smallest: INT8_SCALE_BYTES,
      largest: 1,
      multiple: INT8_BLOCK,
    })
    : slicesOf(inputs, outputs, maxBindingBytes, {
      smallest: half.weight ? 2 : 4,
      largest: half.weight && frozen ? 2 : 4,
    });
}

/** Whether sums of products need room of their own, [rows, outputs] of f32: nothing can be added to an f16 product. */
export function needsPartial(shape: LinearShape, maxBindingBytes: number): boolean {
  const { half, accumulate = false } = shape;
  return half.y && (accumulate || slicesOfWeight(shape, maxBindingBytes).length > 1);
}

const halves = (...of: [is: boolean, operand: "a" | "b" | "c"][]): ("a" | "b" | "c")[] =>
  of.filter(([is]) => is).map(([, operand]) => operand);

/** Compiles y. */
export async function prepareLinear(
  gpu: Gpu,
  shape: LinearShape,
  { residual = false, gelu }: LinearEnding = {},
): Promise<Linear> {
  const { rows, inputs, outputs, bias, half, accumulate = false, int8 } = shape;
  const slices = slicesOfWeight(shape, gpu.maxBindingBytes);
  const throughPartial = needsPartial(shape, gpu.maxBindingBytes);
  if (throughPartial && residual) {
    throw new RangeError("Cannot prepare a linear layer as its sum with a residual must be f32: f16");
  }
  const products = await Promise.all(slices.map(async ({ start, count }, n) => {
    const [first, last] = [n === 0, n === slices.length - 1];
    const ofX: Partial<MatmulConfig> = slices.length > 1 ? { aStride: inputs, aColumn: start } : {};
    const product = await prepareMatmul(gpu, {
      layout: "nn",
      m: rows,
      n: outputs,
      k: count,
      ...ofX,
      bias: first && bias,
      // The last product takes what `partial` holds as what it is added to.
      residual: (first && residual) || (last && throughPartial),
      accumulate: (accumulate || !first) && !(last && throughPartial),
      gelu: last ? gelu : undefined,
      half: halves([half.x, "a"], [half.weight, "b"], [half.y && (last || !throughPartial), "c"]),
      int8,
    });
    return { start, count, last, product };
  }));
  return {
    record(recorder, { x, weight, bias, y, residual, activated, partial }) {
      for (const { start, count, last, product } of products) {
        product.record(recorder, {
          a: x,
          b: slices.length > 1 ? rowsOf(weight, start, count) : weight,
          c: throughPartial && !last ? partial! : y,
          bias,
          residual: throughPartial ? partial : residual,
          activated,
        });
      }
    },
  };
}

/** Compiles its gradients. */
export async function prepareLinearGradient(gpu: Gpu, shape: LinearShape): Promise<LinearGradient> {
  const { rows, inputs, outputs, bias, half, accumulate = false, frozen = false, int8 } = shape;
  const slices = slicesOfWeight(shape, gpu.maxBindingBytes);
  const sliced = slices.length > 1;
  const products = await Promise.all(slices.map(async ({ start, count }) => ({
    start,
    count,
    dx: await prepareMatmul(gpu, {
      layout: "nt",
      m: rows,
      n: count,
      k: outputs,
      ...(sliced && { cStride: inputs, cColumn: start }),
      accumulate,
      half: halves([half.weight, "b"]),
      int8,
    }),
    dweight: frozen ? undefined : await prepareMatmul(gpu, {
      layout: "tn",
      m: count,
      n: outputs,
      k: rows,
      ...(sliced && { aStride: inputs, aColumn: start }),
      accumulate: true,
      half: halves([half.x, "a"]),
    }),
  })));
  const ofBias = bias && !frozen
    ? await prepareBiasGradient(gpu, { m: rows, n: outputs, accumulate: true })
    : undefined;
  return {
    record(recorder, { x, weight, dy, dx }, gradients) {
      const sliceOf = (tensor: Tensor, start: number, count: number): Tensor =>
        sliced ? rowsOf(tensor, start, count) : tensor;
      for (const { start, count, dx: product } of dx ? products : []) {
        product.record(recorder, { a: dy, b: sliceOf(weight, start, count), c: dx! });
      }
      if (!gradients) return;
      const { dweight, dbias } = gradients;
      for (const { start, count, dweight: product } of dweight ? products : []) {
        product?.record(recorder, { a: x, b: dy, c: sliceOf(dweight!, start, count) });
      }
      if (dbias) ofBias?.record(recorder, { dc: dy, dbias });
    },
  };
}
