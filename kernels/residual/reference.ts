/**
 * The residual addition in float64.
 *
 * @module
 */

/** a + b, element by element. */
export function residualReference(a: ArrayLike<number>, b: ArrayLike<number>): Float64Array {
  return Float64Array.from(a, (value, n) => value + b[n]);
}
