/**
 * TensorFlow.js as a peer: the same computations on its WebGPU backend, same adapter.
 *
 * @module
 */
import * as tf from "@tensorflow/tfjs-core";
import type { WebGPUBackend } from "@tensorflow/tfjs-backend-webgpu";
import type { MatmulLayout } from "../../../kernels/matmul/op.ts";
import { candidate, type Peer } from "../harness.ts";

let opened: Promise<WebGPUBackend> | undefined;

/** Opens its device. */
function openTfjs(): Promise<WebGPUBackend> {
  return opened ??= (async () => {
    await import("@tensorflow/tfjs-backend-webgpu");
    await tf.setBackend("webgpu");
    return tf.backend() as WebGPUBackend;
  })();
}

/** Runs `compute`, whose result is kept until all runs are waited for, and its check on the values. */
async function tfjsPeer(
  compute: () => tf.Tensor,
  check: (values: Float32Array) => Promise<void>,
  inputs: tf.Tensor[],
): Promise<Peer> {
  const backend = await openTfjs();
  let pending: tf.Tensor[] = [];
  const timed = candidate(
    () => void pending.push(tf.tidy(compute)),
    async () => {
      // It collects dispatches before it submits them. Neither the pass may be open then nor the encoder missing.
      const { commandEncoder } = backend as unknown as { commandEncoder: GPUCommandEncoder | null };
      if (commandEncoder) {
        backend.endComputePassEncoder();
        backend.submitQueue();
      }
      await backend.device.queue.onSubmittedWorkDone();
      tf.dispose(pending.slice(0, -1));
      pending = pending.slice(-1);
    },
  );
  return {
    ...timed,
    async check() {
      await timed.time(1);
      await check(await pending[0].data<"float32">());
    },
    destroy: () => tf.dispose([...pending, ...inputs]),
  };
}

/** C = A B, A Bᵀ or Aᵀ B. */
export async function tfjsMatmul(
  { layout, a, b, shapes }: { layout: MatmulLayout; a: Float32Array; b: Float32Array; shapes: number[][] },
  check: (values: Float32Array) => Promise<void>,
): Promise<Peer> {
  await openTfjs();
  const inputs = [tf.tensor(a, shapes[0]), tf.tensor(b, shapes[1])];
  const compute = () => tf.matMul(inputs[0], inputs[1], layout === "tn", layout === "nt");
  return await tfjsPeer(compute, check, inputs);
}

/**
 * Gated attention forward, y [H, T, D], as docs/method.md has it, with ready-made noise. Its gradients are left out: it
 * has none for a gate that is straight through.
 */
export async function tfjsAttentionForward(
  { q, k, v, noise, causal, shape, bias }:
    & Record<"q" | "k" | "v" | "noise" | "causal", Float32Array>
    & { shape: { heads: number; positions: number; headSize: number }; bias: number },
  check: (values: Float32Array) => Promise<void>,
): Promise<Peer> {
  await openTfjs();
  const { heads: H, positions: T, headSize: D } = shape;
  const parts = [q, k, v].map((values) => tf.tensor(values, [H, T, D]));
  const noiseTensor = tf.tensor(noise, [H, T, T]);
  const causalTensor = tf.tensor(causal, [1, T, T]);
  const compute = () => {
    const scores = tf.mul(tf.matMul(parts[0], parts[1], false, true), 1 / Math.sqrt(D));
    const open = tf.cast(tf.greater(tf.add(tf.add(scores, bias), noiseTensor), 0), "float32");
    return tf.matMul(tf.mul(tf.softmax(tf.add(scores, causalTensor)), open), parts[2]);
  };
  return await tfjsPeer(compute, check, [...parts, noiseTensor, causalTensor]);
}
