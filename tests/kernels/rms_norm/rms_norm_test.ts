import { assert, assertEquals } from "@std/assert";
import { MAX_WORKGROUPS } from "../../../kernels/core/recorder.ts";
import { prepareRmsNorm, prepareRmsNormParts } from "../../../kernels/rms_norm/op.ts";
import {
  rmsNormGradientReference,
  rmsNormPartsReference,
  rmsNormReference,
} from "../../../kernels/rms_norm/reference.ts";
import { assertClose, relativeError } from "../../support/compare.ts";
import { centralDifference } from "../../support/gradient_check.ts";
import { gpuTest, poisoned, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

const EPSILON = 1e-5;

Deno.test("the RMS norm reference's gradients agree with central differences", () => {
  const [rows, width] = [3, 7];
  const [x, weight, dy] = [rows * width, width, rows * width].map((n, seed) => normals(seed, n));
  // Large enough that its place in the formula matters.
  const epsilon = 0.3;
  const objective = (x: ArrayLike<number>, weight: ArrayLike<number>) =>
    rmsNormReference(x, weight, epsilon).reduce((sum, y, n) => sum + y * dy[n], 0);
  const { dx, dweight } = rmsNormGradientReference(x, weight, dy, epsilon);
  const numeric = {
    dx: centralDifference((v) => objective(v, weight), Float64Array.from(x)),
    dweight: centralDifference((v) => objective(x, v), Float64Array.from(weight)),
  };
  assert(relativeError(dx, numeric.dx) < 1e-8); // measured 6e-11
  assert(relativeError(dweight, numeric.dweight) < 1e-8); // measured 2e-11
});

gpuTest("RMS norm forward and backward equal float64 at awkward shapes", async (gpu) => {
  for (
    const [rows, width, mean] of [[1, 1, 0], [3, 7, 0], [5, 63, 100], [2, 65, 0], [67, 128, -5], [3, 260, 0]]
  ) {
    const x = normals(rows, rows * width).map((value) => value + mean);
    const weight = normals(width, width);
    const dy = normals(rows + width, rows * width);
    const dresidual = normals(7, rows * width);
    const op = await prepareRmsNorm(gpu, { rows, width, epsilon: EPSILON });
    const t = {
      x: upload(gpu, "x", x),
      weight: upload(gpu, "weight", weight),
      dy: upload(gpu, "dy", dy),
      dresidual: upload(gpu, "dresidual", dresidual),
      y: poisoned(gpu, "y", [rows, width]),
      dx: poisoned(gpu, "dx", [rows, width]),
      dxAlone: poisoned(gpu, "dx alone", [rows, width]),
      statistics: poisoned(gpu, "statistics", [rows, 1]),
      dweight: gpu.tensor("dweight", [width]),
    };
    gpu.submit("RMS norm", (recorder) => {
      op.forward(recorder, t);
      op.backward(recorder, t);
      op.backward(recorder, { ...t, dresidual: undefined, dx: t.dxAlone });
      op.backward(recorder, { ...t, dweight: undefined });
    });
    const name = `${rows} x ${width} about ${mean}`;
    const reference = rmsNormGradientReference(x, weight, dy, EPSILON);
    // Measured: 8.1e-8 forward, 9.5e-8 backward; 4.7e-7 where width is 1 and dx near 0 but for its residual.
    assertClose(await gpu.read(t.y), rmsNormReference(x, weight, EPSILON), {
      tolerance: 2e-6,
      name: `y ${name}`,
    });
    const withResidual = reference.dx.map((value, n) => value + dresidual[n]);
    assertClose(await gpu.read(t.dx), withResidual, { tolerance: 1e-5, name: `dx ${name}` });
    // Where width is 1, y is the sign of x but for epsilon: dx is near 0.
    if (width > 1) {
      assertClose(await gpu.read(t.dxAlone), reference.dx, { tolerance: 1e-5, name: `dx alone ${name}` });
    }
    // Backward ran twice with it, and adds to it.
    const twice = reference.dweight.map((value) => 2 * value);
    assertClose(await gpu.read(t.dweight), twice, { tolerance: 1e-5, name: `dweight ${name}` });
  }
});

gpuTest("several gradients of the same rows each give the bits that they give alone", async (gpu) => {
  const [rows, width, gradients] = [5, 12, 3];
  const dy = normals(1, gradients * rows * width);
  const t = {
    x: upload(gpu, "x", normals(2, rows * width)),
    weight: upload(gpu, "weight", normals(3, width)),
    y: poisoned(gpu, "y", [rows, width]),
    statistics: poisoned(gpu, "statistics", [rows, 1]),
  };
  const alone = await prepareRmsNorm(gpu, { rows, width, epsilon: EPSILON });
  const together = await prepareRmsNorm(gpu, { rows, width, epsilon: EPSILON, gradients });
  const all = { ...t, dy: upload(gpu, "dy", dy), dx: poisoned(gpu, "dx", [gradients, rows, width]) };
  gpu.submit("RMS norm", (recorder) => {
    together.forward(recorder, t);
    together.backward(recorder, all);
  });
  const dx = await gpu.read(all.dx);
  for (let gradient = 0; gradient < gradients; gradient++) {
    const part = (values: Float32Array) =>
      values.slice(gradient * rows * width, (gradient + 1) * rows * width);
    const one = { ...t, dy: upload(gpu, "dy", part(dy)), dx: poisoned(gpu, "dx", [rows, width]) };
    gpu.submit("RMS norm", (recorder) => alone.backward(recorder, one));
    assertEquals(part(dx), await gpu.read(one.dx));
  }
});

gpuTest("RMS norm with a result in half precision is that in single, rounded", async (gpu) => {
  const [rows, width] = [5, 12];
  const [x, weight] = [normals(1, rows * width), normals(2, width)];
  const op = await prepareRmsNorm(gpu, { rows, width, epsilon: EPSILON, half: true });
  const t = {
    x: upload(gpu, "x", x),
    weight: upload(gpu, "weight", weight),
    y: gpu.tensor("y", [rows, width], "f16"),
    statistics: gpu.tensor("statistics", [rows, 1]),
  };
  gpu.submit("RMS norm", (recorder) => op.forward(recorder, t));
  // Half a unit in float16's last place is 2^-11 of a value, 4.9e-4. Measured: 2.2e-4.
  assertClose(await gpu.read(t.y), rmsNormReference(x, weight, EPSILON), { tolerance: 5e-4, name: "y" });
});

gpuTest("rows past the largest grid of workgroups are reached by looping", async (gpu) => {
  const [rows, width] = [MAX_WORKGROUPS + 2, 1];
  const op = await prepareRmsNorm(gpu, { rows, width, epsilon: 0 });
  const t = {
    x: upload(gpu, "x", new Float32Array(rows).fill(-3)),
    weight: upload(gpu, "weight", Float32Array.of(2)),
    y: poisoned(gpu, "y", [rows, width]),
    statistics: poisoned(gpu, "statistics", [rows, 1]),
  };
  gpu.submit("RMS norm", (recorder) => op.forward(recorder, t));
  const y = await gpu.read(t.y);
  assert(y.every((value) => Math.abs(value + 2) < 1e-6), "a row of one element is its sign");
});

gpuTest(
  "parts of rows equal float64 at awkward shapes, and what lies between them is left alone",
  async (gpu) => {
    for (const [count, rows, width, gap] of [[1, 1, 1, 0], [3, 5, 7, 1], [2, 3, 64, 64], [5, 2, 12, 40]]) {
      const stride = rows * width + gap;
      const [parts, residuals] = [1, 2].map((seed) =>
        Array.from({ length: count }, (_, part) => normals(10 * seed + part, rows * width))
      );
      const weight = normals(3, width);
      const spread = (of: Float32Array[]) => {
        const all = new Float32Array(count * stride).fill(-7);
        of.forEach((part, n) => all.set(part, n * stride));
        return all;
      };
      const expected = rmsNormPartsReference(parts, weight, residuals, EPSILON);
      const x = parts[0].map((_, n) => parts.reduce((sum, part) => sum + part[n], 0));
      const t = {
        x: upload(gpu, "x", x),
        weight: upload(gpu, "weight", weight),
        y: gpu.tensor("y", [rows, width]),
        statistics: gpu.tensor("statistics", [rows, 1]),
        parts: upload(gpu, "parts", spread(parts)),
        residual: upload(gpu, "residual", spread(residuals)),
      };
      const norm = await prepareRmsNorm(gpu, { rows, width, epsilon: EPSILON });
      const op = await prepareRmsNormParts(gpu, { rows, width, count, stride });
      gpu.submit("RMS norm of parts", (recorder) => {
        norm.forward(recorder, t);
        op.record(recorder, t);
      });
      const found = await gpu.read(t.parts);
      for (const [n, want] of expected.entries()) {
        // Measured: 8e-8.
        assertClose(found.subarray(n * stride, n * stride + rows * width), want, {
          tolerance: 1e-6,
          name: `part ${n} of ${count}`,
        });
        assertEquals(
          found.subarray(n * stride + rows * width, (n + 1) * stride),
          new Float32Array(gap).fill(-7),
        );
      }
    }
  },
);
