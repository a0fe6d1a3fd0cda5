/**
 * Saves a model as an ordinary Hugging Face folder, which other tools can load.
 *
 * @module
 */
import { basename, dirname, join } from "node:path";
import { exists, syncFolder, TEMPORARY, writeJson } from "./files.ts";
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
 */
export async function saveModel(folder: string, model: SavedModel): Promise<void> {
  const partial = join(dirname(folder), basename(folder) + TEMPORARY);
  const old = join(dirname(folder), basename(folder) + ".old" + TEMPORARY);
  for (const leftover of [partial, old]) {
    if (await exists(leftover)) await Deno.remove(leftover, { recursive: true });
  }
  await Deno.mkdir(partial, { recursive: true });
  await writeJson(join(partial, "config.json"), modelConfigToJson(model.config, model.sparseAttention));
  await writeSafetensors(
    join(partial, "model.safetensors"),
    model.tensors.map((tensor) => ({ ...tensor, name: `transformer.${tensor.name}`, type: model.type })),
    { format: "pt" },
  );
  await Deno.copyFile(model.tokenizer, join(partial, "tokenizer.json"));
  if (model.recommended) await writeJson(join(partial, "sparsify.json"), model.recommended);
  if (await exists(folder)) await Deno.rename(folder, old);
  await Deno.rename(partial, folder);
  await syncFolder(dirname(folder));
  if (await exists(old)) await Deno.remove(old, { recursive: true });
}
