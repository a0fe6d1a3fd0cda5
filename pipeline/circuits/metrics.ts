/**
 * The numbers that circuits are compared by, as the field computes them: faithfulness along the number of edges, the
 * areas CPR and CMD (MIB, Mueller et al., arXiv 2504.13151), how many components it takes to restore most of the effect,
 * and how much of all that hangs on which prompts were drawn.
 *
 * Everything is plain arithmetic on metrics that were measured: nothing here runs a model.
 *
 * @module
 */
import type { RandomStream } from "../../kernels/core/random.ts";

/** Shares of all edges at which faithfulness is reported, as far as they are different numbers of edges. */
export const FRACTIONS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1] as const;

/**
 * Numbers of edges at {@link FRACTIONS} of `edges`, rounded, one at least. In a small graph several fractions come to the
 * same number, which is one circuit and counts once.
 */
export function chosenSizes(edges: number): number[] {
  return [...new Set(FRACTIONS.map((fraction) => Math.max(1, Math.round(fraction * edges))))];
}

/** Faithfulness that counts as most of the effect. */
export const MOST = 0.9;

/** A circuit that was run: its size and the metric of each prompt. */
export interface Measured {
  /** Edges, or heads. */
  size: number;
  /** Of each prompt. */
  metrics: ArrayLike<number>;
}

/** What a circuit's metrics are measured against: each prompt's metric with everything kept and with nothing. */
export interface Bounds {
  /** With everything kept. */
  full: ArrayLike<number>;
  /** With nothing kept. */
  empty: ArrayLike<number>;
}

/** An estimate with the interval in which 95 % of the bootstrap's lie; null where there is none. */
export interface Interval {
  /** The estimate. */
  value: number | null;
  /** The interval's lower end. */
  low: number | null;
  /** The interval's upper end. */
  high: number | null;
}

/** Mean over the elements that `chosen` lists, with repetitions; over all without it. */
export function mean(values: ArrayLike<number>, chosen?: ArrayLike<number>): number {
  let sum = 0;
  const count = chosen?.length ?? values.length;
  for (let n = 0; n < count; n++) sum += values[chosen ? chosen[n] : n];
  return sum / count;
}

/**
 * f = (M(C) − M(∅)) / (M(full) − M(∅)), of means over prompts. 1: the circuit does what the model does; above 1 it does
 * more.
 */
export function faithfulness(
  metrics: ArrayLike<number>,
  { full, empty }: Bounds,
  chosen?: ArrayLike<number>,
): number {
  const none = mean(empty, chosen);
  return (mean(metrics, chosen) - none) / (mean(full, chosen) - none);
}

/** Area under a curve given by its points in order of x, by trapezoids. */
export function area(points: readonly (readonly [x: number, y: number])[]): number {
  let sum = 0;
  for (let n = 1; n < points.length; n++) {
    sum += (points[n][0] - points[n - 1][0]) * (points[n][1] + points[n - 1][1]) / 2;
  }
  return sum;
}

/**
 * CPR = ∫ f dk, large for circuits that do much with few edges, and CMD = ∫ |1 − f| dk, small for circuits that do what
 * the model does, over the share k = n / E of the E edges that were chosen, by trapezoids between the circuits of
 * {@link chosenSizes}: from the smallest of them, 1 / E in a small graph, to 1.
 */
export function areas(
  curve: readonly { fraction: number; faithfulness: number }[],
): { cpr: number; cmd: number } {
  return {
    cpr: area(curve.map(({ fraction, faithfulness }) => [fraction, faithfulness])),
    cmd: area(curve.map(({ fraction, faithfulness }) => [fraction, Math.abs(1 - faithfulness)])),
  };
}

/**
 * Index of the smallest circuit on the ladder from which on all reach {@link MOST} of the effect: one that reaches it by
 * chance and is followed by others that do not is not counted. The ladder's length where not even the largest does.
 *
 * @param ladder in order of size
 */
function firstForMost(ladder: readonly Measured[], bounds: Bounds, chosen?: ArrayLike<number>): number {
  return ladder.findLastIndex(({ metrics }) => !(faithfulness(metrics, bounds, chosen) >= MOST)) + 1;
}

/** Size of the smallest circuit on the ladder from which on all reach {@link MOST}; null where the largest does not. */
export function sizeForMost(
  ladder: readonly Measured[],
  bounds: Bounds,
  chosen?: ArrayLike<number>,
): number | null {
  return ladder[firstForMost(ladder, bounds, chosen)]?.size ?? null;
}

