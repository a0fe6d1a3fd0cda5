/**
 * Steering: a direction is added to an activation of the model's width, such as the residual stream behind a layer, at every
 * token that is read (Turner et al. 2023, Activation Addition).
 *
 * @module
 */
import { allOrNothing } from "../../kernels/core/all_or_nothing.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import { destroyTensor, elementsOf, within } from "../../kernels/core/tensor.ts";
import { prepareAdditionTo } from "../../kernels/residual/op.ts";
import { inputError } from "../errors.ts";
import { streamNamed } from "../model/activation_names.ts";
import type { ModelConfig } from "../model/config.ts";
import { ROW_COUNTS } from "../model/decoder.ts";
import type { ActivationHook } from "../model/runner.ts";
import { openSafetensors } from "../model/safetensors.ts";

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
 * Reads what is added from a file of safetensors: a tensor for each activation, by its name.
 *
 * @param scale what each is multiplied by
 * @throws {UserError} when the file cannot be read, holds none, or one that {@link prepareSteering} would refuse
 */
export async function readSteering(path: string, config: ModelConfig, scale: number): Promise<Steering[]> {
  const file = await openSafetensors(path);
  if (file.entries.size === 0) throw inputError(`Cannot steer by ${path} as it holds no tensor`);
  try {
    // Before they are read: it may be a model by mistake.
    for (const { name, shape } of file.entries.values()) {
      checkPlace(config, name, elementsOf(shape));
    }
    const steering: Steering[] = [];
    for (const activation of file.entries.keys()) {
      const values = await file.read(activation);
      steering.push({ activation, add: values.map((value) => scale * value) });
    }
    placed(config, steering);
    return steering;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw inputError(`Cannot steer by ${path}: ${error.message}`);
  }
}

/** The network's own name of an activation, to which so many elements can be added. */
function checkPlace(config: ModelConfig, activation: string, length: number): string {
  const name = streamNamed(config, activation);
  if (length !== config.width) {
    throw new RangeError(`Cannot add to ${activation} as it has ${config.width} elements: ${length}`);
  }
  return name;
}

/** What is added by the network's own names of activations. */
function placed(
  config: ModelConfig,
  steering: readonly Steering[],
): (Steering & { name: string })[] {
  return steering.map(({ activation, add }) => {
    const name = checkPlace(config, activation, add.length);
    const lost = add.find((value) => !Number.isFinite(value));
    if (lost !== undefined) {
      throw new RangeError(`Cannot add to ${activation} as all that is added must be finite: ${lost}`);
    }
    return { activation, name, add };
  });
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
    const places = placed(config, steering);
    const additions = new Map(
      await Promise.all(ROW_COUNTS.map(async (rows) => {
        const length = rows * width;
        return [length, await prepareAdditionTo(gpu, { length })] as const;
      })),
    );
    const added = places.map(({ activation, name, add }) => {
      const rows = gpu.tensor(`what is added to ${activation}`, [most * width]);
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
