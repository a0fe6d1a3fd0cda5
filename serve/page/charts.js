/// <reference lib="dom" />
// @ts-check
/** A run's charts over its steps, which share their cursor. The phases lie over each other, to be compared step by step. */

const HEIGHT = 220;
/** Speed is taken over so many rows and seconds at least: rows are stamped when they are read, several at once. */
const SPEED_ROWS = 64;
const SPEED_SECONDS = 2;

/** Colours of Okabe and Ito, which people with any colour vision tell apart; lines differ by dash too. */
const COLOURS = {
  sparse: "--series-1",
  control: "--series-2",
  target: "--series-3",
  lambda: "--series-4",
};

/** @typedef {{ label: string, colour: string, value: (row: any) => number | null, phases: string[], dash?: number[], width?: number, points?: boolean }} Line */

/** @type {{ key: string, title: string, unit: string, log?: boolean, lines: Line[] }[]} */
const CHARTS = [
  {
    key: "loss",
    title: "Loss, nats",
    unit: "",
    lines: [
      {
        label: "training",
        colour: COLOURS.sparse,
        value: (row) => row.ce,
        phases: ["sparse", "pretrain"],
        width: 0.6,
      },
      {
        label: "validation",
        colour: COLOURS.sparse,
        value: (row) => row.validation_ce,
        phases: ["sparse", "pretrain"],
        width: 2,
        points: true,
      },
      {
        label: "validation, dense control",
        colour: COLOURS.control,
        value: (row) => row.validation_ce,
        phases: ["control"],
        width: 2,
        points: true,
        dash: [6, 4],
      },
      {
        label: "target τ",
        colour: COLOURS.target,
        value: (row) => row.target,
        phases: ["sparse", "pretrain"],
        dash: [2, 4],
        width: 1.5,
      },
    ],
  },
  {
    key: "open",
    title: "Open edges, % of causal pairs",
    unit: " %",
    log: true,
    lines: [
      {
        label: "expected",
        colour: COLOURS.sparse,
        value: (row) => percentOf(row.expected_open),
        phases: ["sparse", "pretrain"],
        width: 1,
      },
      {
        label: "with hard gates, validation",
        colour: COLOURS.sparse,
        value: (row) => row.lambda === null ? null : percentOf(row.open_fraction),
        phases: ["sparse", "pretrain"],
        width: 2,
        points: true,
      },
    ],
  },
  {
    key: "lambda",
    title: "Multiplier λ: how much the loss weighs",
    unit: "",
    log: true,
    lines: [
      {
        label: "λ in the loss",
        colour: COLOURS.lambda,
        value: (row) => row.lambda_acting,
        phases: ["sparse", "pretrain"],
        width: 1.5,
      },
      {
        label: "λ without its proportional term",
        colour: COLOURS.lambda,
        dash: [4, 3],
        value: (row) => row.lambda,
        phases: ["sparse", "pretrain"],
        width: 1,
      },
    ],
  },
  {
    key: "speed",
    title: "Training tokens per second",
    unit: "",
    lines: [
      {
        label: "sparse",
        colour: COLOURS.sparse,
        value: (row) => row.speed,
        phases: ["sparse", "pretrain"],
        width: 1.5,
      },
      {
        label: "dense control",
        colour: COLOURS.control,
        value: (row) => row.speed,
        phases: ["control"],
        width: 1.5,
        dash: [6, 4],
      },
    ],
  },
];

/** Those that have anything to show. @param {Line[]} lines @param {any[]} rows */
const linesWithData = (lines, rows) =>
  lines.filter(({ value, phases }) => rows.some((row) => phases.includes(row.phase) && value(row) !== null));

/** @param {number | null} share */
const percentOf = (share) => share === null || share <= 0 ? null : 100 * share;

/** Rows with their speed. @param {any[]} rows */
function withSpeed(rows) {
  return rows.map((row, n) => {
    let from = Math.max(0, n - SPEED_ROWS);
    while (rows[from].phase !== row.phase) from++;
    while (
      from > 0 && row.seconds - rows[from].seconds < SPEED_SECONDS && rows[from - 1].phase === row.phase
    ) {
      from--;
    }
    const before = rows[from];
    const seconds = row.seconds - before.seconds;
    return { ...row, speed: seconds >= SPEED_SECONDS ? (row.tokens - before.tokens) / seconds : null };
  });
}

