/**
 * The norm of queries and keys in float64.
 *
 * @module
 */

/** The shape of x (row, (H + 2 K) · D), and what is normed together. */
export interface QueryKeyNormReferenceShape {
  heads: number;
  keyValueHeads: number;
  headSize: number;
  per: "head" | "all";
  epsilon: number;
}

/** Weights of queries and of keys: [D] each, or [H · D] and [K · D]. */
export interface QueryKeyWeights {
  query: ArrayLike<number>;
  key: ArrayLike<number>;
}

/** y = x / √(mean(x²) + epsilon) · weight of each head, or all, of queries and of keys; values are x's. */
export function queryKeyNormReference(
  x: ArrayLike<number>,
  weights: QueryKeyWeights,
  shape: QueryKeyNormReferenceShape,
): Float64Array {
  const y = Float64Array.from(x);
  for (const { of, at, width, inverse } of groups(x, shape)) {
    for (let n = 0; n < width; n++) y[at + n] = x[at + n] * inverse * weights[of][n];
  }
  return y;
}

/** Gradients of x and of both weights for a gradient dy into y. */
export function queryKeyNormGradientReference(
  x: ArrayLike<number>,
  weights: QueryKeyWeights,
  dy: ArrayLike<number>,
  shape: QueryKeyNormReferenceShape,
): { dx: Float64Array; dweights: { query: Float64Array; key: Float64Array } } {
  const dx = Float64Array.from(dy);
  const dweights = {
    query: new Float64Array(weights.query.length),
    key: new Float64Array(weights.key.length),
  };
  for (const { of, at, width, inverse } of groups(x, shape)) {
    let meanDhH = 0;
    for (let n = 0; n < width; n++) {
      const h = x[at + n] * inverse;
      meanDhH += dy[at + n] * weights[of][n] * h / width;
      dweights[of][n] += dy[at + n] * h;
    }
    for (let n = 0; n < width; n++) {
      dx[at + n] = inverse * (dy[at + n] * weights[of][n] - x[at + n] * inverse * meanDhH);
    }
  }
  return { dx, dweights };
}

/** What is normed together: where it begins, how long it is, and 1 / its root mean square. */
function* groups(
  x: ArrayLike<number>,
  { heads, keyValueHeads, headSize, per, epsilon }: QueryKeyNormReferenceShape,
): Generator<{ of: keyof QueryKeyWeights; at: number; width: number; inverse: number }> {
  const columns = (heads + 2 * keyValueHeads) * headSize;
  for (let row = 0; row < x.length; row += columns) {
    const parts = [
      { of: "query", first: row, length: heads * headSize },
      { of: "key", first: row + heads * headSize, length: keyValueHeads * headSize },
    ] as const;
    for (const { of, first, length } of parts) {
      const width = per === "head" ? headSize : length;
      for (let at = first; at < first + length; at += width) {
        let squares = 0;
        for (let n = 0; n < width; n++) squares += x[at + n] ** 2;
        yield { of, at, width, inverse: 1 / Math.sqrt(squares / width + epsilon) };
      }
    }
  }
}
