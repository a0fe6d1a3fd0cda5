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
import { elementwise } from "../core/elementwise.ts";
import type { Contest, Gpu } from "../core/gpu.ts";
import { GELU_SOURCES, type GeluForm } from "../core/gelu.ts";
import { compile, type Kernel, type KernelSource } from "../core/kernel.ts";
import { laneFunctions, lanesOf } from "../core/lanes.ts";
import type { Recorder } from "../core/recorder.ts";
import { destroyTensor, elementBytes, elementsOf, type ElementType, type Tensor } from "../core/tensor.ts";
import biasGradientSource from "./bias_gradient.wgsl" with { type: "text" };
import lanesSource from "./lanes.wgsl" with { type: "text" };
import lanesTnSource from "./lanes_tn.wgsl" with { type: "text" };
import nnSource from "./nn.wgsl" with { type: "text" };
import ntSource from "./nt.wgsl" with { type: "text" };
import tileSource from "./tile.wgsl" with { type: "text" };
import tnSource from "./tn.wgsl" with { type: "text" };
import workgroupSource from "./workgroup.wgsl" with { type: "text" };
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
  /** What the sums are multiplied by before anything is added to them; left out: 1. */
  scale?: number;
  /** Adds bias[n] to every row. */
  bias?: boolean;
  /** Adds a matrix like C, such as the residual stream that a branch ends in. */
  residual?: boolean;
  /** Also writes GELU(C) in this form, and not only C, which its gradient needs. */
  gelu?: GeluForm;
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
  /**
   * Whether what stands behind the columns of A and C that are meant is others', so that it is neither 0 nor to be
   * overwritten: counts of columns that are no multiples of 4 are then computed one by one.
   */
  neighbours?: boolean;
  /**
   * Several products of one shape in one dispatch, such as one for each head: how many, and the elements from where one
   * product's A, B and C begin to where the next one's do. The bias is [count, n], the residual as C.
   */
  batches?: { count: number; aStep: number; bStep: number; cStep: number };
  /** Which of the matrices are f16; every row must then start at a multiple of 4 elements. GELU(C) is as C. */
  half?: readonly ("a" | "b" | "c")[];
  /** Whether B is int8, with a scale for each of its columns in every 128 of its rows (core/int8.ts); aligned likewise. */
  int8?: boolean;
  /** How it is computed; left out, what the device's tuner measured, or {@link chooseVariant}. */
  variant?: MatmulVariant;
}

/**
 * How a product is computed. Every variant adds the terms of each element of C in the same order by the same
 * multiply-adds, so that the choice, which may differ from one start of a run to the next, changes no bit.
 */
export type MatmulVariant =
  | {
    /** A workgroup is one vector of a CPU driver, whose lanes hand round by subgroup operations what all need. */
    kind: "lanes";
    rows: 16;
    /** Columns of one lane. */
    columns: 4;
  }
  | {
    /** No barrier: each invocation loads for itself what a tile of C in its registers needs. */
    kind: "registers";
    /** Rows of the tile, a multiple of 4; or 1, but not of `tn`. */
    rows: number;
    /** Its columns, a multiple of 4. */
    columns: number;
  }
  | {
    /** Invocations share slabs of A and B in workgroup memory for a tile of C that they compute together. */
    kind: "workgroup";
    /** Rows of the tile: 64 or 128. */
    rows: number;
    /** Its columns: 64 or 128. */
    columns: number;
  };

/** The variants there are. */
export const MATMUL_VARIANTS: readonly MatmulVariant[] = [
  { kind: "lanes", rows: 16, columns: 4 },
  { kind: "registers", rows: 8, columns: 8 },
  { kind: "workgroup", rows: 64, columns: 64 },
  { kind: "workgroup", rows: 128, columns: 64 },
  { kind: "workgroup", rows: 128, columns: 128 },
];

/** For a C of one row, as of the one position that generating text computes: what tiles would compute is thrown away. */
const ONE_ROW: MatmulVariant = { kind: "registers", rows: 1, columns: 4 };

/** `workgroup 128 x 64`. */
export function variantName({ kind, rows, columns }: MatmulVariant): string {
  return `${kind} ${rows} x ${columns}`;
}

/**
 * How a tile is shared: vectors of C's rows and of its columns that each invocation has, and terms in a slab, of which there
 * are two of each operand in the 16 KiB of workgroup memory that every adapter has. A tile of 64 x 64 is for small products,
 * where more invocations are better than more work for each.
 */
const SHARING: Readonly<Record<string, { rowGroups: number; columnGroups: number; depth: number }>> = {
  "64 x 64": { rowGroups: 1, columnGroups: 1, depth: 16 },
  "128 x 64": { rowGroups: 2, columnGroups: 2, depth: 8 },
  "128 x 128": { rowGroups: 2, columnGroups: 2, depth: 8 },
};
/** Workgroups below which a GPU's processors would stand idle: the tile is then made smaller. */
const ENOUGH_WORKGROUPS = 128;

