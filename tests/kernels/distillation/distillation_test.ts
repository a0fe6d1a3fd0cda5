import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { MAX_WORKGROUPS } from "../../../kernels/core/recorder.ts";
import { prepareCrossEntropy } from "../../../kernels/cross_entropy/op.ts";
import { IGNORED } from "../../../kernels/core/targets.ts";
import { crossEntropyGradientReference } from "../../../kernels/cross_entropy/reference.ts";
import { prepareDistillation } from "../../../kernels/distillation/op.ts";
import { distillationReference } from "../../../kernels/distillation/reference.ts";
import { assertClose, relativeError } from "../../support/compare.ts";
import { centralDifference } from "../../support/gradient_check.ts";
import { gpuTest, poisoned, upload } from "../../support/gpu.ts";
import { rows as rowsOf } from "../../../kernels/core/tensor.ts";
import { normals } from "../../support/seeded.ts";
import { column, padded, unpadded } from "../cross_entropy/padded.ts";

const WEIGHT = 0.2;

Deno.test("the distillation reference's gradient agrees with central differences", () => {
  const student = normals(1, 3 * 11, 2);
  const teacher = normals(2, 3 * 11, 2);
  const numeric = centralDifference(
    (x) => distillationReference(teacher, x, 11).kl.reduce((sum, value) => sum + value, 0),
    Float64Array.from(student),
  );
  assert(relativeError(distillationReference(teacher, student, 11).dstudent, numeric) < 1e-8); // measured 1.2e-10
});

interface Case {
  V: number;
  targets: Uint32Array;
  student: Float32Array;
  teacher: Float32Array;
  blockRows?: number[];
}

/** Runs the distillation and the cross-entropy that it joins, block by block, and compares both with float64. */
async function check(
  gpu: Gpu,
  { V, targets, student, teacher, blockRows = [targets.length] }: Case,
): Promise<void> {
  const rows = targets.length;
  const stride = 4 * Math.ceil(V / 4);
  let first = 0;
  const blocks = blockRows.map((count) => ({ first: (first += count) - count, count }));
  const config = { vocabularySize: V, stride };
  const distillation = await prepareDistillation(gpu, config);
  const crossEntropy = await prepareCrossEntropy(gpu, { rows, ...config });
  distillation.configure({ weight: WEIGHT });
  crossEntropy.configure({ weight: 0.5 });
  const t = { targets: upload(gpu, "targets", targets), scale: upload(gpu, "scale", Float32Array.of(0.7)) };
  const klRows = poisoned(gpu, "kl rows", [rows, 4]);
  const ceRows = poisoned(gpu, "ce rows", [rows, 4]);
  const counted = Array.from(targets, (target) => target < V ? 1 : 0);
  const reference = distillationReference(teacher, student, V);
  const kl = reference.dstudent.map((value, n) => WEIGHT * 0.7 * counted[Math.floor(n / V)] * value);
  const ce = crossEntropyGradientReference(student, targets, V, 0.5 * 0.7);
  for (const [index, { first, count }] of blocks.entries()) {
    const block = (label: string, values: Float32Array) =>
      upload(gpu, label, padded(values.slice(first * V, (first + count) * V), V, stride), [count, stride]);
    const logits = { student: block("student", student), teacher: block("teacher", teacher) };
    const ofBlock = {
      ...logits,
      targets: rowsOf(t.targets, first, count),
      rows: rowsOf(klRows, first, count),
    };
    gpu.submit("distillation", (recorder) => {
      distillation.forward(recorder, ofBlock);
      distillation.backward(recorder, { ...ofBlock, scale: t.scale });
      crossEntropy.record(
        recorder,
        { logits: logits.student, targets: ofBlock.targets, rows: rowsOf(ceRows, first, count) },
        { scale: t.scale, extra: logits.teacher },
      );
    });
    const [from, to] = [first * V, (first + count) * V];
    const dkl = await gpu.read(logits.teacher);
    // Measured: 2.4e-7.
    assertClose(unpadded(dkl, V, stride), kl.subarray(from, to), {
      tolerance: 2e-6,
      name: `gradient of block ${index}, V ${V}`,
    });
    assert(dkl.every((value, n) => n % stride < V || value === 0), "the padding's gradient is 0");
    const joined = kl.map((value, n) => value + ce[n]).subarray(from, to);
    // Measured: 1.1e-7.
    assertClose(unpadded(await gpu.read(logits.student), V, stride), joined, {
      tolerance: 2e-6,
      name: `joint gradient of block ${index}, V ${V}`,
    });
  }
  const lossRows = await gpu.read(klRows);
  // Measured: 4.5e-7.
  assertClose(column(lossRows, 0), reference.kl.map((value, row) => counted[row] * value), {
    tolerance: 2e-6,
    name: `KL, V ${V}`,
  });
  assertEquals([...column(lossRows, 3)], counted, "counted");
}

