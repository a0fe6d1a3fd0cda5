/**
 * Scores of items, and what they come to, as lm-evaluation-harness has them (lm_eval/api/task.py and metrics.py, 0.4.13).
 *
 * @module
 */
import type { Item } from "./items.ts";
import type { Likelihood } from "./likelihood.ts";
import {
  bootstrapDifference,
  type Difference,
  exactMcNemar,
  largestAt,
  type Mean,
  meanOf,
  shareOfRight,
} from "./metrics.ts";
import type { Scoring } from "./tasks.ts";

/** What a model makes of one item. */
export interface ItemScore {
  /** Of each choice; of a document's windows together. */
  logLikelihoods: readonly number[];
  greedy: readonly boolean[];
  /** 1 where it is right, 0 where not; a share of probability; NaN of a document. */
  acc: number;
  /** The same by log-likelihood for each character; NaN where that is nothing. */
  accNorm: number;
}

/** Scores an item. */
export function scoreItem(item: Item, scoring: Scoring, likelihoods: readonly Likelihood[]): ItemScore {
  const logLikelihoods = likelihoods.map(({ logLikelihood }) => logLikelihood);
  const greedy = likelihoods.map((each) => each.greedy);
  if (item.kind === "rolling") {
    const logLikelihood = logLikelihoods.reduce((sum, each) => sum + each, 0);
    return { logLikelihoods: [logLikelihood], greedy: [greedy.every(Boolean)], acc: NaN, accNorm: NaN };
  }
  if (item.kind === "word") return { logLikelihoods, greedy, acc: greedy[0] ? 1 : 0, accNorm: NaN };
  const { right, lengths } = item;
  if (scoring === "probability") {
    return { logLikelihoods, greedy, acc: shareOfRight(logLikelihoods, right), accNorm: NaN };
  }
  const isRight = (values: readonly number[]): number => right[largestAt(values)] ? 1 : 0;
  return {
    logLikelihoods,
    greedy,
    acc: isRight(logLikelihoods),
    accNorm: isRight(logLikelihoods.map((each, n) => each / lengths[n])),
  };
}

/** A mean, as JSON has it. */
interface Reported {
  n: number;
  acc: number | null;
  acc_stderr: number | null;
  acc_norm: number | null;
  acc_norm_stderr: number | null;
}

/** A mean of items that have what they ask for at like places. */
export interface PlacedMean extends Pick<Reported, "n" | "acc" | "acc_stderr"> {
  /** Mean of their tokens between it and where it is asked for. */
  distance: number;
}

/** What a model's scores come to. */
export interface BenchmarkScore extends Reported {
  /** Of words, exp of minus their mean log-likelihood; its error to first order. */
  perplexity?: number;
  perplexity_stderr?: number | null;
  /** Of documents. */
  word_perplexity?: number;
  byte_perplexity?: number;
  bits_per_byte?: number;
  /** Of a benchmark of several sets, each; the whole is their mean, whatever their sizes. */
  sets?: Record<string, Reported>;
  /** Of texts that were made to have the word, by their length and by the share of filler before it, %. */
  by_length?: readonly (PlacedMean & { length: number })[];
  by_depth?: readonly (PlacedMean & { depth: number })[];
}

/** A number that JSON can hold. */
const finite = (value: number): number | null => Number.isFinite(value) ? value : null;

function reported(scores: readonly ItemScore[]): Reported {
  const [acc, accNorm] = [meanOf(scores.map(({ acc }) => acc)), meanOf(scores.map(({ accNorm }) => accNorm))];
  return {
    n: scores.length,
    acc: finite(acc.value),
    acc_stderr: finite(acc.error),
    acc_norm: finite(accNorm.value),
    acc_norm_stderr: finite(accNorm.error),
  };
}

/** Indices of items by their set; undefined where they have none. */
function setsOf(items: readonly Item[]): Map<string, number[]> | undefined {
  const sets = new Map<string, number[]>();
  for (const [index, item] of items.entries()) {
    const set = item.kind === "choices" ? item.set : undefined;
    if (set === undefined) return undefined;
    const ofSet = sets.get(set);
    if (ofSet) ofSet.push(index);
    else sets.set(set, [index]);
  }
  return sets;
}

/** Means by length and by depth, the least first; undefined of items that have neither. */
function byPlace(
  items: readonly Item[],
  scores: readonly ItemScore[],
): Pick<BenchmarkScore, "by_length" | "by_depth"> | undefined {
  const needles = items.map((item) => item.kind === "word" ? item.needle : undefined);
  if (needles.includes(undefined)) return undefined;
  const placed = needles.flatMap((needle, n) => needle ? [{ ...needle, score: scores[n] }] : []);
  const over = (place: "length" | "depth"): [number, PlacedMean][] =>
    [...Map.groupBy(placed, (each) => each[place])].toSorted(([a], [b]) => a - b).map(([value, of]) => {
      const { n, acc, acc_stderr } = reported(of.map(({ score }) => score));
      return [value, { n, acc, acc_stderr, distance: meanOf(of.map(({ distance }) => distance)).value }];
    });
  return {
    by_length: over("length").map(([length, mean]) => ({ length, ...mean })),
    by_depth: over("depth").map(([depth, mean]) => ({ depth, ...mean })),
  };
}

