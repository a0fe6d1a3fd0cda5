/**
 * Differentiates a function numerically, to check a gradient that was derived by hand.
 *
 * @module
 */

/**
 * The gradient of `f` at `x` by central differences, (f(x + h eₙ) − f(x − h eₙ)) / 2h for every n. The error is of the
 * order h² f''' plus 1e-16 |f| / h; for functions of order one the default step leaves about 1e-10.
 *
 * @param f A scalar function. It gets a copy of `x` that it may not keep.
 * @param x Where to differentiate; left as it is.
 * @param options.step h, 1e-5 unless given.
 * @returns df/dx, of the length of `x`.
 * @throws {RangeError} If the step is not positive or `f` gives a value that is not finite.
 *
 * @example
 * ```ts
 * import { centralDifference } from "./gradient_check.ts";
 * import { assertAlmostEquals } from "@std/assert";
 *
 * const [slope] = centralDifference((x) => x[0] ** 2, Float64Array.of(3));
 * assertAlmostEquals(slope, 6, 1e-8);
 * ```
 */
export function centralDifference(
  f: (x: Float64Array) => number,
  x: Float64Array,
  { step = 1e-5 }: { step?: number } = {},
): Float64Array {
  if (!(step > 0 && Number.isFinite(step))) {
    throw new RangeError(`Cannot differentiate as the step must be positive and finite: ${step}`);
  }
  const valueWith = (index: number, offset: number) => {
    const moved = x.slice();
    moved[index] += offset;
    const value = f(moved);
    if (!Number.isFinite(value)) {
      throw new RangeError(
        `Cannot differentiate as f must be finite: ${value} with x[${index}] moved by ${offset}`,
      );
    }
    return value;
  };
  return x.map((_, n) => (valueWith(n, step) - valueWith(n, -step)) / (2 * step));
}
