/** Qwen2 and 2.5 (arXiv 2407.10671): queries, keys and values have biases. @module */
import { likeLlama } from "./like_llama.ts";
import { parseLlama, refuseWindows } from "./llama_fields.ts";

export const QWEN2 = likeLlama({
  type: "qwen2",
  architecture: "Qwen2ForCausalLM",
  parse(fields) {
    refuseWindows(fields);
    return parseLlama(fields, "qwen2", { biases: { qkv: true, other: false } });
  },
  // It knows no size of heads but its width's share.
  toJson: ({ head_dim: _, ...fields }) => ({ ...fields, use_sliding_window: false }),
});
