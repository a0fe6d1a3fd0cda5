/**
 * GPT-2's config.json, as Hugging Face writes it.
 *
 * @module
 */
import { join } from "node:path";
import { inputError } from "./errors.ts";
import { exists, isObject, readJson, shown } from "./files.ts";

/** The sizes of a GPT-2-type model. */
export interface ModelConfig {
  /** V. */
  vocabularySize: number;
  /** Positions that have an embedding. */
  contextLength: number;
  /** d, a multiple of the heads. */
  width: number;
  /** L. */
  layers: number;
  /** H, of each layer. */
  heads: number;
  /** F, the width inside the MLP. */
  mlpWidth: number;
  /** Added to the variance in layer norms. */
  layerNormEpsilon: number;
  /** Stands where the model has a head of its own, which must equal the embedding. */
  tied?: false;
  /** Ids of the tokens that end and begin a text, where config.json names them. */
  endOfText?: number;
  /** Id of the token that begins a text, where config.json names it. */
  startOfText?: number;
  /** How the gates of a sparse model are computed. */
  gate?: { bias: number; temperature: number };
}

/** Throws the error that says what `field` must be, and its value. */
type Fail = (field: string, required: string) => never;

/**
 * Reads `config.json` of a model folder.
 *
 * @throws {UserError} naming the file, the field and its value, for anything that is not a GPT-2 we can run
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
  const isOnHub = /^[\w-][\w.-]*(\/[\w-][\w.-]*)?$/.test(folder);
  const name = isOnHub ? folder : "ORGANISATION/NAME";
  const into = isOnHub ? ` ${folder}` : "";
  return `Cannot read ${path}: no such file, as there is no folder ${folder}; a model of the Hugging Face hub is ` +
    `fetched by: git clone https://huggingface.co/${name}${into} (which needs Git LFS)`;
}

/** Checks the fields of a config.json; `path` is for error messages. */
export function parseModelConfig(json: Record<string, unknown>, path: string): ModelConfig {
  const fail: Fail = (field, required) => {
    throw inputError(`Cannot load ${path} as ${field} must be ${required}: ${shown(json[field])}`);
  };
  const positive = (field: string, fallback?: number): number => {
    const value = json[field] ?? fallback;
    if (!Number.isInteger(value) || (value as number) < 1) fail(field, "a positive integer");
    return value as number;
  };
  if (json.model_type !== "gpt2") fail("model_type", `"gpt2"`);
  if (!GELU.includes(json.activation_function ?? GELU[0])) {
    fail("activation_function", GELU.map((name) => `"${name}"`).join(" or "));
  }
  // Whether a head of its own equals the embedding is seen when the weights are opened.
  if (typeof (json.tie_word_embeddings ?? true) !== "boolean") fail("tie_word_embeddings", "true or false");
  if ((json.scale_attn_weights ?? true) !== true) fail("scale_attn_weights", "true");
  if ((json.scale_attn_by_inverse_layer_idx ?? false) !== false) {
    fail("scale_attn_by_inverse_layer_idx", "false");
  }
  const width = positive("n_embd");
  const heads = positive("n_head");
  if (width % heads !== 0) fail("n_embd", `a multiple of n_head, ${heads}`);
  const epsilon = json.layer_norm_epsilon ?? 1e-5;
  if (!isFloat(epsilon) || epsilon <= 0) return fail("layer_norm_epsilon", "a positive number");
  const config: ModelConfig = {
    vocabularySize: positive("vocab_size"),
    contextLength: positive("n_positions", json.n_ctx as number | undefined),
    width,
    layers: positive("n_layer"),
    heads,
    mlpWidth: positive("n_inner", 4 * width),
    layerNormEpsilon: epsilon,
    ...(json.tie_word_embeddings === false ? { tied: false } : {}),
    ...tokenOf("endOfText", json.eos_token_id),
    ...tokenOf("startOfText", json.bos_token_id),
    gate: gateOf(json.sparse_attention, fail),
  };
  const fault = faultOfSizes(config);
  if (fault) throw inputError(`Cannot load ${path} as ${fault}`);
  return config;
}

