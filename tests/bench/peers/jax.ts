/**
 * jax-js as a peer: the same computations written in its API, on the same adapter.
 *
 * Its arrays are consumed by use; `.ref` keeps one for another use.
 *
 * @module
 */
import {
  type Array as JaxArray,
  blockUntilReady,
  defaultDevice,
  init,
  jit,
  lax,
  nn,
  numpy as np,
  valueAndGrad,
} from "@jax-js/jax";

import { candidate, type Peer } from "../harness.ts";

let opened: Promise<unknown> | undefined;

/** Opens its WebGPU device. */
export async function openJax(): Promise<void> {
  opened ??= init("webgpu").then(() => defaultDevice("webgpu"));
  await opened;
}

/** A float32 array on its device. */
export function jaxArray(values: Float32Array, shape: number[]): JaxArray {
  return np.array(values as Float32Array<ArrayBuffer>).reshape(shape);
}

/** Waits for arrays that go on being used. */
export async function ready(...arrays: JaxArray[]): Promise<void> {
  await blockUntilReady(arrays);
}

/**
 * A candidate that keeps every result until all are waited for: jax-js is lazy, and what is disposed of before it was
 * asked for is never computed.
 *
 * @param run gives the arrays of one run
 * @param check compares the last run's
 * @param inputs are disposed of with it
 */
export function jaxPeer(
  run: () => JaxArray[],
  check: (last: JaxArray[]) => Promise<void>,
  inputs: JaxArray[],
): Peer {
  let pending: JaxArray[][] = [];
  const timed = candidate(
    () => void pending.push(run()),
    async () => {
      await blockUntilReady(pending.flat());
      for (const arrays of pending.slice(0, -1)) arrays.forEach((array) => array.dispose());
      pending = pending.slice(-1);
    },
  );
  return {
    ...timed,
    async check() {
      await timed.time(1);
      await check(pending.at(-1)!);
    },
    destroy() {
      for (const array of [...pending.flat(), ...inputs]) array.dispose();
    },
  };
}

/** The values of an array that goes on being used. */
export async function jaxValues(array: JaxArray): Promise<Float32Array> {
  return await array.ref.data() as Float32Array;
}

/** C = A B, A Bᵀ or Aᵀ B. */
export const jaxMatmul = {
  nn: jit((a: JaxArray, b: JaxArray) => np.matmul(a, b)),
  nt: jit((a: JaxArray, b: JaxArray) => np.matmul(a, np.transpose(b))),
  tn: jit((a: JaxArray, b: JaxArray) => np.matmul(np.transpose(a), b)),
};

/** What gated attention is computed from: q, k, v [H, T, D], noise [H, T, T] and 0 where j ≤ i, else −1e9, [T, T]. */
export interface JaxAttention {
  q: JaxArray;
  k: JaxArray;
  v: JaxArray;
  noise: JaxArray;
  causal: JaxArray;
}

/**
 * Gated attention as docs/method.md has it: y [H, T, D] and the mean open probability over causal pairs. The noise comes
 * in ready-made, which is less work than ours does.
 */
export function jaxGatedAttention(
  { q, k, v, noise, causal }: JaxAttention,
  { headSize, bias, pairs }: { headSize: number; bias: number; pairs: number },
): { y: JaxArray; open: JaxArray } {
  const scores = np.matmul(q, np.transpose(k, [0, 2, 1])).mul(1 / Math.sqrt(headSize));
  const weights = nn.softmax(scores.ref.add(causal.ref), -1);
  const within = np.clip(causal.add(1), 0, 1);
  const logits = scores.add(bias);
  const open = nn.sigmoid(logits.ref).mul(within).sum().mul(1 / pairs);
  const noisy = logits.add(noise);
  const hard = np.where(noisy.ref.greater(0), np.array(1), np.array(0));
  const soft = nn.sigmoid(noisy);
  const gate = straightThrough(hard, soft);
  return { y: np.matmul(weights.mul(gate), v), open };
}

/** The value of `hard` with the gradient of `soft`. */
function straightThrough(hard: JaxArray, soft: JaxArray): JaxArray {
  const held = lax.stopGradient(soft.ref);
  return soft.add(hard.sub(held));
}

/** y [H, T, D] alone, in one compiled function. */
export function jaxAttentionForward(shape: { headSize: number; bias: number; pairs: number }) {
  return jit((parts: JaxAttention) => {
    const { y, open } = jaxGatedAttention(parts, shape);
    open.dispose();
    return y;
  });
}

/** Value and gradients by q, k, v of Σ y · dy + edgeWeight · E, in one compiled function. */
export function jaxAttentionGradient(
  shape: { headSize: number; bias: number; pairs: number; edgeScale: number },
) {
  const objective = (
    parts: { q: JaxArray; k: JaxArray; v: JaxArray },
    noise: JaxArray,
    causal: JaxArray,
    dy: JaxArray,
  ) => {
    const { y, open } = jaxGatedAttention({ ...parts, noise, causal }, shape);
    return y.mul(dy).sum().add(open.mul(shape.edgeScale));
  };
  return jit(valueAndGrad(objective));
}
