/**
 * Token embedding, and that of positions, in float64.
 *
 * @module
 */

/**
 * x (position, width) for tokens laid out (batch, position) with `positions` to a row; without an embedding of positions
 * where none is given.
 */
export function embeddingReference(
  tokens: ArrayLike<number>,
  positions: number,
  width: number,
  tokenEmbedding: ArrayLike<number>,
  positionEmbedding?: ArrayLike<number>,
): Float64Array {
  return Float64Array.from({ length: tokens.length * width }, (_, at) => {
    const position = Math.floor(at / width);
    const n = at % width;
    return tokenEmbedding[tokens[position] * width + n] +
      (positionEmbedding?.[(position % positions) * width + n] ?? 0);
  });
}

/** Gradients of both tables for a gradient dx (position, width). */
export function embeddingGradientReference(
  tokens: ArrayLike<number>,
  positions: number,
  vocabularySize: number,
  dx: ArrayLike<number>,
): { dtokenEmbedding: Float64Array; dpositionEmbedding: Float64Array } {
  const width = dx.length / tokens.length;
  const dtokenEmbedding = new Float64Array(vocabularySize * width);
  const dpositionEmbedding = new Float64Array(positions * width);
  for (let position = 0; position < tokens.length; position++) {
    for (let n = 0; n < width; n++) {
      const gradient = dx[position * width + n];
      dtokenEmbedding[tokens[position] * width + n] += gradient;
      dpositionEmbedding[(position % positions) * width + n] += gradient;
    }
  }
  return { dtokenEmbedding, dpositionEmbedding };
}
