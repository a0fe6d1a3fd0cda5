import { assert, assertEquals, assertRejects } from "@std/assert";
import { MASKED, prepareExplicitAttention } from "../../../kernels/explicit_attention/op.ts";
import {
  mixReference,
  patternReference,
  scoresReference,
} from "../../../kernels/explicit_attention/reference.ts";
import { prepareGatedAttention } from "../../../kernels/gated_attention/op.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest, poisoned, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

const SHAPES = [
  { batch: 1, heads: 1, positions: 1, headSize: 4 },
  { batch: 2, heads: 3, positions: 7, headSize: 8 },
  { batch: 1, heads: 2, positions: 9, headSize: 3 },
  { batch: 2, heads: 1, positions: 65, headSize: 16 },
  { batch: 2, heads: 4, keyValueHeads: 2, positions: 17, headSize: 12 },
  { batch: 2, heads: 3, keyValueHeads: 1, positions: 9, headSize: 5 },
];

for (const gateBias of [undefined, 0.1]) {
  const what = gateBias === undefined ? "dense" : "gated";
  gpuTest(`${what}: scores, pattern, gates and their mix equal float64 and gated attention`, async (gpu) => {
    for (const shape of SHAPES) {
      const { batch, heads, keyValueHeads = heads, positions, headSize } = shape;
      const name = Object.values(shape).join(" x ");
      const qkv = normals(positions, batch * positions * (heads + 2 * keyValueHeads) * headSize);
      const square = [batch, heads, positions, positions];
      const t = {
        qkv: upload(gpu, "qkv", qkv),
        scores: poisoned(gpu, "scores", square),
        pattern: poisoned(gpu, "pattern", square),
        gates: poisoned(gpu, "gates", square),
        y: poisoned(gpu, "y", [batch, positions, heads, headSize]),
      };
      const op = await prepareExplicitAttention(gpu, { ...shape, gateBias });
      gpu.submit("scores, pattern and gates' logits", (recorder) => {
        op.scores(recorder, t);
        recorder.copy(t.scores, t.pattern);
        op.pattern(recorder, t);
      });
      const [scores, logits] = [await gpu.read(t.scores), await gpu.read(t.gates)];
      const scores64 = scoresReference({ ...shape, qkv });
      const isSeen = (_: number, n: number) => scores64[n] > -Infinity;
      // Measured: 2.3e-7.
      assertClose(scores.filter(isSeen), scores64.filter(isSeen), {
        tolerance: 1e-6,
        name: `scores ${name}`,
      });
      assertEquals(
        logits,
        scores.map((score, n) =>
          isSeen(0, n) ? gateBias === undefined ? 1 : score + Math.fround(gateBias) : MASKED
        ),
      );
      assert(scores.every((score, n) => isSeen(0, n) || score === MASKED));
      gpu.submit("gates and mix", (recorder) => {
        op.open(recorder, t);
        op.mix(recorder, t);
      });
      const [pattern, gates, y] = [await gpu.read(t.pattern), await gpu.read(t.gates), await gpu.read(t.y)];
      const reference = patternReference({ ...shape, gateBias }, scores64);
      // Measured: 2e-7.
      assertClose(pattern, reference.pattern, { tolerance: 2e-6, name: `pattern ${name}` });
      assertEquals(gates, Float32Array.from(reference.gates));
      const expected = mixReference({ ...shape, qkv }, reference.pattern, reference.gates);
      assertClose(y, expected, { tolerance: 2e-6, name: `y ${name}` });
      const open = gates.reduce((sum, gate) => sum + gate, 0) /
        (batch * heads * positions * (positions + 1) / 2);
      if (gateBias !== undefined && positions > 1) assert(open > 0.2 && open < 0.8, `open: ${open}`);

      const attention = await prepareGatedAttention(gpu, { ...shape, layer: 0, training: false });
      attention.configure({
        seed: 0,
        step: 0,
        firstRow: 0,
        bias: gateBias ?? 0,
        temperature: 1,
        edgeWeight: 0,
        saturationWeight: 0,
        saturationBound: 0,
      });
      const other = {
        qkv: t.qkv,
        y: poisoned(gpu, "y of gated attention", [batch, positions, heads, headSize]),
        logSumExp: gpu.tensor("log-sum-exp", [batch, heads, positions]),
        rowSums: gpu.tensor("row sums", [batch, heads, positions, 4]),
      };
      const mode = gateBias === undefined ? "dense" : "deterministic";
      gpu.submit("gated attention", (recorder) => attention.forward(recorder, mode, other));
      // Measured: 0.
      assertClose(y, await gpu.read(other.y), { tolerance: 1e-6, name: `gated attention ${name}` });
    }
  });
}

gpuTest(
  "the mix takes pattern and gates as they are, of later keys too, and does not renormalise",
  async (gpu) => {
    const shape = { batch: 1, heads: 1, positions: 2, headSize: 1 };
    const op = await prepareExplicitAttention(gpu, shape);
    const t = {
      // Values 10 and 100.
      qkv: upload(gpu, "qkv", Float32Array.of(0, 0, 10, 0, 0, 100)),
      pattern: upload(gpu, "pattern", Float32Array.of(0.5, 0.25, 0.5, 0.5)),
      gates: upload(gpu, "gates", Float32Array.of(1, 1, 0, 1)),
      y: poisoned(gpu, "y", [1, 2, 1, 1]),
    };
    gpu.submit("mix", (recorder) => op.mix(recorder, t));
    assertEquals(await gpu.read(t.y), Float32Array.of(30, 50));
  },
);

gpuTest(
  "a masked score has no weight, also where a query has no other, and no gate behind its query opens",
  async (gpu) => {
    const op = await prepareExplicitAttention(gpu, {
      batch: 1,
      heads: 1,
      positions: 3,
      headSize: 1,
      gateBias: 1,
    });
    const rows = [[MASKED, 9, 9], [Math.log(3), MASKED, 9], [0, MASKED, 0]];
    const t = {
      pattern: upload(gpu, "pattern", Float32Array.from(rows.flat())),
      gates: poisoned(gpu, "gates", [1, 1, 3, 3]),
    };
    gpu.submit("pattern", (recorder) => op.pattern(recorder, t));
    assertClose(await gpu.read(t.pattern), [0, 0, 0, 1, 0, 0, 0.5, 0, 0.5], {
      tolerance: 1e-6,
      name: "pattern",
    });
    gpu.write(t.gates, Float32Array.of(1, 1, 1, -1, 1, 1, 0, 1, 1));
    gpu.submit("gates", (recorder) => op.open(recorder, t));
    assertEquals(await gpu.read(t.gates), Float32Array.of(1, 0, 0, 0, 1, 0, 0, 1, 1));
  },
);

gpuTest(
  "explicit attention of no position, or of heads that cannot be shared out, is refused",
  async (gpu) => {
    const shape = { batch: 1, heads: 1, positions: 0, headSize: 4 };
    await assertRejects(
      () => prepareExplicitAttention(gpu, shape),
      RangeError,
      "positions must be a positive",
    );
    const odd = { batch: 1, heads: 3, keyValueHeads: 2, positions: 4, headSize: 4 };
    await assertRejects(() => prepareExplicitAttention(gpu, odd), RangeError, "must divide the 3 heads: 2");
  },
);
