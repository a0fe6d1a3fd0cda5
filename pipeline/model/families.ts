/**
 * The families that are known, by the `model_type` of their config.json.
 *
 * @module
 */
import type { ModelConfig } from "./config.ts";
import type { Family } from "./family.ts";
import { GPT2 } from "./families/gpt2.ts";
import { GPT_NEOX } from "./families/gpt_neox.ts";
import { LLAMA } from "./families/llama.ts";
import { MISTRAL } from "./families/mistral.ts";
import { OLMO } from "./families/olmo.ts";
import { OLMO2 } from "./families/olmo2.ts";
import { QWEN2 } from "./families/qwen2.ts";
import { QWEN3 } from "./families/qwen3.ts";

/** By `model_type`. */
export const FAMILIES: ReadonlyMap<string, Family> = new Map(
  [GPT2, GPT_NEOX, LLAMA, MISTRAL, OLMO, OLMO2, QWEN2, QWEN3].map((family) => [family.type, family]),
);

/** The family of a model. */
export function familyOf({ family }: Pick<ModelConfig, "family">): Family {
  return FAMILIES.get(family)!;
}
