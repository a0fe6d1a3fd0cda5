import { gpt2Config, type ModelConfig } from "../../pipeline/model/config.ts";

/** GPT-2 124M's sizes. */
export const GPT2: ModelConfig = gpt2Config({
  vocabularySize: 50257,
  contextLength: 1024,
  width: 768,
  layers: 12,
  heads: 12,
  mlpWidth: 3072,
});
