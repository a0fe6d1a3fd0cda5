/**
 * The logit lens (nostalgebraist 2020): what a model would say if the residual stream behind each layer were its last, by
 * the final norm and the head alone.
 *
 * @module
 */
import { activationAxes } from "../model/activation_names.ts";
import { likeliest, type LikelyToken } from "../model/likeliest.ts";
import type { Interventions } from "./interventions.ts";
import type { ModelConfig } from "../model/config.ts";

/** A token that comes next, and how likely. */
export interface LensToken extends LikelyToken {
  /** What it spells inside a text. */
  text: string;
}

/** What the residual stream says at one depth. */
export interface LensLayer {
  /** The stream: `blocks.0.hook_resid_pre`, then each layer's `hook_resid_post`, of which the last is what the model says. */
  activation: string;
  /** The likeliest tokens behind each position asked for, the likeliest first. */
  positions: LensToken[][];
}

/**
 * Looks at one prompt's residual stream behind the embedding and behind each layer.
 *
 * @param runs compiled for one prompt of as many tokens
 * @param read runs that prompt and reads activations by name
 * @param options.at positions
 * @throws {RangeError} when `top` is no number of tokens that there are, or a position is none of the prompt's
 */
export async function lensOf(
  runs: Interventions,
  { config, spell }: { config: ModelConfig; spell(token: number): string },
  read: (names: readonly string[]) => Promise<ReadonlyMap<string, { values: Float32Array }>>,
  { top, at }: { top: number; at: readonly number[] },
): Promise<LensLayer[]> {
  const { vocabularySize } = config;
  if (!(Number.isInteger(top) && top >= 1 && top <= vocabularySize)) {
    throw new RangeError(`Cannot name the likeliest tokens as there are 1 to ${vocabularySize}: ${top}`);
  }
  const names = [...activationAxes(config).keys()]
    .filter((name) => name === "blocks.0.hook_resid_pre" || name.endsWith(".hook_resid_post"));
  const activations = await read(names);
  const layers: LensLayer[] = [];
  for (const activation of names) {
    const logits = await runs.logitsOfStream(activations.get(activation)!.values, at);
    const positions = at.map((_, n) =>
      likeliest(logits.subarray(n * vocabularySize, (n + 1) * vocabularySize), top)
        .map(({ token, logProbability }) => ({ token, text: spell(token), logProbability }))
    );
    layers.push({ activation, positions });
  }
  return layers;
}
