/**
 * SwiGLU's gating in float64.
 *
 * @module
 */

/** y (row, width) = silu(gate) · up for x (row, 2 · width): the gate's columns, then up's. */
export function swigluReference(x: ArrayLike<number>, width: number): Float64Array {
  return Float64Array.from({ length: x.length / 2 }, (_, n) => {
    const at = Math.floor(n / width) * 2 * width + n % width;
    return x[at] * sigmoid(x[at]) * x[at + width];
  });
}

/** dx (row, 2 · width) for a gradient dy into y. */
export function swigluGradientReference(
  x: ArrayLike<number>,
  dy: ArrayLike<number>,
  width: number,
): Float64Array {
  const dx = new Float64Array(x.length);
  for (let n = 0; n < dy.length; n++) {
    const at = Math.floor(n / width) * 2 * width + n % width;
    const [gate, up, s] = [x[at], x[at + width], sigmoid(x[at])];
    dx[at] = dy[n] * up * (s + gate * s * sigmoid(-gate));
    dx[at + width] = dy[n] * gate * s;
  }
  return dx;
}

function sigmoid(value: number): number {
  return 1 / (1 + Math.exp(-value));
}
