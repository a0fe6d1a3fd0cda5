/**
 * Attention in float64 in the steps of op.ts.
 *
 * @module
 */

/** Shapes, and queries, keys and values (batch, position, H + 2 K, D): query heads, then key heads, then value heads. */
export interface ExplicitAttentionReferenceInput {
  batch: number;
  /** Query heads H. */
  heads: number;
  /** Key heads K, and as many value heads; query head h reads ⌊h / (H / K)⌋. Left out: H. */
  keyValueHeads?: number;
  positions: number;
  headSize: number;
  qkv: ArrayLike<number>;
  /** Left out: all gates are open. */
  gateBias?: number;
}

/** Where the query (part 0), key (1) or value (2) of a query head begins in qkv. */
function placeOf(
  { heads, keyValueHeads = heads, positions, headSize }: ExplicitAttentionReferenceInput,
  { b, position, head }: Record<"b" | "position" | "head", number>,
  part: 0 | 1 | 2,
): number {
  const keyHead = Math.floor(head / (heads / keyValueHeads));
  const place = [head, heads + keyHead, heads + keyValueHeads + keyHead][part];
  return ((b * positions + position) * (heads + 2 * keyValueHeads) + place) * headSize;
}

/** Scores (batch, head, query, key), −∞ for keys behind the query. */
export function scoresReference(input: ExplicitAttentionReferenceInput): Float64Array {
  const { batch, heads, positions, headSize, qkv } = input;
  return Float64Array.from({ length: batch * heads * positions ** 2 }, (_, n) => {
    const [j, i] = [n % positions, Math.floor(n / positions) % positions];
    const [head, b] = [Math.floor(n / positions ** 2) % heads, Math.floor(n / (positions ** 2 * heads))];
    if (j > i) return -Infinity;
    const query = placeOf(input, { b, position: i, head }, 0);
    const key = placeOf(input, { b, position: j, head }, 1);
    let dot = 0;
    for (let d = 0; d < headSize; d++) dot += qkv[query + d] * qkv[key + d];
    return dot / Math.sqrt(headSize);
  });
}

/** Pattern and gates, both as scores are. */
export function patternReference(
  { positions, gateBias }: Pick<ExplicitAttentionReferenceInput, "positions" | "gateBias">,
  scores: ArrayLike<number>,
): { pattern: Float64Array; gates: Float64Array } {
  const pattern = new Float64Array(scores.length);
  const gates = new Float64Array(scores.length);
  for (let row = 0; row < scores.length; row += positions) {
    const ofRow = Array.from({ length: positions }, (_, j) => scores[row + j]);
    const highest = Math.max(...ofRow);
    const total = ofRow.reduce((sum, score) => sum + Math.exp(score - highest), 0);
    ofRow.forEach((score, j) => {
      pattern[row + j] = Math.exp(score - highest) / total;
      gates[row + j] = score > -Infinity && (gateBias === undefined || score + gateBias > 0) ? 1 : 0;
    });
  }
  return { pattern, gates };
}

/** y (batch, position, head, D). */
export function mixReference(
  input: ExplicitAttentionReferenceInput,
  pattern: ArrayLike<number>,
  gates: ArrayLike<number>,
): Float64Array {
  const { batch, heads, positions, headSize, qkv } = input;
  const y = new Float64Array(batch * positions * heads * headSize);
  for (let n = 0; n < y.length; n++) {
    const d = n % headSize;
    const head = Math.floor(n / headSize) % heads;
    const i = Math.floor(n / (headSize * heads)) % positions;
    const b = Math.floor(n / (headSize * heads * positions));
    const row = ((b * heads + head) * positions + i) * positions;
    for (let j = 0; j < positions; j++) {
      const value = qkv[placeOf(input, { b, position: j, head }, 2) + d];
      y[n] += gates[row + j] * pattern[row + j] * value;
    }
  }
  return y;
}
