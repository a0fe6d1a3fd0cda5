/**
 * GELU in float64.
 *
 * @module
 */

type Form = "tanh" | "exact";

const SLOPE = Math.sqrt(2 / Math.PI);

/** y = x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))), or, exactly, y = x Φ(x). */
export function geluReference(x: ArrayLike<number>, form: Form = "tanh"): Float64Array {
  if (form === "exact") return Float64Array.from(x, (value) => value * normalDistribution(value));
  return Float64Array.from(
    x,
    (value) => 0.5 * value * (1 + Math.tanh(SLOPE * (value + 0.044715 * value ** 3))),
  );
}

/** dx for a gradient dy into y. */
export function geluGradientReference(
  x: ArrayLike<number>,
  dy: ArrayLike<number>,
  form: Form = "tanh",
): Float64Array {
  if (form === "exact") {
    return Float64Array.from(
      x,
      (value, n) => dy[n] * (normalDistribution(value) + value * normalDensity(value)),
    );
  }
  return Float64Array.from(x, (value, n) => {
    const tanh = Math.tanh(SLOPE * (value + 0.044715 * value ** 3));
    const inner = SLOPE * (1 + 3 * 0.044715 * value ** 2);
    return dy[n] * (0.5 * (1 + tanh) + 0.5 * value * (1 - tanh ** 2) * inner);
  });
}

/**
 * Φ(x), the integral of the normal density up to x: about 0 by Φ(x) = 1/2 + φ(x) (x + x³/3 + x⁵/(3·5) + …), in the tails
 * by Laplace's continued fraction Φ(−a) = φ(a) / (a + 1/(a + 2/(a + 3/(a + …)))).
 */
export function normalDistribution(x: number): number {
  const a = Math.abs(x);
  if (a < 3) {
    let sum = 0;
    for (let k = 1, term = x; sum + term !== sum; k++, term *= x * x / (2 * k - 1)) sum += term;
    return 0.5 + normalDensity(x) * sum;
  }
  let fraction = a;
  for (let k = 200; k > 0; k--) fraction = a + k / fraction;
  const tail = normalDensity(a) / fraction;
  return x < 0 ? tail : 1 - tail;
}

function normalDensity(x: number): number {
  return Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);
}
