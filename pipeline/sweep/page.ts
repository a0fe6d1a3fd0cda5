/**
 * A sweep as one page that needs nothing else: every setting against open edges and loss with intervals over seeds, the
 * trade-off between the two, all runs across the settings that vary, and a link to each run's report.
 *
 * No script: what is drawn is SVG, and what is drawn stands in tables too.
 *
 * @module
 */
import reportStyle from "../report/report.css" with { type: "text" };
import style from "./sweep.css" with { type: "text" };
import { writeAll, writeAtomically } from "../files.ts";
import { type Markup, markup } from "../report/markup.ts";
import { pageHtml } from "../report/page.ts";
import { formatMean, formatMeanShare, formatShare, formatSigned } from "../report/progress.ts";
import { formatTick, linePath, placeAxis, type Placed } from "../report/svg_chart.ts";
import { groupsOf, type Interval, type SweepGroup, type SweepRow, variedNames } from "./results.ts";

/** Writes the page, atomically. */
export async function writeSweepPage(path: string, name: string, rows: readonly SweepRow[]): Promise<void> {
  const page = sweepHtml(name, rows);
  await writeAtomically(path, (file) => writeAll(file, new TextEncoder().encode(page)));
}

const MISSING = "–";

/** A difference of losses with its interval: `−0.0027 ± 0.0041`. */
function difference(of: Interval | null): string {
  return formatMean(of, formatSigned, (half) => half.toFixed(4));
}

/** The value of a setting. */
function valueText(value: unknown): string {
  return value === undefined ? MISSING : [value].flat().join(" ");
}

/** The page as HTML. */
export function sweepHtml(name: string, rows: readonly SweepRow[]): string {
  const names = variedNames(rows);
  const groups = groupsOf(rows);
  const finished = rows.filter(({ status }) => status === "finished");
  const failed = rows.filter(({ status }) => status === "failed");
  const rest = rows.length - finished.length - failed.length;
  const counted = [
    `${finished.length} of ${rows.length} runs finished`,
    ...(failed.length > 0 ? [`${failed.length} failed`] : []),
    ...(rest > 0 ? [`${rest} not ended`] : []),
  ];
  return pageHtml({
    title: `${name}: a sweep of ${rows.length} runs`,
    styles: [reportStyle, style],
    main: markup`<p class="of">Sweep of sparse attention post-training</p>
<h1>${name}</h1>
<p class="result">${counted.join(", ")}.</p>
${settingsTable(names, groups)}
${finished.length > 0 ? tradeOff(groups) : undefined}
${finished.length > 0 && names.length > 0 ? parallelCoordinates(names, finished) : undefined}
<h2>Runs</h2>
${runsTable(names, rows)}
${failedList(failed)}`,
  });
}

/** A row for each setting: means over its seeds. */
function settingsTable(names: readonly string[], groups: readonly SweepGroup[]): Markup {
  const withControl = groups.some(({ aboveControl }) => aboveControl);
  const body = groups.map((group) =>
    markup`<tr>${names.map((name) => markup`<td>${valueText(group.varied[name])}</td>`)}<td>${
      String(group.finished)
    } of ${String(group.rows.length)}</td><td>${formatMeanShare(group.open)}</td><td>${
      difference(group.above)
    }</td>${withControl ? markup`<td>${difference(group.aboveControl)}</td>` : undefined}<td>${
      String(group.feasible)
    } of ${String(group.finished)}</td><td>${
      group.front ? markup`<strong>front</strong>` : undefined
    }</td></tr>`
  );
  return markup`<h2>Settings</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Settings"><table>
<caption>Means over seeds; ± is half a 95 % interval by Student’s t. Loss is that on the test tokens, in nats. On the front is a setting whose runs all met their target and that no other such setting beats in both.</caption>
<thead><tr>${
    names.map((name) => markup`<th scope="col">${name}</th>`)
  }<th scope="col">finished</th><th scope="col">open edges</th><th scope="col">loss less dense</th>${
    withControl ? markup`<th scope="col">loss less control</th>` : undefined
  }<th scope="col">target met</th><th scope="col">trade-off</th></tr></thead>
<tbody>${body}</tbody>
</table></div>`;
}

const [WIDTH, HEIGHT] = [640, 320];
const EDGE = { left: 70, right: 20, top: 16, bottom: 48 };
const at = (value: number): string => String(Math.round(10 * value) / 10);

