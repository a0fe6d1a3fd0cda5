/**
 * What an edge weighs in the mean of the open probabilities, where that depends on how far it reaches.
 *
 * @module
 */

/** The highest power of the distance: beyond it, all but the nearest edges would weigh nothing in float32 at any length. */
export const MOST_DISTANCE_POWER = 8;

/**
 * What an edge from a token to itself weighs, such that w (1 + i − j)^−power is 1 in the mean over the causal edges of a row.
 *
 * @param positions T of the row
 * @param power 0: all weigh 1
 */
export function distanceWeight(positions: number, power: number): number {
  let sum = 0;
  // T − d queries have an edge to the token d before them.
  for (let d = 0; d < positions; d++) sum += (positions - d) * (1 + d) ** -power;
  return positions * (positions + 1) / 2 / sum;
}
