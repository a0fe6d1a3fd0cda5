/**
 * Attention in float64 in the two steps of op.ts.
 *
 * @module
 */

/** Shapes, and the queries, keys and values (batch, position, 3, head, D). */
export interface ExplicitAttentionReferenceInput {
  batch: number;
  heads: number;
  positions: number;
  headSize: number;
  qkv: ArrayLike<number>;
  /** Left out: all gates are open. */
  gateBias?: number;
}

/** Pattern and gates (batch, head, query, key). */
export function patternReference(
  { batch, heads, positions, headSize, qkv, gateBias }: ExplicitAttentionReferenceInput,
): { pattern: Float64Array; gates: Float64Array } {
  const pattern = new Float64Array(batch * heads * positions * positions);
  const gates = new Float64Array(pattern.length);
  for (let b = 0; b < batch; b++) {
    for (let head = 0; head < heads; head++) {
      for (let i = 0; i < positions; i++) {
        const at = (position: number, part: number) =>
          (((b * positions + position) * 3 + part) * heads + head) * headSize;
        const scores: number[] = [];
        for (let j = 0; j <= i; j++) {
          let dot = 0;
          for (let d = 0; d < headSize; d++) dot += qkv[at(i, 0) + d] * qkv[at(j, 1) + d];
          scores.push(dot / Math.sqrt(headSize));
        }
        const highest = Math.max(...scores);
        const total = scores.reduce((sum, score) => sum + Math.exp(score - highest), 0);
        const row = ((b * heads + head) * positions + i) * positions;
        scores.forEach((score, j) => {
          pattern[row + j] = Math.exp(score - highest) / total;
          gates[row + j] = gateBias === undefined || score + gateBias > 0 ? 1 : 0;
        });
      }
    }
  }
  return { pattern, gates };
}

/** y (batch, position, head, D). */
export function mixReference(
  { batch, heads, positions, headSize, qkv }: ExplicitAttentionReferenceInput,
  pattern: ArrayLike<number>,
  gates: ArrayLike<number>,
): Float64Array {
  const y = new Float64Array(batch * positions * heads * headSize);
  for (let n = 0; n < y.length; n++) {
    const d = n % headSize;
    const head = Math.floor(n / headSize) % heads;
    const i = Math.floor(n / (headSize * heads)) % positions;
    const b = Math.floor(n / (headSize * heads * positions));
    const row = ((b * heads + head) * positions + i) * positions;
    for (let j = 0; j < positions; j++) {
      const value = qkv[(((b * positions + j) * 3 + 2) * heads + head) * headSize + d];
      y[n] += gates[row + j] * pattern[row + j] * value;
    }
  }
  return y;
}
