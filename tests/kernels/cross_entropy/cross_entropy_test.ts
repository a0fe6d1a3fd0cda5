import { assert, assertEquals, assertThrows } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import type { Bindings, Kernel } from "../../../kernels/core/kernel.ts";
import { MAX_WORKGROUPS, Recorder } from "../../../kernels/core/recorder.ts";
import { prepareCrossEntropy } from "../../../kernels/cross_entropy/op.ts";
import { IGNORED } from "../../../kernels/core/targets.ts";
import {
  crossEntropyGradientReference,
  crossEntropyReference,
} from "../../../kernels/cross_entropy/reference.ts";
import { assertClose, relativeError } from "../../support/compare.ts";
import { centralDifference } from "../../support/gradient_check.ts";
import { gpuTest, poisoned, upload } from "../../support/gpu.ts";
import { rows as rowsOf } from "../../../kernels/core/tensor.ts";
import { normals, seeded } from "../../support/seeded.ts";
import { column, padded, unpadded } from "./padded.ts";

const WEIGHT = 0.25;
const SCALE = 0.7;

Deno.test("the cross-entropy reference's gradient agrees with central differences", () => {
  const logits = normals(1, 3 * 11, 2);
  const targets = [4, IGNORED, 0];
  const loss = centralDifference(
    (x) => crossEntropyReference(x, targets, 11).losses.reduce((sum, value) => sum + value, 0),
    Float64Array.from(logits),
  );
  assert(relativeError(crossEntropyGradientReference(logits, targets, 11, 1), loss) < 1e-8); // measured 9e-11
});

interface Case {
  V: number;
  targets: Uint32Array;
  logits: Float32Array;
  /** Rows of each block; one block of all rows unless given. */
  blockRows?: number[];
}

/** Runs losses, gradients and totals block by block and compares each with float64. */
async function check(gpu: Gpu, { V, targets, logits, blockRows = [targets.length] }: Case): Promise<void> {
  const rows = targets.length;
  const stride = 4 * Math.ceil(V / 4);
  let first = 0;
  const blocks = blockRows.map((count) => ({ first: (first += count) - count, count }));
  const op = await prepareCrossEntropy(gpu, { rows, vocabularySize: V, stride });
  op.configure({ weight: WEIGHT });
  const t = {
    targets: upload(gpu, "targets", targets),
    rows: poisoned(gpu, "rows", [rows, 4]),
    totals: upload(gpu, "totals", Float32Array.of(100, 0, 0, 0)),
    scale: upload(gpu, "scale", Float32Array.of(SCALE)),
  };
  const reference = crossEntropyReference(logits, targets, V);
  const gradient = crossEntropyGradientReference(logits, targets, V, WEIGHT * SCALE);
  for (const [index, { first, count }] of blocks.entries()) {
    const part = padded(logits.slice(first * V, (first + count) * V), V, stride);
    const block = upload(gpu, "logits", part, [count, stride]);
    const ofBlock = {
      logits: block,
      targets: rowsOf(t.targets, first, count),
      rows: rowsOf(t.rows, first, count),
    };
    gpu.submit("cross-entropy", (recorder) => op.record(recorder, ofBlock));
    assertEquals(await gpu.read(block), part, "the loss alone leaves the logits as they are");
    const lossAlone = await gpu.read(ofBlock.rows);
    gpu.submit("cross-entropy", (recorder) => op.record(recorder, ofBlock, t));
    assertEquals(await gpu.read(ofBlock.rows), lossAlone, "the loss beside its gradient is the loss alone");
    const dlogits = await gpu.read(block);
    // Measured: 1.1e-7.
    assertClose(unpadded(dlogits, V, stride), gradient.subarray(first * V, (first + count) * V), {
      tolerance: 1e-6,
      name: `dlogits of block ${index}, V ${V}`,
    });
    assert(dlogits.every((value, n) => n % stride < V || value === 0), "the padding's gradient is 0");
  }
  gpu.submit("totals", (recorder) => op.total(recorder, t));
  const lossRows = await gpu.read(t.rows);
  const counted = Array.from(targets, (target) => target < V ? 1 : 0);
  // Measured: 6.3e-8 for losses, 4.0e-8 for log-sum-exps.
  assertClose(column(lossRows, 0), reference.losses, { tolerance: 1e-6, name: `losses, V ${V}` });
  assertClose(column(lossRows, 2), reference.logSumExp, { tolerance: 1e-6, name: `log-sum-exp, V ${V}` });
  assertEquals([...column(lossRows, 1)], [...reference.correct], "correct");
  assertEquals([...column(lossRows, 3)], counted, "counted");
  const sum = (values: ArrayLike<number>) => Array.from(values).reduce((a, b) => a + b, 0);
  const [loss, correct, , positions] = await gpu.read(t.totals);
  // Measured: 4.6e-8. The 100 stood there before: totals are added to.
  assertClose([loss], [100 + sum(reference.losses)], { tolerance: 1e-6, name: `sum of losses, V ${V}` });
  assertEquals([correct, positions], [sum(reference.correct), sum(counted)]);
}

gpuTest("cross-entropy equals float64 at awkward numbers of rows and of entries", async (gpu) => {
  for (const [rows, V] of [[1, 1], [2, 7], [1, 63], [3, 64], [2, 65], [257, 5]]) {
    const random = seeded(V);
    const targets = Uint32Array.from({ length: rows }, () => random.integer(V));
    await check(gpu, { V, targets, logits: normals(rows, rows * V, 2) });
  }
});

