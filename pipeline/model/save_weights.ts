/**
 * Saves a model as an ordinary Hugging Face folder, which other tools can load.
 *
 * @module
 */
import { basename, dirname, join } from "node:path";
import { inputError } from "../errors.ts";
import {
  exists,
  kindOf,
  MAX_JSON_BYTES,
  MAX_SMALL_JSON_BYTES,
  type OwnNames,
  readBytes,
  readText,
  removeOwn,
  storing,
  syncFolder,
  TEMPORARY,
  TOKENIZER_SETTINGS,
  writeAll,
  writeAtomically,
  writeJson,
} from "../files.ts";
import { ADAPTER_CONFIG, adapterConfigToJson } from "./adapter_config.ts";
import { ADAPTER_WEIGHTS } from "./adapter_files.ts";
import type { Adapters } from "./adapters.ts";
import type { ModelConfig } from "./config.ts";
import { modelConfigToJson, readModelConfig } from "./config_file.ts";
import sparseAttention from "./sparse_attention.py" with { type: "text" };
import { partOf, storedAdapters, storedParameters } from "./stored.ts";
import { openSafetensors, type TensorType, writeSafetensors } from "./safetensors.ts";

/** What a saved model is made of. */
export interface SavedModel {
  /** Its sizes, with a gate where it is sparse. */
  config: ModelConfig;
  /** By bare name. */
  tensors: readonly { name: string; shape: readonly number[]; read(): Promise<Float32Array> }[];
  /** Type that the weights are stored in. */
  type: TensorType;
  /** Path of the tokenizer.json to copy, with what stands beside it and says how it is used. */
  tokenizer: string;
  /** Further fields of config.json's `sparse_attention` block. */
  sparseAttention?: Record<string, unknown>;
  /** Settings that the model recommends for its own post-training, saved as sparsify.json. */
  recommended?: Record<string, unknown>;
  /** Only these adapters are saved, which `tensors` are then of, as peft stores them. */
  adapter?: SavedAdapter;
}

/** What is saved of adapters in place of a model's weights. */
export interface SavedAdapter {
  /** Which there are. */
  adapters: Adapters;
  /** Folder of the model that they are for, or its name on the hub. */
  base: string;
  /** Its commit there. */
  revision?: string;
  /** Digest of its weights. */
  hash: string;
}

/** What a sparse model's folder says of itself, for whoever loads it with another program. */
function readmeOf({ bias, temperature }: NonNullable<ModelConfig["gate"]>, isAdapter: boolean): string {
  return isAdapter ? readmeOfAdapter({ bias }) : `# A model with gates on its attention

Every attention edge of this model has a gate: query q attends to key k only where the gate logit, q · k / √D + ${bias},
is above 0 (\`sparse_attention.gate\` in config.json: bias ${bias}, temperature ${temperature} of the relaxation it was trained with). The
softmax runs over all keys; a closed edge's weight is then replaced by 0, and the rest is not scaled up.

**transformers, vLLM, llama.cpp and others know nothing of the gates. They load this folder without a warning and run it
dense, with every edge open: another model, with another loss.** In transformers, \`sparse_attention.py\` beside this file
loads it with its gates:

    from sparse_attention import load
    model = load("FOLDER")

and so does the program that made it:

    deno task evaluate --model FOLDER --data TEXT

Method: Draye et al., Sparse Attention Post-Training for Mechanistic Interpretability, arXiv 2512.05865.
`;
}

function readmeOfAdapter({ bias }: Pick<NonNullable<ModelConfig["gate"]>, "bias">): string {
  return `# A low-rank adapter of a model with gates on its attention

With this adapter every attention edge of its model (base_model_name_or_path in adapter_config.json) has a gate: query q attends
to key k only where the gate logit, q · k / √D + ${bias}, is above 0 (\`sparse_attention.gate\` in config.json). The softmax runs
over all keys; a closed edge's weight is then replaced by 0, and the rest is not scaled up.

**peft and transformers know nothing of the gates. They load this adapter without a warning and run the model dense, with every
edge open: another model, with another loss.** The program that made it runs it with its gates:

    deno task evaluate --model FOLDER --data TEXT
    deno task evaluate --model BASE --adapter FOLDER --data TEXT

where the second finds the base where it now lies. \`deno task sparsify --merge\` saves a whole model, which transformers too
loads with its gates.

Method: Draye et al., Sparse Attention Post-Training for Mechanistic Interpretability, arXiv 2512.05865.
`;
}

/** What a saved model consists of. */
const OF_A_MODEL: OwnNames = [
  /^(config|sparsify|tokenizer|tokenizer_config|generation_config)\.json(\.partial)?$/,
  /^(adapter_)?model\.safetensors(\.partial)?$/,
  /^adapter_config\.json(\.partial)?$/,
  "README.md",
  "sparse_attention.py",
];

const isOwn = (name: string): boolean =>
  OF_A_MODEL.some((own) => own instanceof RegExp ? own.test(name) : own === name);
const partialOf = (folder: string): string => join(dirname(folder), basename(folder) + TEMPORARY);
const olderOf = (folder: string): string => join(dirname(folder), basename(folder) + ".old" + TEMPORARY);

/**
 * Writes config.json, model.safetensors and tokenizer.json, and of a model with gates a README.md and what loads it in
 * transformers, beside `folder` and
 * moves them into its place when they are whole. An older model that was saved here is replaced; what else lies in the
 * folder stays in it.
 *
 * @throws {UserError} when the tokenizer cannot be read, a weight is too large for the type, `folder` holds what was not
 * saved here, which is left as it is, or the disk is full
 */