/**
 * What a product [m, n] costs in a variant on this adapter, in no unit: for choosing without measuring, and for leaving
 * out of measurements what cannot win.
 *
 * A CPU driver pays dearly for barriers and for loads: where its lanes can hand round what was loaded, they do. On a GPU
 * an invocation that loads for itself waits for memory at each term, and a large tile needs a large C.
 */
export function variantCost(gpu: Gpu, variant: MatmulVariant, m: number, n: number): number {
  const { kind, rows, columns } = variant;
  if (gpu.adapter.software) {
    const handed = [4, 8, 16].includes(gpu.lanes ?? 0);
    return kind === (handed ? "lanes" : "registers") ? 1 : Infinity;
  }
  if (kind !== "workgroup") return Infinity;
  const workgroups = Math.ceil(m / rows) * Math.ceil(n / columns);
  const idle = Math.max(1, ENOUGH_WORKGROUPS / workgroups);
  const loadsPerTerm = 1 + 16 / rows + 16 / columns;
  return workgroups * rows * columns * loadsPerTerm * idle;
}

/** The variant for a product [m, n] where nothing has been measured. */
export function chooseVariant(gpu: Gpu, m: number, n: number): MatmulVariant {
  const cost = (variant: MatmulVariant): number => variantCost(gpu, variant, m, n);
  return MATMUL_VARIANTS.reduce((best, variant) => cost(variant) < cost(best) ? variant : best);
}

/** Multiply-adds below which no product is worth measuring: it takes a small part of any step. */
const LEAST_TERMS = 1 << 24;
/** Variants that should cost more than this many times the cheapest are not measured. */
const WORTH_MEASURING = 3;

/** The variant that was measured to be the fastest for this product, where there is a tuner and it has time. */
async function tunedVariant(gpu: Gpu, config: MatmulConfig): Promise<MatmulVariant | undefined> {
  const { layout, m, n, k, half = [], int8 = false, batches } = config;
  // A CPU driver takes longer to compile a variant than any could gain, and the rule was fitted to one.
  if (!gpu.tuner || gpu.adapter.software || batches || m * n * k < LEAST_TERMS) return undefined;
  const cost = (variant: MatmulVariant): number => variantCost(gpu, variant, m, n);
  const most = WORTH_MEASURING * Math.min(...MATMUL_VARIANTS.map(cost));
  const variants = MATMUL_VARIANTS.filter((variant) => cost(variant) <= most);
  if (variants.length === 1) return variants[0];
  const strides = stridesOf(config);
  // What is done to an element of C before it is stored is not told apart: it is the same in all variants.
  const key = [
    "matmul",
    layout,
    `${m} x ${n} x ${k}`,
    `rows of ${strides.aStride}, ${strides.bStride}`,
    ...half,
    ...(int8 ? ["int8"] : []),
  ]
    .join(" ");
  const chosen = await gpu.tuner.choose(
    gpu,
    key,
    variants.map(variantName),
    () => contestOf(gpu, config, variants),
  );
  return variants.find((variant) => variantName(variant) === chosen);
}

/** The variants on matrices of zeros; undefined where the device cannot hold these beside what is there. */
async function contestOf(
  gpu: Gpu,
  config: MatmulConfig,
  variants: readonly MatmulVariant[],
): Promise<Contest | undefined> {
  const { m, n, bias, residual, gelu, half = [], int8 = false } = config;
  const { aRows, aStride, bRows, bStride, cStride } = stridesOf(config);
  const typeOf = (name: "a" | "b" | "c"): ElementType => half.includes(name) ? "f16" : "f32";
  const likeC = { shape: [m, cStride], type: typeOf("c") };
  const operands = Object.entries<{ shape: number[]; type: ElementType }>({
    a: { shape: [aRows, aStride], type: typeOf("a") },
    b: { shape: [bRows, bStride], type: int8 ? "int8" : typeOf("b") },
    c: likeC,
    ...(bias && { bias: { shape: [n], type: "f32" } }),
    ...(residual && { residual: { shape: [m, cStride], type: "f32" } }),
    ...(gelu && { activated: likeC }),
  });
  const sizes = operands.map(([, { shape, type }]) => elementBytes(type) * elementsOf(shape));
  if (!await gpu.canHold(sizes)) return undefined;
  const compiled = await Promise.all(
    variants.map((variant) => prepareMatmul(gpu, { ...config, variant })),
  );
  const tensors = Object.fromEntries(
    operands.map(([name, { shape, type }]) => [name, gpu.tensor(`${name} to measure with`, shape, type)]),
  ) as Record<"a" | "b" | "c", Tensor>;
  return {
    candidates: new Map(
      variants.map((variant, index) => [
        variantName(variant),
        (recorder) => compiled[index].record(recorder, tensors),
      ]),
    ),
    destroy: () => Object.values(tensors).forEach((tensor) => destroyTensor(gpu, tensor)),
  };
}

