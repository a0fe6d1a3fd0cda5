/**
 * Rounding to half precision.
 *
 * @module
 */

/** The nearest float16 of each value; past ±65504 that, and of NaN NaN. */
export function roundingReference(values: ArrayLike<number>): Float64Array {
  const bounded = Array.from(values, (value) => Math.min(Math.max(value, -65504), 65504));
  return Float64Array.from(Float16Array.from(bounded));
}
