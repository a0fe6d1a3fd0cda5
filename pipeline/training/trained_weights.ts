/**
 * The weights that sparse post-training begins with, and those that it leaves.
 *
 * @module
 */
import { mergedValues, type ReadValues } from "../model/adapter_files.ts";
import { initialWeights } from "../model/initial_weights.ts";
import type { Network } from "../model/network.ts";
import type { Parameter } from "../model/op.ts";
import type { Parameters } from "../model/parameters.ts";
import { type SavedModel, saveModel } from "../model/save_weights.ts";
import type { SparsifySettings } from "../settings.ts";
import type { PreparedRun } from "./training_run.ts";

/** The values that every parameter begins with, by name: those of the model, and of adapters those given, or A by chance. */
export function beginningOf(
  { weights, adaptation }: Pick<PreparedRun, "weights" | "adaptation">,
  { model: { parameters } }: Network,
  seed: number,
): ReadValues {
  const byName = new Map(parameters.map((parameter, index) => [parameter.name, { parameter, index }]));
  return (name) => {
    const { parameter, index } = byName.get(name)!;
    if (!parameter.adapter) return weights.read(name);
    return adaptation?.from?.read(name) ?? Promise.resolve(initialWeights(parameter, { seed, index }));
  };
}

/** Saves the model, or the adapters that alone were trained: with `merge` both. */
export async function saveTrained(
  { merge }: SparsifySettings,
  { gpu, folder, weights, base, adaptation }: PreparedRun,
  { model: { parameters: all } }: Network,
  { parameters, readTrained }: { parameters: Parameters; readTrained: ReadValues },
  saved: Omit<SavedModel, "tensors" | "adapter">,
): Promise<void> {
  await folder.check();
  // What lies rounded on the device, or at another rank, is saved as it was read.
  const isTrained = new Set(all.filter(({ trainable }) => trainable).map(({ name }) => name));
  const read: ReadValues = (name) => {
    if (isTrained.has(name)) return readTrained(name);
    const tensor = parameters.get(name);
    if (tensor?.type === "f32") return gpu.read(tensor);
    return weights.readAlone ? weights.readAlone(name) : weights.read(name);
  };
  const adapters = adaptation?.adapters;
  const readable = (of: readonly Parameter[]): SavedModel["tensors"] =>
    of.map((parameter) => ({
      name: parameter.name,
      shape: parameter.shape,
      read: async () => {
        const values = await read(parameter.name);
        return adapters ? await mergedValues(parameter, adapters, values, read) : values;
      },
    }));
  if (!adapters || merge) {
    await saveModel(folder.model, { ...saved, tensors: readable(all.filter(({ adapter }) => !adapter)) });
  }
  if (!adapters) return;
  const { model, revision, hash } = base!;
  await saveModel(merge ? folder.adapter : folder.model, {
    ...saved,
    tensors: readable(all.filter(({ adapter }) => adapter)),
    adapter: { adapters, base: model, revision, hash },
  });
}
