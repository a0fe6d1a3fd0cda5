/**
 * Seeded random numbers on the host: initial weights, the order of batches, the split of documents.
 *
 * @module
 */

/** murmur3's 32-bit finaliser: every bit of the result depends on every bit of the word. */
export function mix(word: number): number {
  let h = word >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** A word that depends on all of `words` and on their order. */
export function hashWords(...words: number[]): number {
  return words.reduce((k, word) => mix((k ^ word) + 0x9e3779b9), 0);
}

/** A stream of random numbers. */
export interface RandomStream {
  /** In [0, 1). */
  uniform(): number;
  /** Standard normal. */
  normal(): number;
  /** A whole number in [0, n). */
  below(n: number): number;
}

/**
 * The stream that belongs to these words; the same words give the same stream.
 *
 * @example
 * ```ts
 * import { randomStream } from "./random.ts";
 *
 * const stream = randomStream(1, 2);
 * const dice = 1 + stream.below(6);
 * ```
 */
export function randomStream(...words: number[]): RandomStream {
  const key = hashWords(...words);
  let counter = 0;
  const next = (): number => mix(mix(key + Math.imul(counter++, 0x9e3779b1)) + key);
  const uniform = (): number => next() / 2 ** 32;
  return {
    uniform,
    // Box and Muller; 1 - uniform is never 0.
    normal: () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
    below: (n) => Math.floor(uniform() * n),
  };
}

/** A permutation of 0 … length − 1 (Fisher and Yates). */
export function permutation(length: number, stream: RandomStream): Uint32Array {
  const order = Uint32Array.from({ length }, (_, index) => index);
  for (let last = length - 1; last > 0; last--) {
    const other = stream.below(last + 1);
    [order[last], order[other]] = [order[other], order[last]];
  }
  return order;
}
