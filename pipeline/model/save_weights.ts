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
import type { ModelConfig } from "./config.ts";
import { modelConfigToJson, readModelConfig } from "./config_file.ts";
import sparseAttention from "./sparse_attention.py" with { type: "text" };
import { partOf, storedParameters } from "./stored.ts";
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
}

/** What a sparse model's folder says of itself, for whoever loads it with another program. */
function readmeOf({ bias, temperature }: NonNullable<ModelConfig["gate"]>): string {
  return `# A model with gates on its attention

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

/** What a saved model consists of. */
const OF_A_MODEL: OwnNames = [
  /^(config|sparsify|tokenizer|tokenizer_config|generation_config)\.json(\.partial)?$/,
  /^model\.safetensors(\.partial)?$/,
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
  return !gate || await readText(join(folder, "README.md"), 1 << 20).catch(() => "") !== readmeOf(gate);
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
      const saved = await openSafetensors(join(folder, "model.safetensors")).then(
        ({ checked }) => checked,
        () => false,
      );
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
    const readme = new TextEncoder().encode(readmeOf(model.config.gate));
    await writeAtomically(join(folder, "README.md"), (file) => writeAll(file, readme));
    const loader = new TextEncoder().encode(sparseAttention);
    await writeAtomically(join(folder, "sparse_attention.py"), (file) => writeAll(file, loader));
  }
  if (model.recommended) await writeJson(join(folder, "sparsify.json"), model.recommended);
  await writeSafetensors(
    join(folder, "model.safetensors"),
    storedTensors(model),
    { format: "pt" },
  );
}

/** What a family's files hold of a model, read when their turn comes. */
function storedTensors({ config, tensors, type }: SavedModel) {
  const readers = new Map(tensors.map(({ name, read }) => [name, read]));
  return storedParameters(config).flatMap((stored) =>
    stored.tensors.map(({ savedAs, shape, toFile }, n) => ({
      name: savedAs,
      shape,
      type,
      read: async () => toFile(partOf(stored, n, await readers.get(stored.parameter.name)!())),
    }))
  );
}
