/**
 * Static line charts as SVG text. Everything is plain data in, markup out; colours are class names and `currentColor`,
 * so that a page's style block decides them, in light and in dark.
 *
 * The classes that a page must give a colour: `blue`, `green`, `vermillion`, `purple`, `ink` (series and references),
 * `grid`, `axis`, `mark` and `badge`; `faint` thins a line out, and `text` inherits the page's font.
 *
 * @module
 */
import { type Markup, markup } from "./markup.ts";

/** x and y; a y that is not finite, or not positive on a logarithmic axis, breaks the line. */
export type Point = readonly [x: number, y: number];

export type Scale = "linear" | "log";
export type Colour = "blue" | "green" | "vermillion" | "purple" | "ink";
export type Dash = keyof typeof DASHES;
export type MarkerShape = keyof typeof MARKERS;

/** One line; colour, dash and marker together tell it from the others, so that colour alone need not. */
export interface Series {
  label: string;
  points: readonly Point[];
  colour: Colour;
  dash?: Dash;
  /** On every point, as long as they do not crowd. */
  marker?: MarkerShape;
  /** Drawn thin, behind what matters. */
  faint?: boolean;
}

/** A horizontal line across the plot, named in the legend. */
export interface Reference {
  label: string;
  y: number;
  colour: Colour;
  dash: Dash;
}

/** A vertical line with a short label above the plot. */
export interface Mark {
  x: number;
  label: string;
}

export interface Axis {
  /** The unit, written at the axis. */
  label: string;
  scale?: Scale;
  /** Where the axis begins; left out: the tick at or below the lowest value. */
  from?: number;
  /** Where it ends; left out: the tick at or above the highest value. */
  to?: number;
}

export interface Chart {
  /** What a screen reader says instead of the picture. */
  description: string;
  x: Axis;
  y: Axis;
  series: readonly Series[];
  references?: readonly Reference[];
  marks?: readonly Mark[];
}

/** Units of the picture, which is scaled to the width it is given. */
const WIDTH = 440;
const PLOT_HEIGHT = 190;
const LEFT = 58;
const RIGHT = 18;
const BELOW = 42;
const LEGEND_ROW = 21;
const BADGE_ROW = 20;
/** Width of a character, on the wide side: the text is not measured, as the font is the reader's. */
const CHARACTER = 7.3;
const SWATCH = 26;
/** Ticks of an axis, at most. */
const TICKS = 6;
/** Of a logarithmic one, which is hard to read between them. */
const LOG_TICKS = 9;
/** Points of a line that are drawn, at most: beyond that, each column of the plot holds several. */
export const DRAWN_POINTS = 600;
/** Above this many, markers would run into each other. */
const MARKED_POINTS = 60;

const DASHES = { solid: "none", dashed: "7 4", dotted: "1.5 3.5" };
/** A marker around the point at which the pen stands. */
const MARKERS = {
  circle: "m-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0 -6.8 0z",
  square: "m-3 -3h6v6h-6z",
};

/**
 * The multiples of 1, 2 or 5 times a power of ten within a range.
 *
 * @param most ticks that there may be
 * @throws {RangeError} when the range is empty or not finite
 */
export function linearTicks(low: number, high: number, most: number = TICKS): number[] {
  const step = linearStep(low, high, most);
  const ticks: number[] = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * step; n++) ticks.push(exact(n * step));
  return ticks;
}

/**
 * Ticks of a logarithmic axis: powers of ten, over a short range also their doubles and fivefolds, over a long one every
 * second or third; where not even two of these are in the range, as {@link linearTicks}.
 *
 * @throws {RangeError} when a bound is not positive
 */
export function logTicks(low: number, high: number, most: number = LOG_TICKS): number[] {
  if (!(low > 0)) throw new RangeError(`Cannot place logarithmic ticks from ${low} as it must be above 0`);
  if (!(high > low)) throw new RangeError(`Cannot place ticks from ${low} to ${high} as it must be a range`);
  const [first, last] = [Math.floor(Math.log10(low) + 1e-9), Math.ceil(Math.log10(high) - 1e-9)];
  const within = (mantissas: number[], every = 1): number[] => {
    const ticks: number[] = [];
    for (let power = Math.ceil(first / every) * every; power <= last; power += every) {
      for (const mantissa of mantissas) ticks.push(exact(mantissa * 10 ** power));
    }
    return ticks.filter((tick) => tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9));
  };
  const fine = within([1, 2, 5]);
  if (fine.length < 2) return linearTicks(low, high);
  if (fine.length <= most) return fine;
  for (let every = 1;; every++) {
    const ticks = within([1], every);
    if (ticks.length <= most) return ticks;
  }
}

