/**
 * Data to time with.
 *
 * @module
 */
import { normals } from "../support/seeded.ts";

/** A prime, so that rows of the usual lengths do not repeat one another. */
const PERIOD = 65521;

/** Normal numbers that repeat after {@link PERIOD}: fast to make at any length. */
export function fill(seed: number, length: number, scale = 1): Float32Array {
  const values = new Float32Array(length);
  const period = normals(seed, Math.min(PERIOD, length), scale);
  for (let at = 0; at < length; at += PERIOD) values.set(period.subarray(0, length - at), at);
  return values;
}
