import { assertEquals } from "@std/assert";
import { MAX_WORKGROUPS } from "../../../kernels/core/recorder.ts";
import { destroyTensor } from "../../../kernels/core/tensor.ts";
import { prepareAdditionTo, prepareResidual } from "../../../kernels/residual/op.ts";
import { residualReference } from "../../../kernels/residual/reference.ts";
import { gpuTest, poisoned, runAndRead, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

gpuTest("the residual addition is exact to a rounding", async (gpu) => {
  for (const length of [1, 63, 64, 65, 1009]) {
    const [a, b] = [normals(1, length), normals(2, length)];
    const op = await prepareResidual(gpu, { length });
    const t = { a: upload(gpu, "a", a), b: upload(gpu, "b", b), sum: poisoned(gpu, "sum", [length]) };
    const sum = await runAndRead(gpu, t.sum, (recorder) => op.forward(recorder, t));
    assertEquals(sum, Float32Array.from(residualReference(a, b)));
  }
});

gpuTest("an addition to a sum has the bits of one beside it", async (gpu) => {
  for (const length of [1, 63, 64, 65, 1009]) {
    const [a, b] = [normals(1, length), normals(2, length)];
    const op = await prepareAdditionTo(gpu, { length });
    const t = { a: upload(gpu, "a", a), sum: upload(gpu, "sum", b) };
    const sum = await runAndRead(gpu, t.sum, (recorder) => op.record(recorder, t));
    assertEquals(sum, Float32Array.from(residualReference(a, b)));
  }
});

gpuTest("elements past the largest grid of workgroups are reached by looping", async (gpu) => {
  const length = 64 * MAX_WORKGROUPS + 1;
  const values = Float32Array.from({ length }, (_, n) => n % 1000);
  const op = await prepareResidual(gpu, { length });
  const t = { a: upload(gpu, "a", values), b: upload(gpu, "b", values), sum: poisoned(gpu, "sum", [length]) };
  const sum = await runAndRead(gpu, t.sum, (recorder) => op.forward(recorder, t));
  assertEquals(sum.findIndex((value, n) => value !== 2 * values[n]), -1);
  for (const tensor of Object.values(t)) destroyTensor(gpu, tensor);
});