export async function saveModel(folder: string, model: SavedModel): Promise<void> {
  const [partial, older] = [partialOf(folder), olderOf(folder)];
  await checkModelFolder(folder);
  // A crash between the two renames below leaves the older model under its other name.
  if (!await exists(folder) && await exists(older)) await Deno.rename(older, folder);
  await removeOwn(partial, OF_A_MODEL);
  await removeOwn(older, OF_A_MODEL);
  try {
    await storing(partial, () => Deno.mkdir(partial, { recursive: true }));
    await writeFiles(partial, model);
  } catch (error) {
    await removeOwn(partial, OF_A_MODEL);
    throw error;
  }
  await storing(folder, async () => {
    await keepOthers(folder, partial);
    await syncFolder(partial);
    if (await exists(folder)) await Deno.rename(folder, older);
    await Deno.rename(partial, folder);
    await syncFolder(dirname(folder));
  });
  await removeOwn(older, OF_A_MODEL);
}

/** Moves what a user has put beside a model, or written into its README.md, to the model that takes its place. */
async function keepOthers(from: string, to: string): Promise<void> {
  if (!await exists(from)) return;
  for (const { name } of await Array.fromAsync(Deno.readDir(from))) {
    const isSettings = TOKENIZER_SETTINGS.some((settings) => settings === name);
    const isKept = isSettings ? !await exists(join(to, name)) : name === "README.md" && await isEdited(from);
    if (!isOwn(name) || isKept) {
      await Deno.rename(join(from, name), join(to, name));
    }
  }
}

/** Whether a saved model's README.md is not, or no longer, the one it was saved with. */
async function isEdited(folder: string): Promise<boolean> {
  const { gate } = await readModelConfig(folder);
  const text = await readText(join(folder, "README.md"), 1 << 20).catch(() => "");
  return !gate || [false, true].every((isAdapter) => text !== readmeOf(gate, isAdapter));
}

/**
 * Checks that a model can be saved as `folder` without loss: nothing is there, or an empty folder, or a model that was
 * saved here, which is told by its checksums.
 *
 * @throws {UserError} naming what is there instead
 */
export async function checkModelFolder(folder: string): Promise<void> {
  for (const path of [folder, partialOf(folder), olderOf(folder)]) {
    const info = await Deno.lstat(path).catch(() => undefined);
    if (!info) continue;
    const fail = (what: string): never => {
      throw inputError(`Cannot save a model as ${folder} as ${what} is there: it was left as it is`);
    };
    if (!info.isDirectory) fail(`${path}, ${kindOf(info)},`);
    const names = (await Array.fromAsync(Deno.readDir(path))).map(({ name }) => name);
    if (path === folder) {
      const isSaved = (file: string): Promise<boolean> =>
        openSafetensors(join(folder, file)).then(({ checked }) => checked, () => false);
      const saved = await isSaved("model.safetensors") || await isSaved(ADAPTER_WEIGHTS);
      if (names.length > 0 && !saved) fail(join(folder, names[0]));
    } else {
      const other = names.find((name) => !isOwn(name));
      if (other !== undefined) fail(join(path, other));
    }
  }
}

async function writeFiles(folder: string, model: SavedModel): Promise<void> {
  const tokenizer = await readBytes(model.tokenizer, MAX_JSON_BYTES);
  await writeAtomically(join(folder, "tokenizer.json"), (file) => writeAll(file, tokenizer));
  for (const name of TOKENIZER_SETTINGS) {
    const path = join(dirname(model.tokenizer), name);
    if (!await exists(path)) continue;
    const settings = await readBytes(path, MAX_SMALL_JSON_BYTES);
    await writeAtomically(join(folder, name), (file) => writeAll(file, settings));
  }
  await writeJson(join(folder, "config.json"), modelConfigToJson(model.config, model.sparseAttention));
  if (model.config.gate) {
    const readme = new TextEncoder().encode(readmeOf(model.config.gate, model.adapter !== undefined));
    await writeAtomically(join(folder, "README.md"), (file) => writeAll(file, readme));
  }
  if (model.config.gate && !model.adapter) {
    const loader = new TextEncoder().encode(sparseAttention);
    await writeAtomically(join(folder, "sparse_attention.py"), (file) => writeAll(file, loader));
  }
  if (model.recommended) await writeJson(join(folder, "sparsify.json"), model.recommended);
  if (model.adapter) {
    const { adapters, base, revision, hash } = model.adapter;
    await writeJson(
      join(folder, ADAPTER_CONFIG),
      adapterConfigToJson(model.config, adapters, { base, revision }),
    );
    await writeSafetensors(join(folder, ADAPTER_WEIGHTS), storedTensors(model), { format: "pt", base: hash });
  } else await writeSafetensors(join(folder, "model.safetensors"), storedTensors(model), { format: "pt" });
}

/** What a family's files hold of a model, read when their turn comes. */
function storedTensors({ config, tensors, type, adapter }: SavedModel) {
  const readers = new Map(tensors.map(({ name, read }) => [name, read]));
  const all = adapter ? storedAdapters(config, adapter.adapters) : storedParameters(config);
  return all.flatMap((stored) =>
    stored.tensors.map(({ savedAs, shape, toFile }, n) => ({
      name: savedAs,
      shape,
      type,
      read: async () => toFile(partOf(stored, n, await readers.get(stored.parameter.name)!())),
    }))
  );
}
