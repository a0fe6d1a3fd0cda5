/**
 * Estimates with their intervals as a chart: a row for each, a mark at the mean and a line across the interval.
 *
 * @module
 */
import { type Markup, markup } from "../report/markup.ts";
import { formatTick, placeAxis } from "../report/svg_chart.ts";
import type { Forest } from "./study.ts";

const WIDTH = 640;
const ROW = 20;
const [LEFT, RIGHT, TOP, BELOW] = [210, 20, 24, 44];
const at = (value: number): string => String(Math.round(10 * value) / 10);

/** The chart. What it shows stands in a table beside it, in words for those who cannot see it in its label. */
export function forestChart({ axis, scale, reference, rows, caption }: Forest): Markup {
  const values = rows.flatMap(({ mean, low, high }) => [mean, low, high]).filter((value) => value !== null);
  const x = placeAxis(
    { label: axis, scale },
    [...values, ...(reference ? [reference.value] : [])],
    LEFT,
    WIDTH - RIGHT,
  );
  const bottom = TOP + ROW * rows.length;
  const ticks = x.ticks.map((tick) =>
    markup`<path class="grid" d="M${at(x.at(tick))} ${TOP}V${bottom}" stroke="currentColor"/><text x="${
      at(x.at(tick))
    }" y="${bottom + 17}" text-anchor="middle">${formatTick(tick)}</text>`
  );
  const drawn = rows.map(({ label, mean, low, high }, n) => {
    const y = at(TOP + ROW * (n + 0.5));
    const line = mean !== null && low !== null && high !== null
      ? markup`<path class="blue" d="M${at(x.at(low))} ${y}H${
        at(x.at(high))
      }" fill="none" stroke="currentColor" stroke-width="2"/>`
      : undefined;
    const mark = mean === null
      ? markup`<text x="${LEFT + 6}" y="${y}" dominant-baseline="central">not measured</text>`
      : markup`<circle cx="${at(x.at(mean))}" cy="${y}" r="4" class="blue" fill="currentColor"/>`;
    return markup`<text x="${
      LEFT - 10
    }" y="${y}" text-anchor="end" dominant-baseline="central">${label}</text>${line}${mark}`;
  });
  const line = reference &&
    markup`<path class="ink" d="M${at(x.at(reference.value))} ${
      TOP - 6
    }V${bottom}" stroke="currentColor" stroke-dasharray="5 4"/><text x="${at(x.at(reference.value))}" y="${
      TOP - 10
    }" text-anchor="middle">${reference.label}</text>`;
  return markup`<svg class="chart" role="img" aria-label="${caption} The same figures stand in the table." viewBox="0 0 ${WIDTH} ${
    bottom + BELOW
  }" font-size="12" fill="currentColor">${ticks}${line}${drawn}<text x="${WIDTH - RIGHT}" y="${
    bottom + 36
  }" text-anchor="end">${axis}</text></svg>`;
}
