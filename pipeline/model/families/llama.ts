/** Llama 2 and 3 (arXiv 2302.13971, 2407.21783), and models in its form, such as SmolLM2 and TinyLlama. @module */
import { likeLlama } from "./like_llama.ts";
import { parseLlama } from "./llama_fields.ts";

export const LLAMA = likeLlama({
  type: "llama",
  architecture: "LlamaForCausalLM",
  parse(fields) {
    for (const field of ["attention_bias", "mlp_bias", "rope_interleaved"]) fields.oneOf(field, [false]);
    return parseLlama(fields, "llama");
  },
  toJson: (fields) => ({ ...fields, attention_bias: false, mlp_bias: false }),
});
