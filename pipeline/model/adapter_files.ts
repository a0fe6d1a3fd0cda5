/**
 * Adapters as peft stores them: adapter_config.json and adapter_model.safetensors in one folder, beside which a folder of ours
 * has the model's config.json and tokenizer. They are read for a model, and what they add can be merged into its weights.
 *
 * @module
 */
import { join } from "node:path";
import { inputError } from "../errors.ts";
import { digestOf, exists, hashFile } from "../files.ts";
import { ADAPTER_CONFIG, readAdapterConfig } from "./adapter_config.ts";
import { type Adapters, scaleOf } from "./adapters.ts";
import type { ModelConfig } from "./config.ts";
import { familyOf } from "./families.ts";
import type { Parameter } from "./op.ts";
import { openSafetensors, type TensorEntry } from "./safetensors.ts";
import type { WeightSource } from "./weight_source.ts";
import { ADAPTED, joinParts, storedAdapters } from "./stored.ts";

/** Name of the file with the As and Bs. */
export const ADAPTER_WEIGHTS = "adapter_model.safetensors";

/** An adapter of a folder. */
export interface StoredAdapter extends Omit<WeightSource, "parameters"> {
  readonly adapters: Adapters;
  /** As and Bs. */
  readonly parameters: readonly Parameter[];
  /** The model that it was made for: its folder or name, and the digest of its weights where this program wrote it. */
  readonly base: { model: string | undefined; hash: string | undefined };
}

/** Whether a folder holds an adapter. */
export function isAdapterFolder(folder: string): Promise<boolean> {
  return exists(join(folder, ADAPTER_CONFIG));
}

/**
 * Opens the adapter of a folder for a model. Only headers are read.
 *
 * @throws {UserError} naming file and field or tensor, where it is none, of another kind, or another model's
 */
export async function openAdapter(folder: string, config: ModelConfig): Promise<StoredAdapter> {
  const configPath = join(folder, ADAPTER_CONFIG);
  if (!await exists(configPath)) {
    throw inputError(`Cannot load an adapter from ${folder} as it needs ${ADAPTER_CONFIG}: not there`);
  }
  const { adapters, base } = await readAdapterConfig(configPath, config);
  return await openAdapterWeights(folder, config, { adapters, base });
}

/**
 * Opens the As and Bs of a folder, of which it is known what they adapt.
 *
 * @throws {UserError} as {@link openAdapter}
 */
export async function openAdapterWeights(
  folder: string,
  config: ModelConfig,
  { adapters, base }: { adapters: Adapters; base?: string },
): Promise<StoredAdapter> {
  const file = await openSafetensors(join(folder, ADAPTER_WEIGHTS));
  const stored = storedAdapters(config, adapters);
  const { prefix } = familyOf(config);
  const found = new Map<string, TensorEntry>();
  // An adapter of the bare model has no prefix.
  const bare = (name: string): string => name.replace(`${ADAPTED}.`, "").replace(`${prefix}.`, "");
  for (const [name, entry] of file.entries) found.set(bare(name), entry);
  const known = new Map(stored.flatMap(({ tensors }) => tensors).map((tensor) => [tensor.name, tensor]));
  for (const [name, entry] of found) {
    const wanted = known.get(name);
    if (!wanted) {
      throw inputError(
        `Cannot load ${file.path} as its tensor ${entry.name} is none of an adapter that ${ADAPTER_CONFIG} means: ` +
          `only products of attention and MLPs can be adapted`,
      );
    }
    if (entry.shape.join() !== wanted.shape.join()) {
      throw inputError(
        `Cannot load ${file.path} as tensor ${entry.name} must be of shape [${wanted.shape.join(", ")}]: [${
          entry.shape.join(", ")
        }]`,
      );
    }
  }
  for (const { name, savedAs } of known.values()) {
    if (!found.has(name)) throw inputError(`Cannot load ${file.path} as tensor ${savedAs} is missing`);
  }
  const byName = new Map(stored.map((each) => [each.parameter.name, each]));
  const readTensor = (name: string): Promise<Float32Array> => file.read(found.get(name)!.name);
  return {
    adapters,
    parameters: stored.map(({ parameter }) => parameter),
    base: { model: base, hash: file.metadata.base },
    files: [file.path],
    async read(name) {
      const each = byName.get(name);
      if (!each) throw inputError(`Cannot read ${file.path} as it has no tensor ${name}`);
      const parts: Float32Array[] = [];
      for (const tensor of each.tensors) parts.push(tensor.fromFile(await readTensor(tensor.name)));
      return joinParts(each, parts);
    },
    async verify() {
      for (const { name } of known.values()) {
        const values = await readTensor(name);
        const at = values.findIndex((value) => !Number.isFinite(value));
        if (at < 0) continue;
        throw inputError(
          `Cannot load ${file.path} as tensor ${found.get(name)!.name} must be finite: element ${at} is ${
            values[at]
          }`,
        );
      }
    },
    async hash() {
      return digestOf([JSON.stringify(adapters), await hashFile(file.path)].join("\n"));
    },
  };
}

/** Reads a parameter's values by its name. */
export type ReadValues = (name: string) => Promise<Float32Array>;

/** A weight's values with what its adapters add: W + s A B, summed in float64 and rounded once. */
export async function mergedValues(
  weight: Parameter,
  adapters: Adapters,
  values: Float32Array,
  read: ReadValues,
): Promise<Float32Array> {
  const { name, shape: [inputs, outputs], parts = [{ name, columns: weight.shape.at(-1)! }] } = weight;
  const modules = parts.map((part) => part.name.replace(/\.weight$/, ""));
  const ranks = modules.map((module) => adapters[module]?.rank ?? 0);
  const total = ranks.reduce((sum, rank) => sum + rank, 0);
  if (total === 0 || weight.kind !== "matrix") return values;
  const merged = values.slice();
  const down = await read(name.replace(/weight$/, "lora_A.weight"));
  let [column, first] = [0, 0];
  for (const [n, module] of modules.entries()) {
    const { columns } = parts[n];
    if (ranks[n] > 0) {
      const up = await read(`${module}.lora_B.weight`);
      const scale = scaleOf(adapters[module]);
      const added = new Float64Array(columns);
      for (let row = 0; row < inputs; row++) {
        added.fill(0);
        for (let r = 0; r < ranks[n]; r++) {
          const factor = scale * down[row * total + first + r];
          for (let c = 0; c < columns; c++) added[c] += factor * up[r * columns + c];
        }
        for (let c = 0; c < columns; c++) merged[row * outputs + column + c] += added[c];
      }
    }
    column += columns;
    first += ranks[n];
  }
  return merged;
}

/** A model's weights with an adapter merged into them, each as it is read. */
export function mergedWeights(
  base: WeightSource,
  { adapters, read, verify, hash, files }: StoredAdapter,
): WeightSource {
  const weights = new Map(base.parameters.map((parameter) => [parameter.name, parameter]));
  return {
    parameters: base.parameters,
    files: [...base.files, ...files],
    async read(name) {
      const values = await base.read(name);
      const weight = weights.get(name);
      return weight ? await mergedValues(weight, adapters, values, read) : values;
    },
    async verify() {
      await base.verify();
      await verify();
    },
    async hash() {
      return digestOf([await base.hash(), await hash()].join("\n"));
    },
  };
}
