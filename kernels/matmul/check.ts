/** Products on tiny fixed inputs, against the float64 reference. @module */
import { ARITHMETIC, type Check, type Comparison, normals, plus, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import {
  MATMUL_VARIANTS,
  type MatmulConfig,
  prepareBiasGradient,
  prepareMatmul,
  variantCost,
  variantName,
} from "./op.ts";
import { biasGradientReference, matmulReference } from "./reference.ts";

/**
 * All three layouts where rows are aligned, as in real models, in every variant that this adapter may use, two of one row,
 * and one where rows are not aligned; and the bias's gradient.
 */
export async function matmulCheck(gpu: Gpu): Promise<Check> {
  const [m, n, k] = [9, 12, 8];
  const variants = MATMUL_VARIANTS.filter((variant) => variantCost(gpu, variant, m, n) < Infinity);
  const configs: MatmulConfig[] = [
    ...variants.flatMap((variant): MatmulConfig[] => [
      { layout: "nn", m, n, k, variant, bias: true },
      { layout: "nt", m, n, k, variant },
      { layout: "tn", m: 12, n, k, variant, accumulate: true },
    ]),
    { layout: "nn", m: 1, n, k, bias: true },
    { layout: "nt", m: 1, n, k },
    { layout: "nn", m: 5, n: 7, k: 3, bias: true },
  ];
  const products = await Promise.all(configs.map(async (config, index) => {
    const { layout, m, n, k, variant } = config;
    const values = {
      a: normals(10 + index, m * k),
      b: normals(20 + index, k * n),
      bias: normals(30 + index, n),
    };
    const before = normals(40 + index, m * n);
    const bias = config.bias ? values.bias : undefined;
    const product = matmulReference({ layout, m, n, k, ...values, bias });
    const tensors = {
      a: upload(gpu, "a", values.a),
      b: upload(gpu, "b", values.b),
      bias: upload(gpu, "bias", values.bias),
      c: upload(gpu, "c", before),
    };
    return {
      op: await prepareMatmul(gpu, config),
      tensors,
      operation: `matmul ${layout} of ${m} x ${n} x ${k}` + (variant ? `, ${variantName(variant)}` : ""),
      expected: config.accumulate ? plus(product, before) : product,
    };
  }));
  const dcValues = normals(50, m * n);
  const biasGradient = await prepareBiasGradient(gpu, { m, n, accumulate: true });
  const sums = { dc: upload(gpu, "dc", dcValues), dbias: gpu.tensor("dbias", [n]) };
  return {
    record(recorder) {
      for (const { op, tensors } of products) op.record(recorder, tensors);
      biasGradient.record(recorder, sums);
    },
    comparisons: [
      ...products.map(({ operation, tensors, expected }): Comparison => ({
        operation,
        outputs: [[tensors.c, expected]],
        tolerance: ARITHMETIC,
      })),
      {
        operation: "bias gradient",
        outputs: [[sums.dbias, biasGradientReference(m, n, dcValues)]],
        tolerance: ARITHMETIC,
      },
    ],
  };
}
