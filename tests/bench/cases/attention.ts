import type { Gpu } from "../../../kernels/core/gpu.ts";
import { destroyTensor } from "../../../kernels/core/tensor.ts";
import { prepareGatedAttention } from "../../../kernels/gated_attention/op.ts";
import {
  attentionGradientReference,
  attentionReference,
  logisticNoise,
  randomWord,
} from "../../../kernels/gated_attention/reference.ts";
import { assertClose } from "../../support/compare.ts";
import { upload } from "../../support/gpu.ts";
import { fill } from "../data.ts";
import { type BenchCase, kernelCandidate, type Peer } from "../harness.ts";
import {
  jaxArray,
  jaxAttentionForward,
  jaxAttentionGradient,
  jaxPeer,
  jaxValues,
  openJax,
} from "../peers/jax.ts";
import { tfjsAttentionForward } from "../peers/tfjs.ts";
import { type Torch, torchPeers } from "../peers/torch.ts";

const SEED = 5;
const BIAS = 0.5;
const EDGE_SCALE = 3;
/** Beyond this many positions the T × T arrays of the peers in this process are too much for a binding. */
const PEER_POSITIONS = 1024;
/** Positions that the float64 reference goes over. */
const REFERENCE_POSITIONS = 256;

/**
 * Gate logits within rounding of 0 may open here and close there. One such edge of 263,000 made dq differ by 4.5e-4
 * (T = 256, other data); where none does, the difference is 5e-7 at most.
 */
const TOLERANCE = 2e-3;

/** What of attention is timed. */
export interface AttentionShape {
  /** Gates sampled, as in training, or none. */
  mode: "sampled" | "dense";
  pass: "forward" | "backward" | "forward + backward";
  heads: number;
  /** T. */
  positions: number;
  /** D. */
  headSize: number;
}

/** (position, part, head, D) → (head, position, D) of one part; `stride` elements lie between positions. */
function byHead(
  values: Float32Array,
  { heads: H, positions: T, headSize: D }: AttentionShape,
  stride: number,
  offset: number,
): Float32Array {
  return Float32Array.from({ length: H * T * D }, (_, n) => {
    const [head, position, d] = [Math.floor(n / (T * D)), Math.floor(n / D) % T, n % D];
    return values[position * stride + offset + head * D + d];
  });
}

