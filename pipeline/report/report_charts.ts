/**
 * The charts of a run's report.
 *
 * @module
 */
import { type Filling, type Markup, markup } from "./markup.ts";
import type { MetricRow } from "../runs/metrics.ts";
import type { RunConfig } from "../runs/run_config.ts";
import type { SparsifySummary } from "../training/sparsify.ts";
import { type Chart, lineChart, type Mark, type Point, type Reference, type Series } from "./svg_chart.ts";

/** Points of the speed chart, at most. */
const SPEED_POINTS = 30;
/** Points of the training loss, at most: what one batch is harder than another would hide the rest. */
const LOSS_POINTS = 60;
/** Above this ratio of the highest to the lowest loss, a linear axis would flatten the end of the run. */
const LOG_LOSS_RATIO = 20;

/** Something that happened at a step; its number marks it in the charts. */
export interface RunEvent {
  step: number;
  message: string;
}

/** Rows of the phase that the run is about; the other is the control. */
export function mainRows(rows: readonly MetricRow[]): readonly MetricRow[] {
  return rows.filter(({ phase }) => phase !== "control");
}

type Column = {
  [Name in keyof MetricRow]: MetricRow[Name] extends number | null ? Name : never;
}[keyof MetricRow];

/** A column over the steps; NaN, which breaks a line, where there is none. */
function column(rows: readonly MetricRow[], name: Column, factor = 1): Point[] {
  return rows.map((row) => [row.step, row[name] === null ? NaN : factor * row[name]]);
}

/** A column that has values at some steps only. */
function measured(rows: readonly MetricRow[], name: Column, factor = 1): Point[] {
  return column(rows.filter((row) => row[name] !== null), name, factor);
}

/** Means over stretches of `length` points, each at its stretch's last x; values that are not finite do not count. */
export function means(points: readonly Point[], length: number): Point[] {
  const found: Point[] = [];
  for (let start = 0; start < points.length; start += length) {
    const stretch = points.slice(start, start + length);
    const finite = stretch.map(([, y]) => y).filter(Number.isFinite);
    found.push([stretch.at(-1)![0], finite.reduce((sum, y) => sum + y, 0) / finite.length]);
  }
  return found;
}

/**
 * Tokens per second over stretches of the run. A stretch ends with a row before a wait, as runs of before 2026-11-28 have nearly
 * the same time for all rows that were read at once; time starts again in a resumed run.
 */
export function speedPoints(rows: readonly MetricRow[]): Point[] {
  const waits = rows.slice(1).map((row, n) => row.seconds - rows[n].seconds);
  const total = waits.reduce((sum, wait) => sum + Math.max(0, wait), 0);
  const mean = total / Math.max(1, waits.length);
  const points: Point[] = [];
  let since: MetricRow | undefined;
  for (const [n, row] of rows.entries()) {
    const wait = waits[n] ?? Infinity;
    if (since && row.seconds < since.seconds) {
      since = undefined;
      // The line breaks where another process went on.
      points.push([row.step, NaN]);
    }
    // A wait below 0 is a resumed process's clock.
    if (wait >= 0 && wait < mean / 2) continue;
    if (!since) {
      since = row;
      continue;
    }
    const elapsed = row.seconds - since.seconds;
    if (elapsed <= 0 || elapsed < total / SPEED_POINTS) continue;
    points.push([row.step, (row.tokens - since.tokens) / elapsed]);
    since = row;
  }
  return points;
}

function figure(title: string, caption: Filling, chart: Chart): Markup | undefined {
  const series = chart.series.filter(({ points }) => points.some(([, y]) => Number.isFinite(y)));
  if (series.length === 0) return undefined;
  const hidden = chart.y.scale === "log" && series.some(({ points }) => points.some(([, y]) => y <= 0));
  return markup`<figure><figcaption><strong>${title}</strong><span>${caption}${
    hidden ? " Zeros, which a logarithmic axis cannot show, are left out." : undefined
  }</span></figcaption>
${lineChart({ ...chart, description: `${title}. ${chart.description}`, series })}</figure>`;
}

const rounded = (value: number): string => String(Number(value.toPrecision(4)));

/** First and last value of a series, for those who cannot see it. */
function spoken({ label, points }: Series, unit: string): string {
  const known = points.filter(([, y]) => Number.isFinite(y));
  if (known.length === 0) return "";
  const [[from, first], [to, last]] = [known[0], known.at(-1)!];
  return `${label}: ${rounded(first)} ${unit} at step ${from}${
    to > from ? `, ${rounded(last)} at step ${to}` : ""
  }.`;
}

/** What the charts are drawn from. */
export interface ChartData {
  config: RunConfig;
  rows: readonly MetricRow[];
  /** Left out for pre-training. */
  summary?: SparsifySummary;
  events: readonly RunEvent[];
}

