import { assertEquals, assertNotEquals } from "@std/assert";
import {
  attentionGradientReference,
  attentionReference,
} from "../../../kernels/gated_attention/reference.ts";
import { attention } from "../../../pipeline/model/ops/attention.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest, poisoned, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

const SHAPE = { batch: 2, heads: 4, positions: 7, headSize: 8, layer: 0, half: false };

Deno.test("attention's key is the same where as many key heads as heads are asked for, and no other", () => {
  const key = (keyValueHeads?: number) => attention({ ...SHAPE, keyValueHeads }).key;
  assertEquals(key(4), key());
  assertNotEquals(key(2), key());
});

gpuTest("a model's attention takes key heads that several query heads share", async (gpu) => {
  const { batch, heads, positions, headSize } = SHAPE;
  const keyValueHeads = 2;
  const rows = batch * positions;
  const [qkv, dy] = [normals(1, rows * 8 * headSize), normals(2, rows * heads * headSize)];
  const op = attention({ ...SHAPE, keyValueHeads });
  const { forward, backward } = await op.compile(gpu, true);
  const t = {
    x: upload(gpu, "x", qkv),
    dy: upload(gpu, "dy", dy),
    y: poisoned(gpu, "y", [rows, heads, headSize]),
    logSumExp: poisoned(gpu, "log-sum-exp", [batch, heads, positions]),
    rowSums: poisoned(gpu, "row sums", [batch, heads, positions, 4]),
    delta: gpu.tensor("delta", [...op.scratch!.delta]),
    dx: poisoned(gpu, "dx", [rows, 8 * headSize]),
  };
  const edgeScale = upload(gpu, "edge scale", Float32Array.of(0));
  gpu.submit("attention", (recorder) => {
    forward(recorder, t, { mode: "dense" });
    backward!(recorder, t, undefined, { mode: "dense", edgeScale });
  });
  const input = { batch, heads, keyValueHeads, positions, headSize, qkv };
  // Measured: 8e-8 and 1.5e-7.
  assertClose(await gpu.read(t.y), attentionReference(input).y, { tolerance: 2e-6, name: "y" });
  assertClose(await gpu.read(t.dx), attentionGradientReference(input, dy), { tolerance: 1e-5, name: "dx" });
});
