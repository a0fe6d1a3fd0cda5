/**
 * Steering: a direction is added to an activation of the model's width, such as the residual stream behind a layer, at every
 * token that is read (Turner et al. 2023, Activation Addition).
 *
 * @module
 */
import { allOrNothing } from "../../kernels/core/all_or_nothing.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import { destroyTensor, within } from "../../kernels/core/tensor.ts";
import { prepareAdditionTo } from "../../kernels/residual/op.ts";
import { streamNamed } from "../model/activation_names.ts";
import type { ModelConfig } from "../model/config.ts";
import { ROW_COUNTS } from "../model/decoder.ts";
import type { ActivationHook } from "../model/runner.ts";

/** What is added to an activation. */
export interface Steering {
  /** Name of the activation, such as `blocks.2.hook_resid_post`. */
  activation: string;
  /** What is added at each token [width], as long as it is to be. */
  add: Float32Array;
}

/** What steers a decoder. */
export interface PreparedSteering {
  /** Adds what there is to add. */
  hook: ActivationHook;
  /** Frees what is held. */
  destroy(): void;
}

/**
 * Prepares what is added to activations.
 *
 * @throws {RangeError} on an activation that there is not or that is of another width, and on a direction of another length
 * or with a value that is not finite
 */
export function prepareSteering(
  gpu: Gpu,
  config: ModelConfig,
  steering: readonly Steering[],
): Promise<PreparedSteering> {
  return allOrNothing(async () => {
    const { width } = config;
    const most = ROW_COUNTS.at(-1)!;
    const places = steering.map(({ activation, add }) => {
      const name = streamNamed(config, activation);
      if (add.length !== width) {
        throw new RangeError(`Cannot add to ${activation} as it has ${width} elements: ${add.length}`);
      }
      const lost = add.find((value) => !Number.isFinite(value));
      if (lost !== undefined) {
        throw new RangeError(`Cannot add to ${activation} as all that is added must be finite: ${lost}`);
      }
      return { name, add };
    });
    const additions = new Map(
      await Promise.all(ROW_COUNTS.map(async (rows) => {
        const length = rows * width;
        return [length, await prepareAdditionTo(gpu, { length })] as const;
      })),
    );
    const added = places.map(({ name, add }) => {
      const rows = gpu.tensor(`what is added to ${name}`, [most * width]);
      gpu.write(rows, Float32Array.from({ length: most * width }, (_, n) => add[n % width]));
      return { name, rows };
    });
    return {
      hook(name, sum, recorder) {
        for (const { rows } of added.filter((one) => one.name === name)) {
          const a = within(rows, rows.label, sum.shape);
          additions.get(sum.length)!.record(recorder, { a, sum });
        }
      },
      destroy() {
        for (const { rows } of added) destroyTensor(gpu, rows);
      },
    };
  });
}
