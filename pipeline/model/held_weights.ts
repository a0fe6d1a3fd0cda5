/**
 * A model's weights on the device of a command that runs it and trains nothing: whole and as float32, or as they lie there
 * beside adapters in training.
 *
 * @module
 */
import { allOrNothing } from "../../kernels/core/all_or_nothing.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import { usageError } from "../errors.ts";
import { mergedWeights, openAdapter } from "./adapter_files.ts";
import { faultOfFours, type ModelConfig } from "./config.ts";
import { adapterBeside, openApart, openWeights } from "./load_weights.ts";
import type { FrozenType } from "./op.ts";
import { createParameters, type Parameters, type ParameterShape, uploadParameters } from "./parameters.ts";
import type { NetworkShape } from "./plan.ts";
import { createRoundingError } from "./rounding_error.ts";
import { parametersOf } from "./trace.ts";
import type { WeightSource } from "./weight_source.ts";

/** What a network must be told of how weights are held. */
export type HeldShape = Pick<NetworkShape, "train" | "adapters" | "frozen">;

/** The settings that say how they are held. */
export interface HeldSettings {
  /** Folder of an adapter. */
  adapter?: string;
  /** How matrices lie on the device; left out: as f32. */
  frozen?: FrozenType;
}

/** Weights as a command holds them. */
export interface HeldWeights extends WeightSource {
  /** For the network that reads them. */
  readonly shape: HeldShape;
}

/**
 * How weights are held, told from a model's and its adapter's folder.
 *
 * @throws {UserError} when the model cannot be held so, or as `openAdapter`
 */
export async function heldShape(
  folder: string,
  config: ModelConfig,
  { adapter, frozen = "f32" }: HeldSettings,
): Promise<HeldShape> {
  if (frozen === "f32") return {};
  const fault = faultOfFours(config);
  if (fault) throw usageError(`Cannot use --frozen ${frozen} as ${fault}`);
  const beside = await adapterBeside(folder, adapter);
  return {
    train: "lora",
    frozen,
    ...(beside === undefined ? {} : { adapters: (await openAdapter(beside, config)).adapters }),
  };
}

/**
 * Opens weights. As f32 an adapter is merged into them; in less it stands beside them as it was trained, in float32, since what
 * is merged would be rounded with them.
 *
 * @throws {UserError} as `openWeights` and {@link heldShape}
 */
export async function openHeld(
  folder: string,
  config: ModelConfig,
  settings: HeldSettings,
): Promise<HeldWeights> {
  const shape = await heldShape(folder, config, settings);
  if (shape.frozen === undefined) {
    return { ...await openWeights(folder, config, settings.adapter), shape };
  }
  const { base, adapter } = await openApart(folder, config, settings.adapter);
  const ofAdapter = new Set(adapter?.parameters.map(({ name }) => name));
  return {
    ...(adapter ? mergedWeights(base, adapter) : base),
    parameters: parametersOf(config, shape),
    read: (name) => ofAdapter.has(name) ? adapter!.read(name) : base.read(name),
    shape,
  };
}

/**
 * Puts weights on the device; where that fails, none is left there.
 *
 * @param tell is told what is lost where they are held in less than float32
 */
export function loadHeld(
  gpu: Gpu,
  { parameters: shapes, shape: { frozen }, read }: Pick<HeldWeights, "shape" | "read"> & {
    parameters: readonly ParameterShape[];
  },
  tell: (message: string) => void,
): Promise<Parameters> {
  return allOrNothing(async () => {
    const parameters = createParameters(gpu, shapes);
    const rounding = createRoundingError(parameters);
    await uploadParameters(gpu, parameters, async (name) => rounding.of(name, await read(name)));
    if (frozen !== undefined) tell(`weights as ${frozen}: ${rounding.text()}`);
    return parameters;
  });
}
