/** Low-rank products and the layer that is added to them, on fixed inputs, against the float64 reference. @module */
import {
  ARITHMETIC,
  type Check,
  checkOfEach,
  IN_HALF,
  inHalf,
  type KernelCheck,
  normals,
  plus,
  upload,
} from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareLinear, prepareLinearGradient } from "./linear.ts";
import { prepareLowRank, prepareLowRankGradient, rankOf } from "./low_rank.ts";
import { lowRankGradientReference, lowRankReference, matmulReference } from "./reference.ts";

/** Adapters of a kind. */
export interface CheckedLowRank {
  /** Whether what the layer reads, its weight and what it gives are f16. */
  half: boolean;
  /** Whether every rank is a multiple of 4. */
  aligned: boolean;
}

/** Two adapters of unlike ranks, scales and widths, forward and backward. */
async function checkLowRank(gpu: Gpu, { half, aligned }: CheckedLowRank): Promise<Check> {
  // Rows and inputs are more than one tile and no whole number of them.
  const [rows, inputs, outputs] = [gpu.adapter.software ? 36 : 152, 140, 76];
  const [first, second] = aligned ? [8, 4] : [5, 2];
  const adapters = [
    { column: 0, columns: 40, rank: first, scale: 2 },
    { column: 40, columns: 36, rank: second, scale: 0.5 },
  ];
  const total = rankOf(adapters);
  const drawn = (seed: number, length: number): Float32Array =>
    half ? inHalf(normals(seed, length)) : normals(seed, length);
  const [x, weight] = [drawn(1, rows * inputs), drawn(2, inputs * outputs)];
  const [down, dy] = [normals(3, inputs * total), normals(4, rows * outputs)];
  const ups = adapters.map(({ rank, columns }, n) => normals(5 + n, rank * columns));
  const type = half ? "f16" as const : "f32" as const;
  const shape = {
    rows,
    inputs,
    outputs,
    bias: false,
    half: { x: half, weight: half, y: half },
    accumulate: true,
    frozen: true,
  };
  const ofAdapters = { rows, inputs, outputs, adapters, half };
  const [products, layer, ofProducts, ofLayer] = await Promise.all([
    prepareLowRank(gpu, ofAdapters),
    prepareLinear(gpu, shape),
    prepareLowRankGradient(gpu, ofAdapters),
    prepareLinearGradient(gpu, shape),
  ]);
  const t = {
    x: upload(gpu, "x", x, [rows, inputs], type),
    weight: upload(gpu, "weight", weight, [inputs, outputs], type),
    down: upload(gpu, "down", down),
    ups: ups.map((up) => upload(gpu, "up", up)),
    low: gpu.tensor("low", [rows, total]),
    y: gpu.tensor("y", [rows, outputs], type),
    dy: upload(gpu, "dy", dy),
    dlow: gpu.tensor("dlow", [rows, total]),
    dx: gpu.tensor("dx", [rows, inputs]),
  };
  // Nothing is added to what is f16.
  const sum = half ? gpu.tensor("partial sums", [rows, outputs]) : t.y;
  const gradients = {
    ddown: gpu.tensor("ddown", [inputs, total]),
    dups: adapters.map(({ rank, columns }) => gpu.tensor("dup", [rank, columns])),
  };
  const reference = { ...ofAdapters, x, down, ups };
  const want = lowRankGradientReference(reference, dy);
  const ofRows = { m: rows, a: x, b: weight };
  const y = matmulReference({ ...ofRows, layout: "nn", n: outputs, k: inputs });
  const dx = matmulReference({ ...ofRows, layout: "nt", n: inputs, k: outputs, a: dy });
  const name = `low-rank products${aligned ? "" : " of odd ranks"}${half ? " as f16" : ""}`;
  return {
    record(recorder) {
      products.record(recorder, { ...t, sum });
      layer.record(recorder, { ...t, ...(half && { partial: sum }) });
      ofProducts.record(recorder, t, gradients);
      ofLayer.record(recorder, t);
    },
    comparisons: [
      {
        operation: `${name} forward`,
        outputs: [[t.y, plus(lowRankReference(reference), y)]],
        tolerance: half ? IN_HALF : ARITHMETIC,
      },
      {
        operation: `${name} backward`,
        outputs: [
          [t.dx, plus(want.dx, dx)],
          [gradients.ddown, want.ddown],
          ...want.dups.map((dup, n) => [gradients.dups[n], dup] as const),
        ],
        tolerance: ARITHMETIC,
      },
    ],
  };
}

/** Adapters of a kind, each product by the variant that is taken for its size. */
export const lowRankCheck: (of: CheckedLowRank) => KernelCheck = checkOfEach(checkLowRank);