/** A rung of a ladder: a circuit of the first `chosen` edges or heads of a ranking. */
export interface Rung extends Measured {
  /** How many were chosen; fewer are left where some of them lead nowhere. */
  chosen: number;
}

/**
 * Measures circuits between the last rung that does not reach {@link MOST} and the next, halving what lies between, and
 * puts them on the ladder. Then `sizeForMost` is exact: the circuit with one edge or head less was run and does not reach
 * it, and all larger ones that were run do.
 */
export async function bisectForMost(
  ladder: Rung[],
  bounds: Bounds,
  measure: (chosen: number) => Promise<Rung>,
): Promise<void> {
  for (;;) {
    const first = firstForMost(ladder, bounds);
    if (first === 0 || first === ladder.length) return;
    const [below, above] = [ladder[first - 1].chosen, ladder[first].chosen];
    if (above - below < 2) return;
    ladder.splice(first, 0, await measure((below + above) >> 1));
  }
}

/** Sizes from 1 to `most`, each at least one and about `ratio` times more than the one before, and those given. */
export function ladderSizes(most: number, ratio: number, also: readonly number[] = []): number[] {
  const sizes = new Set(also.filter((size) => size >= 1 && size <= most));
  for (let size = 1; size < most; size = Math.max(size + 1, Math.round(size * ratio))) sizes.add(size);
  sizes.add(most);
  return [...sizes].sort((a, b) => a - b);
}

/** Indices drawn with replacement from 0 … count − 1. */
export function resample(count: number, random: RandomStream): Uint32Array {
  return Uint32Array.from({ length: count }, () => random.below(count));
}

/** Values at the shares `low` and `high` of a sorted list. */
function percentiles(values: number[], low: number, high: number): [number, number] {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.round(share * (sorted.length - 1))];
  return [at(low), at(high)];
}

/** Prompts below which draws say too little: of two, half of the draws are one of them alone. */
export const FEWEST_PROMPTS = 5;

/**
 * The bootstrap's interval of a statistic of prompts: it is computed again for each of `draws` draws of as many prompts,
 * with replacement. Draws for which it does not exist are left out; where that is more than one in twenty, or fewer than
 * {@link FEWEST_PROMPTS} are drawn from, there is no interval.
 *
 * @param counts prompts of each set that is drawn from, drawn independently of one another
 */
export function bootstrap(
  counts: readonly number[],
  statistic: (...chosen: (Uint32Array | undefined)[]) => number | null,
  { draws, random }: { draws: number; random: RandomStream },
): Interval {
  const value = statistic(...counts.map(() => undefined));
  const found: number[] = [];
  for (let draw = 0; draw < draws; draw++) {
    const drawn = statistic(...counts.map((count) => resample(count, random)));
    if (drawn !== null && Number.isFinite(drawn)) found.push(drawn);
  }
  const exists = value !== null && Number.isFinite(value);
  const enough = Math.min(...counts) >= FEWEST_PROMPTS && found.length >= 0.95 * draws;
  if (!exists || !enough) return { value: exists ? value : null, low: null, high: null };
  const [low, high] = percentiles(found, 0.025, 0.975);
  return { value, low, high };
}

/** |A ∩ B| / |A ∪ B| of two sets given as 0/1; 1 for two empty ones. */
export function jaccard(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let both = 0;
  let either = 0;
  for (let n = 0; n < a.length; n++) {
    if (a[n] && b[n]) both++;
    if (a[n] || b[n]) either++;
  }
  return either === 0 ? 1 : both / either;
}

/** Spearman's rank correlation; equal values share their mean rank. NaN where one side is constant. */
export function rankCorrelation(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const [x, y] = [ranks(a), ranks(b)];
  const middle = (a.length - 1) / 2;
  let product = 0;
  let ofX = 0;
  let ofY = 0;
  for (let n = 0; n < x.length; n++) {
    product += (x[n] - middle) * (y[n] - middle);
    ofX += (x[n] - middle) ** 2;
    ofY += (y[n] - middle) ** 2;
  }
  return product / Math.sqrt(ofX * ofY);
}

function ranks(values: ArrayLike<number>): Float64Array {
  const order = Array.from({ length: values.length }, (_, n) => n).sort((a, b) => values[a] - values[b]);
  const result = new Float64Array(values.length);
  for (let first = 0; first < order.length;) {
    let last = first;
    while (last + 1 < order.length && values[order[last + 1]] === values[order[first]]) last++;
    for (let n = first; n <= last; n++) result[order[n]] = (first + last) / 2;
    first = last + 1;
  }
  return result;
}
