/** Mistral (arXiv 2310.06825), where no window is shorter than the context. @module */
import { likeLlama } from "./like_llama.ts";
import { parseLlama, refuseWindows } from "./llama_fields.ts";

export const MISTRAL = likeLlama({
  type: "mistral",
  architecture: "MistralForCausalLM",
  parse(fields) {
    refuseWindows(fields, 4096);
    return parseLlama(fields, "mistral");
  },
  toJson: (fields) => ({ ...fields, sliding_window: null }),
});