function linearStep(low: number, high: number, most: number): number {
  if (!(high > low) || !Number.isFinite(high - low)) {
    throw new RangeError(`Cannot place ticks from ${low} to ${high} as it must be a range of finite numbers`);
  }
  const rough = (high - low) / Math.max(1, most - 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((mantissa) => mantissa * power >= rough * (1 - 1e-9))!;
}

/** Without the rounding error of a product such as 3 · 0.1. */
const exact = (value: number): number => Number(value.toPrecision(12));

/** A number as a tick shows it: `4.25`, `1,000`, `−0.5`, `10⁻⁵`, `2·10⁷`. */
export function formatTick(value: number): string {
  const size = Math.abs(value);
  if (size === 0) return "0";
  const sign = value < 0 ? "−" : "";
  if (size >= 1e-4 && size < 1e6) {
    return sign + size.toLocaleString("en-US", { maximumFractionDigits: 9, maximumSignificantDigits: 12 });
  }
  const [mantissa, power] = exact(size).toExponential().split("e");
  const raised = [...String(Number(power))].map((digit) => digit === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(digit)]);
  return `${sign}${mantissa === "1" ? "" : mantissa + "·"}10${raised.join("")}`;
}

/**
 * A series with at most `most` points: its first and last, and of each stretch between them the lowest and the highest,
 * so that no spike is lost.
 */
export function thin(points: readonly Point[], most: number = DRAWN_POINTS): readonly Point[] {
  if (points.length <= most) return points;
  const inner = points.slice(1, -1);
  const stretches = Math.max(1, Math.floor((most - 2) / 2));
  const kept: Point[] = [points[0]];
  for (let n = 0; n < stretches; n++) {
    const stretch = inner.slice(
      Math.floor(n * inner.length / stretches),
      Math.floor((n + 1) * inner.length / stretches),
    );
    const finite = stretch.filter(([, y]) => Number.isFinite(y));
    if (finite.length === 0) {
      kept.push(stretch[0]);
      continue;
    }
    const lowest = finite.reduce((a, b) => b[1] < a[1] ? b : a);
    const highest = finite.reduce((a, b) => b[1] > a[1] ? b : a);
    kept.push(
      ...(lowest[0] < highest[0] ? [lowest, highest] : lowest === highest ? [lowest] : [highest, lowest]),
    );
  }
  return [...kept, points.at(-1)!];
}

/** An axis placed on the picture. */
export interface Placed {
  ticks: number[];
  /** Where a value stands; NaN for one that the axis cannot show. */
  at(value: number): number;
}

/**
 * Places an axis over values.
 *
 * @param start where the axis begins on the picture
 * @param end where it ends
 */
export function placeAxis(axis: Axis, values: readonly number[], start: number, end: number): Placed {
  const { scale = "linear", from, to } = axis;
  const isLog = scale === "log";
  const shown = (value: number): boolean => Number.isFinite(value) && (!isLog || value > 0);
  const known = values.filter(shown);
  // By a loop: a spread argument list has a limit, which a long run passes.
  let low = from ?? known.reduce((a, b) => Math.min(a, b), Infinity);
  let high = to ?? known.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!shown(low) || !shown(high)) [low, high] = isLog ? [0.1, 1] : [0, 1];
  if (low >= high) {
    const middle = low;
    const around = Math.abs(middle) * 0.1 || 1;
    if (from === undefined) low = isLog ? middle / 2 : middle - around;
    if (to === undefined || from !== undefined) high = isLog ? middle * 2 : middle + around;
  }
  [low, high] = widened(isLog, low, high, from === undefined, to === undefined);
  const ticks = isLog ? logTicks(low, high) : linearTicks(low, high);
  const map = isLog ? Math.log : (value: number) => value;
  const [first, last] = [map(low), map(high)];
  return {
    ticks,
    at: (value) => shown(value) ? start + (end - start) * (map(value) - first) / (last - first) : NaN,
  };
}