/** Causal attention with or without gates, one row of the batch. */
export async function attentionCase(gpu: Gpu, shape: AttentionShape, torch?: Torch): Promise<BenchCase> {
  const { mode, pass, heads, positions: T, headSize: D } = shape;
  const width = heads * D;
  const qkvValues = fill(2, T * 3 * width);
  const dyValues = fill(3, T * width);
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
  const both = (): void =>
    gpu.submit("attention", (recorder) => {
      attention.forward(recorder, mode, t);
      attention.backward(recorder, mode, t);
    });
  const run = pass === "forward + backward"
    ? both
    : (): void => gpu.submit("attention", (recorder) => attention[pass](recorder, mode, t));

  /** jax-js's and tfjs's inputs. */
  function peerInputs() {
    const [q, k, v] = [0, 1, 2].map((part) => byHead(qkvValues, shape, 3 * width, part * width));
    const noise = Float32Array.from({ length: heads * T * T }, (_, n) => {
      const [row, i, j] = [Math.floor(n / (T * T)), Math.floor(n / T) % T, n % T];
      return j > i ? 0 : logisticNoise(randomWord({ seed: SEED, step: 0, layer: 0, row, i, j }));
    });
    const causal = Float32Array.from({ length: T * T }, (_, n) => n % T > Math.floor(n / T) ? -1e9 : 0);
    return { q, k, v, noise, causal };
  }

  const compareY = async (expected: Float32Array, peer: string) =>
    assertClose(byHead(await gpu.read(t.y), shape, width, 0), expected, {
      tolerance: TOLERANCE,
      name: `${peer}'s y`,
    });

  async function jaxForward(): Promise<Peer> {
    await openJax();
    const { q, k, v, noise, causal } = peerInputs();
    const inputs = {
      q: jaxArray(q, [heads, T, D]),
      k: jaxArray(k, [heads, T, D]),
      v: jaxArray(v, [heads, T, D]),
      noise: jaxArray(noise, [heads, T, T]),
      causal: jaxArray(causal, [T, T]),
    };
    const forward = jaxAttentionForward({ headSize: D, bias: BIAS, pairs: heads * pairs });
    const { q: q_, k: k_, v: v_, noise: noise_, causal: causal_ } = inputs;
    return jaxPeer(
      () => [forward({ q: q_.ref, k: k_.ref, v: v_.ref, noise: noise_.ref, causal: causal_.ref })],
      async ([y]) => await compareY(await jaxValues(y), "jax-js"),
      Object.values(inputs),
    );
  }

  async function jaxGradient(): Promise<Peer> {
    await openJax();
    const inputs = peerInputs();
    const [q, k, v] = [inputs.q, inputs.k, inputs.v].map((values) => jaxArray(values, [heads, T, D]));
    const dy = jaxArray(byHead(dyValues, shape, width, 0), [heads, T, D]);
    const noise = jaxArray(inputs.noise, [heads, T, T]);
    const causal = jaxArray(inputs.causal, [T, T]);
    const gradient = jaxAttentionGradient({
      headSize: D,
      bias: BIAS,
      pairs: heads * pairs,
      edgeScale: EDGE_SCALE,
    });
    return jaxPeer(
      () => {
        const [value, of] = gradient({ q: q.ref, k: k.ref, v: v.ref }, noise.ref, causal.ref, dy.ref);
        return [of.q, of.k, of.v, value];
      },
      async (gradients) => {
        const dqkv = await gpu.read(t.dqkv);
        for (const [part, name] of ["q", "k", "v"].entries()) {
          const ours = byHead(dqkv, shape, 3 * width, part * width);
          const expected = await jaxValues(gradients[part]);
          assertClose(ours, expected, { tolerance: TOLERANCE, name: `jax-js's d${name}` });
        }
      },
      [q, k, v, dy, noise, causal],
    );
  }

  const inProcess: BenchCase["peers"] = {};
  if (mode === "sampled" && T <= PEER_POSITIONS) {
    if (pass === "forward") {
      inProcess["jax-js"] = jaxForward;
      inProcess.tfjs = () => {
        const inputs = { ...peerInputs(), shape, bias: BIAS };
        return tfjsAttentionForward(inputs, (values) => compareY(values, "tfjs"));
      };
    }
    if (pass === "forward + backward") inProcess["jax-js"] = jaxGradient;
  }
  const torchShape = {
    heads,
    positions: T,
    headSize: D,
    backward: pass !== "forward",
    bias: BIAS,
    edgeScale: EDGE_SCALE,
  };
  const inTorch = pass === "backward" ? {} : {
    ...(mode === "sampled" ? torchPeers(torch, { kind: "gated attention", ...torchShape }) : {}),
    ...torchPeers(torch, { kind: "scaled dot product attention", ...torchShape }, "torch sdpa"),
  };
  // Causal pairs × 2 D × (scores and y forward; scores, dp and three gradients backward).
  const products = { forward: 2, backward: 5, "forward + backward": 7 }[pass];
  // qkv and y forward; qkv, y, dy and dqkv backward.
  const arrays = { forward: 4, backward: 8, "forward + backward": 8 }[pass];
  return {
    operations: heads * pairs * 2 * D * products,
    bytes: 4 * T * width * arrays,
    ours: kernelCandidate(gpu, run),
    peers: { ...inProcess, ...inTorch },
    async check() {
      // Without what later queries add to them, the first positions' values and gradients are those of a shorter row.
      const length = Math.min(T, REFERENCE_POSITIONS);
      const alone = length === T;
      if (!alone) {
        gpu.write(t.dy, dyValues.map((value, n) => n < length * width ? value : 0));
        gpu.write(t.edgeScale, Float32Array.of(0));
      }
      both();
      const head = heads - 1;
      const cut = (values: ArrayLike<number>, parts: number) =>
        Float32Array.from(
          { length: length * parts * D },
          (_, n) => values[Math.floor(n / D) * width + head * D + n % D],
        );
      const input = {
        batch: 1,
        heads: 1,
        positions: length,
        headSize: D,
        qkv: cut(qkvValues, 3),
        gate: mode === "dense" ? undefined : {
          bias: BIAS,
          temperature: 1,
          noise: { seed: SEED, step: 0, layer: 0, firstRow: head },
          saturationBound: 6,
          saturationWeight: 0,
          edgeGradient: alone ? EDGE_SCALE / (heads * pairs) : 0,
        },
      };
      const y = cut(await gpu.read(t.y), 1);
      const dqkv = cut(await gpu.read(t.dqkv), 3);
      assertClose(y, attentionReference(input).y, { tolerance: TOLERANCE, name: "y" });
      assertClose(dqkv, attentionGradientReference(input, cut(dyValues, 1)), {
        tolerance: TOLERANCE,
        name: "dqkv",
      });
      if (alone) return;
      gpu.write(t.dy, dyValues);
      gpu.write(t.edgeScale, Float32Array.of(EDGE_SCALE));
      both();
    },
    destroy() {
      for (const tensor of Object.values(t)) destroyTensor(gpu, tensor);
    },
  };
}
