import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { prepareGelu } from "../../../kernels/gelu/op.ts";
import { geluGradientReference, geluReference, normalDistribution } from "../../../kernels/gelu/reference.ts";
import { roundingReference } from "../../../kernels/rounding/reference.ts";
import { assertClose, relativeError } from "../../support/compare.ts";
import { centralDifference } from "../../support/gradient_check.ts";
import { gpuTest, poisoned, runAndRead, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

const FORMS = ["tanh", "exact"] as const;

for (const form of FORMS) {
  Deno.test(`the GELU reference's gradient agrees with central differences (${form})`, () => {
    const x = normals(1, 50, 2);
    const dy = normals(2, 50);
    const numeric = centralDifference(
      (v) => geluReference(v, form).reduce((sum, y, n) => sum + y * dy[n], 0),
      Float64Array.from(x),
    );
    assert(relativeError(geluGradientReference(x, dy, form), numeric) < 1e-8); // measured 5e-11
  });

  gpuTest(`GELU forward and backward equal float64 at awkward lengths (${form})`, async (gpu) => {
    for (const length of [1, 63, 64, 65, 1009]) {
      const x = normals(length, length, 3);
      const dy = normals(length + 1, length);
      const op = await prepareGelu(gpu, { length, form });
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
      // Measured: 9.2e-8 forward, 7.0e-8 backward; exact, 3.6e-8 and 8.7e-8.
      assertClose(await gpu.read(t.y), geluReference(x, form), { tolerance: 1e-6, name: `y ${length}` });
      assertClose(await gpu.read(t.dx), geluGradientReference(x, dy, form), {
        tolerance: 1e-6,
        name: `dx ${length}`,
      });
    }
  });

  gpuTest(`GELU is exact in its tails: 0 and the identity, with slopes 0 and 1 (${form})`, async (gpu) => {
    const x = Float32Array.of(-1e20, -1e10, -60, 60, 1e10, 1e20);
    const op = await prepareGelu(gpu, { length: 6, form });
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
}

Deno.test("the reference's normal distribution is that of the tables, and smooth where its formulas meet", () => {
  // Abramowitz and Stegun, table 26.1; the tails as mpmath gives them.
  for (
    const [x, phi] of [
      [0, 0.5],
      [1, 0.841344746068542949],
      [-2, 0.0227501319481792072],
      [-5, 2.86651571879193912e-7],
      [-10, 7.61985302416052607e-24],
    ]
  ) assertAlmostEquals(normalDistribution(x) / phi, 1, 1e-13);
  assertAlmostEquals(normalDistribution(-3 + 1e-12) / normalDistribution(-3 - 1e-12), 1, 1e-11);
});

gpuTest(
  "exact GELU and its slope are off by float32's rounding and not more, between −12 and 12",
  async (gpu) => {
    const length = 24 * 4096 + 1;
    const x = Float32Array.from({ length }, (_, n) => n / 4096 - 12);
    const op = await prepareGelu(gpu, { length, form: "exact" });
    const t = {
      x: upload(gpu, "x", x),
      dy: upload(gpu, "dy", new Float32Array(length).fill(1)),
      y: poisoned(gpu, "y", [length]),
      dx: poisoned(gpu, "dx", [length]),
    };
    gpu.submit("gelu", (recorder) => {
      op.forward(recorder, t);
      op.backward(recorder, t);
    });
    const [y, dx] = [await gpu.read(t.y), await gpu.read(t.dx)];
    const [wantY, wantDx] = [
      geluReference(x, "exact"),
      geluGradientReference(x, new Float32Array(length).fill(1), "exact"),
    ];
    const worst = { y: 0, slope: 0, tail: 0 };
    for (let n = 0; n < length; n++) {
      worst.y = Math.max(worst.y, Math.abs(y[n] - wantY[n]) / Math.max(1, Math.abs(x[n])));
      worst.slope = Math.max(worst.slope, Math.abs(dx[n] - wantDx[n]));
      // Where 1 + erf would have lost its digits.
      if (x[n] > -8 && x[n] < -1) worst.tail = Math.max(worst.tail, Math.abs(y[n] / wantY[n] - 1));
    }
    // Measured: 1.1e-7, 1.9e-7, 3.0e-6: the last from the exponent, 32 at −8, as float32 holds it.
    assert(worst.y < 2e-7);
    assert(worst.slope < 4e-7);
    assert(worst.tail < 1e-5);
  },
);

gpuTest("exact GELU in half precision rounds x and y, and no gradient", async (gpu) => {
  const length = 60;
  const [x, dy] = [normals(1, length), normals(2, length)];
  const op = await prepareGelu(gpu, { length, form: "exact", half: true });
  const [xHalf, y] = [gpu.tensor("x", [length], "f16"), gpu.tensor("y", [length], "f16")];
  gpu.write(xHalf, x);
  const t = { x: xHalf, y, dy: upload(gpu, "dy", dy), dx: poisoned(gpu, "dx", [length]) };
  gpu.submit("gelu", (recorder) => {
    op.forward(recorder, t);
    op.backward(recorder, t);
  });
  const rounded = roundingReference(x);
  // Half a unit in float16's last place is 2^-11 of a value, 4.9e-4. Measured: 1.8e-4, and 6.3e-8 backward.
  assertClose(await gpu.read(y), geluReference(rounded, "exact"), { tolerance: 5e-4, name: "y" });
  assertClose(await gpu.read(t.dx), geluGradientReference(rounded, dy, "exact"), {
    tolerance: 2e-6,
    name: "dx",
  });
});