/** Names of GELU by its tanh form. */
const GELU: readonly unknown[] = ["gelu_new", "gelu_pytorch_tanh", "gelu_fast"];

/** The largest sizes that are taken: far beyond any model, and small enough to count through. */
const LARGEST = {
  vocabularySize: 2 ** 24,
  contextLength: 2 ** 24,
  width: 2 ** 17,
  layers: 2 ** 12,
  heads: 2 ** 12,
  mlpWidth: 2 ** 20,
} as const;
/** Elements of the largest matrix that can be held as float32: 8 GiB. */
const LARGEST_MATRIX = 2 ** 31;

/** What is wrong with a model's sizes, as half a sentence; undefined when nothing is. */
function faultOfSizes(config: ModelConfig): string | undefined {
  for (const [name, largest] of Object.entries(LARGEST)) {
    const size = config[name as keyof typeof LARGEST];
    if (size > largest) return `its ${name} must be at most ${largest}: ${size}`;
  }
  const { vocabularySize, contextLength, width, mlpWidth } = config;
  const rows = Math.max(vocabularySize, contextLength, mlpWidth, 3 * width);
  if (rows * width <= LARGEST_MATRIX) return undefined;
  return `a matrix of it must have at most ${LARGEST_MATRIX} elements: ${rows} × ${width}`;
}

/** Whether a value, as it comes from JSON, is a {@link ModelConfig} of sizes that can be. */
export function isModelConfig(value: unknown): value is ModelConfig {
  if (!isObject(value)) return false;
  const whole = Object.keys(LARGEST).every((name) =>
    Number.isSafeInteger(value[name]) && (value[name] as number) >= 1
  );
  const gate = value.gate;
  const gateHolds = gate === undefined ||
    (isObject(gate) && isFloat(gate.bias) && isFloat(gate.temperature));
  return whole && isFloat(value.layerNormEpsilon) && gateHolds &&
    faultOfSizes(value as unknown as ModelConfig) === undefined;
}

/** A token's id under its name; some models list several that end a text, of which the first separates documents. */
function tokenOf<Name extends string>(name: Name, value: unknown): { [name in Name]?: number } {
  const [id] = Array.isArray(value) ? value : [value];
  return Number.isSafeInteger(id) && id >= 0 ? { [name]: id } as { [name in Name]?: number } : {};
}

/** Whether it is a number that float32 holds: JSON's 1e999 is none. */
function isFloat(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(Math.fround(value));
}

function gateOf(block: unknown, fail: Fail): ModelConfig["gate"] {
  if (block === undefined) return undefined;
  const gate = (block as { gate?: { bias?: unknown; temperature?: unknown } } | null)?.gate;
  if (!isFloat(gate?.bias) || !isFloat(gate?.temperature) || gate.temperature <= 0) {
    return fail("sparse_attention", "an object whose gate has a bias and a positive temperature");
  }
  return { bias: gate.bias, temperature: gate.temperature };
}

/**
 * The config.json of a model, as Hugging Face's GPT2LMHeadModel reads it.
 *
 * @param sparseAttention further fields of the `sparse_attention` block, which only a model with gates has
 */
export function modelConfigToJson(
  config: ModelConfig,
  sparseAttention: Record<string, unknown> = {},
): Record<string, unknown> {
  const { vocabularySize, contextLength, width, layers, heads, mlpWidth, layerNormEpsilon, gate } = config;
  const { endOfText = vocabularySize - 1, startOfText = endOfText } = config;
  return {
    architectures: ["GPT2LMHeadModel"],
    model_type: "gpt2",
    activation_function: "gelu_new",
    vocab_size: vocabularySize,
    n_positions: contextLength,
    n_embd: width,
    n_layer: layers,
    n_head: heads,
    n_inner: mlpWidth === 4 * width ? null : mlpWidth,
    layer_norm_epsilon: layerNormEpsilon,
    attn_pdrop: 0,
    embd_pdrop: 0,
    resid_pdrop: 0,
    scale_attn_weights: true,
    tie_word_embeddings: true,
    bos_token_id: startOfText,
    eos_token_id: endOfText,
    ...(gate ? { sparse_attention: { ...sparseAttention, gate } } : {}),
  };
}
