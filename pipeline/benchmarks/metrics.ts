/**
 * What is reported of a benchmark: means with standard errors, and the difference between two models on the same items.
 *
 * @module
 */
import { randomStream } from "../../kernels/core/random.ts";

/** A mean of items, with its standard error. */
export interface Mean {
  value: number;
  /** The items' sample deviation over √n; NaN of one item. */
  error: number;
}

/** The mean and its standard error. */
export function meanOf(values: readonly number[]): Mean {
  const count = values.length;
  const value = values.reduce((sum, each) => sum + each, 0) / count;
  const squares = values.reduce((sum, each) => sum + (each - value) ** 2, 0);
  return { value, error: count > 1 ? Math.sqrt(squares / (count - 1) / count) : NaN };
}

/** The first of the largest. */
export function largestAt(values: readonly number[]): number {
  return values.reduce((best, value, n) => value > values[best] ? n : best, 0);
}

/** Share of the probability of all choices that is on the right ones: the largest is taken out first, lest all be 0. */
export function shareOfRight(logLikelihoods: readonly number[], right: readonly boolean[]): number {
  const most = Math.max(...logLikelihoods);
  const weights = logLikelihoods.map((each) => Math.exp(each - most));
  const sum = weights.reduce((total, each) => total + each, 0);
  return weights.reduce((total, each, n) => right[n] ? total + each : total, 0) / sum;
}

/**
 * McNemar's exact test, two-sided: how likely a split as uneven as this is, of the items that one model alone has right,
 * where each had the same chance of them.
 *
 * @param first items that the first model alone has right
 * @param second and the second
 */
export function exactMcNemar(first: number, second: number): number {
  const count = first + second;
  // log C(count, k), one after the other.
  let logChoose = 0;
  let tail = 0;
  for (let k = 0; k <= Math.min(first, second); k++) {
    if (k > 0) logChoose += Math.log(count - k + 1) - Math.log(k);
    tail += Math.exp(logChoose - count * Math.LN2);
  }
  return Math.min(1, 2 * tail);
}

/** The difference between two models. */
export interface Difference {
  /** The first's less the second's. */
  value: number;
  /** Of the middle 95 % of resampled differences. */
  low: number;
  high: number;
}

/** Times that items are drawn anew. */
const RESAMPLES = 2000;

/**
 * The difference of a statistic between two models, with an interval by bootstrap over the items, which are the same for
 * both.
 *
 * @param statistic of the items with these indices, of either model
 * @param seed of the draws
 */
export function bootstrapDifference(
  count: number,
  statistic: (items: Uint32Array, model: "first" | "second") => number,
  seed: number,
): Difference {
  const difference = (items: Uint32Array): number => statistic(items, "first") - statistic(items, "second");
  const random = randomStream(seed, count);
  const drawn = new Uint32Array(count);
  const found = new Float64Array(RESAMPLES);
  for (let n = 0; n < RESAMPLES; n++) {
    for (let item = 0; item < count; item++) drawn[item] = random.below(count);
    found[n] = difference(drawn);
  }
  found.sort();
  return {
    value: difference(Uint32Array.from({ length: count }, (_, item) => item)),
    low: found[Math.floor(0.025 * (RESAMPLES - 1))],
    high: found[Math.ceil(0.975 * (RESAMPLES - 1))],
  };
}
