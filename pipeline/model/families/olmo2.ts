/** OLMo 2 (arXiv 2501.00656): norms at the end of each branch, and of queries and keys. @module */
import { likeLlama, LLAMA_NAMES } from "./like_llama.ts";
import { parseLlama, rmsNorm } from "./llama_fields.ts";

export const OLMO2 = likeLlama({
  type: "olmo2",
  architecture: "Olmo2ForCausalLM",
  names: {
    ...LLAMA_NAMES,
    attentionNorm: "post_attention_layernorm",
    mlpNorm: "post_feedforward_layernorm",
  },
  parse(fields) {
    fields.oneOf("attention_bias", [false]);
    return parseLlama(fields, "olmo2", {
      norm: rmsNorm(fields, "output", 1e-5),
      queryKeyNorm: "all",
    });
  },
  toJson: ({ head_dim: _, ...fields }) => ({ ...fields, attention_bias: false }),
});
