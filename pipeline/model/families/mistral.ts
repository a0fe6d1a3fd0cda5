/** Mistral (arXiv 2310.06825), where no window is shorter than the context. @module */
import { likeLlama, parseLlama, refuseWindows } from "./like_llama.ts";

export const MISTRAL = likeLlama({
  type: "mistral",
  architecture: "MistralForCausalLM",
  parse(fields) {
    refuseWindows(fields);
    return parseLlama(fields, "mistral");
  },
  toJson: (fields) => ({ ...fields, sliding_window: null }),
});
