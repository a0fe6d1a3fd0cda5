/**
 * One update of GECO's multiplier in float64.
 *
 * @module
 */

/** The new λ and average after a measured violation CE − τ. */
export function gecoReference(
  state: { lambda: number; average: number },
  violation: number,
  settings: { scale: number; alpha: number; rate: number; lowest: number; highest: number },
): { lambda: number; average: number } {
  const { scale, alpha, rate, lowest, highest } = settings;
  const constraint = Math.min(Math.max(violation / scale, -1), 1);
  const average = alpha * state.average + (1 - alpha) * constraint;
  return { average, lambda: Math.min(Math.max(state.lambda * Math.exp(rate * average), lowest), highest) };
}
