/**
 * Repositories that a hub of the tests holds.
 */
import { exists } from "../../pipeline/files.ts";
import type { HubEnvironment } from "../../pipeline/hub/environment.ts";
import { type HubServer, LARGE, type ServedRepository } from "./hub_server.ts";
import { seeded } from "./seeded.ts";

/** Bytes that follow from a seed. */
export function someBytes(count: number, seed: number): Uint8Array<ArrayBuffer> {
  const random = seeded(seed);
  return Uint8Array.from({ length: count }, () => Math.floor(256 * random.uniform()));
}

const text = (value: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(value);

/** A model whose weights lie in three files, with files beside it that nobody needs. */
export function shardedModel(more: Partial<ServedRepository> = {}): ServedRepository {
  const weight_map = { a: "model-1.safetensors", b: "model-2.safetensors", c: "model-3.safetensors" };
  return {
    kind: "model",
    name: "owner/model",
    revisions: {
      main: {
        ".gitattributes": text("*.safetensors filter=lfs"),
        "README.md": text("# A model"),
        "config.json": text(`{"model_type": "gpt2"}`),
        "generation_config.json": text("{}"),
        "tokenizer.json": text(`{"version": "${"1".repeat(2 * LARGE)}"}`),
        "tokenizer_config.json": text("{}"),
        "model-1.safetensors": someBytes(40_000, 1),
        "model-2.safetensors": someBytes(30_011, 2),
        "model-3.safetensors": someBytes(LARGE, 3),
        "model.safetensors.index.json": text(JSON.stringify({ weight_map })),
        "pytorch_model.bin": someBytes(LARGE, 4),
        "consolidated.safetensors": someBytes(LARGE, 5),
        "onnx/model.onnx": someBytes(LARGE, 6),
      },
    },
    ...more,
  };
}

/** The files of {@link shardedModel} that a model is made of. */
export const MODEL_FILES = [
  "config.json",
  "generation_config.json",
  "model-1.safetensors",
  "model-2.safetensors",
  "model-3.safetensors",
  "model.safetensors.index.json",
  "tokenizer.json",
  "tokenizer_config.json",
];

/** A client's environment. */
export function environmentOf(
  { endpoint }: Pick<HubServer, "endpoint">,
  cache: string,
  more: Partial<HubEnvironment> = {},
): HubEnvironment {
  return { endpoint, cache, offline: false, ...more };
}

/** What lies below a folder: path → link target for links, size for files. */
export async function layoutOf(folder: string, below = ""): Promise<Record<string, string | number>> {
  const found: Record<string, string | number> = {};
  if (!await exists(folder)) return found;
  for await (const { name, isDirectory, isSymlink } of Deno.readDir(folder)) {
    const path = below + name;
    if (isDirectory) Object.assign(found, await layoutOf(`${folder}/${name}`, path + "/"));
    else {found[path] = isSymlink
        ? await Deno.readLink(`${folder}/${name}`)
        : (await Deno.stat(`${folder}/${name}`)).size;}
  }
  return found;
}

const SHARDS = new URL("../fixtures/hub/shards/", import.meta.url);

/** A data set of which the hub has made four Parquet files of training text, two of a part `sums`, and one to test on. */
export async function dataSet(more: Partial<ServedRepository> = {}): Promise<ServedRepository> {
  const shards = await Promise.all(
    [0, 1, 2, 3].map((n) => Deno.readFile(new URL(`000${n}.parquet`, SHARDS))),
  );
  const files: Record<string, Uint8Array> = { ".gitattributes": text("*.parquet filter=lfs") };
  shards.forEach((bytes, n) => files[`default/train/000${n}.parquet`] = bytes);
  files["default/test/0000.parquet"] = shards[3];
  files["sums/partial-train/0000.parquet"] = shards[1];
  files["sums/partial-train/0001.parquet"] = shards[2];
  return {
    kind: "dataset",
    name: "owner/data",
    revisions: { main: { "README.md": text("# Data") }, "refs/convert/parquet": files },
    ...more,
  };
}
