/**
 * What the server answers, as types: the contract between the routes, the page and scripts. Losses are in nats, shares
 * between 0 and 1, times ISO 8601 or seconds.
 *
 * @module
 */
import type { MetricRow } from "../pipeline/runs/metrics.ts";
import type { SettingChange } from "../pipeline/runs/run_config.ts";
import type { SparsifySummary } from "../pipeline/training/sparsify.ts";

/**
 * What a run is doing. `interrupted`: no process is at it and none said why (killed). `sweep`: the folder holds the runs of
 * a sweep. `broken`: it is no run, or a damaged one; `problem` says why.
 */
export const RUN_STATUSES = [
  "preparing",
  "training",
  "paused",
  "stopped",
  "failed",
  "interrupted",
  "finished",
  "sweep",
  "broken",
] as const;

/** One of {@link RUN_STATUSES}. */
export type RunStatus = typeof RUN_STATUSES[number];

/** Statuses in which a process is there to be steered. */
export const LIVE: readonly RunStatus[] = ["preparing", "training", "paused"];

/** A phase of a run and how far it is. */
export interface PhaseProgress {
  phase: MetricRow["phase"];
  /** Steps done. */
  step: number;
  steps: number;
}

/** A failure signature that was named. */
export interface NamedSignature {
  name: string;
  phase: MetricRow["phase"];
  step: number;
  message: string;
}

/** Losses and open edges with hard gates on the validation tokens after a step. */
export interface Measured {
  step: number;
  validation_ce: number;
  open_fraction: number | null;
  /** Loss that the run was held to at that step; null for one without a target. */
  target: number | null;
}

/** What a finished run comes to: losses of the test tokens in nats, or how many edges and heads circuits need. */
export type RunResult =
  | {
    kind: "sparsify";
    ce: number;
    open_fraction: number;
    dense_ce: number;
    control_ce: number | null;
    test_tokens: number;
  }
  | { kind: "pretrain"; ce: number; open_fraction: number; test_tokens: number }
  | { kind: "circuits"; task: string; models: CircuitSize[] }
  // Of a study the runs lie in the folders of its stages, each a sweep's, and are not told here.
  | { kind: "sweep"; of: "sweep" | "study"; runs: { name: string; finished: boolean }[] };

/** How much of a model a task needs for 90 % of the effect; null where all of it does less, or it cannot do the task. */
export interface CircuitSize {
  /** `dense`, `sparse`, or what tells the model from another of its kind. */
  name: string;
  /** Whether the model does the task at all. */
  able: boolean;
  /** Share of the prompts that it answers right. */
  performance: number;
  edges: number | null;
  heads: number | null;
}

/** One run in the list. */
export interface RunOverview {
  name: string;
  command: string | null;
  status: RunStatus;
  /** Why a run failed or is broken. */
  problem: string | null;
  /** In the order in which they come. */
  phases: PhaseProgress[];
  /** Of the phase under way: the last row, without its lists. */
  last: Omit<MetricRow, "open_by_head" | "expected_open_by_head"> | null;
  /** Folder of the model that it began with, as it was given; null for a new one. */
  model: string | null;
  /** Settings that are not the command's defaults, without those that only say where things lie. */
  changed: Record<string, unknown>;
  /** The last evaluation of the phase that has gates, or of pre-training. */
  evaluation: Measured | null;
  /**
   * Of the evaluations at or below their target the one with the fewest open edges, whose weights are the result; so far,
   * or as chosen at the end.
   */
  chosen: Measured | null;
  /** Whether the result stays at its target; null before the end, and where a run has none. */
  target_met: boolean | null;
  /** What a finished run comes to, briefly. */
  result: RunResult | null;
  /** Of the last 50 rows or fewer. */
  tokens_per_second: number | null;
  /** Of the phase under way and those after it, at the speed of now. */
  seconds_left: number | null;
  signatures: NamedSignature[];
  /** When the run last wrote something. */
  updated: string | null;
}

