/**
 * The result of a run as a table of text.
 *
 * @module
 */
import { fixed } from "../fixed.ts";
import { LIVE_EDGES } from "../training/evaluate.ts";
import { formatShare } from "./progress.ts";
import type { SparsifySummary } from "../training/sparsify.ts";

/** Columns aligned to the right but the first. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => [...row[column]].length)));
  return rows.map((row) =>
    row.map((cell, column) => column === 0 ? cell.padEnd(widths[column]) : cell.padStart(widths[column]))
      .join("  ")
      .trimEnd()
  ).join("\n");
}

/** Dense, dense fine-tuned and sparse, on the same held-out tokens. */
export function summaryTable(summary: SparsifySummary): string {
  const { dense, control, sparse, heads } = summary;
  // Where whole rows can be answered exactly, as in arithmetic, that is what a reader wants to see.
  const exact = dense.exact_rows > 0.01;
  const losses = (of: SparsifySummary["dense"]): string[] => [
    fixed(of.ce, 4),
    fixed(of.perplexity, 2),
    ...(exact ? [formatShare(of.exact_rows)] : []),
  ];
  const all = [formatShare(1), "", formatShare(0), `${heads}/${heads}`];
  const rows = [
    [
      "",
      "loss",
      "perplexity",
      ...(exact ? ["exact answers"] : []),
      "open edges",
      "edges/query",
      "no edge",
      "live heads",
    ],
    ["dense", ...losses(dense), ...all],
    ...(control ? [["dense fine-tuned", ...losses(control), ...all]] : []),
    [
      "sparse",
      ...losses(sparse),
      formatShare(sparse.open_fraction),
      sparse.edges_per_query.toFixed(2),
      formatShare(sparse.dead_queries),
      `${sparse.live_heads}/${heads}`,
    ],
  ];
  return `${formatTable(rows)}${
    frontText(summary)
  }\nloss in nats a token; no edge: queries without an open edge; live heads: an open edge for every ${
    1 / LIVE_EDGES
  } queries or fewer`;
}

/** The levels of a front, a line each. */
function frontText({ front }: SparsifySummary): string {
  if (!front) return "";
  const rows = front.map(({ above, target, step, ce, open_fraction }) => [
    `+${above.toFixed(4)}`,
    target.toFixed(4),
    step === null ? "missed" : String(step),
    ce?.toFixed(4) ?? "–",
    open_fraction === null ? "–" : formatShare(open_fraction),
  ]);
  return `\n\n${formatTable([["above the target", "target", "step", "loss", "open edges"], ...rows])}\n`;
}
