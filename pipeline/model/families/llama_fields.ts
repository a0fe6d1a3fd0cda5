/** The fields of config.json that all families have that are built like Llama, and what they refuse. @module */
import type { ModelConfig } from "../config.ts";
import type { Fields } from "../family.ts";
import { rotaryFields, rotaryOf } from "./rotary.ts";

/** An RMS norm with a weight; `usual` is ε where the file has none. */
export function rmsNorm(fields: Fields, at: "input" | "output", usual = 1e-6): ModelConfig["norm"] {
  return { kind: "rms", affine: "weight", epsilon: fields.positive("rms_norm_eps", usual), at };
}

/** Reads what all of them have; `choices` are what a family has otherwise than Llama. */
export function parseLlama(
  fields: Fields,
  family: string,
  choices: Partial<ModelConfig> = {},
): ModelConfig {
  fields.oneOf("hidden_act", ["silu"]);
  const [width, heads] = [fields.count("hidden_size"), fields.count("num_attention_heads")];
  const keyValueHeads = fields.count("num_key_value_heads", heads);
  if (heads % keyValueHeads !== 0) fields.fail("num_key_value_heads", `a divisor of the heads, ${heads}`);
  const { headSize: usual, ...others } = choices;
  const headSize = fields.count("head_dim", usual ?? (width % heads === 0 ? width / heads : undefined));
  return {
    family,
    vocabularySize: fields.count("vocab_size"),
    contextLength: fields.count("max_position_embeddings"),
    width,
    layers: fields.count("num_hidden_layers"),
    heads,
    keyValueHeads,
    headSize,
    mlpWidth: fields.count("intermediate_size"),
    norm: rmsNorm(fields, "input"),
    positions: rotaryOf(fields, headSize),
    mlp: "swiglu",
    biases: { qkv: false, other: false },
    parallel: false,
    tied: fields.flag("tie_word_embeddings", false),
    ...others,
  };
}

/** Writes what all of them have. */
export function llamaFields(config: ModelConfig): Record<string, unknown> {
  const { vocabularySize, contextLength, width, layers, heads, keyValueHeads, headSize, mlpWidth } = config;
  const { norm, positions, tied } = config;
  return {
    hidden_act: "silu",
    vocab_size: vocabularySize,
    max_position_embeddings: contextLength,
    hidden_size: width,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: keyValueHeads,
    head_dim: headSize,
    intermediate_size: mlpWidth,
    rms_norm_eps: norm.epsilon,
    ...rotaryFields(positions),
    attention_dropout: 0,
    tie_word_embeddings: tied,
  };
}

/** Refuses windows that are shorter than the context; `usual` is that of a file that has none. */
export function refuseWindows(fields: Fields, usual: number | null = null): void {
  const { json } = fields;
  const types = json.layer_types;
  if (Array.isArray(types) && types.some((type) => type !== "full_attention")) {
    fields.fail("layer_types", `"full_attention" for every layer`);
  }
  const window = json.sliding_window === undefined ? usual : json.sliding_window;
  if (window === null || json.use_sliding_window === false) return;
  if (typeof window === "number" && window >= fields.count("max_position_embeddings")) return;
  const leftOut = json.sliding_window === undefined ? ` (left out, it is ${usual})` : "";
  fields.fail("sliding_window", `null, or no shorter than max_position_embeddings${leftOut}`);
}
