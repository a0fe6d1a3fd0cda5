/**
 * The weights of a model folder, checked against its config before any work on the device.
 *
 * @module
 */
import { inputError } from "./errors.ts";
import { hashFile } from "./files.ts";
import type { ModelConfig } from "./model_config.ts";
import { parametersOf } from "./model/trace.ts";
import type { ParameterShape } from "./model/parameters.ts";
import { openSafetensorsFolder, type Safetensors, type TensorEntry } from "./safetensors.ts";

/** The weights of one model, read one tensor at a time. */
export interface WeightSource {
  /** Names and shapes, in the order of the model. */
  readonly parameters: readonly ParameterShape[];
  /** Values of a parameter by its bare name, as float32. */
  read(name: string): Promise<Float32Array>;
  /** The files that they lie in. */
  readonly files: readonly string[];
  /**
   * Reads every tensor once.
   *
   * @throws {UserError} naming the first tensor that is damaged, or the first element that is not finite
   */
  verify(): Promise<void>;
  /** SHA-256 over the hashes of the weight files. */
  hash(): Promise<string>;
}

/** Causal masks that old GPT-2 files carry as tensors, of any type. */
const MASK_BUFFER = /^h\.\d+\.attn\.(masked_)?bias$/;
/** What Hugging Face, torch.compile and data parallel training put before a parameter's name. */
const PREFIX = /^((transformer|module|_orig_mod)\.)+/;
/** The embedding and the head are one matrix, which may be stored under either name, or both. */
const [EMBEDDING, HEAD] = ["wte.weight", "lm_head.weight"];

/**
 * Opens a folder's weights; names may begin with prefixes that training tools leave. Only headers are read, and a head
 * if there is one.
 *
 * @throws {UserError} naming file and tensor for a missing, surplus or wrongly shaped one, or an untied head
 */
export async function openWeights(folder: string, config: ModelConfig): Promise<WeightSource> {
  const file = await openSafetensorsFolder(folder);
  const parameters = parametersOf(config);
  const found = new Map<string, TensorEntry>();
  for (const [name, entry] of file.entries) {
    const bare = name.replace(PREFIX, "");
    const twin = found.get(bare);
    if (twin) {
      throw inputError(
        `Cannot load ${entry.file} as tensors ${twin.name} and ${name} are the same parameter`,
      );
    }
    found.set(bare, entry);
  }
  const tied = found.get(HEAD);
  if (config.tied === false && !tied) {
    throw inputError(`Cannot load ${file.path} as tensor ${HEAD} is missing, which config.json does not tie`);
  }
  if (tied && !found.has(EMBEDDING)) {
    found.set(EMBEDDING, tied);
    found.delete(HEAD);
  }
  for (const { name, shape } of parameters) {
    const entry = found.get(name);
    if (!entry) throw inputError(`Cannot load ${file.path} as tensor ${name} is missing`);
    checkShape(entry, shape);
  }
  const known = new Set(parameters.map(({ name }) => name));
  for (const [name, entry] of found) {
    if (known.has(name) || MASK_BUFFER.test(name)) continue;
    if (name !== HEAD) {
      throw inputError(`Cannot load ${entry.file} as the model has no tensor ${entry.name}`);
    }
    checkShape(entry, [config.vocabularySize, config.width]);
    await checkTied(file, entry, found.get(EMBEDDING)!);
  }
  const read = (name: string): Promise<Float32Array> => file.read(found.get(name)?.name ?? name);
  return {
    parameters,
    files: file.files,
    read,
    async verify() {
      for (const { name } of parameters) {
        const values = await read(name);
        const at = values.findIndex((value) => !Number.isFinite(value));
        const { file: path, name: stored } = found.get(name)!;
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

/** GPT-2 computes its logits with the token embedding; some files hold the same matrix a second time as the head. */
async function checkTied(file: Safetensors, head: TensorEntry, embedding: TensorEntry): Promise<void> {
  const [values, tied] = [await file.read(head.name), await file.read(embedding.name)];
  if (values.every((value, n) => Object.is(value, tied[n]))) return;
  throw inputError(
    `Cannot load ${head.file} as tensor ${head.name} must equal ${embedding.name}: the head is not tied`,
  );
}
