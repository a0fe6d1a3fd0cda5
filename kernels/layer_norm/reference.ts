/**
 * Layer norm in float64.
 *
 * @module
 */

/** y (row, width) for x (row, width). */
export function layerNormReference(
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  bias: ArrayLike<number>,
  epsilon: number,
): Float64Array {
  const width = weight.length;
  const y = new Float64Array(x.length);
  for (let at = 0; at < x.length; at += width) {
    const { mean, inverse } = rowStatistics(x, at, width, epsilon);
    for (let n = 0; n < width; n++) y[at + n] = (x[at + n] - mean) * inverse * weight[n] + bias[n];
  }
  return y;
}

/** dx, dweight and dbias for a gradient dy into y. */
export function layerNormGradientReference(
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  dy: ArrayLike<number>,
  epsilon: number,
): { dx: Float64Array; dweight: Float64Array; dbias: Float64Array } {
  const width = weight.length;
  const dx = new Float64Array(x.length);
  const dweight = new Float64Array(width);
  const dbias = new Float64Array(width);
  for (let at = 0; at < x.length; at += width) {
    const { mean, inverse } = rowStatistics(x, at, width, epsilon);
    const h = (n: number) => (x[at + n] - mean) * inverse;
    let meanDh = 0;
    let meanDhH = 0;
    for (let n = 0; n < width; n++) {
      const dh = dy[at + n] * weight[n];
      meanDh += dh / width;
      meanDhH += dh * h(n) / width;
      dweight[n] += dy[at + n] * h(n);
      dbias[n] += dy[at + n];
    }
    for (let n = 0; n < width; n++) {
      dx[at + n] = inverse * (dy[at + n] * weight[n] - meanDh - h(n) * meanDhH);
    }
  }
  return { dx, dweight, dbias };
}

function rowStatistics(x: ArrayLike<number>, at: number, width: number, epsilon: number) {
  let mean = 0;
  for (let n = 0; n < width; n++) mean += x[at + n] / width;
  let variance = 0;
  for (let n = 0; n < width; n++) variance += (x[at + n] - mean) ** 2 / width;
  return { mean, inverse: 1 / Math.sqrt(variance + epsilon) };
}
