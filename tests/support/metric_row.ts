import type { MetricRow } from "../../pipeline/runs/metrics.ts";

/** A row of metrics whose numbers float32 holds exactly, with `fields` in place of its own. */
export function metricRow(step: number, fields: Partial<MetricRow> = {}): MetricRow {
  return {
    phase: "sparse",
    step,
    tokens: 1024 * step,
    ce: 1.5,
    target: 1.25,
    constraint: 0.25,
    constraint_average: 0.5,
    lambda: 2,
    lambda_acting: 3,
    expected_open: 0.125,
    open_fraction: null,
    learning_rate: 0.5,
    grad_norm: 3,
    saturation: 0,
    kl: null,
    validation_ce: null,
    dead_queries: null,
    skipped: 0,
    open_by_head: null,
    expected_open_by_head: null,
    seconds: 1,
    ...fields,
  };
}