/** One run in full. */
export interface RunDetail extends RunOverview {
  settings: Record<string, unknown>;
  adapter: string | null;
  versions: Record<string, string>;
  /** Layers and heads of the model. */
  layers: number;
  heads: number;
  /** Positions of the model's context. */
  context: number;
  summary: SparsifySummary | Record<string, unknown> | null;
  /** What is wanted of the run: see pipeline/runs/control.ts. */
  control: { paused: boolean; stop: boolean; slack: number | null };
  /** Changes of slack that took effect. */
  slack_changes: { phase: string; step: number; slack: number }[];
  /** Settings that became others when the run was resumed. */
  changes: SettingChange[];
  /** Files that can be opened at `/runs/{run}/reports/{file}`. */
  reports: { file: string; bytes: number }[];
}

/** `GET /api/runs/{run}/metrics` as JSON. */
export interface MetricsAnswer {
  run: string;
  /** Rows in order, thinned if asked. */
  rows: MetricRow[];
  /** Rows there were before thinning. */
  total: number;
  /** To be given as `since` for what comes after; null without rows. */
  last: string | null;
}

/** A checkpoint file. */
export interface CheckpointInfo {
  file: string;
  phase: string;
  step: number;
  bytes: number;
  written: string;
}

/** `GET /api/runs/{run}/checkpoints`. */
export interface CheckpointsAnswer {
  checkpoints: CheckpointInfo[];
  /** Files that are half-written or damaged. */
  torn: string[];
}

/** `GET /api/runs/{run}/heads`: open edges by head over the run. */
export interface HeadsAnswer {
  layers: number;
  heads: number;
  snapshots: {
    phase: MetricRow["phase"];
    step: number;
    /** Mean open probability (while training) of each head, layer · heads + head. */
    expected: number[] | null;
    /** Open fraction with hard gates, at evaluations. */
    hard: number[] | null;
  }[];
}

/** Which weights the explorer looks through. */
export type ExplorerModel = "sparse" | "dense";

/** `POST /api/runs/{run}/attention`, what is sent. */
export interface AttentionRequest {
  prompt: string;
  model: ExplorerModel;
  /** Edges with a smaller attention weight are left out; 0 to 1. */
  threshold?: number;
}

/** One attention edge: query and key are positions among the tokens. */
export type AttentionEdge = [
  layer: number,
  head: number,
  query: number,
  key: number,
  /** Softmax weight, times the gate. */
  weight: number,
  /** Gate logit g = score + bias; null for the dense model. */
  gate: number | null,
];

/** `POST /api/runs/{run}/attention`, what is answered. */
export interface AttentionAnswer {
  model: ExplorerModel;
  /** Which weights: `model` (the finished one), `checkpoint` with its step, or `dense`. */
  weights: { kind: "model" | "checkpoint" | "dense"; step: number | null };
  layers: number;
  heads: number;
  /** Text of each token of the prompt. */
  tokens: string[];
  /** Whether the prompt was longer than what is looked at. */
  truncated: boolean;
  edges: AttentionEdge[];
  /** Edges whose gate is open, before the threshold; all causal pairs for the dense model. */
  open: number;
  causal_pairs: number;
  /** Edges left out because the answer would be too long; the heaviest are kept. */
  omitted: number;
  /** Most likely next tokens. */
  next: { token: string; probability: number }[];
}

/** Tokens of a continuation, at most. */
export const MAX_CONTINUATION = 64;

/** `POST /api/runs/{run}/continuation`, what is sent. */
export interface ContinuationRequest {
  prompt: string;
  model: ExplorerModel;
  /** Tokens of the continuation, at most: 1 to {@link MAX_CONTINUATION}; 32 where left out. */
  tokens?: number;
}

/** `POST /api/runs/{run}/continuation`, what is answered: the likeliest token each time. */
export interface ContinuationAnswer {
  model: ExplorerModel;
  /** As in {@link AttentionAnswer}. */
  weights: AttentionAnswer["weights"];
  /** Ids of the continuation, without the one that ends a text. */
  tokens: number[];
  /** What they spell. */
  text: string;
  /** What ended it: as many tokens as were asked for, the end of the text, or that of the model's positions. */
  ended: "tokens" | "end of text" | "positions";
}

/** Any error. */
export interface ErrorAnswer {
  error: string;
}
