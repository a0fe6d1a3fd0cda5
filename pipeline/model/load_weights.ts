/**
 * The weights of a model folder, checked against its config before any work on the device.
 *
 * @module
 */
import { dirname, isAbsolute, join } from "node:path";
import { inputError } from "../errors.ts";
import { exists, hashFile } from "../files.ts";
import { isAdapterFolder, mergedWeights, openAdapter, type StoredAdapter } from "./adapter_files.ts";
import type { ModelConfig } from "./config.ts";
import { familyOf } from "./families.ts";
import { joinParts, storedParameters } from "./stored.ts";
import type { WeightSource } from "./weight_source.ts";
import { openSafetensorsFolder, type Safetensors, type TensorEntry } from "./safetensors.ts";

export type { WeightSource };

/**
 * Opens a folder's weights. Where it holds an adapter and no weights, those of the model that it was made for, with the adapter
 * merged into them: the run's own copy of that model beside the folder goes first.
 *
 * @param adapter folder of an adapter that is merged into them
 * @throws {UserError} naming file and tensor for a missing, surplus or wrongly shaped one, a head that is tied and differs from
 * the embedding, an adapter of another kind, or one whose model is not there or not what it was
 */
export async function openWeights(
  folder: string,
  config: ModelConfig,
  adapter?: string,
): Promise<WeightSource> {
  return merged(await openApart(folder, config, adapter));
}

const merged = ({ base, adapter }: WeightsApart): WeightSource =>
  adapter ? mergedWeights(base, adapter) : base;

/** Weights, and the adapter that belongs to them but is not in them. */
export interface WeightsApart {
  base: WeightSource;
  adapter?: StoredAdapter;
}

/**
 * As {@link openWeights}, with the adapter beside the weights: the one that is given, into whose weights that of the folder, if
 * any, is merged, or else the folder's own.
 */
export async function openApart(
  folder: string,
  config: ModelConfig,
  adapter?: string,
): Promise<WeightsApart> {
  const own = await openOwn(folder, config, []);
  return adapter === undefined ? own : { base: merged(own), adapter: await openAdapter(adapter, config) };
}

/** What a folder stands for, which the adapters of folders `above` were made for. */
async function openOwn(folder: string, config: ModelConfig, above: readonly string[]): Promise<WeightsApart> {
  return await adapterBeside(folder) === undefined
    ? { base: await openOwnWeights(folder, config) }
    : await openAdapted(folder, config, above);
}

/** The folder of the adapter that stands beside the weights which {@link openApart} opens. */
export async function adapterBeside(folder: string, adapter?: string): Promise<string | undefined> {
  return adapter ?? (await hasNoWeights(folder) && await isAdapterFolder(folder) ? folder : undefined);
}

async function hasNoWeights(folder: string): Promise<boolean> {
  const files = ["model.safetensors", "model.safetensors.index.json"].map((name) => join(folder, name));
  return !(await Promise.all(files.map(exists))).some((is) => is);
}

/** The weights that a folder with an adapter and a config.json stands for, and the adapter. */
async function openAdapted(
  folder: string,
  config: ModelConfig,
  above: readonly string[],
): Promise<WeightsApart> {
  const adapter = await openAdapter(folder, config);
  const { model, hash } = adapter.base;
  const real = await Deno.realPath(folder);
  if (above.includes(real)) {
    throw inputError(
      `Cannot load ${folder} as the model that its adapter was made for leads back to it: ${model}`,
    );
  }
  const places = [
    // A run's own copy goes first. Another folder of this name is refused by its digest.
    ...(hash === undefined ? [] : [join(dirname(real), "dense")]),
    ...(model === undefined ? [] : [isAbsolute(model) ? model : join(folder, model)]),
  ];
  for (const place of places) {
    if (await hasNoWeights(place) && !await isAdapterFolder(place)) continue;
    const base = merged(await openOwn(place, config, [...above, real]));
    const checked = {
      ...base,
      async verify() {
        if (hash !== undefined && await base.hash() !== hash) {
          throw inputError(
            `Cannot load ${folder} as the weights in ${place} are not those that its adapter was made for: another SHA-256`,
          );
        }
        await base.verify();
      },
    };
    return { base: checked, adapter };
  }
  throw inputError(
    `Cannot load ${folder} as the model that its adapter was made for, ${
      model ?? "which it does not name"
    }, is not there: ` +
      `give that as the model, and this folder as --adapter`,
  );
}

