import { assert, assertEquals } from "@std/assert";
import { IGNORED_TARGET, prepareCrossEntropy } from "../../../kernels/cross_entropy/op.ts";
import {
  crossEntropyGradientReference,
  crossEntropyReference,
} from "../../../kernels/cross_entropy/reference.ts";
import { prepareDistillation } from "../../../kernels/distillation/op.ts";
import { distillationReference } from "../../../kernels/distillation/reference.ts";
import { assertClose, relativeError } from "../../support/compare.ts";
import { centralDifference } from "../../support/gradient_check.ts";
import { gpuTest, poisoned, upload } from "../../support/gpu.ts";
import { normals, seeded } from "../../support/seeded.ts";

/** Rows of logits with padding columns that hold garbage. */
function padded(logits: Float32Array, V: number, stride: number): Float32Array {
  const rows = logits.length / V;
  const result = new Float32Array(rows * stride).fill(1e9);
  for (let row = 0; row < rows; row++) result.set(logits.subarray(row * V, (row + 1) * V), row * stride);
  return result;
}

function unpadded(values: Float32Array, V: number, stride: number): Float32Array {
  const rows = values.length / stride;
  return Float32Array.from({ length: rows * V }, (_, n) => values[Math.floor(n / V) * stride + n % V]);
}

const V = 131;
const STRIDE = 132;
const ROWS = 5;
const BLOCKS = [{ first: 0, count: 3 }, { first: 3, count: 2 }];

Deno.test("the references' gradients agree with central differences", () => {
  const logits = normals(1, 3 * 11, 2);
  const teacher = normals(2, 3 * 11, 2);
  const targets = [4, IGNORED_TARGET, 0];
  const loss = centralDifference(
    (x) => crossEntropyReference(x, targets, 11).losses.reduce((sum, value) => sum + value, 0),
    Float64Array.from(logits),
  );
  assert(relativeError(crossEntropyGradientReference(logits, targets, 11, 1), loss) < 1e-8); // measured 1e-10
  const kl = centralDifference(
    (x) => distillationReference(teacher, x, 11).kl.reduce((sum, value) => sum + value, 0),
    Float64Array.from(logits),
  );
  assert(relativeError(distillationReference(teacher, logits, 11).dstudent, kl) < 1e-8);
});

gpuTest(
  "cross-entropy in blocks equals float64: losses, gradients, ignored targets, huge logits",
  async (gpu) => {
    const random = seeded(3);
    const targets = Uint32Array.from({ length: ROWS }, () => random.integer(V));
    targets[1] = IGNORED_TARGET;
    const logits = normals(4, ROWS * V, 3).map((value, n) =>
      value + (n % V === 7 ? 80 : 0) - (n % V === 9 ? 80 : 0)
    );
    targets[2] = 7;
    const weight = 0.25;
    const scale = 0.7;
    const op = await prepareCrossEntropy(gpu, {
      rows: ROWS,
      vocabularySize: V,
      stride: STRIDE,
      blocks: BLOCKS,
    });
    op.configure({ weight });
    const t = {
      targets: upload(gpu, "targets", targets),
      rows: poisoned(gpu, "rows", [ROWS, 4]),
      totals: gpu.tensor("totals", [4]),
      scale: upload(gpu, "scale", Float32Array.of(scale)),
    };
    const reference = crossEntropyReference(logits, targets, V);
    const gradient = crossEntropyGradientReference(logits, targets, V, weight * scale);
    for (const [index, { first, count }] of BLOCKS.entries()) {
      const part = padded(logits.slice(first * V, (first + count) * V), V, STRIDE);
      const block = upload(gpu, "logits", part, [count, STRIDE]);
      gpu.submit("cross-entropy", (recorder) => {
        op.forward(recorder, index, { logits: block, ...t });
        op.backward(recorder, index, { logits: block, ...t });
      });
      const dlogits = await gpu.read(block);
      // Measured: 3e-7.
      assertClose(unpadded(dlogits, V, STRIDE), gradient.subarray(first * V, (first + count) * V), {
        tolerance: 2e-6,
        name: `dlogits of block ${index}`,
      });
      for (let row = 0; row < count; row++) assertEquals(dlogits[row * STRIDE + V], 0, "padding");
    }
    gpu.submit("totals", (recorder) => op.total(recorder, t));
    const rows = await gpu.read(t.rows);
    const column = (n: number) => Float32Array.from({ length: ROWS }, (_, row) => rows[4 * row + n]);
    assertClose(column(0), reference.losses, { tolerance: 1e-6, name: "losses" });
    assertClose(column(2), reference.logSumExp, { tolerance: 1e-6, name: "log-sum-exp" });
    assertEquals([...column(1)], [...reference.correct].map((value, row) => row === 1 ? 0 : value));
    assertEquals(reference.correct[2], 1);
    const totals = await gpu.read(t.totals);
    assertClose([totals[0]], [reference.losses.reduce((a, b) => a + b)], {
      tolerance: 1e-6,
      name: "sum of losses",
    });
    assertEquals([totals[1], totals[3]], [reference.correct.reduce((a, b) => a + b, 0), ROWS - 1]);
  },
);

