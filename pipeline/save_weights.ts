/**
 * Saves a model as an ordinary Hugging Face folder, which other tools can load.
 *
 * @module
 */
import { basename, dirname, join } from "node:path";
import { inputError } from "./errors.ts";
import { exists, syncFolder, TEMPORARY, writeAll, writeAtomically, writeJson } from "./files.ts";
import { type ModelConfig, modelConfigToJson } from "./model_config.ts";
import { type TensorType, writeSafetensors } from "./safetensors.ts";

/** What a saved model is made of. */
export interface SavedModel {
  config: ModelConfig;
  /** By bare name. */
  tensors: readonly { name: string; shape: readonly number[]; read(): Promise<Float32Array> }[];
  /** Type that the weights are stored in. */
  type: TensorType;
  /** Path of the tokenizer.json to copy. */
  tokenizer: string;
  /** Further fields of config.json's `sparse_attention` block. */
  sparseAttention?: Record<string, unknown>;
  /** Settings that the model recommends for its own post-training, saved as sparsify.json. */
  recommended?: Record<string, unknown>;
}

/**
 * Writes config.json, model.safetensors and tokenizer.json beside `folder` and moves them into its place when they are
 * whole; an older folder of that name is replaced.
 *
 * @throws {UserError} when the tokenizer cannot be read, or a weight is too large for the type
 */
export async function saveModel(folder: string, model: SavedModel): Promise<void> {
  const partial = join(dirname(folder), basename(folder) + TEMPORARY);
  const old = join(dirname(folder), basename(folder) + ".old" + TEMPORARY);
  // A crash between the two renames below leaves the older model under its other name.
  if (!await exists(folder) && await exists(old)) await Deno.rename(old, folder);
  await removeFolder(partial);
  await removeFolder(old);
  await Deno.mkdir(partial, { recursive: true });
  try {
    await writeFiles(partial, model);
  } catch (error) {
    await removeFolder(partial);
    throw error;
  }
  await syncFolder(partial);
  if (await exists(folder)) await Deno.rename(folder, old);
  await Deno.rename(partial, folder);
  await syncFolder(dirname(folder));
  await removeFolder(old);
}

async function removeFolder(folder: string): Promise<void> {
  if (await exists(folder)) await Deno.remove(folder, { recursive: true });
}

async function writeFiles(folder: string, model: SavedModel): Promise<void> {
  const tokenizer = await readTokenizer(model.tokenizer);
  await writeAtomically(join(folder, "tokenizer.json"), (file) => writeAll(file, tokenizer));
  await writeJson(join(folder, "config.json"), modelConfigToJson(model.config, model.sparseAttention));
  if (model.recommended) await writeJson(join(folder, "sparsify.json"), model.recommended);
  await writeSafetensors(
    join(folder, "model.safetensors"),
    model.tensors.map((tensor) => ({ ...tensor, name: `transformer.${tensor.name}`, type: model.type })),
    { format: "pt" },
  );
}

async function readTokenizer(path: string): Promise<Uint8Array> {
  try {
    return await Deno.readFile(path);
  } catch (error) {
    const what = error instanceof Deno.errors.NotFound ? "no such file" : (error as Error).message;
    throw inputError(`Cannot copy ${path}: ${what}`, { cause: error });
  }
}
