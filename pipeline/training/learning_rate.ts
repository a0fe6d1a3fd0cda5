/**
 * The learning rate over a run.
 *
 * @module
 */

/** Shape of the schedule. */
export interface LearningRateSchedule {
  /** Learning rate between warm-up and decay. */
  peak: number;
  /** Steps over which it rises linearly from 0. */
  warmup: number;
  /** Share of all steps, at the end, over which it falls linearly to 0. */
  decay: number;
  /** Steps of the whole run. */
  steps: number;
}

/**
 * The learning rate of step `step`, counted from 0.
 *
 * @example
 * ```ts
 * import { learningRate } from "./learning_rate.ts";
 *
 * const schedule = { peak: 1e-3, warmup: 10, decay: 0.5, steps: 100 };
 * learningRate(schedule, 4); // 5e-4
 * learningRate(schedule, 49); // 1e-3
 * learningRate(schedule, 99); // 2e-5
 * ```
 */
export function learningRate({ peak, warmup, decay, steps }: LearningRateSchedule, step: number): number {
  const rising = warmup > 0 ? Math.min(1, (step + 1) / warmup) : 1;
  const decaySteps = decay * steps;
  const falling = decaySteps > 0 ? Math.min(1, (steps - step) / decaySteps) : 1;
  return peak * Math.min(rising, falling);
}
