import { assert, assertEquals } from "@std/assert";
import { prepareGelu } from "../../kernels/gelu/op.ts";
import { geluGradientReference, geluReference } from "../../kernels/gelu/reference.ts";
import { prepareResidual } from "../../kernels/residual/op.ts";
import { residualReference } from "../../kernels/residual/reference.ts";
import { assertClose, relativeError } from "../support/compare.ts";
import { centralDifference } from "../support/gradient_check.ts";
import { gpuTest, poisoned, runAndRead, upload } from "../support/gpu.ts";
import { normals } from "../support/seeded.ts";

Deno.test("the GELU reference's gradient agrees with central differences", () => {
  const x = normals(1, 50, 2);
  const dy = normals(2, 50);
  const numeric = centralDifference(
    (v) => geluReference(v).reduce((sum, y, n) => sum + y * dy[n], 0),
    Float64Array.from(x),
  );
  assert(relativeError(geluGradientReference(x, dy), numeric) < 1e-8); // measured 1e-10
});

gpuTest("GELU forward and backward equal float64, in its tails too", async (gpu) => {
  for (const length of [1, 63, 64, 65, 1009]) {
    const x = normals(length, length, 3);
    x[0] = length % 2 ? 60 : -60;
    const dy = normals(length + 1, length);
    const op = await prepareGelu(gpu, { length });
    const t = {
      x: upload(gpu, "x", x),
      dy: upload(gpu, "dy", dy),
      y: poisoned(gpu, "y", [length]),
      dx: poisoned(gpu, "dx", [length]),
    };
    gpu.submit("gelu", (recorder) => {
      op.forward(recorder, t);
      op.backward(recorder, t);
    });
    // Measured: 2e-7 forward, 3e-7 backward.
    assertClose(await gpu.read(t.y), geluReference(x), { tolerance: 1e-6, name: `y ${length}` });
    assertClose(await gpu.read(t.dx), geluGradientReference(x, dy), {
      tolerance: 1e-6,
      name: `dx ${length}`,
    });
  }
});

gpuTest("GELU stays finite where its argument is huge", async (gpu) => {
  const x = Float32Array.of(-1e10, -1e4, 1e4, 1e10);
  const op = await prepareGelu(gpu, { length: 4 });
  const t = { x: upload(gpu, "x", x), y: poisoned(gpu, "y", [4]) };
  const y = await runAndRead(gpu, t.y, (recorder) => op.forward(recorder, t));
  assertEquals([...y].map((value) => Math.abs(value) < 1e-20 ? 0 : value), [0, 0, 1e4, 1e10]);
});

gpuTest("the residual addition is exact to a rounding", async (gpu) => {
  for (const length of [1, 65, 1009]) {
    const [a, b] = [normals(1, length), normals(2, length)];
    const op = await prepareResidual(gpu, { length });
    const t = { a: upload(gpu, "a", a), b: upload(gpu, "b", b), sum: poisoned(gpu, "sum", [length]) };
    const sum = await runAndRead(gpu, t.sum, (recorder) => op.forward(recorder, t));
    assertEquals(sum, Float32Array.from(residualReference(a, b)));
  }
});
