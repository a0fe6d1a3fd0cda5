/** OLMo (arXiv 2402.00838): layer norms without parameters, and queries, keys and values that may be clipped. @module */
import { likeLlama } from "./like_llama.ts";
import { parseLlama } from "./llama_fields.ts";

export const OLMO = likeLlama({
  type: "olmo",
  architecture: "OlmoForCausalLM",
  parse(fields) {
    fields.oneOf("attention_bias", [false]);
    const clipped = (fields.json.clip_qkv ?? null) !== null;
    return parseLlama(fields, "olmo", {
      // The epsilon is fixed in the code of transformers: config.json does not tell it.
      norm: { kind: "layer", affine: "none", epsilon: 1e-5, at: "input" },
      ...(clipped ? { clip: fields.positive("clip_qkv") } : {}),
    });
  },
  toJson: ({ rms_norm_eps: _, head_dim: __, ...fields }, { clip }) => ({
    ...fields,
    attention_bias: false,
    clip_qkv: clip ?? null,
  }),
});