/** Log-likelihood of all documents, over their bytes or words. */
function perUnit(
  items: readonly Item[],
  scores: readonly ItemScore[],
  unit: "words" | "bytes",
  of: ArrayLike<number>,
): number {
  let [sum, units] = [0, 0];
  for (let n = 0; n < of.length; n++) {
    const item = items[of[n]];
    sum += scores[of[n]].logLikelihoods[0];
    units += item.kind === "rolling" ? item[unit] : 0;
  }
  return sum / units;
}

/** What scores come to. */
export function scoreOf(
  items: readonly Item[],
  scoring: Scoring,
  scores: readonly ItemScore[],
): BenchmarkScore {
  const whole = reported(scores);
  if (scoring === "rolling") {
    const all = items.map((_, n) => n);
    const [byWord, byByte] = [perUnit(items, scores, "words", all), perUnit(items, scores, "bytes", all)];
    return {
      ...whole,
      word_perplexity: Math.exp(-byWord),
      byte_perplexity: Math.exp(-byByte),
      bits_per_byte: -byByte / Math.LN2,
    };
  }
  if (scoring === "word") {
    const { value, error }: Mean = meanOf(scores.map(({ logLikelihoods: [each] }) => each));
    const perplexity = Math.exp(-value);
    return {
      ...whole,
      perplexity,
      perplexity_stderr: finite(perplexity * error),
      ...byPlace(items, scores),
    };
  }
  const sets = setsOf(items);
  if (!sets) return whole;
  const each = [...sets].map(([name, indices]) => [name, reported(indices.map((n) => scores[n]))] as const);
  const over = (field: "acc" | "acc_norm"): Pick<Reported, "acc" | "acc_stderr"> => {
    const values = each.map(([, set]) => set[field] ?? NaN);
    const errors = each.map(([, set]) => set[`${field}_stderr`] ?? NaN);
    return {
      acc: finite(meanOf(values).value),
      acc_stderr: finite(Math.hypot(...errors) / errors.length),
    };
  };
  const [acc, accNorm] = [over("acc"), over("acc_norm")];
  return {
    n: whole.n,
    ...acc,
    acc_norm: accNorm.acc,
    acc_norm_stderr: accNorm.acc_stderr,
    sets: Object.fromEntries(each),
  };
}

/** How far apart two models are. */
export type Differences = Record<string, Difference & { p_value?: number }>;

/**
 * Compares two models on the same items.
 *
 * @param seed of the bootstrap
 * @returns by metric, the first's less the second's; `p_value` by McNemar's exact test where items are right or wrong
 */
export function compareScores(
  items: readonly Item[],
  scoring: Scoring,
  first: readonly ItemScore[],
  second: readonly ItemScore[],
  seed: number,
): Differences {
  const of = { first, second };
  const sets = setsOf(items);
  /** Of each item the place of its set: asked once for each that is drawn, of which there are many. */
  const setOf = new Uint32Array(items.length);
  for (const [set, indices] of [...sets?.values() ?? []].entries()) {
    for (const index of indices) setOf[index] = set;
  }

  /** The mean, of several sets their mean. */
  function mean(drawn: Uint32Array, value: (index: number) => number): number {
    const sums = new Float64Array(sets?.size ?? 1);
    const counts = new Float64Array(sums.length);
    for (const index of drawn) {
      const set = setOf[index];
      sums[set] += value(index);
      counts[set]++;
    }
    // A set of which none was drawn says nothing this time.
    const means = Array.from(sums, (sum, set) => sum / counts[set]).filter(Number.isFinite);
    return meanOf(means).value;
  }

  const difference = (statistic: (scores: readonly ItemScore[], drawn: Uint32Array) => number): Difference =>
    bootstrapDifference(items.length, (drawn, model) => statistic(of[model], drawn), seed);
  const right = (metric: "acc" | "accNorm"): Differences[string] => {
    const alone = (a: readonly ItemScore[], b: readonly ItemScore[]): number =>
      a.filter((score, n) => score[metric] === 1 && b[n][metric] === 0).length;
    return {
      ...difference((scores, drawn) => mean(drawn, (index) => scores[index][metric])),
      ...(scoring === "probability"
        ? {}
        : { p_value: exactMcNemar(alone(first, second), alone(second, first)) }),
    };
  };
  if (scoring === "rolling") {
    return {
      bits_per_byte: difference((scores, drawn) => -perUnit(items, scores, "bytes", drawn) / Math.LN2),
    };
  }
  if (scoring === "word") {
    const perplexity = (scores: readonly ItemScore[], drawn: Uint32Array): number =>
      Math.exp(-mean(drawn, (index) => scores[index].logLikelihoods[0]));
    return { acc: right("acc"), perplexity: difference(perplexity) };
  }
  return scoring === "choices" ? { acc: right("acc"), acc_norm: right("accNorm") } : { acc: right("acc") };
}