/** Loss, open edges, λ and speed over the steps; those of which the run has values. */
export function reportCharts({ config, rows: allRows, summary, events }: ChartData): Markup {
  const rows = mainRows(allRows);
  const control = allRows.filter(({ phase }) => phase === "control");
  if (rows.length === 0) return markup`<p class="note">There are no metrics of this run.</p>`;
  const settings = config.settings as Record<string, number | undefined>;
  const marks: Mark[] = events.map(({ step }, n) => ({ x: step, label: String(n + 1) }));
  if (summary?.sparse.feasible) marks.push({ x: summary.sparse.step, label: "chosen" });
  const lastStep = allRows.reduce((last, { step }) => Math.max(last, step), 1);
  const x = {
    label: "step",
    from: rows.length > 1 ? 0 : undefined,
    to: rows.length > 1 ? lastStep : undefined,
  };
  const describe = (series: readonly Series[], unit: string): string =>
    series.map((one) => spoken(one, unit)).filter((text) => text).join(" ");

  const whose = summary && control.length > 0 ? ", sparse" : "";
  const isGated = rows.some((row) => row.expected_open !== null);
  const every = Math.ceil(rows.length / LOSS_POINTS);
  const loss: Series[] = [
    {
      label: "training",
      points: means(column(rows, "ce"), every),
      colour: "blue",
      faint: true,
    },
    {
      label: `validation${whose}`,
      points: measured(rows, "validation_ce"),
      colour: "blue",
      marker: "circle",
    },
    {
      label: "validation, dense fine-tuned",
      points: measured(control, "validation_ce"),
      colour: "green",
      dash: "dashed",
      marker: "square",
    },
  ];
  const references: Reference[] = [];
  const targets = measured(rows, "target");
  const isSteady = targets.every(([, y]) => y === targets[0][1]);
  const target = targets[0]?.[1] ?? summary?.target_loss;
  if (!isSteady) loss.push({ label: "τ", points: targets, colour: "vermillion", dash: "dashed" });
  else if (typeof target === "number") {
    references.push({ label: "τ", y: target, colour: "vermillion", dash: "dashed" });
  }
  const denseLoss = summary?.dense_validation_ce;
  if (typeof denseLoss === "number") {
    references.push({ label: "dense", y: denseLoss, colour: "ink", dash: "dotted" });
  }
  const losses = loss.flatMap(({ points }) => points.map(([, y]) => y)).filter((y) => y > 0);
  const isWide = losses.length > 0 && quantile(losses, 0.99) > LOG_LOSS_RATIO * quantile(losses, 0.01);

  const lambda: Series[] = [
    { label: "λ in the loss", points: column(rows, "lambda_acting"), colour: "purple" },
    { label: "λ without its proportional term", points: column(rows, "lambda"), colour: "ink" },
  ];
  const bounds: Reference[] = [settings.lambdaMin, settings.lambdaMax].filter((y) => y !== undefined).map((
    y,
    n,
  ) => ({
    label: n === 0 ? "its floor" : "its ceiling",
    y,
    colour: "ink",
    dash: n === 0 ? "dotted" : "dashed",
  }));

  const open: Series[] = [
    { label: "expected, training", points: column(rows, "expected_open", 100), colour: "blue", faint: true },
    {
      label: "hard, validation",
      points: measured(rows, "open_fraction", 100),
      colour: "blue",
      marker: "circle",
    },
  ];

  const speed: Series[] = [
    {
      label: summary ? "sparse" : "training",
      points: speedPoints(rows),
      colour: "blue",
    },
    {
      label: "dense fine-tuned",
      points: speedPoints(control),
      colour: "green",
      dash: "dashed",
    },
  ];
  return markup`<div class="charts">
${
    figure(
      "Loss",
      `Cross-entropy${isWide ? ", logarithmic" : ""}. ${
        every > 1 ? `Training: means of ${every} steps${isGated ? ", gates sampled" : ""}. ` : ""
      }${isGated ? "Validation: hard gates." : ""}`,
      {
        description: describe(loss, "nats") +
          references.map(({ label, y }) => ` ${label}: ${rounded(y)}.`).join(""),
        x,
        y: { label: "nats", scale: isWide ? "log" : "linear" },
        series: loss,
        references,
        marks,
      },
    )
  }
${
    isGated
      ? figure("Open edges", "Per cent of the causal pairs, over all layers and heads; logarithmic.", {
        description: describe(open, "per cent"),
        x,
        // More than all of them are never open.
        y: {
          label: "%",
          scale: "log",
          to: open.some(({ points }) => points.some(([, y]) => y > 50)) ? 100 : undefined,
        },
        series: open,
        marks,
      })
      : undefined
  }
${
    figure("Multiplier λ", "How much the loss weighs against open edges; logarithmic.", {
      description: describe(lambda, ""),
      x,
      y: { label: "λ", scale: "log" },
      series: lambda,
      references: bounds,
      marks,
    })
  }
${
    figure("Speed", "Training tokens per second of wall time, evaluations included.", {
      description: describe(speed, "tokens per second"),
      x,
      y: { label: "tokens/s", from: 0 },
      series: speed,
    })
  }
</div>`;
}

/** The value below which this share of the values lie. */
function quantile(values: readonly number[], of: number): number {
  return values.toSorted((a, b) => a - b)[Math.floor(of * (values.length - 1))];
}