gpuTest("distillation equals float64 at awkward numbers of entries", async (gpu) => {
  for (const V of [2, 63, 64, 65]) {
    const targets = Uint32Array.of(1, 0);
    await check(gpu, { V, targets, student: normals(V, 2 * V, 2), teacher: normals(V + 1, 2 * V, 2) });
  }
});

gpuTest("distillation in blocks equals float64, and its gradient joins the cross-entropy's", async (gpu) => {
  const V = 131;
  const rows = 67;
  const targets = Uint32Array.from({ length: rows }, (_, row) => row % 3 === 2 ? IGNORED : row);
  const [student, teacher] = [normals(5, rows * V, 2), normals(6, rows * V, 2)];
  await check(gpu, { V, targets, student, teacher, blockRows: [64, 3] });
});

gpuTest("rows of logits that are no vectors of four, or too short, are refused", async (gpu) => {
  for (const stride of [6, 4]) {
    const message = `the stride must be a multiple of 4 and at least 5: ${stride}`;
    await assertRejects(() => prepareDistillation(gpu, { vocabularySize: 5, stride }), RangeError, message);
  }
});

gpuTest("a student that is the teacher has a divergence and a gradient of 0 to a rounding", async (gpu) => {
  const [V, rows] = [64, 2];
  const logits = normals(7, rows * V, 2);
  const op = await prepareDistillation(gpu, { vocabularySize: V, stride: V });
  op.configure({ weight: 1 });
  const t = {
    teacher: upload(gpu, "teacher", logits, [rows, V]),
    student: upload(gpu, "student", logits, [rows, V]),
    targets: upload(gpu, "targets", Uint32Array.of(0, 1)),
    rows: poisoned(gpu, "kl rows", [rows, 4]),
    scale: upload(gpu, "scale", Float32Array.of(1)),
  };
  gpu.submit("distillation", (recorder) => {
    op.forward(recorder, t);
    op.backward(recorder, t);
  });
  const largest = (values: Float32Array) => values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  assert(largest(column(await gpu.read(t.rows), 0)) < 1e-6); // measured 0
  assert(largest(await gpu.read(t.teacher)) < 1e-6); // measured 0
});

gpuTest("rows past the largest grid of workgroups are reached by looping", async (gpu) => {
  const [rows, V] = [MAX_WORKGROUPS + 2, 3];
  const targets = new Uint32Array(rows).fill(2);
  targets[rows - 2] = IGNORED;
  const [student, teacher] = [new Float32Array(rows * V).fill(0.5), new Float32Array(rows * V).fill(-1)];
  student[rows * V - 2] = 2;
  teacher[rows * V - 3] = 1;
  await check(gpu, { V, targets, student, teacher });
});

gpuTest(
  "where no position of the whole batch counts, and each weighs 1 / 0, gradients are 0",
  async (gpu) => {
    const [V, rows] = [8, 3];
    const config = { vocabularySize: V, stride: V };
    const distillation = await prepareDistillation(gpu, config);
    const crossEntropy = await prepareCrossEntropy(gpu, { rows, ...config });
    for (const op of [distillation, crossEntropy]) op.configure({ weight: Infinity });
    const t = {
      teacher: upload(gpu, "teacher", normals(1, rows * V), [rows, V]),
      student: upload(gpu, "student", normals(2, rows * V), [rows, V]),
      targets: upload(gpu, "targets", new Uint32Array(rows).fill(IGNORED)),
      scale: upload(gpu, "scale", Float32Array.of(0.7)),
    };
    const [klRows, ceRows] = [poisoned(gpu, "kl rows", [rows, 4]), poisoned(gpu, "ce rows", [rows, 4])];
    gpu.submit("distillation", (recorder) => {
      distillation.forward(recorder, { ...t, rows: klRows });
      distillation.backward(recorder, { ...t, rows: klRows });
      crossEntropy.record(
        recorder,
        { logits: t.student, targets: t.targets, rows: ceRows },
        { scale: t.scale, extra: t.teacher },
      );
    });
    const isZero = (value: number) => value === 0;
    assert((await gpu.read(t.teacher)).every(isZero), "of the divergence");
    assert((await gpu.read(t.student)).every(isZero), "of both");
    assertEquals([...column(await gpu.read(klRows), 0)], [0, 0, 0]);
  },
);
