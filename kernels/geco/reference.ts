/**
 * One update of GECO's multiplier in float64.
 *
 * @module
 */

/** The new λ and average after a measured violation CE − τ, and the multiplier that acts. */
export function gecoReference(
  state: { lambda: number; average: number },
  violation: number,
  settings: { scale: number; alpha: number; rate: number; gain: number; lowest: number; highest: number },
): { lambda: number; average: number; acting: number } {
  const { scale, alpha, rate, gain, lowest, highest } = settings;
  const clip = (value: number): number => Math.min(Math.max(value, lowest), highest);
  const constraint = Math.min(Math.max(violation / scale, -1), 1);
  const average = alpha * state.average + (1 - alpha) * constraint;
  const lambda = clip(state.lambda * Math.exp(rate * average));
  return { average, lambda, acting: clip(lambda * Math.exp(gain * average)) };
}
