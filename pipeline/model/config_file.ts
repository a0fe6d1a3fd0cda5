/**
 * config.json, as Hugging Face writes it.
 *
 * @module
 */
import { join } from "node:path";
import { inputError } from "../errors.ts";
import { exists, isObject, readJson } from "../files.ts";
import { faultOfSizes, gpt2Config, type Gpt2Sizes, isFloat, LARGEST, type ModelConfig } from "./config.ts";
import { FAMILIES, familyOf } from "./families.ts";
import { Fields } from "./family.ts";

/**
 * Reads `config.json` of a model folder.
 *
 * @param adapter folder of an adapter that is merged into the model: where it has a config.json, whose gates the model then has
 * @throws {UserError} naming the file, the field and its value, for anything that is not a model we can run
 */
export async function readModelConfig(folder: string, adapter?: string): Promise<ModelConfig> {
  const config = await readOwnConfig(folder);
  if (adapter === undefined || !await exists(join(adapter, "config.json"))) return config;
  const { gate } = await readOwnConfig(adapter);
  return gate ? { ...config, gate } : config;
}

async function readOwnConfig(folder: string): Promise<ModelConfig> {
  const path = join(folder, "config.json");
  if (!await exists(path)) throw inputError(await whyNoModel(folder, path));
  const json = await readJson(path);
  if (!isObject(json)) throw inputError(`Cannot load ${path} as it must be a JSON object`);
  if ("settings" in json && "command" in json) {
    const model = join(folder, "model");
    const instead = await exists(join(model, "config.json"))
      ? `give ${model}`
      : "it has not come to the end at which its model is saved; deno task export makes one of a step that it has kept";
    throw inputError(`Cannot load ${folder} as it is the folder of a run: ${instead}`);
  }
  return parseModelConfig(json, path);
}

/** Why there is no model in a folder, and how one gets there. */
async function whyNoModel(folder: string, path: string): Promise<string> {
  if (await exists(folder)) return `Cannot read ${path}: no such file; a model is a Hugging Face folder`;
  return `Cannot read ${path}: no such file, as there is no folder ${folder}; a model of the Hugging Face hub is ` +
    `named owner/name`;
}

/** Checks the fields of a config.json; `path` is for error messages. */
export function parseModelConfig(json: Record<string, unknown>, path: string): ModelConfig {
  const fields = new Fields(json, path);
  const family = typeof json.model_type === "string" ? FAMILIES.get(json.model_type) : undefined;
  if (!family) return fields.fail("model_type", [...FAMILIES.keys()].map((type) => `"${type}"`).join(", "));
  const config: ModelConfig = {
    ...family.parse(fields),
    ...tokenOf("endOfText", json.eos_token_id),
    ...tokenOf("startOfText", json.bos_token_id),
    gate: gateOf(json.sparse_attention, fields),
  };
  const fault = faultOfSizes(config);
  if (fault) throw inputError(`Cannot load ${path} as ${fault}`);
  return config;
}

/**
 * A value, as it comes from JSON, as a {@link ModelConfig}; undefined where it is none of sizes and choices that can be.
 */
export function modelConfigOf(value: unknown): ModelConfig | undefined {
  if (!isObject(value)) return undefined;
  const config = "layerNormEpsilon" in value ? ofEarlierVersion(value) : value as unknown as ModelConfig;
  const { gate } = config;
  const counts = config as unknown as Record<string, unknown>;
  const isCount = (name: string): boolean =>
    Number.isSafeInteger(counts[name]) && (counts[name] as number) >= 1;
  const isWhole = [...Object.keys(LARGEST), "keyValueHeads", "headSize"].every(isCount) &&
    isObject(config.norm) && isFloat(config.norm.epsilon) &&
    (gate === undefined || (isObject(gate) && isFloat(gate.bias) && isFloat(gate.temperature))) &&
    faultOfSizes(config) === undefined && isBuiltAsRead(config);
  return isWhole ? config : undefined;
}

/** What runs that began before a model's choices stood beside its sizes have in their config.json. */
function ofEarlierVersion(value: Record<string, unknown>): ModelConfig {
  const { layerNormEpsilon: epsilon, architecture, tied: _, ...sizes } = value;
  const { norm, ...choices } = isObject(architecture) ? architecture : {};
  const gpt2 = gpt2Config({ ...sizes, epsilon } as unknown as Gpt2Sizes);
  const more = architecture === undefined ? {} : { ...choices, norm: { ...norm as object, epsilon } };
  return { ...gpt2, ...sizes, ...more } as ModelConfig;
}

/** Whether a config.json that is written of a model says of it what the model does. */
function isBuiltAsRead(config: ModelConfig): boolean {
  try {
    const again = parseModelConfig(JSON.parse(JSON.stringify(modelConfigToJson(config))), "a model");
    const { endOfText, startOfText } = config;
    return isSameModelConfig({ ...again, endOfText, startOfText }, config);
  } catch {
    // Whatever is no model's is none.
    return false;
  }
}

/** Whether two are the same, in whatever order their fields stand. */
export function isSameModelConfig(a: ModelConfig, b: ModelConfig): boolean {
  const sorted = (_: string, value: unknown): unknown =>
    isObject(value)
      ? Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => a < b ? -1 : 1))
      : value;
  return JSON.stringify(a, sorted) === JSON.stringify(b, sorted);
}

/** A token's id under its name; some models list several that end a text, of which the first separates documents. */
function tokenOf<Name extends string>(name: Name, value: unknown): { [name in Name]?: number } {
  const [id] = Array.isArray(value) ? value : [value];
  return Number.isSafeInteger(id) && id >= 0 ? { [name]: id } as { [name in Name]?: number } : {};
}

function gateOf(block: unknown, fields: Fields): ModelConfig["gate"] {
  if (block === undefined) return undefined;
  const gate = (block as { gate?: { bias?: unknown; temperature?: unknown } } | null)?.gate;
  if (!isFloat(gate?.bias) || !isFloat(gate?.temperature) || gate.temperature <= 0) {
    return fields.fail("sparse_attention", "an object whose gate has a bias and a positive temperature");
  }
  return { bias: gate.bias, temperature: gate.temperature };
}

/**
 * The config.json of a model, as transformers reads it.
 *
 * @param sparseAttention further fields of the `sparse_attention` block, which only a model with gates has
 */
export function modelConfigToJson(
  config: ModelConfig,
  sparseAttention: Record<string, unknown> = {},
): Record<string, unknown> {
  const { vocabularySize, gate } = config;
  const { endOfText = vocabularySize - 1, startOfText = endOfText } = config;
  const family = familyOf(config);
  return {
    architectures: [family.architecture],
    model_type: family.type,
    ...family.toJson(config),
    bos_token_id: startOfText,
    eos_token_id: endOfText,
    ...(gate ? { sparse_attention: { ...sparseAttention, gate } } : {}),
  };
}
