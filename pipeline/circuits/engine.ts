/**
 * What circuits are found with: a model run in which every edge carries either what its source computes or what the
 * source would have written under an ablation, and estimates of what each edge is worth.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { ModelConfig } from "../model_config.ts";
import type { Parameters } from "../parameters.ts";
import type { CircuitGraph } from "./graph.ts";
import type { PromptSet } from "./prompts.ts";

/**
 * How what a circuit leaves out is replaced: by what the same node writes for the corrupted prompt of the pair, by the
 * mean of that over all corrupted prompts at the same position, or by zero.
 */
export type Ablation = "resample" | "mean" | "zero";

/** A loaded model: dense, or with hard gates where its config has a gate. */
export interface CircuitModel {
  config: ModelConfig;
  parameters: Parameters;
}

/** What an engine is made for. */
export interface CircuitEngineOptions {
  set: PromptSet;
  /** `resample` when left out. */
  ablation?: Ablation;
  /** Bytes that the engine may hold on the device beside the model's parameters; 1 GiB when left out. */
  maxBytes?: number;
}

/** How edges are estimated: at the clean prompt, or on the way to it from the ablated embedding in `steps` steps. */
export type AttributionMethod = { name: "eap" } | { name: "eap-ig"; steps: number };

/** Told how many of how many parts of the work are done. */
export type Progress = (done: number, of: number) => void;

/** Metrics of the unpatched model, one value a pair. */
export interface Baselines {
  clean: Float64Array;
  corrupted: Float64Array;
  /** Share of a pair's places at which the best right token beats every wrong one, for the clean prompt. */
  correct: Float64Array;
  /** Share of a pair's places at which no logit exceeds a right token's. */
  exact: Float64Array;
}

/** A model and its prompt pairs, compiled and ready. */
export interface CircuitEngine {
  readonly graph: CircuitGraph;
  /** Bytes held on the device beside the parameters. */
  readonly bytes: number;
  /** Pairs in one batch: as many as fit. */
  readonly batch: number;
  baselines(): Promise<Baselines>;
  /**
   * Metric of each pair where the kept edges (1 of 0/1 for each edge) carry what their source computes in this run, and
   * every other edge the ablation's value. All kept: the clean run. None kept: the corrupted one, where the ablation is
   * `resample`.
   */
  run(kept: Uint8Array): Promise<Float64Array>;
  /** Estimated drop of each pair's metric when an edge is ablated, [pair][edge]: positive where the edge helps. */
  attribute(method: AttributionMethod, progress?: Progress): Promise<Float32Array[]>;
  /**
   * Exact effect of each node, [pair][source]. `noising`: the drop of the metric when the node's output in the clean run
   * is ablated. `denoising`: its rise when the node's output in the corrupted run is the clean run's, whatever the
   * ablation.
   */
  patchNodes(direction: "noising" | "denoising", progress?: Progress): Promise<Float64Array[]>;
  /** Exact drop of the metric when one edge of the clean run is ablated, [pair][index into `edges`]. */
  patchEdges(edges: readonly number[], progress?: Progress): Promise<Float64Array[]>;
  /** Frees what the engine holds. */
  destroy(): void;
}

/**
 * Compiles the model for the set's pairs.
 *
 * @throws {RangeError} when one pair needs more than `maxBytes`
 */
export function createCircuitEngine(
  _gpu: Gpu,
  _model: CircuitModel,
  _options: CircuitEngineOptions,
): Promise<CircuitEngine> {
  return Promise.reject(new Error("Cannot create a circuit engine as its body follows"));
}
