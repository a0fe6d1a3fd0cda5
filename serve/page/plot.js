/// <reference lib="dom" />
// @ts-check
/** A chart of lines by uPlot: its colours from the palette, its legend for mouse and keyboard, its text for those who do not see it. */

import { fixed } from "./format.js";

const HEIGHT = 220;

/**
 * A line's points: x and y; a y of null breaks it.
 *
 * @typedef {readonly [x: number, y: number | null]} Point
 * @typedef {{ label: string, colour: string, points: Point[], dash?: number[], width?: number, marked?: boolean }} Line
 */

/**
 * How a chart is drawn: `most` is the largest value there can be, `unit` stands behind values.
 *
 * @typedef {{ key: string, title: string, unit?: string, log?: boolean, most?: number }} Chart
 */

/** @param {number} value */
const number = (value) =>
  Math.abs(value) < 1e6 ? Number(value.toPrecision(3)).toLocaleString("en") : fixed(value, 2);

/** One column of x and one a line, as uPlot wants them: undefined where a line has no point. @param {Line[]} lines */
function columns(lines) {
  const xs = [...new Set(lines.flatMap(({ points }) => points.map(([x]) => x)))].sort((a, b) => a - b);
  const index = new Map(xs.map((x, n) => [x, n]));
  return [
    xs,
    ...lines.map(({ points }) => {
      /** @type {(number | null | undefined)[]} */
      const column = new Array(xs.length).fill(undefined);
      for (const [x, y] of points) column[/** @type {number} */ (index.get(x))] = y;
      return column;
    }),
  ];
}

/** First and last value of each line in words. @param {Chart} chart @param {Line[]} lines @param {string} x */
function spoken({ title, unit = "" }, lines, x) {
  const sentences = lines.map(({ label, points }) => {
    const known = points.filter(([, y]) => y !== null);
    const [from, to] = [known[0], known.at(-1)];
    if (!from || !to) return "";
    const end = to[0] > from[0] ? `, ${number(Number(to[1]))}${unit} at ${x} ${number(to[0])}` : "";
    return ` ${label}: ${number(Number(from[1]))}${unit} at ${x} ${number(from[0])}${end}.`;
  });
  return `${title}.${sentences.join("")}`;
}

/** Bounds of a logarithmic axis: powers of ten, and none above what there can be. @param {number} most */
export const logRange =
  (most) => (/** @type {any} */ _, /** @type {number | null} */ low, /** @type {number | null} */ high) => {
    if (!low || !high) return [0.1, 1];
    let from = 10 ** Math.floor(Math.log10(low) + 1e-9);
    let to = Math.min(most, 10 ** Math.ceil(Math.log10(high) - 1e-9));
    if (from >= to) [from, to] = to >= most ? [to / 10, to] : [from, from * 10];
    return [from, to];
  };

/**
 * A chart in `parent`, until `signal` ends it. Without lines it is hidden.
 *
 * @param {HTMLElement} parent @param {Chart} chart @param {AbortSignal} signal
 */
export function createPlot(parent, chart, signal) {
  const { key, title, unit = "", log = false, most = Infinity } = chart;
  const uPlot = /** @type {any} */ (globalThis).uPlot;
  const box = document.createElement("figure");
  box.className = "chart";
  box.dataset.chart = key;
  const caption = document.createElement("figcaption");
  caption.textContent = title;
  box.append(caption);
  parent.append(box);
  /** @type {any} */
  let plot;
  let kind = "";
  /** @type {Line[]} */
  let lines = [];
  /** Where something happened. @type {number[]} */
  let marks = [];
  let axisName = "step";

  const css = (/** @type {string} */ name) => getComputedStyle(parent).getPropertyValue(name).trim();
  const width = () => Math.max(200, box.clientWidth);

  /** @param {any} plot */
  function drawMarks({ ctx, bbox, valToPos }) {
    ctx.save();
    ctx.strokeStyle = css("--warn");
    ctx.setLineDash([3, 3]);
    for (const mark of marks) {
      const x = valToPos(mark, "x", true);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }

  function build() {
    plot?.destroy();
    plot = undefined;
    box.hidden = lines.length === 0;
    if (box.hidden) return;
    const axis = {
      stroke: css("--soft"),
      grid: { stroke: css("--grid"), width: 1 },
      ticks: { stroke: css("--grid"), width: 1 },
    };
    /** What the legend says of a line where the cursor stands: nothing where there is none. @type {(...of: any[]) => string} */
    const text = (_, value, __, at) =>
      at === null || at === undefined
        ? ""
        : value === null || value === undefined
        ? "–"
        : number(value) + unit;
    plot = new uPlot(
      {
        width: width(),
        height: HEIGHT,
        cursor: { sync: { key: "run" }, points: { size: 6 } },
        scales: { x: { time: false }, y: log ? { distr: 3, range: logRange(most) } : {} },
        axes: [axis, {
          ...axis,
          size: 60,
          values: (/** @type {any} */ _, /** @type {(number | null)[]} */ ticks) =>
            ticks.map((tick) => tick === null ? null : number(tick)),
        }],
        legend: {
          markers: {
            // A piece of the line: style.css leaves the border above.
            width: () => 2,
            dash: (/** @type {any} */ _, /** @type {number} */ n) => lines[n - 1]?.dash ? "dashed" : "solid",
            fill: () => "transparent",
          },
        },
        series: [
          {
            label: axisName,
            value: (/** @type {any} */ _, /** @type {number | null} */ x) => x === null ? "" : number(x),
          },
          ...lines.map(({ label, colour, dash, width = 1, marked = false }) => ({
            label,
            stroke: css(colour),
            width,
            dash,
            points: { show: marked, size: 6, fill: css(colour) },
            value: text,
          })),
        ],
        hooks: { draw: [drawMarks] },
      },
      columns(lines),
      box,
    );
    // uPlot hides and shows a line by a click only.
    for (const entry of box.querySelectorAll(".u-legend .u-series:not(:first-child) th")) {
      const legend = /** @type {HTMLElement} */ (entry);
      // A line with points, which hold what is measured, is the thicker one.
      const line = lines.find(({ label }) => label === legend.textContent);
      legend.querySelector(".u-marker")?.classList.toggle("pointed", line?.marked ?? false);
      legend.tabIndex = 0;
      legend.setAttribute("aria-label", `${legend.textContent}: hide or show`);
      legend.onkeydown = (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        legend.click();
      };
    }
    box.querySelector(".u-wrap")?.setAttribute("role", "img");
    describe();
  }
  const describe = () =>
    box.querySelector(".u-wrap")?.setAttribute("aria-label", spoken(chart, lines, axisName));

  const resize = new ResizeObserver(() => plot?.setSize({ width: width(), height: HEIGHT }));
  resize.observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", build, { signal });
  signal.addEventListener("abort", () => {
    resize.disconnect();
    plot?.destroy();
  });
  build();

  return {
    /**
     * Shows these lines, of which those without a value are left out.
     *
     * @param {Line[]} all @param {{ axis?: string, happened?: number[] }} [options] what x is called, and where to mark it
     */
    show(all, { axis = "step", happened = [] } = {}) {
      lines = all.filter(({ points }) => points.some(([, y]) => y !== null));
      marks = happened;
      axisName = axis;
      const wanted = JSON.stringify([axis, lines.map(({ points: _, ...line }) => line)]);
      if (wanted !== kind) {
        kind = wanted;
        build();
      } else plot?.setData(columns(lines));
      describe();
    },
  };
}