/** Open edges against loss: a point for each run, linked; the front as a line through the settings' means. */
function tradeOff(groups: readonly SweepGroup[]): Markup {
  const runs = groups.flatMap(({ rows }) => rows).flatMap(({ run, summary }) =>
    summary
      ? [{
        run,
        open: 100 * summary.sparse.open_fraction,
        above: summary.sparse.ce - summary.dense.ce,
        summary,
      }]
      : []
  );
  const bottom = HEIGHT - EDGE.bottom;
  const x = placeAxis(
    { label: "", scale: "log" },
    runs.map(({ open }) => open),
    EDGE.left,
    WIDTH - EDGE.right,
  );
  const y = placeAxis({ label: "" }, [0, ...runs.map(({ above }) => above)], bottom, EDGE.top);
  const front = groups.filter(({ front }) => front)
    .map(({ open, above }) => [100 * open!.mean, above!.mean] as const)
    .sort(([a], [b]) => a - b);
  const points = runs.filter(({ open }) => open > 0).map(({ run, open, above, summary }) => {
    const { feasible } = summary.sparse;
    const label = `${run.name}: ${formatShare(open / 100)} open, loss ${
      formatSigned(above)
    } against dense, target ${feasible ? "met" : "missed"}`;
    const [cx, cy] = [at(x.at(open)), at(y.at(above))];
    const mark = feasible
      ? markup`<circle cx="${cx}" cy="${cy}" r="5" class="blue" fill="currentColor"/>`
      : markup`<circle cx="${cx}" cy="${cy}" r="4.5" class="vermillion" fill="none" stroke="currentColor" stroke-width="2"/>`;
    return markup`<a href="${
      encodeURIComponent(run.name)
    }/report.html" aria-label="${label}"><title>${label}</title>${mark}</a>`;
  });
  return markup`<h2>The trade-off</h2>
<figure><svg class="chart" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-size="12" fill="currentColor">
<g aria-hidden="true">${y.ticks.map((tick) => horizontal(y, tick))}${
    x.ticks.map((tick) => vertical(x, tick, bottom))
  }
<text x="${WIDTH - EDGE.right}" y="${HEIGHT - 8}" text-anchor="end">open edges, %</text>
<text x="${EDGE.left}" y="${EDGE.top - 4}">loss less dense, nats</text>
<path class="ink" d="${
    linePath([[x.ticks[0], 0], [x.ticks.at(-1)!, 0]], x, y)
  }" fill="none" stroke="currentColor" stroke-dasharray="7 4"/>
<path class="green" d="${linePath(front, x, y)}" fill="none" stroke="currentColor" stroke-width="2"/></g>
${points}
</svg>
<figcaption><span>A filled point is a run that met its target, an open one a run that missed it; each leads to its report. The green line joins the means of the settings on the front; at the dashed one the sparse model has the dense model’s loss.</span></figcaption></figure>`;
}

function horizontal(y: Placed, tick: number): Markup {
  return markup`<path class="grid" d="M${EDGE.left} ${at(y.at(tick))}H${
    WIDTH - EDGE.right
  }" stroke="currentColor"/><text x="${EDGE.left - 7}" y="${
    at(y.at(tick))
  }" text-anchor="end" dominant-baseline="central">${formatTick(tick)}</text>`;
}

function vertical(x: Placed, tick: number, bottom: number): Markup {
  return markup`<path class="axis" d="M${at(x.at(tick))} ${bottom}v4" stroke="currentColor"/><text x="${
    at(x.at(tick))
  }" y="${bottom + 18}" text-anchor="middle">${formatTick(tick)}</text>`;
}

/** One axis of the parallel coordinates: where a run stands on it, from 0 at the bottom to 1, and its ends. */
interface Coordinate {
  name: string;
  of(row: SweepRow): number | undefined;
  ends: readonly [bottom: string, top: string];
}

/** The axis of a setting: by size where its values are numbers, else in the order of their first use. */
function coordinateOf(name: string, rows: readonly SweepRow[]): Coordinate {
  const values = rows.map(({ run }) => run.varied[name]).filter((value) => value !== undefined);
  const kinds = [...new Set(values.map(valueText))];
  const ordered = values.every((value) => typeof value === "number")
    ? kinds.sort((a, b) => Number(a) - Number(b))
    : kinds;
  return {
    name,
    of({ run }) {
      const index = ordered.indexOf(valueText(run.varied[name]));
      return index < 0 ? undefined : ordered.length === 1 ? 0.5 : index / (ordered.length - 1);
    },
    ends: [ordered[0] ?? MISSING, ordered.length > 1 ? ordered.at(-1)! : ""],
  };
}

