import type { Gpu } from "../../../kernels/core/gpu.ts";
import { destroyTensor } from "../../../kernels/core/tensor.ts";
import { prepareGatedAttention } from "../../../kernels/gated_attention/op.ts";
import { logisticNoise, randomWord } from "../../../kernels/gated_attention/reference.ts";
import { assertClose } from "../../support/compare.ts";
import { upload } from "../../support/gpu.ts";
import { seeded } from "../../support/seeded.ts";
import type { BenchCase } from "../harness.ts";
import { jaxArray, jaxAttentionGradient, jaxCandidate, openJax } from "../peers/jax.ts";

const SEED = 5;
const BIAS = 0.5;
const EDGE_SCALE = 3;
/** Beyond this many positions the peer's T × T arrays for each head are too much for a binding. */
const PEER_POSITIONS = 1024;

/** Sampled gated attention, forward and backward, one row of the batch. */
export async function attentionCase(
  gpu: Gpu,
  { heads, positions: T, headSize: D }: { heads: number; positions: number; headSize: number },
): Promise<BenchCase> {
  const random = seeded(2);
  const width = heads * D;
  const qkvValues = Float32Array.from({ length: T * 3 * width }, () => random.normal());
  const dyValues = Float32Array.from({ length: T * width }, () => random.normal());
  const pairs = T * (T + 1) / 2;
  const attention = await prepareGatedAttention(gpu, {
    batch: 1,
    heads,
    positions: T,
    headSize: D,
    layer: 0,
  });
  attention.configure({
    seed: SEED,
    step: 0,
    firstRow: 0,
    bias: BIAS,
    temperature: 1,
    edgeWeight: 1 / (heads * pairs),
    saturationWeight: 0,
    saturationBound: 6,
  });
  const t = {
    qkv: upload(gpu, "qkv", qkvValues, [T, 3, heads, D]),
    dy: upload(gpu, "dy", dyValues, [T, heads, D]),
    edgeScale: upload(gpu, "edge scale", Float32Array.of(EDGE_SCALE)),
    y: gpu.tensor("y", [T, heads, D]),
    logSumExp: gpu.tensor("log-sum-exp", [heads, T]),
    rowSums: gpu.tensor("row sums", [heads, T, 4]),
    delta: gpu.tensor("delta", [heads, T]),
    dqkv: gpu.tensor("dqkv", [T, 3, heads, D]),
  };
  const run = (): void =>
    gpu.submit("attention", (recorder) => {
      attention.forward(recorder, "sampled", t);
      attention.backward(recorder, "sampled", t);
    });

  const peers: BenchCase["peers"] = {};
  let check = async (): Promise<void> => {
    run();
    await gpu.sync();
  };
  let dispose = (): void => {};
  if (T <= PEER_POSITIONS) {
    await openJax();
    /** (position, part, head, D) → (head, position, D) of one part. */
    const part = (values: Float32Array, stride: number, offset: number) =>
      jaxArray(
        Float32Array.from({ length: heads * T * D }, (_, n) => {
          const [head, position, d] = [Math.floor(n / (T * D)), Math.floor(n / D) % T, n % D];
          return values[position * stride + offset + head * D + d];
        }),
        [heads, T, D],
      );
    const [q, k, v] = [0, 1, 2].map((index) => part(qkvValues, 3 * width, index * width));
    const dy = part(dyValues, width, 0);
    const noise = jaxArray(
      Float32Array.from({ length: heads * T * T }, (_, n) => {
        const [row, i, j] = [Math.floor(n / (T * T)), Math.floor(n / T) % T, n % T];
        return j > i ? 0 : logisticNoise(randomWord({ seed: SEED, step: 0, layer: 0, row, i, j }));
      }),
      [heads, T, T],
    );
    const causal = jaxArray(
      Float32Array.from({ length: T * T }, (_, n) => n % T > Math.floor(n / T) ? -1e9 : 0),
      [T, T],
    );
    const gradient = jaxAttentionGradient({
      headSize: D,
      bias: BIAS,
      pairs: heads * pairs,
      edgeScale: EDGE_SCALE,
    });
    const peer = jaxCandidate(() => {
      const [value, of] = gradient({ q: q.ref, k: k.ref, v: v.ref }, noise.ref, causal.ref, dy.ref);
      return [of.q, of.k, of.v, value];
    });
    peers["jax-js"] = peer;
    check = async () => {
      run();
      const dqkv = await gpu.read(t.dqkv);
      peer.run();
      await peer.wait();
      for (const [index, name] of ["q", "k", "v"].entries()) {
        const expected = await peer.last()[index].ref.data() as Float32Array;
        const ours = Float32Array.from({ length: heads * T * D }, (_, n) => {
          const [head, position, d] = [Math.floor(n / (T * D)), Math.floor(n / D) % T, n % D];
          return dqkv[position * 3 * width + index * width + head * D + d];
        });
        // Gate logits within rounding of 0 may open here and close there. One such edge of 263,000 made dq differ by
        // 4.5e-4 (T = 256); where none does, the difference is 1e-6.
        assertClose(ours, expected, { tolerance: 2e-3, name: `d${name}` });
      }
    };
    dispose = () => {
      peer.destroy();
      for (const array of [q, k, v, dy, noise, causal]) array.dispose();
    };
  }
  return {
    name: `gated attention forward + backward H=${heads} T=${T} D=${D}`,
    // Causal pairs × 2 D × (2 products forward; scores, dp and three gradients backward, scores twice).
    operations: heads * pairs * 2 * D * (2 + 7),
    bytes: 4 * (2 * T * 3 * width + 2 * T * width),
    ours: { run, wait: () => gpu.sync() },
    peers,
    check: () => check(),
    destroy() {
      for (const tensor of Object.values(t)) destroyTensor(gpu, tensor);
      dispose();
    },
  };
}
