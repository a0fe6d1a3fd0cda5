import { assert, assertEquals } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { MAX_WORKGROUPS } from "../../../kernels/core/recorder.ts";
import { prepareLayerNorm } from "../../../kernels/layer_norm/op.ts";
import { layerNormGradientReference, layerNormReference } from "../../../kernels/layer_norm/reference.ts";
import { assertClose, relativeError } from "../../support/compare.ts";
import { centralDifference } from "../../support/gradient_check.ts";
import { gpuTest, poisoned, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

const EPSILON = 1e-5;
/**
 * What dx may be off where width is 1: it is what was to be added to it and 1 / sqrt(EPSILON) times what is left of dy where
 * dy is taken from itself: nothing, but on a GPU, whose division need not be exact. Measured 1.2e-4 on an H100.
 */
const ofOne = ({ adapter }: Gpu): number => adapter.software ? 2e-6 : 2e-6 / Math.sqrt(EPSILON);

Deno.test("the layer norm reference's gradients agree with central differences", () => {
  const [rows, width] = [3, 7];
  const [x, weight, bias, dy] = [rows * width, width, width, rows * width].map((n, seed) => normals(seed, n));
  const objective = (x: ArrayLike<number>, weight: ArrayLike<number>, bias: ArrayLike<number>) =>
    layerNormReference(x, weight, bias, EPSILON).reduce((sum, y, n) => sum + y * dy[n], 0);
  const { dx, dweight, dbias } = layerNormGradientReference(x, weight, dy, EPSILON);
  // Measured: below 1e-9.
  assert(
    relativeError(dx, centralDifference((v) => objective(v, weight, bias), Float64Array.from(x))) < 1e-7,
  );
  assert(
    relativeError(dweight, centralDifference((v) => objective(x, v, bias), Float64Array.from(weight))) < 1e-7,
  );
  assert(
    relativeError(dbias, centralDifference((v) => objective(x, weight, v), Float64Array.from(bias))) < 1e-7,
  );
});

gpuTest("layer norm forward and backward equal float64 at awkward shapes, far from zero too", async (gpu) => {
  for (const [rows, width, mean] of [[1, 1, 0], [3, 7, 0], [5, 63, 100], [2, 65, 0], [67, 128, -5]]) {
    const x = normals(rows, rows * width).map((value) => value + mean);
    const weight = normals(width, width);
    const bias = normals(width + 1, width);
    const dy = normals(rows + width, rows * width);
    const dresidual = normals(7, rows * width);
    const op = await prepareLayerNorm(gpu, { rows, width, epsilon: EPSILON });
    const t = {
      x: upload(gpu, "x", x),
      weight: upload(gpu, "weight", weight),
      bias: upload(gpu, "bias", bias),
      dy: upload(gpu, "dy", dy),
      dresidual: upload(gpu, "dresidual", dresidual),
      y: poisoned(gpu, "y", [rows, width]),
      dx: poisoned(gpu, "dx", [rows, width]),
      dxAlone: poisoned(gpu, "dx alone", [rows, width]),
      statistics: poisoned(gpu, "statistics", [rows, 2]),
      dweight: gpu.tensor("dweight", [width]),
      dbias: gpu.tensor("dbias", [width]),
    };
    gpu.submit("layer norm", (recorder) => {
      op.forward(recorder, t);
      op.backward(recorder, { ...t, parameters: t });
      op.backward(recorder, { ...t, parameters: t, dresidual: undefined, dx: t.dxAlone });
    });
    const name = `${rows} x ${width} about ${mean}`;
    const reference = layerNormGradientReference(x, weight, dy, EPSILON);
    // float32 holds x - mean only to 2^-24 |mean|: about 100 that is 4e-6 of a unit deviation. Measured 4.4e-6 there,
    // 2.5e-7 elsewhere.
    const tolerance = mean === 100 ? 1e-5 : 2e-6;
    assertClose(await gpu.read(t.y), layerNormReference(x, weight, bias, EPSILON), {
      tolerance,
      name: `y ${name}`,
    });
    const withResidual = reference.dx.map((value, n) => value + dresidual[n]);
    const ofDx = width === 1 ? ofOne(gpu) : tolerance;
    assertClose(await gpu.read(t.dx), withResidual, { tolerance: ofDx, name: `dx ${name}` });
    // Where width is 1, x is its own mean: dx and dweight are 0.
    if (width > 1) {
      assertClose(await gpu.read(t.dxAlone), reference.dx, { tolerance, name: `dx alone ${name}` });
    }
    const twice = (values: Float64Array) => values.map((value) => 2 * value);
    // Backward ran twice, and adds to the parameters' gradients.
    assertClose(await gpu.read(t.dweight), twice(reference.dweight), { tolerance, name: `dweight ${name}` });
    assertClose(await gpu.read(t.dbias), twice(reference.dbias), { tolerance, name: `dbias ${name}` });
  }
});

gpuTest(
  "layer norm with a weight alone, and without parameters, is that with a bias of 0 and a weight of 1",
  async (gpu) => {
    for (const affine of ["weight", "none"] as const) {
      for (const [rows, width] of [[1, 1], [3, 7], [5, 63], [67, 128]]) {
        const [x, dy, dresidual] = [1, 2, 3].map((seed) => normals(seed, rows * width));
        const weight = affine === "weight" ? normals(4, width) : new Float32Array(width).fill(1);
        const op = await prepareLayerNorm(gpu, { rows, width, epsilon: EPSILON, affine });
        const t = {
          x: upload(gpu, "x", x),
          ...(affine === "weight" && { weight: upload(gpu, "weight", weight) }),
          dy: upload(gpu, "dy", dy),
          dresidual: upload(gpu, "dresidual", dresidual),
          y: poisoned(gpu, "y", [rows, width]),
          dx: poisoned(gpu, "dx", [rows, width]),
          statistics: poisoned(gpu, "statistics", [rows, 2]),
        };
        const dweight = gpu.tensor("dweight", [width]);
        gpu.submit("layer norm", (recorder) => {
          op.forward(recorder, t);
          op.backward(recorder, { ...t, parameters: { dweight } });
        });
        const name = `${affine} ${rows} x ${width}`;
        // Measured: 1.2e-7.
        const reference = layerNormGradientReference(x, weight, dy, EPSILON);
        const y = layerNormReference(x, weight, new Float32Array(width), EPSILON);
        assertClose(await gpu.read(t.y), y, { tolerance: 2e-6, name: `y ${name}` });
        const dx = reference.dx.map((value, n) => value + dresidual[n]);
        const tolerance = width === 1 ? ofOne(gpu) : 2e-6;
        assertClose(await gpu.read(t.dx), dx, { tolerance, name: `dx ${name}` });
        const want = affine === "weight" ? reference.dweight : new Float32Array(width);
        assertClose(await gpu.read(dweight), want, { tolerance: 2e-6, name: `dweight ${name}` });
      }
    }
  },
);

gpuTest("several gradients of the same rows each give the bits that they give alone", async (gpu) => {
  const [rows, width, gradients] = [5, 12, 3];
  const dy = normals(1, gradients * rows * width);
  const t = {
    x: upload(gpu, "x", normals(2, rows * width)),
    weight: upload(gpu, "weight", normals(3, width)),
    bias: upload(gpu, "bias", normals(4, width)),
    y: poisoned(gpu, "y", [rows, width]),
    statistics: poisoned(gpu, "statistics", [rows, 2]),
  };
  const alone = await prepareLayerNorm(gpu, { rows, width, epsilon: EPSILON });
  const together = await prepareLayerNorm(gpu, { rows, width, epsilon: EPSILON, gradients });
  const all = { ...t, dy: upload(gpu, "dy", dy), dx: poisoned(gpu, "dx", [gradients, rows, width]) };
  gpu.submit("layer norm", (recorder) => {
    together.forward(recorder, t);
    together.backward(recorder, all);
  });
  const dx = await gpu.read(all.dx);
  for (let gradient = 0; gradient < gradients; gradient++) {
    const part = (values: Float32Array) =>
      values.slice(gradient * rows * width, (gradient + 1) * rows * width);
    const one = { ...t, dy: upload(gpu, "dy", part(dy)), dx: poisoned(gpu, "dx", [rows, width]) };
    gpu.submit("layer norm", (recorder) => alone.backward(recorder, one));
    assertEquals(part(dx), await gpu.read(one.dx));
  }
});

gpuTest("rows past the largest grid of workgroups are reached by looping", async (gpu) => {
  const [rows, width] = [MAX_WORKGROUPS + 2, 1];
  const op = await prepareLayerNorm(gpu, { rows, width, epsilon: EPSILON });
  const t = {
    x: upload(gpu, "x", new Float32Array(rows).fill(3)),
    weight: upload(gpu, "weight", Float32Array.of(2)),
    bias: upload(gpu, "bias", Float32Array.of(0.5)),
    y: poisoned(gpu, "y", [rows, width]),
    statistics: poisoned(gpu, "statistics", [rows, 2]),
  };
  gpu.submit("layer norm", (recorder) => op.forward(recorder, t));
  assertEquals(new Set(await gpu.read(t.y)), new Set([0.5]), "a row of one element is its own mean");
});
