/**
 * The families that are known, by the `model_type` of their config.json.
 *
 * @module
 */
import type { ModelConfig } from "./config.ts";
import type { Family } from "./family.ts";
import { GPT2 } from "./families/gpt2.ts";

/** By `model_type`. */
export const FAMILIES: ReadonlyMap<string, Family> = new Map(
  [GPT2].map((family) => [family.type, family]),
);

/** The family of a model. */
export function familyOf({ architecture }: Pick<ModelConfig, "architecture">): Family {
  return FAMILIES.get(architecture?.family ?? GPT2.type)!;
}
