/**
 * Copies of weights in half precision, which products read; the weights that are trained stay float32.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import { destroyTensor, rows as rowsOf, slicesOf, type Tensor } from "../../kernels/core/tensor.ts";
import { prepareRounding } from "../../kernels/rounding/op.ts";
import type { Parameter } from "./op.ts";
import type { Parameters } from "./parameters.ts";

/** Copies of some parameters. */
export interface Rounded {
  /** By name. */
  readonly tensors: Parameters;
  /** Makes them anew. */
  record(recorder: Recorder, parameters: Parameters): void;
  /** Frees them. */
  destroy(): void;
}

/** Allocates copies of matrices. */
export async function prepareRounded(gpu: Gpu, parameters: readonly Parameter[]): Promise<Rounded> {
  const copies = await Promise.all(
    parameters.map(async ({ name, shape: [rows, columns] }) => ({
      name,
      tensor: gpu.tensor(`${name} in half precision`, [rows, columns], "f16"),
      // A matrix may be larger than a binding.
      slices: await Promise.all(
        slicesOf(rows, columns, gpu.maxBindingBytes, { smallest: 2 }).map(async ({ start, count }) => ({
          start,
          count,
          rounding: await prepareRounding(gpu, { length: count * columns }),
        })),
      ),
    })),
  );
  return {
    tensors: new Map<string, Tensor>(copies.map(({ name, tensor }) => [name, tensor])),

    record(recorder, parameters) {
      for (const { name, tensor, slices } of copies) {
        for (const { start, count, rounding } of slices) {
          rounding.record(recorder, {
            values: rowsOf(parameters.get(name)!, start, count),
            rounded: rowsOf(tensor, start, count),
          });
        }
      }
    },

    destroy() {
      for (const { tensor } of copies) destroyTensor(gpu, tensor);
    },
  };
}
