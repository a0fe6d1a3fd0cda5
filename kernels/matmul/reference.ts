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

/** Adapters of a linear layer and what they read, as low_rank.ts defines them. */
export interface LowRankReferenceInput {
  rows: number;
  inputs: number;
  outputs: number;
  adapters: readonly { column: number; columns: number; rank: number; scale: number }[];
  /** [rows, inputs] */
  x: ArrayLike<number>;
  /** [inputs, R], R the sum of the ranks. */
  down: ArrayLike<number>;
  /** Of each adapter [rank, columns]. */
  ups: readonly ArrayLike<number>[];
}

/** Σ_p s_p (x A_p) B_p, [rows, outputs], element by element. */
export function lowRankReference(of: LowRankReferenceInput): Float64Array {
  const { rows, inputs, outputs, adapters, x, ups } = of;
  const sum = new Float64Array(rows * outputs);
  adapters.forEach(({ column, columns, rank, scale }, p) => {
    const down = columnsOf(of, p);
    const low = matmulReference({ layout: "nn", m: rows, n: rank, k: inputs, a: x, b: down });
    const product = matmulReference({ layout: "nn", m: rows, n: columns, k: rank, a: low, b: ups[p] });
    product.forEach((value, n) => {
      sum[Math.floor(n / columns) * outputs + column + n % columns] = scale * value;
    });
  });
  return sum;
}

/** Its gradients from dy [rows, outputs]: dx [rows, inputs], ddown [inputs, R], and of each adapter dup [rank, columns]. */
export function lowRankGradientReference(
  of: LowRankReferenceInput,
  dy: ArrayLike<number>,
): { dx: Float64Array; ddown: Float64Array; dups: Float64Array[] } {
  const { rows, inputs, outputs, adapters, x, ups } = of;
  const total = adapters.reduce((sum, { rank }) => sum + rank, 0);
  const dx = new Float64Array(rows * inputs);
  const ddown = new Float64Array(inputs * total);
  let first = 0;
  const dups = adapters.map(({ column, columns, rank, scale }, p) => {
    const down = columnsOf(of, p);
    const dproduct = Float64Array.from(
      { length: rows * columns },
      (_, n) => scale * dy[Math.floor(n / columns) * outputs + column + n % columns],
    );
    const low = matmulReference({ layout: "nn", m: rows, n: rank, k: inputs, a: x, b: down });
    const dlow = matmulReference({ layout: "nt", m: rows, n: rank, k: columns, a: dproduct, b: ups[p] });
    matmulReference({ layout: "tn", m: inputs, n: rank, k: rows, a: x, b: dlow }).forEach((value, n) => {
      ddown[Math.floor(n / rank) * total + first + n % rank] = value;
    });
    matmulReference({ layout: "nt", m: rows, n: inputs, k: rank, a: dlow, b: down }).forEach((value, n) => {
      dx[n] += value;
    });
    first += rank;
    return matmulReference({ layout: "tn", m: rank, n: columns, k: rows, a: low, b: dproduct });
  });
  return { dx, ddown, dups };
}

/** A_p [inputs, rank], out of all that stand side by side. */
function columnsOf({ inputs, adapters, down }: LowRankReferenceInput, p: number): Float64Array {
  const total = adapters.reduce((sum, { rank }) => sum + rank, 0);
  const first = adapters.slice(0, p).reduce((sum, { rank }) => sum + rank, 0);
  const { rank } = adapters[p];
  return Float64Array.from(
    { length: inputs * rank },
    (_, n) => down[Math.floor(n / rank) * total + first + n % rank],
  );
}