gpuTest("cross-entropy in blocks equals float64, with targets that do not count", async (gpu) => {
  const V = 131;
  const rows = 67;
  const targets = Uint32Array.from({ length: rows }, (_, row) => row % 3 === 1 ? IGNORED : 130 - row);
  await check(gpu, { V, targets, logits: normals(4, rows * V, 3), blockRows: [64, 3] });
});

gpuTest(
  "a position's own weight, of either sign, multiplies its gradient and leaves its loss as it is",
  async (gpu) => {
    const [rows, V, stride] = [5, 6, 8];
    const logits = normals(7, rows * V, 2);
    const targets = Uint32Array.of(5, 0, IGNORED, 3, 3);
    const ofPositions = [0.5, -2, 3, 0, 1.25];
    const op = await prepareCrossEntropy(gpu, { rows, vocabularySize: V, stride, weighted: true });
    op.configure({ weight: WEIGHT });
    const t = {
      targets: upload(gpu, "targets", targets),
      rows: poisoned(gpu, "rows", [rows, 4]),
      scale: upload(gpu, "scale", Float32Array.of(SCALE)),
      weights: upload(gpu, "weights", Float32Array.from(ofPositions)),
    };
    const extra = normals(8, rows * V);
    for (const added of [undefined, extra]) {
      const block = upload(gpu, "logits", padded(logits, V, stride), [rows, stride]);
      const more = added && upload(gpu, "extra", padded(added, V, stride), [rows, stride]);
      gpu.submit(
        "cross-entropy",
        (recorder) => op.record(recorder, { ...t, logits: block }, { ...t, extra: more }),
      );
      const gradient = crossEntropyGradientReference(
        logits,
        targets,
        V,
        ofPositions.map((weight) => WEIGHT * SCALE * weight),
      );
      const expected = gradient.map((value, n) => value + (added?.[n] ?? 0));
      // Measured: 1.0e-7.
      assertClose(unpadded(await gpu.read(block), V, stride), expected, { tolerance: 1e-6, name: "dlogits" });
      const { losses } = crossEntropyReference(logits, targets, V);
      assertClose(column(await gpu.read(t.rows), 0), losses, { tolerance: 1e-6, name: "losses" });
    }
    const plain = await prepareCrossEntropy(gpu, { rows, vocabularySize: V, stride });
    const logitsOf = upload(gpu, "logits", padded(logits, V, stride), [rows, stride]);
    const { weights, ...without } = t;
    for (
      const [prepared, given, message] of [
        [plain, { ...without, weights }, "a gradient with weights as it was prepared without them"],
        [op, without, "a gradient without weights as it was prepared with them"],
      ] as const
    ) {
      assertThrows(
        () =>
          gpu.submit(
            "cross-entropy",
            (recorder) => prepared.record(recorder, { ...t, logits: logitsOf }, given),
          ),
        RangeError,
        message,
      );
    }
  },
);

gpuTest("logits of 80 above and below all others overflow nothing", async (gpu) => {
  const V = 70;
  const logits = normals(4, 3 * V).map((value, n) => value + (n % V === 7 ? 80 : 0) - (n % V === 9 ? 80 : 0));
  await check(gpu, { V, targets: Uint32Array.of(7, 9, 20), logits });
});

gpuTest("a prediction that ties with the highest logit is correct", async (gpu) => {
  await check(gpu, { V: 4, targets: Uint32Array.of(1, 2), logits: Float32Array.of(0, 2, 2, 1, 0, 2, 2, 1) });
});

gpuTest("rows past the largest grid of workgroups are reached by looping", async (gpu) => {
  const [rows, V] = [MAX_WORKGROUPS + 2, 2];
  // Losses of 0 and 200, whose sum is exact in whatever order.
  const logits = Float32Array.from({ length: rows * V }, (_, n) => n % V === 0 ? 0 : -200);
  const targets = Uint32Array.from({ length: rows }, (_, row) => (row + 1) % V);
  targets[rows - 2] = IGNORED;
  await check(gpu, { V, targets, logits });
});

gpuTest(
  "what a kernel is bound to beside the loss are the gradient's tensors, where they are given",
  async (gpu) => {
    const [rows, V] = [2, 8];
    const op = await prepareCrossEntropy(gpu, { rows, vocabularySize: V, stride: V });
    op.configure({ weight: WEIGHT });
    const t = {
      logits: gpu.tensor("logits", [rows, V]),
      targets: gpu.tensor("targets", [rows], "u32"),
      rows: gpu.tensor("rows", [rows, 4]),
    };
    const [scale, extra] = [gpu.tensor("scale", [1]), gpu.tensor("extra", [rows, V])];
    const bound: Bindings[] = [];
    class Listening extends Recorder {
      override dispatch(_: Kernel, bindings: Bindings): void {
        bound.push(bindings);
      }
    }
    const recorder = new Listening(gpu, "bindings of cross-entropy");
    op.record(recorder, t);
    op.record(recorder, t, { scale });
    op.record(recorder, t, { scale, extra });
    recorder.finish();
    const { loss } = bound[0];
    assertEquals(bound, [{ loss, ...t }, { loss, ...t, scale }, { loss, ...t, scale, extra }]);
  },
);
