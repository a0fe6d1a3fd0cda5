/** Products on fixed inputs, against the float64 reference. @module */
import {
  ARITHMETIC,
  type Check,
  checkOfEach,
  type Comparison,
  IN_HALF,
  inHalf,
  type KernelCheck,
  normals,
  plus,
  TRANSCENDENTAL,
  upload,
} from "../core/check.ts";
import type { GeluForm } from "../core/gelu.ts";
import type { Gpu } from "../core/gpu.ts";
import { dequantise, quantise } from "../core/int8.ts";
import {
  MATMUL_VARIANTS,
  type MatmulConfig,
  type MatmulVariant,
  prepareBiasGradient,
  prepareMatmul,
  variantCost,
  variantName,
} from "./op.ts";
import { biasGradientReference, matmulReference } from "./reference.ts";

/** A kind of product that is checked by itself, in every variant that the adapter may use. */
export interface CheckedProduct extends Pick<MatmulConfig, "layout" | "bias" | "residual" | "half" | "int8"> {
  /** Whether it is added to what stands in C. */
  accumulate?: boolean;
  /** Also writes GELU(C): in this form, which float64 knows so. */
  gelu?: { form: GeluForm; reference(x: ArrayLike<number>, form: GeluForm): Float64Array };
}

/**
 * Rows, columns and terms: no whole number of tiles or slabs of any variant, and more than two slabs of each. Of rows and
 * columns there is more than one tile of each too: those of a CPU driver are smaller. Where B is int8 it has more rows than
 * share a scale.
 */
function sizesOf(gpu: Gpu, { int8 }: Pick<CheckedProduct, "int8">): Record<"m" | "n" | "k", number> {
  const { software } = gpu.adapter;
  return { m: software ? 36 : 152, n: software && !int8 ? 76 : 148, k: 140 };
}

/** The variants that may be chosen for a product of some size here. */
function variantsHere(gpu: Gpu, m: number, n: number): MatmulVariant[] {
  return MATMUL_VARIANTS.filter((variant) => variantCost(gpu, variant, m, n) < Infinity);
}

/** One kind of product, by each of some variants. */
async function checkProduct(
  gpu: Gpu,
  of: CheckedProduct & Pick<MatmulConfig, "m" | "n" | "k">,
  variants: readonly (MatmulVariant | undefined)[],
): Promise<Check> {
  const { gelu, half = [], int8 = false, ...rest } = of;
  const { layout, m, n, k, bias, residual, accumulate } = rest;
  const config: MatmulConfig = { ...rest, half, int8, ...(gelu && { gelu: gelu.form }) };
  const typeOf = (name: "a" | "b" | "c") => half.includes(name) ? "f16" as const : "f32" as const;
  const drawn = (seed: number, length: number, name: "a" | "b"): Float32Array => {
    const values = normals(seed, length);
    return half.includes(name) ? inHalf(values) : values;
  };
  const [a, b] = [drawn(10, m * k, "a"), drawn(20, k * n, "b")];
  const [ofBias, before, past] = [normals(30, n), normals(40, m * n), normals(50, m * n)];
  const shapeOfB = layout === "nt" ? [n, k] : [k, n];
  const { values: stored, scales } = quantise(b, shapeOfB[0], shapeOfB[1]);
  const product = matmulReference({
    layout,
    m,
    n,
    k,
    a,
    b: int8 ? dequantise(stored, scales, shapeOfB[1]) : b,
    bias: bias ? ofBias : undefined,
  });
  const ofC = [accumulate ? before : undefined, residual ? past : undefined]
    .reduce<Float64Array>((sum, addend) => addend ? plus(sum, addend) : sum, product);
  const inputs = {
    a: upload(gpu, "a", a, undefined, typeOf("a")),
    b: upload(gpu, "b", b, shapeOfB, int8 ? "int8" : typeOf("b")),
    ...(bias && { bias: upload(gpu, "bias", ofBias) }),
    ...(residual && { residual: upload(gpu, "residual", past) }),
  };
  const name = [
    `matmul ${layout} of ${m} x ${n} x ${k}`,
    ...(layout === "nn" && !bias ? ["without a bias"] : []),
    ...(residual ? ["with a residual"] : []),
    ...(gelu ? [`with ${gelu.form === "exact" ? "exact GELU" : "GELU"}`] : []),
    ...(half.length > 0 ? [`with ${half.join(", ")} as f16`] : []),
    ...(int8 ? ["with b as int8"] : []),
  ].join(" ");
  const products = await Promise.all(variants.map(async (variant) => ({
    op: await prepareMatmul(gpu, { ...config, variant }),
    operation: variant ? `${name}, ${variantName(variant)}` : name,
    tensors: {
      ...inputs,
      c: upload(gpu, "c", before, undefined, typeOf("c")),
      ...(gelu && { activated: gpu.tensor("activated", [m, n], typeOf("c")) }),
    },
  })));
  return {
    record(recorder) {
      for (const { op, tensors } of products) op.record(recorder, tensors);
    },
    comparisons: products.map(({ operation, tensors: { c, activated } }): Comparison => ({
      operation,
      outputs: [
        [c, ofC],
        ...(gelu && activated ? [[activated, gelu.reference(ofC, gelu.form)] as const] : []),
      ],
      tolerance: half.includes("c") ? IN_HALF : gelu ? TRANSCENDENTAL : ARITHMETIC,
    })),
  };
}

/** One kind of product, by every variant that this adapter may use. */
export const productCheck: (of: CheckedProduct) => KernelCheck = checkOfEach((gpu, of: CheckedProduct) => {
  const sizes = sizesOf(gpu, of);
  return checkProduct(gpu, { ...of, ...sizes }, variantsHere(gpu, sizes.m, sizes.n));
});

/**
 * All three layouts in float32 where rows are aligned, as in real models, in every variant that this adapter may use, two of
 * one row, and one where rows are not aligned; and the bias's gradient.
 */
export async function matmulCheck(gpu: Gpu): Promise<Check> {
  const { m, n, k } = sizesOf(gpu, {});
  const variants = variantsHere(gpu, m, n);
  // Of more columns than a workgroup has, on any adapter.
  const oneRow = { m: 1, n: 268, k };
  const products = await Promise.all([
    checkProduct(gpu, { layout: "nn", m, n, k, bias: true }, variants),
    checkProduct(gpu, { layout: "nt", m, n, k }, variants),
    checkProduct(gpu, { layout: "tn", m, n, k, accumulate: true }, variants),
    checkProduct(gpu, { layout: "nn", ...oneRow, bias: true }, [undefined]),
    checkProduct(gpu, { layout: "nt", ...oneRow }, [undefined]),
    checkProduct(gpu, { layout: "nn", m: 11, n: 21, k: 7, bias: true }, [undefined]),
  ]);
  const dcValues = normals(60, m * n);
  const biasGradient = await prepareBiasGradient(gpu, { m, n, accumulate: true });
  const sums = { dc: upload(gpu, "dc", dcValues), dbias: gpu.tensor("dbias", [n]) };
  return {
    record(recorder) {
      for (const { record } of products) record(recorder);
      biasGradient.record(recorder, sums);
    },
    comparisons: [
      ...products.flatMap(({ comparisons }) => comparisons),
      {
        operation: "bias gradient",
        outputs: [[sums.dbias, biasGradientReference(m, n, dcValues)]],
        tolerance: ARITHMETIC,
      },
    ],
  };
}
