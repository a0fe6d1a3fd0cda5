/**
 * RMS norm in float64.
 *
 * @module
 */

/** y (row, width) for x (row, width). */
export function rmsNormReference(
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  epsilon: number,
): Float64Array {
  const width = weight.length;
  const y = new Float64Array(x.length);
  for (let at = 0; at < x.length; at += width) {
    const inverse = inverseOf(x, at, width, epsilon);
    for (let n = 0; n < width; n++) y[at + n] = x[at + n] * inverse * weight[n];
  }
  return y;
}

/** dx and dweight for a gradient dy into y. */
export function rmsNormGradientReference(
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  dy: ArrayLike<number>,
  epsilon: number,
): { dx: Float64Array; dweight: Float64Array } {
  const width = weight.length;
  const dx = new Float64Array(x.length);
  const dweight = new Float64Array(width);
  for (let at = 0; at < x.length; at += width) {
    const inverse = inverseOf(x, at, width, epsilon);
    let meanDhH = 0;
    for (let n = 0; n < width; n++) {
      const h = x[at + n] * inverse;
      meanDhH += dy[at + n] * weight[n] * h / width;
      dweight[n] += dy[at + n] * h;
    }
    for (let n = 0; n < width; n++) {
      dx[at + n] = inverse * (dy[at + n] * weight[n] - x[at + n] * inverse * meanDhH);
    }
  }
  return { dx, dweight };
}

/** What each of several addends of x (row, width) gives of the norm of their sum, plus its residual. */
export function rmsNormPartsReference(
  parts: readonly ArrayLike<number>[],
  weight: ArrayLike<number>,
  residuals: readonly ArrayLike<number>[],
  epsilon: number,
): Float64Array[] {
  const width = weight.length;
  const x = Float64Array.from(parts[0], (_, n) => parts.reduce((sum, part) => sum + part[n], 0));
  return parts.map((part, of) =>
    Float64Array.from(part, (value, n) => {
      const inverse = inverseOf(x, n - n % width, width, epsilon);
      return value * inverse * weight[n % width] + residuals[of][n];
    })
  );
}

/** 1 / root mean square of the row that begins at `at`. */
function inverseOf(x: ArrayLike<number>, at: number, width: number, epsilon: number): number {
  let squares = 0;
  for (let n = 0; n < width; n++) squares += x[at + n] ** 2;
  return 1 / Math.sqrt(squares / width + epsilon);
}
