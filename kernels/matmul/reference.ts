/**
 * Matrix products in float64, as op.ts defines them.
 *
 * @module
 */

/** The operands as plain arrays, row by row, with no padding. */
export interface MatmulReferenceInput {
  layout: "nn" | "nt" | "tn";
  m: number;
  n: number;
  k: number;
  a: ArrayLike<number>;
  b: ArrayLike<number>;
  bias?: ArrayLike<number>;
}

/** C [m, n]. */
export function matmulReference({ layout, m, n, k, a, b, bias }: MatmulReferenceInput): Float64Array {
  const c = new Float64Array(m * n);
  for (let row = 0; row < m; row++) {
    for (let column = 0; column < n; column++) {
      let sum = bias ? bias[column] : 0;
      for (let i = 0; i < k; i++) {
        const x = layout === "tn" ? a[i * m + row] : a[row * k + i];
        const y = layout === "nt" ? b[column * k + i] : b[i * n + column];
        sum += x * y;
      }
      c[row * n + column] = sum;
    }
  }
  return c;
}

/** dbias [n] = the column sums of dc [m, n]. */
export function biasGradientReference(m: number, n: number, dc: ArrayLike<number>): Float64Array {
  const dbias = new Float64Array(n);
  for (let row = 0; row < m; row++) {
    for (let column = 0; column < n; column++) dbias[column] += dc[row * n + column];
  }
  return dbias;
}
