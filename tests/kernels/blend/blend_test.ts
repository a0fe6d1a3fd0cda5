import { assertEquals } from "@std/assert";
import { prepareBlend } from "../../../kernels/blend/op.ts";
import { blendReference } from "../../../kernels/blend/reference.ts";
import { MAX_WORKGROUPS } from "../../../kernels/core/recorder.ts";
import { destroyTensor } from "../../../kernels/core/tensor.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest, poisoned, runAndRead, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

gpuTest("a blend is the weighted sum, at awkward lengths and with either weight 0", async (gpu) => {
  for (const length of [1, 63, 64, 65, 1009]) {
    const [a, b] = [normals(1, length), normals(2, length)];
    const op = await prepareBlend(gpu, { length });
    const t = { a: upload(gpu, "a", a), b: upload(gpu, "b", b), sum: poisoned(gpu, "sum", [length]) };
    for (const weights of [{ a: 1, b: 1 }, { a: -1, b: 0 }, { a: 0, b: 0.5 }, { a: 0.3, b: 0.7 }]) {
      op.configure(weights);
      const sum = await runAndRead(gpu, t.sum, (recorder) => op.forward(recorder, t));
      // Measured: 5e-8.
      assertClose(sum, blendReference(a, b, weights), { tolerance: 1e-6, name: `blend of ${length}` });
    }
  }
});

gpuTest("a blend starts with weights of 1", async (gpu) => {
  const op = await prepareBlend(gpu, { length: 2 });
  const t = {
    a: upload(gpu, "a", Float32Array.of(1, 2)),
    b: upload(gpu, "b", Float32Array.of(10, 20)),
    sum: poisoned(gpu, "sum", [2]),
  };
  assertEquals(await runAndRead(gpu, t.sum, (r) => op.forward(r, t)), Float32Array.of(11, 22));
});

gpuTest("elements past the largest grid of workgroups are reached by looping", async (gpu) => {
  const length = 64 * MAX_WORKGROUPS + 1;
  const values = Float32Array.from({ length }, (_, n) => n % 1000);
  const op = await prepareBlend(gpu, { length });
  const t = { a: upload(gpu, "a", values), b: upload(gpu, "b", values), sum: poisoned(gpu, "sum", [length]) };
  const sum = await runAndRead(gpu, t.sum, (recorder) => op.forward(recorder, t));
  assertEquals(sum.findIndex((value, n) => value !== 2 * values[n]), -1);
  for (const tensor of Object.values(t)) destroyTensor(gpu, tensor);
});
