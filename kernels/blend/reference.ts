/**
 * The blend in float64.
 *
 * @module
 */

/** A weighted sum of a and b, element by element. */
export function blendReference(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  weights: { a: number; b: number },
): Float64Array {
  return Float64Array.from(a, (value, n) => weights.a * value + weights.b * b[n]);
}
