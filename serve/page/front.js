/// <reference lib="dom" />
// @ts-check
/** The trade-off of a run with `--front`: loss against open edges, level by level, beside the dense model and its control. */
import { element, svg } from "./dom.js";
import { fixed, percent, signed, whole } from "./format.js";

/** @typedef {{ above: number, step: number | null, ce: number | null, open: number | null }} Level */
/** @typedef {{ levels: Level[], dense: number, control: number | null }} Front */

const [WIDTH, HEIGHT] = [640, 280];
/** Pixels that a line of text takes. */
const LABEL = 15;
const EDGE = { left: 64, right: 180, top: 16, bottom: 40 };

/** @param {unknown} value @returns {number | null} */
const numberOf = (value) => typeof value === "number" && Number.isFinite(value) ? value : null;

/**
 * The front in a run's summary.json, whatever stands there; null where it has none.
 *
 * @param {any} summary @returns {Front | null}
 */
export function frontOf(summary) {
  const [dense, front] = [numberOf(summary?.dense?.ce), summary?.front];
  if (dense === null || !Array.isArray(front) || front.length === 0) return null;
  const levels = front.flatMap((level) => {
    const above = numberOf(level?.above);
    if (above === null) return [];
    return [{
      above,
      step: numberOf(level.step),
      ce: numberOf(level.ce),
      open: numberOf(level.open_fraction),
    }];
  });
  return levels.length > 0 ? { levels, dense, control: numberOf(summary.control?.ce) } : null;
}

/**
 * Where levels and the losses of models with every edge open stand in the picture. Open edges go by powers of ten up to
 * 100 %.
 *
 * @param {Front} front
 */
export function frontPicture({ levels, dense, control }) {
  const met = levels.flatMap(({ above, ce, open }) =>
    ce !== null && open !== null && open > 0 ? [{ above, ce, open }] : []
  ).sort((a, b) => a.open - b.open);
  const losses = [dense, ...(control === null ? [] : [control]), ...met.map(({ ce }) => ce)];
  const [low, high] = [Math.min(...losses), Math.max(...losses)];
  const span = high > low ? high - low : Math.abs(low) || 1;
  const first = Math.floor(Math.log10(Math.min(0.1, ...met.map(({ open }) => open))) + 1e-9);
  const [right, bottom] = [WIDTH - EDGE.right, HEIGHT - EDGE.bottom];
  const x = (/** @type {number} */ open) =>
    EDGE.left + (right - EDGE.left) * (Math.log10(open) - first) / -first;
  const y = (/** @type {number} */ ce) =>
    bottom - (bottom - EDGE.top) * (ce - low + 0.08 * span) / (1.16 * span);
  const lines = [
    { label: "dense", ce: dense },
    ...(control === null ? [] : [{ label: "dense fine-tuned", ce: control }]),
  ]
    .map((line) => ({ ...line, y: y(line.ce), textY: y(line.ce) }));
  const [a, b] = lines;
  // Labels of lines that are close stand apart.
  if (b && Math.abs(a.y - b.y) < LABEL) {
    const [upper, lower] = a.y <= b.y ? [a, b] : [b, a];
    const middle = (upper.y + lower.y) / 2;
    [upper.textY, lower.textY] = [middle - LABEL / 2, middle + LABEL / 2];
  }
  return {
    points: met.map(({ above, ce, open }) => ({ x: x(open), y: y(ce), above, ce, open })),
    lines,
    losses: [low, low + span / 2, low + span].map((ce) => ({ y: y(ce), ce })),
    ticks: Array.from(
      { length: 1 - first },
      (_, n) => ({ x: x(10 ** (first + n)), open: 10 ** (first + n) }),
    ),
  };
}

/** @param {Front | null} front */
export function showFront(front) {
  if (front === null) return null;
  const { points, lines, losses, ticks } = frontPicture(front);
  const bottom = HEIGHT - EDGE.bottom;
  const picture = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    class: "front",
    role: "img",
    "aria-label": "Loss against open edges, level by level; the figures stand in the table below.",
  });
  const text = (/** @type {string} */ content, /** @type {Record<string, string | number>} */ attributes) => {
    const made = svg("text", { fill: "currentColor", "font-size": 12, ...attributes });
    made.textContent = content;
    return made;
  };
  for (const { x, open } of ticks) {
    picture.append(
      svg("path", { d: `M${x} ${EDGE.top}V${bottom}`, stroke: "var(--grid)", fill: "none" }),
      text(`${Number((100 * open).toPrecision(1))} %`, { x, y: bottom + 16, "text-anchor": "middle" }),
    );
  }
  for (const { y, ce } of losses) {
    picture.append(
      svg("path", { d: `M${EDGE.left} ${y}H${WIDTH - EDGE.right}`, stroke: "var(--grid)", fill: "none" }),
      text(fixed(ce, 3), { x: EDGE.left - 8, y: y + 4, "text-anchor": "end" }),
    );
  }
  for (const [n, { label, y, textY, ce }] of lines.entries()) {
    picture.append(
      svg("path", {
        d: `M${EDGE.left} ${y}H${WIDTH - EDGE.right}`,
        stroke: n === 0 ? "currentColor" : "var(--green)",
        "stroke-dasharray": n === 0 ? "2 4" : "7 4",
        fill: "none",
      }),
      text(`${label} ${fixed(ce, 3)}`, { x: WIDTH - EDGE.right + 8, y: textY + 4 }),
    );
  }
  const path = points.map(({ x, y }, n) => `${n === 0 ? "M" : "L"}${x} ${y}`).join("");
  picture.append(svg("path", { d: path, stroke: "var(--blue)", "stroke-width": 2, fill: "none" }));
  for (const { x, y } of points) picture.append(svg("circle", { cx: x, cy: y, r: 4, fill: "var(--blue)" }));
  picture.append(text("open edges", { x: WIDTH - EDGE.right, y: HEIGHT - 6, "text-anchor": "end" }));
  const heads = ["target above the run’s", "step", "open edges", "loss", "less dense"];
  return [
    element("h2", {}, "The trade-off"),
    element(
      "p",
      { className: "quiet" },
      "From half of the steps on the target rose level by level; a point is the sparsest step at or below a level’s " +
        "target, on test tokens. The lines across are models with every edge open.",
    ),
    picture,
    element(
      "div",
      { className: "scroll", tabIndex: 0, role: "region", label: "The trade-off" },
      element(
        "table",
        { className: "figures" },
        element("thead", {}, element("tr", {}, heads.map((head) => element("th", { scope: "col" }, head)))),
        element(
          "tbody",
          {},
          front.levels.map(({ above, step, ce, open }) =>
            element(
              "tr",
              {},
              element("th", { scope: "row" }, signed(above)),
              [
                step === null ? "missed" : whole(step),
                percent(open),
                fixed(ce, 4),
                ce === null ? "–" : signed(ce - front.dense),
              ].map((content) => element("td", {}, content)),
            )
          ),
        ),
      ),
    ),
  ];
}
