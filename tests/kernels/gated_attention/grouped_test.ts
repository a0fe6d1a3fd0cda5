/**
 * Grouped queries: what several query heads read of one key head is what they would read of copies of it, and the key
 * head's gradient is the sum of the copies'.
 */
import type { Gpu } from "../../../kernels/core/gpu.ts";
import {
  type AttentionVariant,
  type GateMode,
  prepareGatedAttention,
} from "../../../kernels/gated_attention/op.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

const [BATCH, POSITIONS] = [2, 37];

/** Forward and backward over packed queries, keys and values (batch, position, H + 2 K, D). */
async function run(
  gpu: Gpu,
  { qkv, dy, heads, keyValueHeads, headSize, mode, variant }: {
    qkv: Float32Array;
    dy: Float32Array;
    heads: number;
    keyValueHeads: number;
    headSize: number;
    mode: GateMode;
    variant: AttentionVariant;
  },
) {
  const sizes = { batch: BATCH, heads, keyValueHeads, positions: POSITIONS, headSize, layer: 1, variant };
  const op = await prepareGatedAttention(gpu, sizes);
  op.configure({
    seed: 5,
    step: 3,
    firstRow: 0,
    bias: 0.4,
    temperature: 0.8,
    edgeWeight: 1e-4,
    saturationWeight: 0.02,
    saturationBound: 0.7,
  });
  const perHead = [BATCH, heads, POSITIONS];
  const t = {
    qkv: upload(gpu, "qkv", qkv),
    dy: upload(gpu, "dy", dy),
    edgeScale: upload(gpu, "edge scale", Float32Array.of(0.6)),
    y: gpu.tensor("y", [dy.length]),
    logSumExp: gpu.tensor("log-sum-exp", perHead),
    rowSums: gpu.tensor("row sums", [...perHead, 4]),
    delta: gpu.tensor("delta", perHead),
    dqkv: gpu.tensor("dqkv", [qkv.length]),
  };
  gpu.submit("attention", (recorder) => {
    op.forward(recorder, mode, t);
    op.backward(recorder, mode, t);
  });
  return {
    y: await gpu.read(t.y),
    rowSums: await gpu.read(t.rowSums),
    dqkv: await gpu.read(t.dqkv),
  };
}

for (const [heads, keyValueHeads, headSize] of [[4, 2, 8], [3, 1, 5]]) {
  for (const variant of ["registers", "tiled"] as const) {
    // The tiled kernels take head sizes that are multiples of 4.
    if (variant === "tiled" && headSize % 4 !== 0) continue;
    for (const mode of ["dense", "deterministic", "sampled"] as const) {
      gpuTest(
        `${heads} query heads of ${keyValueHeads} key heads (${mode}, ${variant}) are as if each had a copy`,
        async (gpu) => {
          const rows = BATCH * POSITIONS;
          const packed = heads + 2 * keyValueHeads;
          const qkv = normals(1, rows * packed * headSize);
          const dy = normals(2, rows * heads * headSize);
          const shared = { dy, heads, headSize, mode, variant };
          /** Which packed head the n-th of (H, H, H) is a copy of. */
          const sourceOf = (n: number): number => {
            const [part, head] = [Math.floor(n / heads), n % heads];
            const group = Math.floor(head * keyValueHeads / heads);
            return part === 0 ? head : heads + (part - 1) * keyValueHeads + group;
          };
          const copied = new Float32Array(rows * 3 * heads * headSize);
          for (let row = 0; row < rows; row++) {
            for (let n = 0; n < 3 * heads; n++) {
              const from = (row * packed + sourceOf(n)) * headSize;
              copied.set(qkv.subarray(from, from + headSize), (row * 3 * heads + n) * headSize);
            }
          }
          const grouped = await run(gpu, { ...shared, qkv, keyValueHeads });
          const apart = await run(gpu, { ...shared, qkv: copied, keyValueHeads: heads });
          const summed = new Float64Array(qkv.length);
          for (let row = 0; row < rows; row++) {
            for (let n = 0; n < 3 * heads; n++) {
              for (let d = 0; d < headSize; d++) {
                summed[(row * packed + sourceOf(n)) * headSize + d] +=
                  apart.dqkv[(row * 3 * heads + n) * headSize + d];
              }
            }
          }
          assertClose(grouped.y, apart.y, { tolerance: 2e-6, name: "y" });
          assertClose(grouped.rowSums, apart.rowSums, { tolerance: 2e-6, name: "row sums" });
          assertClose(grouped.dqkv, summed, { tolerance: 1e-5, name: "dqkv" });
        },
      );
    }
  }
}
