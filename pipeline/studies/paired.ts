/**
 * Differences between runs of the same seeds: the seed is the unit, and what two settings share drops out.
 *
 * @module
 */
import { type Interval, intervalOf, type SweepRow } from "../sweep/results.ts";

/** A mean with both ends of its 95 % interval, which are null with fewer than two seeds. */
export interface Estimate {
  mean: number;
  low: number | null;
  high: number | null;
  /** Seeds that it is over. */
  seeds: number;
}

/** Values of finished runs by seed. */
export function bySeed<Summary>(
  rows: readonly SweepRow[],
  read: (summary: Summary) => number,
): Map<number | undefined, number> {
  return new Map(
    rows.flatMap(({ run, summary }) => summary ? [[run.seed, read(summary as unknown as Summary)]] : []),
  );
}

/** The pairs of values of the seeds that both have. */
function pairs(
  values: ReadonlyMap<number | undefined, number>,
  others: ReadonlyMap<number | undefined, number>,
): [number, number][] {
  return [...values].flatMap(([seed, value]) => {
    const other = others.get(seed);
    return other === undefined ? [] : [[value, other] satisfies [number, number]];
  });
}

/** Mean difference of values to others over the seeds that both have, with Student's interval. */
export function pairedDifference(
  values: ReadonlyMap<number | undefined, number>,
  others: ReadonlyMap<number | undefined, number>,
): Estimate | null {
  const differences = pairs(values, others).map(([value, other]) => value - other);
  return estimateOf(intervalOf(differences), differences.length, (value) => value);
}

/** Geometric mean of the ratio of values to others, its interval taken on the logarithms; null where one is not above 0. */
export function pairedRatio(
  values: ReadonlyMap<number | undefined, number>,
  others: ReadonlyMap<number | undefined, number>,
): Estimate | null {
  const all = pairs(values, others);
  if (all.some(([value, other]) => !(value > 0 && other > 0))) return null;
  const logs = all.map(([value, other]) => Math.log(value / other));
  return estimateOf(intervalOf(logs), logs.length, Math.exp);
}

function estimateOf(
  interval: Interval | null,
  seeds: number,
  back: (value: number) => number,
): Estimate | null {
  if (!interval) return null;
  const { mean, half } = interval;
  return {
    mean: back(mean),
    low: half === null ? null : back(mean - half),
    high: half === null ? null : back(mean + half),
    seeds,
  };
}

/** Whether an interval does not hold the value at which nothing differs. */
export function differs({ low, high }: Estimate, from: number): boolean {
  return low !== null && high !== null && (low > from || high < from);
}

/** `1.24 (1.05 to 1.46)`. */
export function estimateText(estimate: Estimate | null, text: (value: number) => string): string {
  if (!estimate) return "–";
  const { mean, low, high } = estimate;
  return text(mean) + (low === null || high === null ? "" : ` (${text(low)} to ${text(high)})`);
}
