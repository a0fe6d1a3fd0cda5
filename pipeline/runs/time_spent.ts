/**
 * How long a run took, over all processes that it took.
 *
 * @module
 */
import type { MetricRow } from "./metrics.ts";

/**
 * Seconds in which the steps of a run were done: those of each phase in each process, whose clock starts again. What a kill
 * lost has no rows, and no part in it.
 */
export function timeSpent(rows: readonly Pick<MetricRow, "phase" | "seconds">[]): number {
  return rows.reduce((sum, { phase, seconds }, n) => {
    const next = rows[n + 1];
    const isLast = next === undefined || next.phase !== phase || next.seconds < seconds;
    return isLast ? sum + seconds : sum;
  }, 0);
}
