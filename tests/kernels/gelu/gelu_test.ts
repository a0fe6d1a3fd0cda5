import { assert, assertEquals } from "@std/assert";
import { prepareGelu } from "../../../kernels/gelu/op.ts";
import { geluGradientReference, geluReference } from "../../../kernels/gelu/reference.ts";
import { assertClose, relativeError } from "../../support/compare.ts";
import { centralDifference } from "../../support/gradient_check.ts";
import { gpuTest, poisoned, runAndRead, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

Deno.test("the GELU reference's gradient agrees with central differences", () => {
  const x = normals(1, 50, 2);
  const dy = normals(2, 50);
  const numeric = centralDifference(
    (v) => geluReference(v).reduce((sum, y, n) => sum + y * dy[n], 0),
    Float64Array.from(x),
  );
  assert(relativeError(geluGradientReference(x, dy), numeric) < 1e-8); // measured 4e-11
});

gpuTest("GELU forward and backward equal float64 at awkward lengths", async (gpu) => {
  for (const length of [1, 63, 64, 65, 1009]) {
    const x = normals(length, length, 3);
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
    // Measured: 9.2e-8 forward, 7.0e-8 backward.
    assertClose(await gpu.read(t.y), geluReference(x), { tolerance: 1e-6, name: `y ${length}` });
    assertClose(await gpu.read(t.dx), geluGradientReference(x, dy), {
      tolerance: 1e-6,
      name: `dx ${length}`,
    });
  }
});

gpuTest("GELU is exact in its tails: 0 and the identity, with slopes 0 and 1", async (gpu) => {
  const x = Float32Array.of(-1e20, -1e10, -60, 60, 1e10, 1e20);
  const op = await prepareGelu(gpu, { length: 6 });
  const t = {
    x: upload(gpu, "x", x),
    dy: upload(gpu, "dy", new Float32Array(6).fill(1)),
    y: poisoned(gpu, "y", [6]),
    dx: poisoned(gpu, "dx", [6]),
  };
  const negligibleAsZero = (values: Float32Array) => [...values].map((v) => Math.abs(v) < 1e-12 ? 0 : v);
  const y = await runAndRead(gpu, t.y, (recorder) => op.forward(recorder, t));
  assertEquals(negligibleAsZero(y), [0, 0, 0, 60, 1e10, Math.fround(1e20)]);
  const dx = await runAndRead(gpu, t.dx, (recorder) => op.backward(recorder, t));
  assertEquals(negligibleAsZero(dx), [0, 0, 0, 1, 1, 1]);
});