gpuTest("distillation in blocks equals float64, and its gradient joins the cross-entropy's", async (gpu) => {
  const student = normals(5, ROWS * V, 2);
  const teacher = normals(6, ROWS * V, 2);
  const targets = Uint32Array.from([3, 100, IGNORED_TARGET, 0, 130]);
  const reference = distillationReference(teacher, student, V);
  const ce = crossEntropyGradientReference(student, targets, V, 0.5);
  const config = { vocabularySize: V, stride: STRIDE, blocks: BLOCKS };
  const distillation = await prepareDistillation(gpu, config);
  const crossEntropy = await prepareCrossEntropy(gpu, { rows: ROWS, ...config });
  distillation.configure({ weight: 0.2 });
  crossEntropy.configure({ weight: 0.5 });
  const t = {
    targets: upload(gpu, "targets", targets),
    scale: upload(gpu, "scale", Float32Array.of(1)),
  };
  const klRows = poisoned(gpu, "kl rows", [ROWS, 4]);
  const ceRows = poisoned(gpu, "ce rows", [ROWS, 4]);
  for (const [index, { first, count }] of BLOCKS.entries()) {
    const block = (values: Float32Array) =>
      upload(gpu, "logits", padded(values.slice(first * V, (first + count) * V), V, STRIDE), [count, STRIDE]);
    const tensors = { student: block(student), teacher: block(teacher), rows: klRows, ...t };
    gpu.submit("distillation", (recorder) => {
      crossEntropy.forward(recorder, index, { logits: tensors.student, ...t, rows: ceRows });
      distillation.forward(recorder, index, tensors);
      distillation.backward(recorder, index, tensors);
      crossEntropy.backward(recorder, index, {
        logits: tensors.student,
        ...t,
        rows: ceRows,
        extra: tensors.teacher,
      });
    });
    const got = unpadded(await gpu.read(tensors.student), V, STRIDE);
    const want = Float64Array.from({ length: count * V }, (_, n) => {
      const at = first * V + n;
      const counted = targets[Math.floor(at / V)] < V ? 1 : 0;
      return ce[at] + 0.2 * counted * reference.dstudent[at];
    });
    assertClose(got, want, { tolerance: 2e-6, name: `gradient of block ${index}` }); // measured 3e-7
  }
  const rows = await gpu.read(klRows);
  const kl = Float32Array.from({ length: ROWS }, (_, row) => rows[4 * row]);
  assertClose(kl, reference.kl.map((value, row) => row === 2 ? 0 : value), { tolerance: 1e-6, name: "KL" });
  assertEquals(rows[4 * 2 + 3], 0);
});
