/**
 * How far one array stands from another.
 *
 * @module
 */
import { AssertionError } from "@std/assert";

/**
 * The relative error in the Euclidean norm, ‖actual − expected‖₂ / ‖expected‖₂. Where all of `expected` is zero it is
 * 0 if `actual` is zero too, and Infinity otherwise: compare such arrays with {@link maxAbsoluteError}.
 *
 * @param actual What was computed.
 * @param expected What it should be, of the same length.
 * @returns The error, 0 or more, without unit.
 * @throws {RangeError} If the lengths differ or a value is not finite.
 *
 * @example
 * ```ts
 * import { relativeError } from "./compare.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(relativeError([3, 5], [3, 4]), 0.2);
 * ```
 */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  assertComparable(actual, expected);
  let difference = 0;
  let norm = 0;
  for (let n = 0; n < expected.length; n++) {
    difference += (actual[n] - expected[n]) ** 2;
    norm += expected[n] ** 2;
  }
  return difference === 0 ? 0 : Math.sqrt(difference / norm);
}

/**
 * The largest absolute difference of two elements, max |actual − expected|.
 *
 * @param actual What was computed.
 * @param expected What it should be, of the same length.
 * @returns The error, 0 or more, in the arrays' unit; 0 for empty arrays.
 * @throws {RangeError} If the lengths differ or a value is not finite.
 */
export function maxAbsoluteError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  assertComparable(actual, expected);
  const worst = worstIndex(actual, expected);
  return expected.length === 0 ? 0 : Math.abs(actual[worst] - expected[worst]);
}

/**
 * Fails unless the {@link relativeError} is at most `tolerance`; the message gives the measured error and the element
 * that is furthest off.
 *
 * @param actual What was computed.
 * @param expected What it should be, of the same length.
 * @param options.tolerance The largest relative error allowed.
 * @param options.name What the arrays are, for the message.
 * @throws {AssertionError} If the error exceeds the tolerance.
 * @throws {RangeError} If the lengths differ or a value is not finite.
 */
export function assertClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  { tolerance, name }: { tolerance: number; name: string },
): void {
  assertComparable(actual, expected, name);
  const error = relativeError(actual, expected);
  if (error <= tolerance) return;
  const worst = worstIndex(actual, expected);
  throw new AssertionError({
    message:
      `Cannot take ${name} as close: relative error ${error.toExponential(2)} is above ${tolerance}; ` +
      `furthest off at index ${worst}: ${actual[worst]} instead of ${expected[worst]}`,
    stackStartFn: assertClose,
  });
}

function worstIndex(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let worst = 0;
  for (let n = 1; n < expected.length; n++) {
    if (Math.abs(actual[n] - expected[n]) > Math.abs(actual[worst] - expected[worst])) worst = n;
  }
  return worst;
}

function assertComparable(actual: ArrayLike<number>, expected: ArrayLike<number>, name = "arrays"): void {
  if (actual.length !== expected.length) {
    throw new RangeError(
      `Cannot compare ${name} as the lengths must agree: ${actual.length} actual, ${expected.length} expected`,
    );
  }
  for (const [side, values] of Object.entries({ actual, expected })) {
    for (let n = 0; n < values.length; n++) {
      if (!Number.isFinite(values[n])) {
        throw new RangeError(
          `Cannot compare ${name} as values must be finite: ${side}[${n}] is ${values[n]}`,
        );
      }
    }
  }
}