/** Bounds moved outwards to the next tick. */
function widened(isLog: boolean, low: number, high: number, down: boolean, up: boolean): [number, number] {
  if (isLog && high / low > 2) {
    const next = (value: number, outwards: 1 | -1): number => {
      const power = 10 ** Math.floor(Math.log10(value) + 1e-9);
      const steps = [1, 2, 5, 10].map((mantissa) => exact(mantissa * power));
      return outwards > 0
        ? steps.find((step) => step >= value * (1 - 1e-9))!
        : steps.findLast((step) => step <= value * (1 + 1e-9))!;
    };
    return [down ? next(low, -1) : low, up ? next(high, 1) : high];
  }
  const step = linearStep(low, high, TICKS);
  const below = exact(Math.floor(low / step + 1e-9) * step);
  // A logarithmic axis has no 0 to go down to.
  return [
    down && !(isLog && below <= 0) ? below : low,
    up ? exact(Math.ceil(high / step - 1e-9) * step) : high,
  ];
}

const coordinate = (value: number): string => String(Math.round(10 * value) / 10);

/** A line through the points that both axes can show, broken where they cannot. */
export function linePath(points: readonly Point[], x: Placed, y: Placed): string {
  let path = "";
  let drawn = 0;
  for (const [px, py] of points) {
    const [left, top] = [x.at(px), y.at(py)];
    if (Number.isNaN(left) || Number.isNaN(top)) {
      // A line of no length is drawn as a dot, as its caps are round.
      if (drawn === 1) path += "h0";
      drawn = 0;
      continue;
    }
    path += `${drawn === 0 ? "M" : "L"}${coordinate(left)} ${coordinate(top)}`;
    drawn++;
  }
  return drawn === 1 ? path + "h0" : path;
}

function markerPath(points: readonly Point[], shape: MarkerShape, x: Placed, y: Placed): string {
  return points.map(([px, py]) => [x.at(px), y.at(py)])
    .filter(([left, top]) => !Number.isNaN(left) && !Number.isNaN(top))
    .map(([left, top]) => `M${coordinate(left)} ${coordinate(top)}${MARKERS[shape]}`)
    .join("");
}

function drawLine(path: string, { colour, dash = "solid", faint }: Omit<Series, "label" | "points">): Markup {
  const classes = faint ? `${colour} faint` : colour;
  return markup`<path class="${classes}" d="${path}" fill="none" stroke="currentColor" stroke-width="${
    faint ? 1 : 2
  }" stroke-dasharray="${DASHES[dash]}" stroke-linecap="round" stroke-linejoin="round"/>`;
}

function drawMarkers(path: string, colour: Colour): Markup {
  return markup`<path class="${colour}" d="${path}" fill="currentColor"/>`;
}

/** Rows of the legend, each entry with its left edge. */
function legendRows(labels: readonly string[]): { row: number; left: number }[] {
  let [row, left] = [0, 0];
  return labels.map((label) => {
    const width = SWATCH + CHARACTER * [...label].length + 16;
    if (left > 0 && left + width > WIDTH) [row, left] = [row + 1, 0];
    const place = { row, left };
    left += width;
    return place;
  });
}

/** Badges of the marks, in as many rows as keep them apart. */
function badgePlaces(marks: readonly Mark[], x: Placed): { row: number; left: number; width: number }[] {
  const ends: number[] = [];
  return marks.map((mark) => {
    const width = CHARACTER * [...mark.label].length + 10;
    const left = Math.max(LEFT, Math.min(x.at(mark.x) - width / 2, WIDTH - RIGHT - width));
    const free = ends.findIndex((end) => left >= end + 2);
    const row = free < 0 ? ends.length : free;
    ends[row] = left + width;
    return { row, left, width };
  });
}

