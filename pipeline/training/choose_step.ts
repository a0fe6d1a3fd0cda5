/**
 * Which evaluation's weights are the result of a phase.
 *
 * @module
 */
import type { Best } from "../runs/resume.ts";

/**
 * Which step a phase would end with after another evaluation: of those at or below the target the one with the fewest
 * open edges, the earlier of equals; undefined while there is none.
 *
 * @param best what was chosen before, which a target that was lowered meanwhile may rule out
 * @param target τ, nats
 */
export function chooseStep(best: Best | undefined, evaluated: Best, target: number): Best | undefined {
  const before = meeting(best, target);
  // A loss that is no number meets no target.
  if (!meeting(evaluated, target)) return before;
  return before && before.openFraction <= evaluated.openFraction ? before : evaluated;
}

/** The step, where it meets the target. */
export function meeting(step: Best | undefined, target: number): Best | undefined {
  return step && step.ce <= target ? step : undefined;
}
