/**
 * The clip in float64.
 *
 * @module
 */

/** y = x, but no further from 0 than `limit`. */
export function clipReference(x: ArrayLike<number>, limit: number): Float64Array {
  return Float64Array.from(x, (value) => Math.max(-limit, Math.min(limit, value)));
}

/** dx for a gradient dy into y: dy where x is within the limit, which itself is, and 0 beyond. */
export function clipGradientReference(
  x: ArrayLike<number>,
  dy: ArrayLike<number>,
  limit: number,
): Float64Array {
  return Float64Array.from(x, (value, n) => Math.abs(value) <= limit ? dy[n] : 0);
}
