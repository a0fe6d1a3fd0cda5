/** What all families that are built like Llama have in common: names, and how they differ. @module */
import type { ModelConfig } from "../config.ts";
import type { Family, ParameterNames } from "../family.ts";
import { llamaFields } from "./llama_fields.ts";

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

/** A family that is built like Llama: what it has otherwise, and further fields that it writes. */
export function likeLlama(
  { type, architecture, parse, toJson, names = LLAMA_NAMES }:
    & Pick<Family, "type" | "architecture" | "parse">
    & {
      toJson?(fields: Record<string, unknown>, config: ModelConfig): Record<string, unknown>;
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
    toJson(config) {
      const fields = llamaFields(config);
      return toJson ? toJson(fields, config) : fields;
    },
  };
}
