import { gpt2Config } from "../../../pipeline/model/config.ts";
import { assert } from "@std/assert";
import {
  attentionGradientReference,
  attentionReference,
  logisticNoise,
  randomWord,
} from "../../../kernels/gated_attention/reference.ts";
import { assertClose } from "../../support/compare.ts";
import { normals } from "../../support/seeded.ts";
import { hasTorch, openTorch, type TorchCase, torchPeers } from "./torch.ts";

const [H, T, D] = [2, 7, 4];
const [BIAS, TEMPERATURE, EDGE_SCALE, SEED] = [0.4, 0.7, 3, 5];

/** (position, parts, head, D) → [1][head][position][D] of one part, as PyTorch reads and writes it. */
function nested(values: ArrayLike<number>, parts: number, part: number): number[][][][] {
  const at = (t: number, head: number, d: number) => values[((t * parts + part) * H + head) * D + d];
  const range = (length: number) => Array.from({ length }, (_, n) => n);
  return [range(H).map((head) => range(T).map((t) => range(D).map((d) => at(t, head, d))))];
}

const flat = (values: number[][][][]): number[] => values.flat(3);

// Without PyTorch, which nothing but the bench's peer needs, there is nothing to test.
const ignore = !await hasTorch("cpu");
const torch = ignore ? undefined as never : openTorch("cpu");
Deno.test.afterAll(async () => await torch?.close());

Deno.test({
  name: "PyTorch's gated attention has the reference's values and gradients for the same noise",
  ignore,
  async fn() {
    const qkv = normals(1, T * 3 * H * D);
    const dy = normals(2, T * H * D);
    const pairs = T * (T + 1) / 2;
    const noise = [
      Array.from(
        { length: H },
        (_, row) =>
          Array.from(
            { length: T },
            (_, i) =>
              Array.from({ length: T }, (_, j) =>
                logisticNoise(randomWord({ seed: SEED, step: 0, layer: 0, row, i, j }))),
          ),
      ),
    ];
    type Values = Record<"y" | "dq" | "dk" | "dv", number[][][][]> & { openProbability: number };
    const theirs = await torch.ask<Values>({
      gated_attention: {
        q: nested(qkv, 3, 0),
        k: nested(qkv, 3, 1),
        v: nested(qkv, 3, 2),
        dy: nested(dy, 1, 0),
        noise,
        bias: BIAS,
        temperature: TEMPERATURE,
        edgeScale: EDGE_SCALE,
      },
    });
    const input = {
      batch: 1,
      heads: H,
      positions: T,
      headSize: D,
      qkv,
      gate: {
        bias: BIAS,
        temperature: TEMPERATURE,
        noise: { seed: SEED, step: 0, layer: 0, firstRow: 0 },
        saturationBound: 6,
        saturationWeight: 0,
        edgeGradient: EDGE_SCALE / (H * pairs),
      },
    };
    const { y, rowSums } = attentionReference(input);
    const dqkv = attentionGradientReference(input, dy);
    const openProbability = rowSums.filter((_, n) => n % 4 === 0).reduce((sum, p) => sum + p, 0) /
      (H * pairs);
    // Both are float64: at most 2.4e-16 (dk) was seen.
    const close = (name: string, actual: number[], expected: number[]) =>
      assertClose(actual, expected, { tolerance: 1e-15, name });
    close("y", flat(theirs.y), flat(nested(y, 1, 0)));
    close("mean open probability", [theirs.openProbability], [openProbability]);
    for (const [part, name] of (["dq", "dk", "dv"] as const).entries()) {
      close(name, flat(theirs[name]), flat(nested(dqkv, 3, part)));
    }
  },
});

Deno.test({
  name: "PyTorch's side times every case in every mode",
  ignore,
  async fn() {
    const attention = { heads: 2, positions: 8, headSize: 4, backward: true, bias: 0.5, edgeScale: 3 };
    const config = gpt2Config({
      vocabularySize: 32,
      contextLength: 8,
      width: 8,
      layers: 2,
      heads: 2,
      mlpWidth: 32,
    });
    const cases: TorchCase[] = [
      ...(["nn", "nt", "tn"] as const).map((
        layout,
      ) => ({ kind: "matmul", layout, m: 3, n: 4, k: 5 } as const)),
      { kind: "gated attention", ...attention },
      { kind: "gated attention", ...attention, backward: false },
      { kind: "scaled dot product attention", ...attention },
      { kind: "scaled dot product attention", ...attention, backward: false },
      { kind: "training step", config, batch: 2, context: 8, bias: 3, lambda: 1 },
    ];
    for (const work of cases) {
      for (const [name, make] of Object.entries(torchPeers(torch, work))) {
        const peer = await make();
        assert(await peer.time(2) > 0, `${work.kind} in ${name}`);
        await peer.destroy!();
      }
    }
  },
});
