/**
 * The trade-off of a run with `--front`: loss against open edges, level by level, beside the dense model and its control.
 *
 * @module
 */
import { type Markup, markup } from "./markup.ts";
import { formatShare, formatSigned } from "./progress.ts";
import { lineChart, type Reference } from "./svg_chart.ts";
import type { FrontPoint } from "../training/front.ts";
import type { SparsifySummary } from "../training/sparsify.ts";

/** Digits of a loss. */
const DIGITS = 4;
const MISSING = "–";

/** The levels that were met, sparsest first. */
function measuredPoints(front: readonly FrontPoint[]): { open: number; ce: number }[] {
  return front.flatMap(({ open_fraction, ce }) =>
    open_fraction === null || ce === null ? [] : [{ open: open_fraction, ce }]
  ).sort((a, b) => a.open - b.open);
}

/** A chart and a table of the front; nothing where the run has none. */
export function frontSection(
  { front, dense, control }: Pick<SparsifySummary, "front" | "dense" | "control">,
): Markup | undefined {
  if (!front) return undefined;
  const references: Reference[] = [
    { label: "dense", y: dense.ce, colour: "ink", dash: "dotted" },
    ...(control
      ? [{ label: "dense fine-tuned", y: control.ce, colour: "green", dash: "dashed" } as const]
      : []),
  ];
  const points = measuredPoints(front);
  const rows = front.map(({ above, target, step, ce, open_fraction }) => [
    formatSigned(above, DIGITS),
    target.toFixed(DIGITS),
    step === null ? "missed" : String(step),
    open_fraction === null ? MISSING : formatShare(open_fraction),
    ce === null ? MISSING : ce.toFixed(DIGITS),
    ce === null ? MISSING : formatSigned(ce - dense.ce, DIGITS),
    ...(control ? [ce === null ? MISSING : formatSigned(ce - control.ce, DIGITS)] : []),
  ]);
  const head = [
    "target above the run’s",
    "τ",
    "step",
    "open edges",
    "loss",
    "less dense",
    ...(control ? ["less fine-tuned"] : []),
  ];
  return markup`<h2>The trade-off</h2>
<figure class="front"><figcaption><strong>Loss against open edges</strong><span>One run whose target rose level by level after half of its steps; a point is the sparsest step at or below a level’s target, on test tokens. The lines across are models with every edge open.</span></figcaption>
${
    lineChart({
      description: `The trade-off. ${
        points.map(({ open, ce }) => `${formatShare(open)} open at a loss of ${ce.toFixed(DIGITS)}.`).join(
          " ",
        )
      }`,
      x: { label: "open edges, %", scale: "log" },
      y: { label: "nats" },
      series: [{
        label: "sparse",
        points: points.map(({ open, ce }) => [100 * open, ce]),
        colour: "blue",
        marker: "circle",
      }],
      references,
    })
  }</figure>
<div class="scroll" role="region" aria-label="The trade-off" tabindex="0"><table>
<thead><tr>${head.map((text) => markup`<th scope="col">${text}</th>`)}</tr></thead>
<tbody>${
    rows.map(([first, ...rest]) =>
      markup`<tr><th scope="row">${first}</th>${rest.map((text) => markup`<td>${text}</td>`)}</tr>`
    )
  }</tbody>
</table></div>`;
}
