import { assert, assertEquals } from "@std/assert";
import { roundingReference } from "../../../kernels/rounding/reference.ts";
import { prepareSwiglu } from "../../../kernels/swiglu/op.ts";
import { swigluGradientReference, swigluReference } from "../../../kernels/swiglu/reference.ts";
import { assertClose, relativeError } from "../../support/compare.ts";
import { centralDifference } from "../../support/gradient_check.ts";
import { gpuTest, poisoned, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

Deno.test("the SwiGLU reference's gradient agrees with central differences", () => {
  const [rows, width] = [3, 5];
  const x = normals(1, rows * 2 * width, 2);
  const dy = normals(2, rows * width);
  const numeric = centralDifference(
    (v) => swigluReference(v, width).reduce((sum, y, n) => sum + y * dy[n], 0),
    Float64Array.from(x),
  );
  assert(relativeError(swigluGradientReference(x, dy, width), numeric) < 1e-8); // measured 3e-11
});

Deno.test("the gate's columns stand before those of what it gates", () => {
  // silu(100) = 100, silu(-100) = 0
  const y = swigluReference([100, -100, 2, 3, -100, 100, 5, 7], 2);
  assertEquals([...y].map((value) => Math.round(Math.abs(value))), [200, 0, 0, 700]);
});

gpuTest("SwiGLU forward and backward equal float64 at awkward shapes", async (gpu) => {
  for (const [rows, width] of [[1, 1], [3, 7], [1, 63], [2, 64], [1, 65], [13, 52], [5, 260]]) {
    const x = normals(rows + width, rows * 2 * width, 3);
    const dy = normals(width, rows * width);
    const op = await prepareSwiglu(gpu, { rows, width });
    const t = {
      x: upload(gpu, "x", x),
      dy: upload(gpu, "dy", dy),
      y: poisoned(gpu, "y", [rows, width]),
      dx: poisoned(gpu, "dx", [rows, 2 * width]),
    };
    gpu.submit("swiglu", (recorder) => {
      op.forward(recorder, t);
      op.backward(recorder, t);
    });
    const name = `${rows} x ${width}`;
    // Measured: 6.7e-8 forward, 8.6e-8 backward.
    assertClose(await gpu.read(t.y), swigluReference(x, width), { tolerance: 2e-6, name: `y ${name}` });
    const dx = swigluGradientReference(x, dy, width);
    assertClose(await gpu.read(t.dx), dx, { tolerance: 1e-5, name: `dx ${name}` });
  }
});

gpuTest("silu is exact in its tails: 0 and the identity, with slopes 0 and 1", async (gpu) => {
  const gate = [-1e30, -1e20, -200, 200, 1e20, 1e30];
  const op = await prepareSwiglu(gpu, { rows: 6, width: 1 });
  const t = {
    x: upload(gpu, "x", Float32Array.from(gate.flatMap((value) => [value, 1]))),
    dy: upload(gpu, "dy", new Float32Array(6).fill(1)),
    y: poisoned(gpu, "y", [6, 1]),
    dx: poisoned(gpu, "dx", [6, 2]),
  };
  gpu.submit("swiglu", (recorder) => {
    op.forward(recorder, t);
    op.backward(recorder, t);
  });
  const silu = [0, 0, 0, 200, 1e20, 1e30].map(Math.fround);
  const positiveZero = (values: Float32Array) => [...values].map((value) => value + 0);
  assertEquals(positiveZero(await gpu.read(t.y)), silu);
  assertEquals(positiveZero(await gpu.read(t.dx)), silu.flatMap((value) => [value > 0 ? 1 : 0, value]));
});

gpuTest("SwiGLU in half precision rounds x and y, and no gradient", async (gpu) => {
  const [rows, width] = [5, 12];
  const [x, dy] = [normals(1, rows * 2 * width), normals(2, rows * width)];
  const op = await prepareSwiglu(gpu, { rows, width, half: true });
  const t = {
    x: gpu.tensor("x", [rows, 2 * width], "f16"),
    dy: upload(gpu, "dy", dy),
    y: gpu.tensor("y", [rows, width], "f16"),
    dx: poisoned(gpu, "dx", [rows, 2 * width]),
  };
  gpu.write(t.x, x);
  gpu.submit("swiglu", (recorder) => {
    op.forward(recorder, t);
    op.backward(recorder, t);
  });
  const rounded = roundingReference(x);
  // Half a unit in float16's last place is 2^-11 of a value, 4.9e-4. Measured: 2.0e-4, and 7.1e-8 backward.
  assertClose(await gpu.read(t.y), swigluReference(rounded, width), { tolerance: 5e-4, name: "y" });
  const dx = swigluGradientReference(rounded, dy, width);
  assertClose(await gpu.read(t.dx), dx, { tolerance: 2e-6, name: "dx" });
});
