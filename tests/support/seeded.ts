/**
 * Random test data that is the same on every run and every machine.
 *
 * @module
 */

/** A stream of random numbers, fixed by its seed. Every call takes the next of the stream. */
export interface Seeded {
  /** Uniform in [0, 1), a multiple of 2⁻³². */
  uniform(): number;
  /** Normal, of mean 0 and variance 1. */
  normal(): number;
  /** Uniform over 0 … n − 1. @throws {RangeError} If n is not a whole number from 1 to 2³². */
  integer(n: number): number;
}

/**
 * Starts a stream of random numbers (mulberry32, by Tommy Ettinger). For tests only: its period is 2³².
 *
 * @param seed A whole number from 0 to 2³² − 1.
 * @returns The stream; equal seeds give equal streams.
 * @throws {RangeError} If the seed is out of range.
 *
 * @example
 * ```ts
 * import { seeded } from "./seeded.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(seeded(1).uniform(), seeded(1).uniform());
 * ```
 */
export function seeded(seed: number): Seeded {
  if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32) {
    throw new RangeError(`Cannot start a stream as the seed must be a whole number below 2^32: ${seed}`);
  }
  let state = seed;

  function uniform(): number {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  }

  /** Box and Muller's transform; 1 − u keeps the logarithm's argument above 0. */
  function normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
    return radius * Math.cos(2 * Math.PI * uniform());
  }

  function integer(n: number): number {
    if (!Number.isInteger(n) || n < 1 || n > 2 ** 32) {
      throw new RangeError(`Cannot draw an integer as n must be a whole number from 1 to 2^32: ${n}`);
    }
    return Math.floor(uniform() * n);
  }

  return { uniform, normal, integer };
}

/**
 * An array of normal random numbers.
 *
 * @param seed As of {@link seeded}.
 * @param length How many.
 * @param scale Their standard deviation, 1 unless given.
 * @returns A new array; equal arguments give equal arrays.
 * @throws {RangeError} If the seed is out of range.
 */
export function normals(seed: number, length: number, scale = 1): Float32Array {
  const random = seeded(seed);
  return Float32Array.from({ length }, () => scale * random.normal());
}
