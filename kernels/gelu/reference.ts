/**
 * GELU's tanh form in float64.
 *
 * @module
 */

const SLOPE = Math.sqrt(2 / Math.PI);

/** y = x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))). */
export function geluReference(x: ArrayLike<number>): Float64Array {
  return Float64Array.from(
    x,
    (value) => 0.5 * value * (1 + Math.tanh(SLOPE * (value + 0.044715 * value ** 3))),
  );
}

/** dx for a gradient dy into y. */
export function geluGradientReference(x: ArrayLike<number>, dy: ArrayLike<number>): Float64Array {
  return Float64Array.from(x, (value, n) => {
    const tanh = Math.tanh(SLOPE * (value + 0.044715 * value ** 3));
    const inner = SLOPE * (1 + 3 * 0.044715 * value ** 2);
    return dy[n] * (0.5 * (1 + tanh) + 0.5 * value * (1 - tanh ** 2) * inner);
  });
}
