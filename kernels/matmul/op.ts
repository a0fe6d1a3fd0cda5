/**
 * Matrix products in the three orientations that a linear layer and its gradients need.
 *
 * | layout | product | use, for y = x W + b with W [in, out] |
 * | --- | --- | --- |
 * | `nn` | C[m,n] = Σ_k A[m,k] B[k,n] | y = x W |
 * | `nt` | C[m,n] = Σ_k A[m,k] B[n,k] | dx = dy Wᵀ; logits = x wteᵀ |
 * | `tn` | C[m,n] = Σ_k A[k,m] B[k,n] | dW = xᵀ dy |
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { compile, type Kernel } from "../core/kernel.ts";
import type { Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import biasGradientSource from "./bias_gradient.wgsl" with { type: "text" };
import nnSource from "./nn.wgsl" with { type: "text" };
import ntSource from "./nt.wgsl" with { type: "text" };
import tileSource from "./tile.wgsl" with { type: "text" };
import tnSource from "./tn.wgsl" with { type: "text" };
import unalignedSource from "./unaligned.wgsl" with { type: "text" };

/** Which operand is read transposed: none, B, or A. */
export type MatmulLayout = "nn" | "nt" | "tn";

/** The shape of one product; compiled in. */
export interface MatmulConfig {
  layout: MatmulLayout;
  /** Rows of C. */
  m: number;
  /** Columns of C. */
  n: number;
  /** Terms of each sum. */
  k: number;
  /** Adds bias[n] to every row. */
  bias?: boolean;
  /** Adds to C rather than overwriting it. */
  accumulate?: boolean;
  /** Elements from one row of A to the next; its columns when left out. Columns past k must then hold zeros. */
  aStride?: number;
  /** First column of A that is read. */
  aColumn?: number;
  /** Elements from one row of B to the next; its columns when left out. */
  bStride?: number;
  /** First column of B that is read. */
  bColumn?: number;
  /** Elements from one row of C to the next; n when left out. Columns n to the next multiple of 4 are overwritten. */
  cStride?: number;
  /** First column of C that is written. */
  cColumn?: number;
  /** Which of the matrices are f16; every row must then start at a multiple of 4 elements. */
  half?: readonly ("a" | "b" | "c")[];
  /** The tile to use; left out, {@link chooseTile} chooses. */
  tile?: MatmulTile;
}

/** The tile of C that one invocation keeps in registers. */
export interface MatmulTile {
  /** A multiple of 4. */
  rows: number;
  /** Columns, in fours. */
  columns4: number;
}

/** The tiles there are. */
export const MATMUL_TILES: readonly MatmulTile[] = [{ rows: 8, columns4: 2 }, { rows: 16, columns4: 4 }];

/** Lanes of llvmpipe's vectors. */
const CPU_LANES = 8;
/** What loading four elements costs a CPU driver, in multiplications of four by one (docs/log.md). */
const CPU_LOAD_COST = 6;

/**
 * The tile for a product [m, n] on this adapter. A CPU driver loads lane by lane, so that a large tile, which loads less
 * for each product, is the faster one unless too much of it lies outside C.
 */
export function chooseTile(gpu: Gpu, m: number, n: number): MatmulTile {
  if (!gpu.adapter.software) return MATMUL_TILES[0];
  const cost = ({ rows, columns4 }: MatmulTile): number =>
    Math.ceil(n / (4 * columns4 * CPU_LANES)) * Math.ceil(m / rows) *
    (4 * rows * columns4 + CPU_LOAD_COST * (rows + 4 * columns4));
  return MATMUL_TILES.reduce((best, tile) => cost(tile) < cost(best) ? tile : best);
}

/** A compiled product. `record` overwrites C, or adds to it where the config says accumulate. */
export interface Matmul {
  /** `bias` is [n]; needed where the config has one. */
  record(recorder: Recorder, tensors: { a: Tensor; b: Tensor; bias?: Tensor; c: Tensor }): void;
}

const SOURCES = { nn: tileSource + nnSource, nt: tileSource + ntSource, tn: tileSource + tnSource };

/**
 * Compiles one product for one shape.
 *
 * @throws {RangeError} when an extent is not a positive integer
 */