/** Rows of A and B, and elements from one row of each matrix to the next. */
function stridesOf({ layout, m, n, k, ...given }: MatmulConfig) {
  return {
    aRows: layout === "tn" ? k : m,
    aStride: given.aStride ?? (layout === "tn" ? m : k),
    bRows: layout === "nt" ? n : k,
    bStride: given.bStride ?? (layout === "nt" ? k : n),
    cStride: given.cStride ?? n,
  };
}

/** A compiled product. `record` overwrites C, or adds to it where the config says accumulate. */
export interface Matmul {
  /**
   * `bias` is [n], `residual` and `activated` (GELU(C), overwritten) are as C but not C itself; each is needed where the
   * config has it.
   */
  record(
    recorder: Recorder,
    tensors: { a: Tensor; b: Tensor; c: Tensor; bias?: Tensor; residual?: Tensor; activated?: Tensor },
  ): void;
}

const REGISTER_SOURCES = { nn: nnSource, nt: ntSource, tn: tnSource };

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
    scale,
    bias = false,
    residual = false,
    gelu,
    accumulate = false,
    aColumn = 0,
    bColumn = 0,
    cColumn = 0,
    neighbours = false,
    half = [],
    int8 = false,
    batches = { count: 1, aStep: 0, bStep: 0, cStep: 0 },
  } = config;
  const { count, aStep, bStep, cStep } = batches;
  for (const [name, value] of Object.entries({ m, n, k, batches: count })) {
    if (!Number.isInteger(value) || value < 1) {
      throw new RangeError(`Cannot prepare matmul ${layout} as ${name} must be a positive integer: ${value}`);
    }
  }
  const { aStride, bStride, cStride } = stridesOf(config);
  const starts = [aStride, bStride, cStride, aColumn, bColumn, cColumn, aStep, bStep, cStep];
  const aligned = starts.every((x) => x % 4 === 0) &&
    (n % 4 === 0 || cStride >= 4 * Math.ceil(n / 4)) && (!bias || n % 4 === 0) &&
    !(neighbours && [n, layout === "tn" ? 0 : k].some((count) => count % 4 !== 0));
  if (half.length > 0 && (!aligned || (accumulate && half.includes("c")))) {
    const required = aligned ? "nothing may be added to an f16 product" : "rows must start at multiples of 4";
    throw new RangeError(`Cannot prepare matmul ${layout} in half precision as ${required}`);
  }
  const scaled: KernelSource["constants"] = scale === undefined ? {} : { SCALE: { f32: scale } };
  if (int8 && (!aligned || layout === "tn" || config.batches || half.includes("b"))) {
    throw new RangeError(
      `Cannot prepare matmul ${layout} with int8 as B must be one weight whose rows start at multiples of 4, read in nn or nt`,
    );
  }
  const flags = {
    SCALED: scale !== undefined,
    BIAS: bias,
    RESIDUAL: residual,
    GELU: gelu !== undefined,
    ACCUMULATE: accumulate,
    TILED: aligned,
    BATCHED: config.batches !== undefined,
    ALONE: config.batches === undefined,
  };
  // Not C, where it is added to: each of its elements is read once, as are the residual's, but of these there is a texture
  // already, which a norm has read.
  const textures = ["a", "b", ...(bias ? ["bias"] : []), ...(residual ? ["residual"] : [])];
  let kernel: Kernel;
  let grid: [number, number, number];
  if (aligned) {
    const variant = config.variant ??
      (m === 1 && layout !== "tn" ? ONE_ROW : await tunedVariant(gpu, config) ?? chooseVariant(gpu, m, n));
    const { source, constants, flags: ofTiling, tile } = variant.kind === "registers"
      ? registerTile(gpu, layout, variant)
      : variant.kind === "lanes"
      ? laneTile(gpu, layout, variant)
      : workgroupTile(gpu, layout, k, variant);
    kernel = await compile(gpu, {
      label: `matmul ${layout}`,
      source: sharedSource("vec4f", gelu) + source,
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
        A_COLUMN: aColumn / 4,
        B_COLUMN: bColumn / 4,
        C_COLUMN: cColumn / 4,
        A_STEP: aStep / 4,
        B_STEP: bStep / 4,
        C_STEP: cStep / 4,
        ROWS: variant.rows,
        ...scaled,
        ...constants,
      },
      flags: {
        ...flags,
        A_ALONG_K: layout !== "tn",
        B_ALONG_K: layout === "nt",
        B_ALONG_N: layout !== "nt",
        ...ofTiling,
      },
      half: half.includes("c") && gelu ? [...half, "activated"] : half,
      int8: int8 ? { b: "B_STRIDE4" } : {},
      textures,
    });
    grid = [Math.ceil(n / tile.columns), Math.ceil(m / tile.rows), count];
  } else {
    kernel = await compile(gpu, {
      label: `matmul ${layout} unaligned`,
      source: sharedSource("f32", gelu) + unalignedSource,
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
        A_STEP: aStep,
        B_STEP: bStep,
        C_STEP: cStep,
        ...scaled,
      },
      flags: { ...flags, TRANSPOSE_A: layout === "tn", TRANSPOSE_B: layout === "nt" },
      textures,
    });
    grid = [Math.ceil(n / 8), Math.ceil(m / 8), count];
  }
  return {
    record(recorder, { a, b, c, bias: biasTensor, residual: residualTensor, activated }) {
      recorder.dispatch(kernel, {
        a,
        b,
        c,
        ...(bias && { bias: biasTensor! }),
        ...(residual && { residual: residualTensor! }),
        ...(gelu && { activated: activated! }),
      }, grid);
    },
  };
}