/** Draws a chart. Text is escaped. */
export function lineChart(chart: Chart): Markup {
  const { series, references = [] } = chart;
  const legend: (Omit<Series, "points">)[] = [...series, ...references];
  const legendPlaces = legendRows(legend.map(({ label }) => label));
  const legendHeight = legend.length > 0 ? LEGEND_ROW * (legendPlaces.at(-1)!.row + 1) : 0;

  const xs = series.flatMap(({ points }) => points.map(([x]) => x));
  const ys = [
    ...series.flatMap(({ points }) => points.map(([, y]) => y)),
    ...references.map(({ y }) => y),
  ];
  const x = placeAxis(chart.x, xs, LEFT, WIDTH - RIGHT);
  const marks = (chart.marks ?? []).filter((mark) => Number.isFinite(x.at(mark.x))).sort((a, b) => a.x - b.x);
  const badges = badgePlaces(marks, x);
  const badgeRows = Math.max(1, ...badges.map(({ row }) => row + 1));
  const top = legendHeight + BADGE_ROW * badgeRows + 4;
  const bottom = top + PLOT_HEIGHT;
  const right = WIDTH - RIGHT;
  const y = placeAxis(chart.y, ys, bottom, top);

  const grid = y.ticks.map((tick) => {
    const at = coordinate(y.at(tick));
    return markup`<path class="grid" d="M${LEFT} ${at}H${right}" stroke="currentColor"/><text x="${
      LEFT - 7
    }" y="${at}" text-anchor="end" dominant-baseline="central">${formatTick(tick)}</text>`;
  });
  const xTicks = x.ticks.map((tick) => {
    const at = coordinate(x.at(tick));
    return markup`<path class="axis" d="M${at} ${bottom}v4" stroke="currentColor"/><text x="${at}" y="${
      bottom + 17
    }" text-anchor="middle">${formatTick(tick)}</text>`;
  });
  const drawnMarks = marks.map((mark, n) => {
    const { row, left, width } = badges[n];
    const badgeTop = legendHeight + BADGE_ROW * row;
    return markup`<path class="mark" d="M${coordinate(x.at(mark.x))} ${
      badgeTop + 17
    }V${bottom}" stroke="currentColor" stroke-dasharray="2 3"/><rect class="badge" x="${
      coordinate(left)
    }" y="${badgeTop + 1}" width="${
      coordinate(width)
    }" height="16" rx="3" fill="currentColor"/><text class="on-badge" x="${
      coordinate(left + width / 2)
    }" y="${badgeTop + 9}" text-anchor="middle" dominant-baseline="central">${mark.label}</text>`;
  });
  const lines = references.filter((reference) => !Number.isNaN(y.at(reference.y))).map((reference) =>
    drawLine(`M${LEFT} ${coordinate(y.at(reference.y))}H${right}`, reference)
  );
  const drawn = [...series].sort((a, b) => Number(b.faint ?? false) - Number(a.faint ?? false)).map((one) => {
    const points = thin(one.points);
    const marked = one.marker && points.length <= MARKED_POINTS;
    return [
      drawLine(linePath(points, x, y), one),
      marked ? drawMarkers(markerPath(points, one.marker!, x, y), one.colour) : undefined,
    ];
  });
  const key = legend.map((one, n) => {
    const left = legendPlaces[n].left + 2;
    const middle = LEGEND_ROW * legendPlaces[n].row + 10;
    return [
      drawLine(`M${left} ${middle}h${SWATCH - 6}`, one),
      one.marker && drawMarkers(`M${left + (SWATCH - 6) / 2} ${middle}${MARKERS[one.marker]}`, one.colour),
      markup`<text x="${left + SWATCH}" y="${middle}" dominant-baseline="central">${one.label}</text>`,
    ];
  });
  return markup`<svg class="chart" role="img" aria-label="${chart.description}" viewBox="0 0 ${WIDTH} ${
    bottom + BELOW
  }" font-size="12" fill="currentColor">
<g>${key}</g>
<g><text x="${LEFT - 7}" y="${top - 14}" text-anchor="end">${chart.y.label}</text>${grid}</g>
<g><path class="axis" d="M${LEFT} ${bottom}H${right}" stroke="currentColor"/>${xTicks}<text x="${right}" y="${
    bottom + 35
  }" text-anchor="end">${chart.x.label}</text></g>
<g>${drawnMarks}</g>
<g>${lines}${drawn}</g>
</svg>`;
}