/**
 * Opens a folder's own weights; names may begin with prefixes that training tools leave. Only headers are read, and,
 * where config.json ties the head to the embedding, a head that is stored too.
 *
 * @throws {UserError} naming file and tensor for a missing, surplus or wrongly shaped one, or a head that is tied
 * and differs from the embedding
 */
export async function openOwnWeights(folder: string, config: ModelConfig): Promise<WeightSource> {
  const file = await openSafetensorsFolder(folder);
  const family = familyOf(config);
  const { tied } = config;
  const stored = storedParameters(config);
  // The embedding and the head are one matrix where they are tied, which may be stored under either name, or both.
  const [embedding, head] = [`${family.names.token}.weight`, `${family.names.head}.weight`];
  // What torch.compile and data parallel training put before a name.
  const prefix = new RegExp(`^((${family.prefix}|module|_orig_mod)\\.)+`);
  const found = new Map<string, TensorEntry>();
  for (const [name, entry] of file.entries) {
    const bare = name.replace(prefix, "");
    const twin = found.get(bare);
    if (twin) {
      throw inputError(
        `Cannot load ${entry.file} as tensors ${twin.name} and ${name} are the same parameter`,
      );
    }
    found.set(bare, entry);
  }
  const second = tied ? found.get(head) : undefined;
  if (second && !found.has(embedding)) {
    found.set(embedding, second);
    found.delete(head);
  }
  const tensors = stored.flatMap((each) => each.tensors);
  for (const { name, shape } of tensors) {
    const entry = found.get(name);
    if (!entry) throw inputError(`Cannot load ${file.path} as tensor ${name} is missing`);
    checkShape(entry, shape);
  }
  const known = new Set(tensors.map(({ name }) => name));
  for (const [name, entry] of found) {
    if (known.has(name) || family.buffers?.test(name)) continue;
    if (!tied || name !== head) {
      throw inputError(`Cannot load ${entry.file} as the model has no tensor ${entry.name}`);
    }
    checkShape(entry, [config.vocabularySize, config.width]);
    await checkTied(file, entry, found.get(embedding)!);
  }
  const byName = new Map(stored.map((each) => [each.parameter.name, each]));
  async function read(name: string): Promise<Float32Array> {
    const each = byName.get(name);
    if (!each) throw inputError(`Cannot read ${file.path} as it has no tensor ${name}`);
    const parts: Float32Array[] = [];
    for (const tensor of each.tensors) {
      parts.push(tensor.fromFile(await file.read(found.get(tensor.name)!.name)));
    }
    return joinParts(each, parts);
  }
  return {
    parameters: stored.map(({ parameter }) => parameter),
    files: file.files,
    read,
    async verify() {
      for (const { name } of tensors) {
        const { file: path, name: stored } = found.get(name)!;
        const values = await file.read(stored);
        const at = values.findIndex((value) => !Number.isFinite(value));
        if (at >= 0) {
          throw inputError(
            `Cannot load ${path} as tensor ${stored} must be finite: element ${at} is ${values[at]}`,
          );
        }
      }
    },
    async hash() {
      const hashes: string[] = [];
      for (const path of file.files) hashes.push(await hashFile(path));
      if (hashes.length === 1) return hashes[0];
      const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(hashes.join("\n")));
      return new Uint8Array(digest).toHex();
    },
  };
}

function checkShape({ file, name, shape }: TensorEntry, wanted: readonly number[]): void {
  if (shape.length === wanted.length && shape.every((axis, n) => axis === wanted[n])) return;
  throw inputError(
    `Cannot load ${file} as tensor ${name} must be of shape [${wanted.join(", ")}]: [${shape.join(", ")}]`,
  );
}

/** Where logits are products with the token embedding, some files hold the same matrix a second time as the head. */
async function checkTied(file: Safetensors, head: TensorEntry, embedding: TensorEntry): Promise<void> {
  const [values, tied] = [await file.read(head.name), await file.read(embedding.name)];
  if (values.every((value, n) => Object.is(value, tied[n]))) return;
  throw inputError(
    `Cannot load ${head.file} as tensor ${head.name} must equal ${embedding.name}: the head is not tied`,
  );
}
