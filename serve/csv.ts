/**
 * Rows of metrics as comma-separated values (RFC 4180).
 *
 * @module
 */
import { COLUMN_NAMES, type MetricRow } from "../pipeline/runs/metrics.ts";

/** A header line and a line a row; what was not measured is empty, lists are separated by spaces. */
export function metricsCsv(rows: readonly MetricRow[]): string {
  const cell = (value: MetricRow[keyof MetricRow]): string =>
    value === null ? "" : Array.isArray(value) ? value.join(" ") : String(value);
  const lines = rows.map((row) => COLUMN_NAMES.map((name) => cell(row[name])).join(","));
  return [COLUMN_NAMES.join(","), ...lines].join("\r\n") + "\r\n";
}
