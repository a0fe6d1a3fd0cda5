/** What all families that are built like Llama have in common: names, fields, refusals. @module */
import type { Architecture, ModelConfig } from "../config.ts";
import type { Family, Fields, ParameterNames } from "../family.ts";
import { rotaryFields, rotaryOf } from "./rotary.ts";

/** Names in the files of all that are built like Llama. */
export const LLAMA_NAMES: ParameterNames = {
  token: "embed_tokens",
  final: "norm",
  head: "lm_head",
  layers: "layers",
  attentionNorm: "input_layernorm",
  queryNorm: "self_attn.q_norm",
  keyNorm: "self_attn.k_norm",
  qkv: {
    name: "self_attn.qkv_proj",
    parts: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
  },
  attentionOut: "self_attn.o_proj",
  mlpNorm: "post_attention_layernorm",
  mlpIn: { name: "mlp.gate_up_proj", parts: ["mlp.gate_proj", "mlp.up_proj"] },
  mlpOut: "mlp.down_proj",
};

/** Reads what all of them have; `choices` are what a family has otherwise than Llama. */
export function parseLlama(
  fields: Fields,
  family: string,
  choices: Partial<Architecture> & { epsilon?: number; headSize?: number } = {},
): ModelConfig {
  fields.oneOf("hidden_act", ["silu"]);
  const [width, heads] = [fields.count("hidden_size"), fields.count("num_attention_heads")];
  const keyValueHeads = fields.count("num_key_value_heads", heads);
  if (heads % keyValueHeads !== 0) fields.fail("num_key_value_heads", `a divisor of the heads, ${heads}`);
  const { epsilon, headSize: usual, ...others } = choices;
  const headSize = fields.count("head_dim", usual ?? (width % heads === 0 ? width / heads : undefined));
  return {
    vocabularySize: fields.count("vocab_size"),
    contextLength: fields.count("max_position_embeddings"),
    width,
    layers: fields.count("num_hidden_layers"),
    heads,
    keyValueHeads,
    headSize,
    mlpWidth: fields.count("intermediate_size"),
    layerNormEpsilon: epsilon ?? fields.positive("rms_norm_eps", 1e-6),
    architecture: {
      family,
      norm: { kind: "rms", affine: "weight", at: "input" },
      positions: rotaryOf(fields, headSize),
      mlp: "swiglu",
      biases: { qkv: false, other: false },
      parallel: false,
      tied: fields.flag("tie_word_embeddings", false),
      ...others,
    },
  };
}

/** Writes what all of them have. */
function llamaFields(config: ModelConfig, { positions, tied }: Architecture): Record<string, unknown> {
  const { vocabularySize, contextLength, width, layers, heads, mlpWidth, layerNormEpsilon } = config;
  const { keyValueHeads = heads, headSize = width / heads } = config;
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
    rms_norm_eps: layerNormEpsilon,
    ...rotaryFields(positions),
    attention_dropout: 0,
    tie_word_embeddings: tied,
  };
}

/** Refuses windows that are shorter than the context. */
export function refuseWindows(fields: Fields): void {
  const { json } = fields;
  const types = json.layer_types;
  if (Array.isArray(types) && types.some((type) => type !== "full_attention")) {
    fields.fail("layer_types", `"full_attention" for every layer`);
  }
  const window = json.sliding_window;
  if (window === null || window === undefined || json.use_sliding_window === false) return;
  if (typeof window === "number" && window >= fields.count("max_position_embeddings")) return;
  fields.fail("sliding_window", "null, or no shorter than max_position_embeddings");
}

/** A family that is built like Llama: what it has otherwise, and further fields that it writes. */
export function likeLlama(
  { type, architecture, parse, toJson, names = LLAMA_NAMES }:
    & Pick<Family, "type" | "architecture" | "parse">
    & {
      toJson?(fields: Record<string, unknown>, choices: Architecture): Record<string, unknown>;
      names?: ParameterNames;
    },
): Family {
  return {
    type,
    architecture,
    prefix: "model",
    names,
    transposed: true,
    buffers: /rotary_emb\.inv_freq$/,
    parse,
    toJson(config, choices) {
      const fields = llamaFields(config, choices);
      return toJson ? toJson(fields, choices) : fields;
    },
  };
}
