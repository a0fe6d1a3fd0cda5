/** Qwen3 (arXiv 2505.09388): a norm on each query and key. @module */
import { likeLlama } from "./like_llama.ts";
import { parseLlama, refuseWindows } from "./llama_fields.ts";

export const QWEN3 = likeLlama({
  type: "qwen3",
  architecture: "Qwen3ForCausalLM",
  parse(fields) {
    refuseWindows(fields);
    fields.oneOf("attention_bias", [false]);
    return parseLlama(fields, "qwen3", { queryKeyNorm: "head", headSize: 128 });
  },
  toJson: (fields) => ({ ...fields, use_sliding_window: false, attention_bias: false }),
});