/** One column of steps and one a line, as uPlot wants them. @param {any[]} rows @param {Line[]} lines */
function columns(rows, lines) {
  const steps = [...new Set(rows.map(({ step }) => step))].sort((a, b) => a - b);
  const index = new Map(steps.map((step, n) => [step, n]));
  return [
    steps,
    ...lines.map(({ value, phases }) => {
      const column = new Array(steps.length).fill(null);
      for (const row of rows) {
        const found = phases.includes(row.phase) ? value(row) : null;
        if (found !== null && Number.isFinite(found)) {
          column[/** @type {number} */ (index.get(row.step))] = found;
        }
      }
      return column;
    }),
  ];
}

/**
 * Charts in `parent`, until `signal` ends them.
 *
 * @param {HTMLElement} parent @param {AbortSignal} signal
 */
export function createCharts(parent, signal) {
  const uPlot = /** @type {any} */ (globalThis).uPlot;
  /** @type {any[]} */
  let rows = [];
  /** @type {any[]} */
  let marks = [];
  /** Of each chart. @type {Line[][]} */
  let lines = CHARTS.map(() => []);
  /** Those charts that show something. @type {Map<string, any>} */
  const plots = new Map();
  const boxes = CHARTS.map(({ key, title }) => {
    const box = document.createElement("figure");
    box.className = "chart";
    box.dataset.chart = key;
    const caption = document.createElement("figcaption");
    caption.textContent = title;
    box.append(caption);
    parent.append(box);
    return box;
  });

  /** Marks where signatures were named. @param {any} plot */
  function drawMarks(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = css("--warn");
    ctx.setLineDash([3, 3]);
    for (const { step } of marks) {
      const x = plot.valToPos(step, "x", true);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }

  const css = (/** @type {string} */ name) => getComputedStyle(parent).getPropertyValue(name).trim();

  function build() {
    for (const plot of plots.values()) plot.destroy();
    plots.clear();
    CHARTS.forEach(({ key, unit, log }, n) => {
      boxes[n].hidden = lines[n].length === 0;
      if (boxes[n].hidden) return;
      const axis = {
        stroke: css("--quiet"),
        grid: { stroke: css("--rule"), width: 1 },
        ticks: { stroke: css("--rule"), width: 1 },
      };
      const number = (/** @type {number} */ value) => Number(value.toPrecision(3)).toLocaleString("en");
      plots.set(
        key,
        new uPlot(
          {
            width: Math.max(200, boxes[n].clientWidth),
            height: HEIGHT,
            cursor: { sync: { key: "run" }, points: { size: 6 } },
            scales: { x: { time: false }, y: log ? { distr: 3 } : {} },
            axes: [axis, {
              ...axis,
              size: 60,
              values: (/** @type {any} */ _, /** @type {(number | null)[]} */ ticks) =>
                ticks.map((tick) => tick === null ? null : number(tick)),
            }],
            series: [
              {
                label: "step",
                value: (/** @type {any} */ _, /** @type {number | null} */ step) => step ?? "–",
              },
              ...lines[n].map(({ label, colour, dash, width = 1, points = false }) => ({
                label,
                stroke: css(colour),
                width,
                dash,
                spanGaps: true,
                points: { show: points, size: 6 },
                value: (/** @type {any} */ _, /** @type {number | null} */ value) =>
                  value === null || value === undefined ? "–" : number(value) + unit,
              })),
            ],
            hooks: { draw: [drawMarks] },
          },
          columns(rows, lines[n]),
          boxes[n],
        ),
      );
    });
  }

  build();
  const resize = new ResizeObserver(() => {
    CHARTS.forEach(({ key }, n) =>
      plots.get(key)?.setSize({ width: Math.max(200, boxes[n].clientWidth), height: HEIGHT })
    );
  });
  resize.observe(parent);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", build, { signal });
  signal.addEventListener("abort", () => {
    resize.disconnect();
    for (const plot of plots.values()) plot.destroy();
  });

  return {
    /** Shows these rows, and marks at the signatures' steps. @param {any[]} all @param {any[]} signatures */
    draw(all, signatures) {
      rows = withSpeed(all);
      marks = signatures;
      const before = lines;
      lines = CHARTS.map((chart) => linesWithData(chart.lines, rows));
      if (lines.some((of, n) => of.length !== before[n].length)) build();
      else CHARTS.forEach(({ key }, n) => plots.get(key)?.setData(columns(rows, lines[n])));
      const last = all.at(-1);
      parent.dataset.rows = String(all.length);
      parent.dataset.last = last ? `${last.phase}:${last.step}` : "";
    },
  };
}
