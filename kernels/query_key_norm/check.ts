/** The norm of queries and keys on fixed inputs, against the float64 reference. @module */
import { ARITHMETIC, type Check, type KernelCheck, normals, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareQueryKeyNorm } from "./op.ts";
import { queryKeyNormGradientReference, queryKeyNormReference } from "./reference.ts";

/** Forward and backward, each head by itself or all together, of more rows than lanes, as all of a row has vectors. */
async function queryKeyNormCheck(gpu: Gpu, per: "head" | "all"): Promise<Check> {
  const [rows, heads, keyValueHeads, headSize, epsilon] = [70, 6, 3, 48, 1e-5];
  const columns = (heads + 2 * keyValueHeads) * headSize;
  const shape = { heads, keyValueHeads, headSize, per, epsilon };
  const x = normals(1, rows * columns);
  const dy = normals(2, rows * columns);
  const weights = {
    query: normals(3, per === "head" ? headSize : heads * headSize),
    key: normals(4, per === "head" ? headSize : keyValueHeads * headSize),
  };
  const op = await prepareQueryKeyNorm(gpu, { rows, ...shape });
  const t = {
    x: upload(gpu, "x", x),
    queryWeight: upload(gpu, "query weight", weights.query),
    keyWeight: upload(gpu, "key weight", weights.key),
    dy: upload(gpu, "dy", dy),
    y: gpu.tensor("y", [rows, columns]),
    statistics: gpu.tensor("statistics", [rows, per === "head" ? heads + keyValueHeads : 2]),
    dx: gpu.tensor("dx", [rows, columns]),
  };
  const parameters = {
    dqueryWeight: gpu.tensor("dquery weight", [weights.query.length]),
    dkeyWeight: gpu.tensor("dkey weight", [weights.key.length]),
  };
  const want = queryKeyNormGradientReference(x, weights, dy, shape);
  return {
    record(recorder) {
      op.forward(recorder, t);
      op.backward(recorder, { ...t, parameters });
    },
    comparisons: [
      {
        operation: `query key norm forward, per ${per}`,
        outputs: [[t.y, queryKeyNormReference(x, weights, shape)]],
        tolerance: ARITHMETIC,
      },
      {
        operation: `query key norm backward, per ${per}`,
        outputs: [
          [t.dx, want.dx],
          [parameters.dqueryWeight, want.dweights.query],
          [parameters.dkeyWeight, want.dweights.key],
        ],
        tolerance: ARITHMETIC,
      },
    ],
  };
}

/** Of each kind of norm. */
export const queryKeyNormChecks: Readonly<Record<"head" | "all", KernelCheck>> = {
  head: (gpu) => queryKeyNormCheck(gpu, "head"),
  all: (gpu) => queryKeyNormCheck(gpu, "all"),
};
