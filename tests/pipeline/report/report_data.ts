/**
 * What a report is made of, for tests.
 *
 * @module
 */
import { gpt2Config } from "../../../pipeline/model/config.ts";
import type { ReportData } from "../../../pipeline/report/report.ts";
import type { MetricRow } from "../../../pipeline/runs/metrics.ts";
import type { SparsifySummary } from "../../../pipeline/training/sparsify.ts";
import { metricRow } from "../../support/metric_row.ts";

export const losses = { ce: 4.4656, perplexity: 86.97, accuracy: 0.22, exact_rows: 0 };
export const SUMMARY: SparsifySummary = {
  dense: losses,
  control: { ...losses, ce: 4.3756, perplexity: 79.49 },
  sparse: {
    ...losses,
    ce: 4.4206,
    perplexity: 83.15,
    open_fraction: 0.0385,
    edges_per_query: 2.48,
    dead_queries: 0.75,
    live_heads: 5,
    open_by_head: [[0.106, 0, 0.00093], [0.0000001, 0.6, 1]],
    step: 200,
    feasible: true,
  },
  heads: 6,
  target_loss: 4.5279,
  dense_validation_ce: 4.5579,
  validation_tokens: 16384,
  test_tokens: 65536,
  steps: 300,
  tokens: 307200,
  seconds: 228.4,
  adapter: "a <fast> adapter",
  seed: 7,
  model: "data/english",
  signatures: [],
};

export const CONFIG: ReportData["config"] = {
  id: "a run",
  command: "sparsify",
  settings: {
    model: "data/english",
    data: ["text & more.txt"],
    steps: 300,
    context: 128,
    lambdaMin: 0.02,
    lambdaMax: 5,
  },
  adapter: "a <fast> adapter",
  versions: { project: "0.1.0", deno: "2.9.6" },
  model: {
    config: gpt2Config({
      vocabularySize: 4096,
      contextLength: 128,
      width: 96,
      layers: 2,
      heads: 3,
      mlpWidth: 384,
    }),
    hash: "90dd43b7",
  },
  tokenizer: { hash: "19d4441a" },
};

/** 300 steps, evaluated every 50. */
export const phaseRows = (phase: MetricRow["phase"]): MetricRow[] =>
  Array.from({ length: 300 }, (_, n) => {
    const isEvaluation = (n + 1) % 50 === 0;
    return metricRow(n + 1, {
      phase,
      ce: 4.5 + 0.25 * (n % 2),
      target: phase === "sparse" ? 4.5 : null,
      lambda: phase === "sparse" ? 2 : null,
      lambda_acting: phase === "sparse" ? 3 : null,
      expected_open: phase === "sparse" ? 1 / (n + 1) : null,
      open_fraction: phase === "sparse" && isEvaluation ? 0.5 / (n + 1) : null,
      validation_ce: isEvaluation ? 4.25 : null,
      dead_queries: isEvaluation ? 0.5 : null,
      constraint: 0,
      seconds: n + 1,
    });
  });

export const DATA: ReportData = {
  name: "a-run",
  config: CONFIG,
  rows: [...phaseRows("sparse"), ...phaseRows("control")],
  summary: SUMMARY,
};
