/**
 * What an operation's check is made of: small fixed inputs, and how far from its float64 reference the device may be.
 *
 * @module
 */
import type { Gpu } from "./gpu.ts";
import { randomStream } from "./random.ts";
import type { Recorder } from "./recorder.ts";
import type { ElementType, Tensor } from "./tensor.ts";

/** What one operation writes, and what it must have written. */
export interface Comparison {
  /** For example `gated attention backward, sampled`. */
  operation: string;
  /** Each with its values in float64. */
  outputs: (readonly [Tensor, ArrayLike<number>])[];
  /** The largest ‖device − reference‖₂ / ‖reference‖₂ that is right. */
  tolerance: number;
}

/** What is run, and what is compared afterwards. */
export interface Check {
  /** Runs it. */
  record(recorder: Recorder): void;
  /** Of all that it writes. */
  comparisons: Comparison[];
}

/** What a check is told of what is to be computed. */
export interface CheckScope {
  /** Whether a tuner will choose between variants of kernels, each of which is then checked. */
  tuned?: boolean;
}

/** Prepares an operation's check on a device. */
export type KernelCheck = (gpu: Gpu, scope?: CheckScope) => Promise<Check>;

/** A check for each of what it depends on, told apart as JSON tells it: who asks for the same gets the same function. */
export function checkOfEach<Of>(
  prepare: (gpu: Gpu, of: Of, scope: CheckScope) => Promise<Check>,
): (of: Of) => KernelCheck {
  const made = new Map<string, KernelCheck>();
  return (of) => {
    const key = JSON.stringify(of);
    const check = made.get(key) ?? ((gpu: Gpu, scope: CheckScope = {}) => prepare(gpu, of, scope));
    made.set(key, check);
    return check;
  };
}

// WGSL lets exp be off by 3 + 2|x| units in the last place and log by 2^-21: a few 1e-6 on inputs of order one, well
// below what a wrong kernel or arithmetic in half precision shows (1e-3).
/** For sums and products. Measured on llvmpipe: at most 8e-8. */
export const ARITHMETIC = 2e-6;
/** Where exp or log take part. Measured on llvmpipe: at most 2.2e-7. */
export const TRANSCENDENTAL = 1e-5;
/**
 * Where results are stored as f16, of 11 bits: an adapter may round to either neighbour, and is then off by less than 2^-10.
 * Measured on llvmpipe: at most 2.2e-4.
 */
export const IN_HALF = 1e-3;

/** Standard normal numbers, the same on every machine. */
export function normals(seed: number, length: number): Float32Array {
  const stream = randomStream(seed);
  return Float32Array.from({ length }, () => stream.normal());
}

/** The same as f16 holds them. */
export function inHalf(values: Float32Array): Float32Array {
  return values.map(Math.f16round);
}

/** A tensor of these values, as f32, or as u32 where these are, or as what is said. */
export function upload(
  gpu: Gpu,
  label: string,
  values: Float32Array | Float64Array | Uint32Array,
  shape = [values.length],
  type: ElementType = values instanceof Uint32Array ? "u32" : "f32",
): Tensor {
  const tensor = gpu.tensor(label, shape, type);
  gpu.write(tensor, values instanceof Float64Array ? Float32Array.from(values) : values);
  return tensor;
}

/** `a` + `b`, element by element. */
export function plus(a: ArrayLike<number>, b: ArrayLike<number>): Float64Array {
  return Float64Array.from(a, (value, n) => value + b[n]);
}

/** Rows of logits (row, V) laid out with a stride, `padding` in the columns past V. */
export function padded(logits: ArrayLike<number>, V: number, stride: number, padding: number): Float64Array {
  const rows = logits.length / V;
  return Float64Array.from({ length: rows * stride }, (_, n) => {
    const v = n % stride;
    return v < V ? logits[Math.floor(n / stride) * V + v] : padding;
  });
}
