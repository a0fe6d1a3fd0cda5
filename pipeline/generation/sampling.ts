/**
 * Which token comes next, from its logits: on the host, in float64, by random numbers of our own, so that a seed gives the
 * same text on every machine whose logits have the same bits.
 *
 * @module
 */
import { randomStream } from "../../kernels/core/random.ts";

/** How tokens are drawn. */
export interface SamplingSettings {
  /** Logits are divided by it before the softmax; 0 takes the highest. */
  temperature: number;
  /** Only the likeliest tokens are drawn, as few as have this probability together; 1: all. Above 0. */
  topP: number;
  /** Keys the random numbers. */
  seed: number;
}

/** Tokens and their probabilities, which sum to 1; see {@link distribution}. */
export interface Distribution {
  tokens: Uint32Array;
  probabilities: Float64Array;
}

/** The token of the highest logit; of equals the first. */
export function highest(logits: ArrayLike<number>): number {
  let best = 0;
  for (let token = 1; token < logits.length; token++) if (logits[token] > logits[best]) best = token;
  if (!Number.isFinite(logits[best])) {
    throw new RangeError(`Cannot choose a token as its logit must be finite: ${logits[best]}`);
  }
  return best;
}

/**
 * What tokens are drawn from at a temperature above 0: where top-p leaves some out, the likeliest come first, of equals
 * that of the lower id.
 */
export function distribution(
  logits: ArrayLike<number>,
  { temperature, topP }: Pick<SamplingSettings, "temperature" | "topP">,
): Distribution {
  const most = logits[highest(logits)];
  const all = Float64Array.from(logits, (logit) => Math.exp((logit - most) / temperature));
  const total = all.reduce((sum, weight) => sum + weight, 0);
  if (topP >= 1) {
    return { tokens: Uint32Array.from(all.keys()), probabilities: all.map((weight) => weight / total) };
  }
  // Tokens below this have less than 1 - topP together: sorting the others is enough.
  const least = total * (1 - topP) / all.length;
  const likeliest = [...all.keys()].filter((token) => all[token] >= least)
    .sort((a, b) => all[b] - all[a] || a - b);
  let kept = 0;
  let count = 0;
  while (count < likeliest.length && kept < topP * total) kept += all[likeliest[count++]];
  const tokens = Uint32Array.from(likeliest.slice(0, count));
  return { tokens, probabilities: Float64Array.from(tokens, (token) => all[token] / kept) };
}

/**
 * Creates what draws one token after the other.
 *
 * @throws {RangeError} when the temperature is below 0, top-p not above 0 and at most 1, or the seed no whole number from 0
 */
export function createSampler(
  { temperature, topP, seed }: SamplingSettings,
): (logits: ArrayLike<number>) => number {
  if (!(temperature >= 0 && temperature < Infinity)) {
    throw new RangeError(`Cannot sample as the temperature must be a number from 0: ${temperature}`);
  }
  if (!(topP > 0 && topP <= 1)) {
    throw new RangeError(`Cannot sample as top-p must be above 0 and at most 1: ${topP}`);
  }
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new RangeError(`Cannot sample as the seed must be a whole number from 0: ${seed}`);
  }
  if (temperature === 0) return highest;
  const stream = randomStream(seed);
  return (logits) => {
    const { tokens, probabilities } = distribution(logits, { temperature, topP });
    let left = stream.uniform();
    for (let n = 0; n < tokens.length; n++) {
      left -= probabilities[n];
      if (left < 0) return tokens[n];
    }
    // Rounding may leave a little of 1: to the last that has any.
    return tokens[probabilities.findLastIndex((probability) => probability > 0)];
  };
}