export async function prepareMatmul(gpu: Gpu, config: MatmulConfig): Promise<Matmul> {
  const {
    layout,
    m,
    n,
    k,
    bias = false,
    accumulate = false,
    aColumn = 0,
    bColumn = 0,
    cColumn = 0,
    half = [],
  } = config;
  for (const [name, value] of Object.entries({ m, n, k })) {
    if (!Number.isInteger(value) || value < 1) {
      throw new RangeError(`Cannot prepare matmul ${layout} as ${name} must be a positive integer: ${value}`);
    }
  }
  const aStride = config.aStride ?? (layout === "tn" ? m : k);
  const bStride = config.bStride ?? (layout === "nt" ? k : n);
  const cStride = config.cStride ?? n;
  const aligned = [aStride, bStride, cStride, aColumn, bColumn, cColumn].every((x) => x % 4 === 0) &&
    (n % 4 === 0 || cStride >= 4 * Math.ceil(n / 4)) && (!bias || n % 4 === 0);
  if (half.length > 0 && (!aligned || (accumulate && half.includes("c")))) {
    const required = aligned ? "nothing may be added to an f16 product" : "rows must start at multiples of 4";
    throw new RangeError(`Cannot prepare matmul ${layout} in half precision as ${required}`);
  }
  const flags = { BIAS: bias, ACCUMULATE: accumulate };
  let kernel: Kernel;
  let grid: [number, number];
  if (aligned) {
    // Eight lanes are llvmpipe's vector; a real GPU wants at least a full subgroup, square for cache reuse.
    const [lanesX, lanesY] = gpu.adapter.software ? [CPU_LANES, 1] : [8, 8];
    const { rows, columns4 } = config.tile ?? chooseTile(gpu, m, n);
    kernel = await compile(gpu, {
      label: `matmul ${layout}`,
      source: SOURCES[layout],
      constants: {
        M: m,
        N: n,
        K: k,
        M4: Math.ceil(m / 4),
        N4: Math.ceil(n / 4),
        K4: Math.ceil(k / 4),
        A_STRIDE4: aStride / 4,
        B_STRIDE4: bStride / 4,
        C_STRIDE4: cStride / 4,
        A_COLUMN4: aColumn / 4,
        B_COLUMN4: bColumn / 4,
        C_COLUMN4: cColumn / 4,
        ROWS: rows,
        ROWS4: rows / 4,
        COLUMNS4: columns4,
        LANES_X: lanesX,
        LANES_Y: lanesY,
      },
      flags,
      // Without a bias B stands in for it.
      half: half.includes("b") && !bias ? [...half, "bias"] : half,
    });
    grid = [Math.ceil(n / (4 * columns4 * lanesX)), Math.ceil(m / (rows * lanesY))];
  } else {
    kernel = await compile(gpu, {
      label: `matmul ${layout} unaligned`,
      source: unalignedSource,
      constants: {
        M: m,
        N: n,
        K: k,
        A_STRIDE: aStride,
        B_STRIDE: bStride,
        C_STRIDE: cStride,
        A_COLUMN: aColumn,
        B_COLUMN: bColumn,
        C_COLUMN: cColumn,
      },
      flags: { ...flags, TRANSPOSE_A: layout === "tn", TRANSPOSE_B: layout === "nt" },
    });
    grid = [Math.ceil(n / 8), Math.ceil(m / 8)];
  }
  return {
    record(recorder, { a, b, bias: biasTensor, c }) {
      // A binding cannot be left empty: without a bias B stands in, and is never read as one.
      recorder.dispatch(kernel, { a, b, bias: bias ? biasTensor! : b, c }, grid);
    },
  };
}

/** A compiled bias gradient. */
export interface BiasGradient {
  /** `dc` is [m, n], `dbias` is [n]. */
  record(recorder: Recorder, tensors: { dc: Tensor; dbias: Tensor }): void;
}

/** Compiles dbias[n] = Σ_m dc[m,n], overwritten or, with `accumulate`, added to. */
export async function prepareBiasGradient(
  gpu: Gpu,
  config: { m: number; n: number; accumulate?: boolean },
): Promise<BiasGradient> {
  const { m, n, accumulate = false } = config;
  const kernel = await compile(gpu, {
    label: "bias gradient",
    source: biasGradientSource,
    constants: { M: m, N: n },
    flags: { ACCUMULATE: accumulate },
  });
  return {
    record(recorder, { dc, dbias }) {
      recorder.dispatch(kernel, { dc, dbias }, [n]);
    },
  };
}
