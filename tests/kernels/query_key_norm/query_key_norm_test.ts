import { assert, assertEquals } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { prepareQueryKeyNorm } from "../../../kernels/query_key_norm/op.ts";
import {
  queryKeyNormGradientReference,
  queryKeyNormReference,
} from "../../../kernels/query_key_norm/reference.ts";
import { roundingReference } from "../../../kernels/rounding/reference.ts";
import { assertClose, relativeError } from "../../support/compare.ts";
import { centralDifference } from "../../support/gradient_check.ts";
import { gpuTest, poisoned, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

const PER = ["head", "all"] as const;

/** Inputs for x (rows, (H + 2 K) · D). */
function inputsOf(
  per: (typeof PER)[number],
  [rows, heads, keyValueHeads, headSize]: number[],
  epsilon = 1e-6,
) {
  const columns = (heads + 2 * keyValueHeads) * headSize;
  return {
    shape: { heads, keyValueHeads, headSize, per, epsilon },
    columns,
    statistics: per === "head" ? heads + keyValueHeads : 2,
    // Heads of different scales, so that it matters what is normed together.
    x: normals(rows, rows * columns).map((value, n) => value * (1 + Math.floor(n / headSize) % 5)),
    dy: normals(rows + 1, rows * columns),
    weights: {
      query: normals(rows + 2, per === "head" ? headSize : heads * headSize),
      key: normals(rows + 3, per === "head" ? headSize : keyValueHeads * headSize),
    },
  };
}

for (const per of PER) {
  Deno.test(`the gradients of the query key norm's reference agree with central differences (per ${per})`, () => {
    const { shape, x, dy, weights } = inputsOf(per, [2, 3, 2, 5], 0.3);
    const objective = (x: ArrayLike<number>, query: ArrayLike<number>, key: ArrayLike<number>) =>
      queryKeyNormReference(x, { query, key }, shape).reduce((sum, y, n) => sum + y * dy[n], 0);
    const { query, key } = weights;
    const { dx, dweights } = queryKeyNormGradientReference(x, weights, dy, shape);
    const numeric = {
      dx: centralDifference((v) => objective(v, query, key), Float64Array.from(x)),
      query: centralDifference((v) => objective(x, v, key), Float64Array.from(query)),
      key: centralDifference((v) => objective(x, query, v), Float64Array.from(key)),
    };
    // Measured: at most 1.3e-10.
    assert(relativeError(dx, numeric.dx) < 1e-8);
    assert(relativeError(dweights.query, numeric.query) < 1e-8);
    assert(relativeError(dweights.key, numeric.key) < 1e-8);
  });

  gpuTest(`the query key norm equals float64 at awkward shapes, both ways (per ${per})`, async (gpu) => {
    for (
      const sizes of [
        [1, 1, 1, 1],
        [3, 3, 1, 7],
        [2, 5, 5, 31],
        [1, 2, 1, 33],
        [5, 4, 2, 64],
        [2, 9, 3, 68],
        [1, 1, 1, 260],
      ]
    ) {
      const { shape, x, dy, weights } = inputsOf(per, sizes);
      const { t, parameters } = await run(gpu, per, sizes);
      const name = `per ${per} ${sizes}`;
      // Measured: 3.9e-8 forward, 9.9e-8 backward.
      const y = queryKeyNormReference(x, weights, shape);
      assertClose(await gpu.read(t.y), y, { tolerance: 2e-6, name: `y ${name}` });
      const want = queryKeyNormGradientReference(x, weights, dy, shape);
      assertClose(await gpu.read(t.dx), want.dx, { tolerance: 1e-5, name: `dx ${name}` });
      // Backward ran twice with them, and adds to them.
      const twice = (values: Float64Array) => values.map((value) => 2 * value);
      const [dquery, dkey] = [await gpu.read(parameters.dqueryWeight), await gpu.read(parameters.dkeyWeight)];
      assertClose(dquery, twice(want.dweights.query), { tolerance: 1e-5, name: `dquery ${name}` });
      assertClose(dkey, twice(want.dweights.key), { tolerance: 1e-5, name: `dkey ${name}` });
    }
  });
}

/** Forward once, backward twice with the weights' gradients and once without. */
async function run(gpu: Gpu, per: (typeof PER)[number], sizes: number[], half = false) {
  const { shape, columns, statistics, x, dy, weights } = inputsOf(per, sizes);
  const [rows] = sizes;
  const op = await prepareQueryKeyNorm(gpu, { rows, ...shape, half });
  const t = {
    x: gpu.tensor("x", [rows, columns], half ? "f16" : "f32"),
    queryWeight: upload(gpu, "query weight", weights.query),
    keyWeight: upload(gpu, "key weight", weights.key),
    dy: upload(gpu, "dy", dy),
    y: half ? gpu.tensor("y", [rows, columns], "f16") : poisoned(gpu, "y", [rows, columns]),
    statistics: poisoned(gpu, "statistics", [rows, statistics]),
    dx: poisoned(gpu, "dx", [rows, columns]),
  };
  const parameters = {
    dqueryWeight: gpu.tensor("dquery weight", [weights.query.length]),
    dkeyWeight: gpu.tensor("dkey weight", [weights.key.length]),
  };
  gpu.write(t.x, x);
  gpu.submit("query key norm", (recorder) => {
    op.forward(recorder, t);
    op.backward(recorder, { ...t, parameters });
    op.backward(recorder, { ...t, parameters });
    op.backward(recorder, t);
  });
  return { t, parameters };
}

gpuTest(
  "the query key norm in half precision rounds x and y, copies values, and rounds no gradient",
  async (gpu) => {
    for (const per of PER) {
      const sizes = [3, 4, 2, 8];
      const { shape, columns, x, dy, weights } = inputsOf(per, sizes);
      const { t, parameters } = await run(gpu, per, sizes, true);
      const rounded = roundingReference(x);
      const y = await gpu.read(t.y);
      // Half a unit in float16's last place is 2^-11 of a value, 4.9e-4. Measured: 8.6e-5, and 6.7e-8 backward.
      assertClose(y, queryKeyNormReference(rounded, weights, shape), { tolerance: 5e-4, name: `y ${per}` });
      y.forEach((value, n) => {
        if (n % columns >= 6 * 8) assertEquals(value, rounded[n]);
      });
      const want = queryKeyNormGradientReference(rounded, weights, dy, shape);
      assertClose(await gpu.read(t.dx), want.dx, { tolerance: 1e-5, name: `dx ${per}` });
      const dquery = want.dweights.query.map((value) => 2 * value);
      assertClose(await gpu.read(parameters.dqueryWeight), dquery, {
        tolerance: 1e-5,
        name: `dquery ${per}`,
      });
    }
  },
);

gpuTest("rows past the largest grid of workgroups are reached by looping", async (gpu) => {
  const rows = 22000; // 4 parts each
  const shape = { heads: 2, keyValueHeads: 1, headSize: 1, per: "head", epsilon: 0 } as const;
  const op = await prepareQueryKeyNorm(gpu, { rows, ...shape });
  const t = {
    x: upload(gpu, "x", new Float32Array(4 * rows).fill(-3)),
    queryWeight: upload(gpu, "query weight", Float32Array.of(2)),
    keyWeight: upload(gpu, "key weight", Float32Array.of(5)),
    y: poisoned(gpu, "y", [rows, 4]),
    statistics: poisoned(gpu, "statistics", [rows, 3]),
  };
  gpu.submit("query key norm", (recorder) => op.forward(recorder, t));
  const y = (await gpu.read(t.y)).map(Math.round);
  assertEquals(y, Float32Array.from({ length: 4 * rows }, (_, n) => [-2, -2, -5, -3][n % 4]));
});