function resultCoordinate(
  name: string,
  rows: readonly SweepRow[],
  read: (row: SweepRow) => number,
  text: (value: number) => string,
): Coordinate {
  const values = rows.map(read);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return {
    name,
    of: (row) => high > low ? (read(row) - low) / (high - low) : 0.5,
    ends: [text(low), high > low ? text(high) : ""],
  };
}

/** Every finished run as a line across the settings that vary and what came of them. */
function parallelCoordinates(names: readonly string[], rows: readonly SweepRow[]): Markup {
  const axes = [
    ...names.map((name) => coordinateOf(name, rows)),
    resultCoordinate("open edges", rows, ({ summary }) => summary!.sparse.open_fraction, formatShare),
    resultCoordinate(
      "loss less dense",
      rows,
      ({ summary }) => summary!.sparse.ce - summary!.dense.ce,
      (value) => formatSigned(value),
    ),
  ];
  const [top, bottom] = [44, HEIGHT - 30];
  const left = (n: number): number => 60 + n * (WIDTH - 120) / (axes.length - 1);
  const drawn = axes.map(({ name, ends }, n) =>
    markup`<path class="axis" d="M${at(left(n))} ${top}V${bottom}" stroke="currentColor"/><text x="${
      at(left(n))
    }" y="14" text-anchor="middle">${name}</text><text x="${at(left(n))}" y="${
      top - 8
    }" text-anchor="middle">${ends[1]}</text><text x="${at(left(n))}" y="${
      bottom + 18
    }" text-anchor="middle">${ends[0]}</text>`
  );
  const lines = rows.map((row) => {
    const points = axes.map(({ of }, n) => [left(n), of(row)] as const).filter(([, share]) =>
      share !== undefined
    );
    const path = points.map(([px, share], n) =>
      `${n === 0 ? "M" : "L"}${at(px)} ${at(bottom - (bottom - top) * share!)}`
    );
    const { feasible } = row.summary!.sparse;
    return markup`<path class="run ${feasible ? "blue" : "vermillion"}" d="${
      path.join("")
    }" fill="none" stroke="currentColor" stroke-width="1.5"${
      feasible ? undefined : { markup: ' stroke-dasharray="4 3"' }
    }><title>${row.run.name}</title></path>`;
  });
  return markup`<h2>Across the settings</h2>
<figure><svg class="chart" role="img" aria-label="Each finished run as a line across ${
    axes.map(({ name }) => name).join(", ")
  }; the same values stand in the table of runs" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-size="12" fill="currentColor">${drawn}${lines}</svg>
<figcaption><span>A line for each finished run, dashed where it missed its target.</span></figcaption></figure>`;
}

function runsTable(names: readonly string[], rows: readonly SweepRow[]): Markup {
  const body = rows.map(({ run, status, summary }) => {
    const link = summary
      ? markup`<a href="${encodeURIComponent(run.name)}/report.html">${run.name}</a>`
      : markup`${run.name}`;
    const result = summary
      ? [
        formatShare(summary.sparse.open_fraction),
        summary.sparse.ce.toFixed(4),
        formatSigned(summary.sparse.ce - summary.dense.ce),
        summary.sparse.feasible ? "met" : "missed",
      ]
      : [MISSING, MISSING, MISSING, MISSING];
    return markup`<tr><th scope="row">${link}</th>${
      names.map((name) => markup`<td>${valueText(run.varied[name])}</td>`)
    }<td>${String(run.seed ?? summary?.seed ?? MISSING)}</td><td>${status}</td>${
      result.map((text) => markup`<td>${text}</td>`)
    }</tr>`;
  });
  return markup`<div class="scroll" tabindex="0" role="region" aria-label="Runs"><table>
<thead><tr><th scope="col">run</th>${
    names.map((name) => markup`<th scope="col">${name}</th>`)
  }<th scope="col">seed</th><th scope="col">state</th><th scope="col">open edges</th><th scope="col">loss</th><th scope="col">less dense</th><th scope="col">target</th></tr></thead>
<tbody>${body}</tbody>
</table></div>`;
}

function failedList(failed: readonly SweepRow[]): Markup | undefined {
  if (failed.length === 0) return undefined;
  return markup`<h2>Failed</h2>
<ul>${failed.map(({ run, error }) => markup`<li><strong>${run.name}</strong>: ${error}</li>`)}</ul>`;
}
