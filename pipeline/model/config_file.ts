/**
 * config.json, as Hugging Face writes it.
 *
 * @module
 */
import { join } from "node:path";
import { inputError } from "../errors.ts";
import { exists, isObject, readJson } from "../files.ts";
import { faultOfSizes, isFloat, LARGEST, type ModelConfig, shapeOf } from "./config.ts";
import { FAMILIES, familyOf } from "./families.ts";
import { Fields } from "./family.ts";

/**
 * Reads `config.json` of a model folder.
 *
 * @throws {UserError} naming the file, the field and its value, for anything that is not a model we can run
 */
export async function readModelConfig(folder: string): Promise<ModelConfig> {
  const path = join(folder, "config.json");
  if (!await exists(path)) throw inputError(await whyNoModel(folder, path));
  const json = await readJson(path);
  if (!isObject(json)) throw inputError(`Cannot load ${path} as it must be a JSON object`);
  if ("settings" in json && "command" in json) {
    const model = join(folder, "model");
    const instead = await exists(join(model, "config.json"))
      ? `give ${model}`
      : "it has not come to the end at which its model is saved";
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

/** Whether a value, as it comes from JSON, is a {@link ModelConfig} of sizes and choices that can be. */
export function isModelConfig(value: unknown): value is ModelConfig {
  if (!isObject(value)) return false;
  const isCount = (name: string): boolean =>
    Number.isSafeInteger(value[name]) && (value[name] as number) >= 1;
  const { gate, keyValueHeads, headSize } = value;
  const gateHolds = gate === undefined ||
    (isObject(gate) && isFloat(gate.bias) && isFloat(gate.temperature));
  return Object.keys(LARGEST).every(isCount) && isFloat(value.layerNormEpsilon) && gateHolds &&
    (keyValueHeads === undefined || isCount("keyValueHeads")) &&
    (headSize === undefined || isCount("headSize")) &&
    isBuiltAsRead(value as unknown as ModelConfig) &&
    faultOfSizes(value as unknown as ModelConfig) === undefined;
}

/** Whether a config.json that is written of a model says of its heads and choices what the model does. */
function isBuiltAsRead(config: ModelConfig): boolean {
  if (config.architecture === undefined) {
    return config.keyValueHeads === undefined && config.headSize === undefined;
  }
  try {
    const again = parseModelConfig(modelConfigToJson(config), "a model");
    return JSON.stringify([again.architecture, shapeOf(again)]) ===
      JSON.stringify([config.architecture, shapeOf(config)]);
  } catch {
    // Whatever is no model's is none.
    return false;
  }
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
    ...family.toJson(config, shapeOf(config).architecture),
    bos_token_id: startOfText,
    eos_token_id: endOfText,
    ...(gate ? { sparse_attention: { ...sparseAttention, gate } } : {}),
  };
}
