/**
 * RMS norm of queries and keys that lie packed with the values (Henry et al. 2020, arXiv 2010.04245, in the forms of
 * Qwen3, arXiv 2505.09388, and OLMo 2, arXiv 2501.00656), forward and backward.
 *
 * Shapes: H query heads, K key heads and as many of values, D head size.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { elementwise } from "../core/elementwise.ts";
import { compile } from "../core/kernel.ts";
import { type LaneFunction, laneFunctions, lanesOf } from "../core/lanes.ts";
import { MAX_WORKGROUPS, type Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import backwardSource from "./backward.wgsl" with { type: "text" };
import forwardSource from "./forward.wgsl" with { type: "text" };
import groupsSource from "./groups.wgsl" with { type: "text" };
import weightGradientSource from "./weight_gradient.wgsl" with { type: "text" };
import weightsSource from "./weights.wgsl" with { type: "text" };

/** The shape of x (rows, (H + 2 K) · D), and what is normed together; compiled in. */
export interface QueryKeyNormConfig {
  rows: number;
  /** Heads H of queries. */
  heads: number;
  /** Heads K of keys, and of values. */
  keyValueHeads: number;
  /** Head size D. */
  headSize: number;
  /**
   * Each head by itself, the weights [D] being those of every head (Qwen3), or all queries of a row and all its keys, with
   * weights [H · D] and [K · D] (OLMo 2).
   */
  per: "head" | "all";
  epsilon: number;
  /** Whether x and y are f16, and the gradients not; D must then be a multiple of 4. */
  half?: boolean;
}

/** A compiled norm of queries and keys. */
export interface QueryKeyNorm {
  /**
   * Overwrites `y` (row, (H + 2 K) · D: heads of queries, then of keys, then of values, these being x's) and `statistics`
   * (row, H + K, or 2 where all are normed together: 1 / root mean square).
   */
  forward(
    recorder: Recorder,
    tensors: Record<"x" | "queryWeight" | "keyWeight" | "y" | "statistics", Tensor>,
  ): void;
  /** Overwrites `dx`, which may not be `dy`, and adds to the gradients of `parameters`, where given. */
  backward(
    recorder: Recorder,
    tensors: Record<"x" | "queryWeight" | "keyWeight" | "statistics" | "dy" | "dx", Tensor> & {
      parameters?: Record<"dqueryWeight" | "dkeyWeight", Tensor>;
    },
  ): void;
}

/** Compiles the norm of queries and keys for one shape. */
export async function prepareQueryKeyNorm(
  gpu: Gpu,
  { rows, heads, keyValueHeads, headSize, per, epsilon, half = false }: QueryKeyNormConfig,
): Promise<QueryKeyNorm> {
  const { alias, width: floats, elements } = elementwise(headSize);
  const shape = per === "head"
    ? { QUERIES: heads, QUERY_WIDTH: elements, KEYS: keyValueHeads, KEY_WIDTH: elements }
    : { QUERIES: 1, QUERY_WIDTH: heads * elements, KEYS: 1, KEY_WIDTH: keyValueHeads * elements };
  const constants = {
    ...shape,
    ROWS: rows,
    VALUES: keyValueHeads * elements,
    FLOATS: floats,
    // A head has 16 to 32 elements where they are vectors of four.
    LANES: lanesOf(gpu, per === "head" ? 32 : 64),
    EPSILON: { f32: epsilon },
  };
  const kernel = (
    label: string,
    source: string,
    over: LaneFunction,
    inHalf: readonly string[],
    textures: readonly string[],
  ) =>
    compile(gpu, {
      label: `query key norm ${label}`,
      source: alias + laneFunctions(gpu, [over]) + groupsSource + source,
      constants,
      half: half ? inHalf : [],
      textures,
    });
  const numbers: LaneFunction = { name: "sum_over_lanes", of: "sum", type: "f32" };
  const vectors: LaneFunction = { name: "element_over_lanes", of: "sum", type: "ELEMENT" };
  const weights = ["query_weight", "key_weight"];
  const [forward, backward, weightGradient] = await Promise.all([
    kernel("forward", weightsSource + forwardSource, numbers, ["x", "y"], ["x", ...weights]),
    kernel("backward", weightsSource + backwardSource, numbers, ["x"], ["x", ...weights, "statistics", "dy"]),
    kernel("weight gradient", weightGradientSource, vectors, ["x"], ["x", "statistics", "dy"]),
  ]);
  const grid = [Math.min(rows * (shape.QUERIES + shape.KEYS + 1), MAX_WORKGROUPS)] as const;
  return {
    forward(recorder, { x, queryWeight, keyWeight, y, statistics }) {
      const bindings = { x, query_weight: queryWeight, key_weight: keyWeight, y, statistics };
      recorder.dispatch(forward, bindings, grid);
    },
    backward(recorder, { x, queryWeight, keyWeight, statistics, dy, dx, parameters }) {
      const bindings = { x, query_weight: queryWeight, key_weight: keyWeight, statistics, dy, dx };
      recorder.dispatch(backward, bindings, grid);
      if (!parameters) return;
      const { dqueryWeight, dkeyWeight } = parameters;
      recorder.dispatch(
        weightGradient,
        { x, statistics, dy, dquery_weight: dqueryWeight, dkey_weight: dkeyWeight },
        [shape.QUERY_WIDTH + shape.KEY_WIDTH],
      );
    },
  };
}
