/**
 * Low-rank products beside a linear layer's own (LoRA, arXiv 2106.09685): y = x W + b + Σ_p s_p (x A_p) B_p, where each
 * adapter p adds to columns of its own. The As stand side by side, so that x is read once for all of them.
 *
 * Shapes: `down` (the As) [inputs, R], R the sum of the ranks r_p; `low` = x A [rows, R]; `ups[p]` (B_p) [r_p, columns].
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import type { Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import { type MatmulConfig, prepareMatmul } from "./op.ts";

/** One adapter of a linear layer. */
export interface LowRank {
  /** First column of y that it adds to. */
  column: number;
  /** How many. */
  columns: number;
  /** r: columns of A, rows of B. */
  rank: number;
  /** s, what its product is multiplied by. */
  scale: number;
}

/** The sizes of the adapters of a linear layer. */
export interface LowRankShape {
  /** Rows of x and y. */
  rows: number;
  /** Columns of x. */
  inputs: number;
  /** Columns of y. */
  outputs: number;
  /** In the order of their columns, none of which two share. */
  adapters: readonly LowRank[];
  /** Whether x is f16; the adapters and what is computed of them are not. */
  half: boolean;
}

/** Sum of the ranks: columns of `down` and `low`. */
export function rankOf(adapters: readonly Pick<LowRank, "rank">[]): number {
  return adapters.reduce((sum, { rank }) => sum + rank, 0);
}

/** Why adapters cannot be computed beside a layer whose x is f16, as half a sentence; undefined where they can. */
export function faultOfRanks(adapters: readonly Pick<LowRank, "rank">[]): string | undefined {
  const odd = adapters.find(({ rank }) => rank % 4 !== 0);
  return odd && `ranks of adapters must be multiples of 4: ${odd.rank}`;
}

/** Compiled low-rank products. */
export interface LowRankProducts {
  /**
   * `x` is [rows, inputs]; overwrites `low` [rows, R] and `sum` [rows, outputs] of f32: with 0 in the columns that have no
   * adapter.
   */
  record(
    recorder: Recorder,
    tensors: Record<"x" | "down" | "low" | "sum", Tensor> & { ups: readonly Tensor[] },
  ): void;
}

/** Their compiled gradients. */
export interface LowRankGradient {
  /**
   * Overwrites `dlow` [rows, R] from `dy` [rows, outputs], and `dx` [rows, inputs] where there is one; adds to `ddown` and
   * `dups` where there are gradients.
   */
  record(
    recorder: Recorder,
    tensors: Record<"x" | "down" | "low" | "dy" | "dlow", Tensor> & {
      ups: readonly Tensor[];
      dx?: Tensor;
    },
    gradients?: { ddown: Tensor; dups: readonly Tensor[] },
  ): void;
}

/** Each adapter with its first column in `down` and `low`. */
function placed(adapters: readonly LowRank[]): (LowRank & { first: number })[] {
  return adapters.map((adapter, n) => ({ ...adapter, first: rankOf(adapters.slice(0, n)) }));
}

/** Compiles Σ_p s_p (x A_p) B_p. */
export async function prepareLowRank(
  gpu: Gpu,
  { rows, inputs, outputs, adapters, half }: LowRankShape,
): Promise<LowRankProducts> {
  const total = rankOf(adapters);
  const ofX: Pick<MatmulConfig, "half"> = half ? { half: ["a"] } : {};
  const low = await prepareMatmul(gpu, { layout: "nn", m: rows, n: total, k: inputs, ...ofX });
  const products = await Promise.all(
    placed(adapters).map(({ column, columns, rank, scale, first }) =>
      prepareMatmul(gpu, {
        layout: "nn",
        m: rows,
        n: columns,
        k: rank,
        scale,
        aStride: total,
        aColumn: first,
        cStride: outputs,
        cColumn: column,
        neighbours: true,
      })
    ),
  );
  const covered = adapters.reduce((sum, { columns }) => sum + columns, 0);
  return {
    record(recorder, { x, down, low: ofX, sum, ups }) {
      low.record(recorder, { a: x, b: down, c: ofX });
      if (covered < outputs) recorder.clear(sum);
      products.forEach((product, n) => product.record(recorder, { a: ofX, b: ups[n], c: sum }));
    },
  };
}

/** Compiles their gradients. */
export async function prepareLowRankGradient(
  gpu: Gpu,
  { rows, inputs, outputs, adapters, half }: LowRankShape,
): Promise<LowRankGradient> {
  const total = rankOf(adapters);
  const products = await Promise.all(
    placed(adapters).map(async ({ column, columns, rank, scale, first }) => ({
      // dlow = s dy Bᵀ
      dlow: await prepareMatmul(gpu, {
        layout: "nt",
        m: rows,
        n: rank,
        k: columns,
        scale,
        aStride: outputs,
        aColumn: column,
        cStride: total,
        cColumn: first,
        neighbours: true,
      }),
      // dB += s lowᵀ dy
      dup: await prepareMatmul(gpu, {
        layout: "tn",
        m: rank,
        n: columns,
        k: rows,
        scale,
        aStride: total,
        aColumn: first,
        bStride: outputs,
        bColumn: column,
        accumulate: true,
      }),
    })),
  );
  // dA += xᵀ dlow
  const ofDown = await prepareMatmul(gpu, {
    layout: "tn",
    m: inputs,
    n: total,
    k: rows,
    accumulate: true,
    half: half ? ["a"] : [],
  });
  // dx = dlow Aᵀ
  const ofX = await prepareMatmul(gpu, { layout: "nt", m: rows, n: inputs, k: total });
  return {
    record(recorder, { x, down, low, dy, dlow, ups, dx }, gradients) {
      products.forEach((product, n) => product.dlow.record(recorder, { a: dy, b: ups[n], c: dlow }));
      if (gradients) {
        const { ddown, dups } = gradients;
        products.forEach(({ dup }, n) => dup.record(recorder, { a: low, b: dy, c: dups[n] }));
        ofDown.record(recorder, { a: x, b: dlow, c: ddown });
      }
      if (dx) ofX.record(recorder, { a: dlow, b: down, c: dx });
    },
  };
}