function sharedSource(element: "vec4f" | "f32", gelu: GeluForm | undefined): string {
  return `alias ELEMENT = ${element};\n` + (gelu ? GELU_SOURCES[gelu] : "") + tileSource;
}

/** Source, constants and the tile of C of one workgroup. */
interface Tiling {
  source: string;
  constants: Record<string, number>;
  flags?: Record<string, boolean>;
  tile: { rows: number; columns: number };
}

function laneTile(gpu: Gpu, layout: MatmulLayout, { rows, columns }: MatmulVariant): Tiling {
  const { lanes } = gpu;
  if (!lanes) {
    throw new RangeError(
      `Cannot prepare matmul ${layout} by lanes as ${gpu.adapter.name} has no known subgroups`,
    );
  }
  const loads = rows / lanes;
  return {
    source: layout === "tn" ? lanesTnSource : lanesSource,
    constants: { LANES: lanes, A_LOADS: loads, ROWS4: rows / 4, TERMS_EACH: 4 / loads },
    tile: { rows, columns: columns * lanes },
  };
}

function registerTile(gpu: Gpu, layout: MatmulLayout, { rows, columns }: MatmulVariant): Tiling {
  // A CPU driver's vector; a GPU wants at least a full subgroup, square for cache reuse.
  const [lanesX, lanesY] = gpu.adapter.software || rows === 1 ? [lanesOf(gpu, 64), 1] : [8, 8];
  return {
    source: REGISTER_SOURCES[layout],
    constants: { ROWS4: Math.ceil(rows / 4), COLUMNS4: columns / 4, LANES_X: lanesX, LANES_Y: lanesY },
    tile: { rows: rows * lanesY, columns: columns * lanesX },
  };
}

function workgroupTile(gpu: Gpu, layout: MatmulLayout, k: number, { rows, columns }: MatmulVariant): Tiling {
  const { rowGroups, columnGroups, depth } = SHARING[`${rows} x ${columns}`];
  const [lanesX, lanesY] = [columns / (4 * columnGroups), rows / (4 * rowGroups)];
  const loads = (length: number): number => length * depth / (4 * lanesX * lanesY);
  // Two slabs of each operand, and a vector for each of their terms.
  const [slabs, padding] = [2 * 4 * depth * (rows + columns), 2 * 2 * 16 * depth];
  const padded = gpu.device.limits.maxComputeWorkgroupStorageSize >= slabs + padding;
  return {
    source: workgroupSource,
    constants: {
      COLUMNS: columns,
      DEPTH4: depth / 4,
      LANES_X: lanesX,
      LANES_Y: lanesY,
      ROW_GROUPS: rowGroups,
      COLUMN_GROUPS: columnGroups,
      LOADS_A: loads(rows),
      LOADS_B: loads(columns),
    },
    flags: {
      TAIL: k % depth !== 0,
      PADDED_A: padded && layout !== "tn",
      PADDED_B: padded && layout === "nt",
    },
    tile: { rows, columns },
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
  const { alias, elements } = elementwise(n);
  const kernel = await compile(gpu, {
    label: "bias gradient",
    source: alias + laneFunctions(gpu, [{ name: "sum_over_lanes", of: "sum", type: "ELEMENT" }]) +
      biasGradientSource,
    constants: { M: m, ELEMENTS: elements, LANES: lanesOf(gpu, 64) },
    flags: { ACCUMULATE: accumulate },
    textures: ["dc"],
  });
  return {
    record(recorder, { dc, dbias }) {
      recorder.dispatch(kernel, { dc, dbias }, [elements]);
    },
  };
}
