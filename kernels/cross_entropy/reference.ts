/**
 * Cross-entropy in float64.
 *
 * @module
 */

/** Loss of each row of logits (row, vocabulary); 0 where the target is outside the vocabulary. */
export function crossEntropyReference(
  logits: ArrayLike<number>,
  targets: ArrayLike<number>,
  vocabularySize: number,
): { losses: Float64Array; logSumExp: Float64Array; correct: Uint8Array } {
  const losses = new Float64Array(targets.length);
  const logSumExp = new Float64Array(targets.length);
  const correct = new Uint8Array(targets.length);
  for (let row = 0; row < targets.length; row++) {
    const values = Array.from({ length: vocabularySize }, (_, v) => logits[row * vocabularySize + v]);
    const highest = Math.max(...values);
    logSumExp[row] = highest + Math.log(values.reduce((sum, value) => sum + Math.exp(value - highest), 0));
    if (targets[row] >= vocabularySize) continue;
    losses[row] = logSumExp[row] - values[targets[row]];
    correct[row] = values[targets[row]] >= highest ? 1 : 0;
  }
  return { losses, logSumExp, correct };
}

/** dlogits = weight (softmax − onehot) for counted rows, 0 for others; each row's own weight, or one for all. */
export function crossEntropyGradientReference(
  logits: ArrayLike<number>,
  targets: ArrayLike<number>,
  vocabularySize: number,
  weight: number | ArrayLike<number>,
): Float64Array {
  const { logSumExp } = crossEntropyReference(logits, targets, vocabularySize);
  return Float64Array.from({ length: targets.length * vocabularySize }, (_, at) => {
    const row = Math.floor(at / vocabularySize);
    if (targets[row] >= vocabularySize) return 0;
    const onehot = at % vocabularySize === targets[row] ? 1 : 0;
    return (typeof weight === "number" ? weight : weight[row]) *
      (Math.exp(logits[at] - logSumExp[row]) - onehot);
  });
}
