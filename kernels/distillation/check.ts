/** Distillation on fixed inputs, against the float64 reference. @module */
import { type Check, normals, padded, TRANSCENDENTAL, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { IGNORED } from "../core/targets.ts";
import { prepareDistillation } from "./op.ts";
import { distillationReference } from "./reference.ts";

/** Forward and backward, of more vectors of four columns than lanes. */
export async function distillationCheck(gpu: Gpu): Promise<Check> {
  const [rows, V, stride] = [3, 1101, 1104];
  const [weight, scale] = [0.5, 0.7];
  const teacher = normals(1, rows * V);
  const student = normals(2, rows * V);
  const targets = Uint32Array.of(4, IGNORED, 0);
  const op = await prepareDistillation(gpu, { vocabularySize: V, stride });
  op.configure({ weight });
  const t = {
    teacher: upload(gpu, "teacher", padded(teacher, V, stride, 9)),
    student: upload(gpu, "student", padded(student, V, stride, 9)),
    targets: upload(gpu, "targets", targets),
    rows: gpu.tensor("distillation rows", [rows, 4]),
    scale: upload(gpu, "scale", Float32Array.of(scale)),
  };
  const { kl, dstudent } = distillationReference(teacher, student, V);
  const sumsOf = (logits: Float32Array): number[] =>
    Array.from(
      { length: rows },
      (_, row) => Math.log(logits.subarray(row * V, (row + 1) * V).reduce((sum, x) => sum + Math.exp(x), 0)),
    );
  const [teacherSums, studentSums] = [teacher, student].map(sumsOf);
  const counted = [...targets].map((target) => target < V ? 1 : 0);
  return {
    record(recorder) {
      op.forward(recorder, t);
      op.backward(recorder, t);
    },
    comparisons: [
      {
        operation: "distillation forward",
        outputs: [[
          t.rows,
          counted.flatMap((c, row) => [c * kl[row], teacherSums[row], studentSums[row], c]),
        ]],
        tolerance: TRANSCENDENTAL,
      },
      {
        operation: "distillation backward",
        outputs: [[
          t.teacher,
          padded(
            dstudent.map((value, n) => weight * scale * counted[Math.floor(n / V)] * value),
            V,
            stride,
            0,
          ),
        ]],
        tolerance: TRANSCENDENTAL,
      },
    ],
  };
}
