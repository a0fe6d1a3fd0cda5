/// <reference lib="dom" />
// @ts-check
/** A run's charts over its steps, which share their cursor. The phases lie over each other, to be compared step by step. */
import { element, place } from "./dom.js";
import { fixed, percent, PHASE_NAMES, whole } from "./format.js";
import { createPlot } from "./plot.js";

/** @import { Chart, Line, Point } from "./plot.js" */

/** Speed is taken over so many rows and seconds at least: rows are stamped when they are read, several at once. */
const SPEED_ROWS = 64;
const SPEED_SECONDS = 2;
/** Evaluations in the table, at most. */
const MOST_LISTED = 100;

const MAIN = ["sparse", "pretrain"];
const CONTROL = ["control"];

/** @param {number | null} share */
export const percentOf = (share) => share === null || share <= 0 ? null : 100 * share;

/**
 * What is drawn of a run: of which phases, and a row's value.
 *
 * @typedef {Omit<Line, "points"> & { phases: string[], value: (row: any) => number | null | undefined, gaps?: boolean }} Source
 */

/** @type {(Chart & { sources: Source[] })[]} */
const CHARTS = [
  {
    key: "loss",
    title: "Loss, nats",
    sources: [
      { label: "training", colour: "--sky", phases: MAIN, value: (row) => row.ce },
      {
        label: "validation",
        colour: "--blue",
        phases: MAIN,
        value: (row) => row.validation_ce,
        width: 2,
        marked: true,
      },
      {
        label: "validation, dense control",
        colour: "--green",
        phases: CONTROL,
        value: (row) => row.validation_ce,
        width: 2,
        marked: true,
        dash: [6, 4],
      },
      {
        label: "target τ",
        colour: "--vermillion",
        phases: MAIN,
        value: (row) => row.target,
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
    most: 100,
    sources: [
      {
        label: "expected, training",
        colour: "--sky",
        phases: MAIN,
        value: (row) => percentOf(row.expected_open),
      },
      {
        label: "with hard gates, validation",
        colour: "--blue",
        phases: MAIN,
        value: (row) => row.lambda === null ? null : percentOf(row.open_fraction),
        width: 2,
        marked: true,
      },
    ],
  },
  {
    key: "lambda",
    title: "Multiplier λ: how much the loss weighs",
    log: true,
    sources: [
      {
        label: "λ in the loss",
        colour: "--purple",
        phases: MAIN,
        value: (row) => row.lambda_acting,
        width: 1.5,
      },
      {
        label: "λ without its proportional term",
        colour: "--grey",
        phases: MAIN,
        value: (row) => row.lambda,
        dash: [4, 3],
      },
    ],
  },
  {
    key: "speed",
    title: "Training tokens per second",
    sources: [
      {
        label: "sparse",
        colour: "--blue",
        phases: ["sparse"],
        value: (row) => row.speed,
        width: 1.5,
        gaps: true,
      },
      {
        label: "pre-training",
        colour: "--blue",
        phases: ["pretrain"],
        value: (row) => row.speed,
        width: 1.5,
        gaps: true,
      },
      {
        label: "dense control",
        colour: "--green",
        phases: CONTROL,
        value: (row) => row.speed,
        width: 1.5,
        dash: [6, 4],
        gaps: true,
      },
    ],
  },
];

/** Whether a row is the first that a process wrote in its phase. @param {any[]} rows @param {number} n */
const begins = (rows, n) =>
  n === 0 || rows[n].phase !== rows[n - 1].phase || rows[n].seconds < rows[n - 1].seconds;

/**
 * Rows with their speed: null where a process begins, which breaks the line, undefined where it cannot be told yet.
 *
 * @param {any[]} rows
 */
export function withSpeed(rows) {
  let first = 0;
  return rows.map((row, n) => {
    if (begins(rows, n)) {
      first = n;
      return { ...row, speed: null };
    }
    let from = Math.max(first, n - SPEED_ROWS);
    while (from > first && row.seconds - rows[from].seconds < SPEED_SECONDS) from--;
    const seconds = row.seconds - rows[from].seconds;
    return {
      ...row,
      speed: seconds >= SPEED_SECONDS ? (row.tokens - rows[from].tokens) / seconds : undefined,
    };
  });
}

/** @param {any[]} rows @param {Source} source @returns {Line} */
function lineOf(rows, { phases, value, gaps = false, ...line }) {
  /** @type {Point[]} */
  const points = [];
  for (const row of rows) {
    const y = phases.includes(row.phase) ? value(row) : undefined;
    if (y === null && gaps) points.push([row.step, null]);
    else if (y !== null && y !== undefined && Number.isFinite(y)) points.push([row.step, y]);
  }
  return { ...line, points };
}

/**
 * Charts in `parent`, until `signal` ends them.
 *
 * @param {HTMLElement} parent @param {AbortSignal} signal
 */
export function createCharts(parent, signal) {
  const plots = CHARTS.map((chart) => createPlot(parent, chart, signal));
  const list = place(tableOf);
  const details = element(
    "details",
    { className: "evaluations" },
    element("summary", {}, "Evaluations as a table"),
    list.at,
  );
  /** @type {any[]} */
  let evaluations = [];
  const fill = () => details.open && list.show(evaluations);
  details.ontoggle = fill;
  parent.after(details);

  return {
    /** Shows these rows, and marks at the steps at which something happened. @param {any[]} all @param {number[]} happened */
    draw(all, happened) {
      const rows = withSpeed(all);
      CHARTS.forEach(({ sources }, n) =>
        plots[n].show(sources.map((source) => lineOf(rows, source)), { happened })
      );
      evaluations = all.filter((row) => row.validation_ce !== null);
      details.hidden = evaluations.length === 0;
      fill();
      const last = all.at(-1);
      parent.dataset.rows = String(all.length);
      parent.dataset.last = last ? `${last.phase}:${last.step}` : "";
    },
  };
}

/** @param {any[]} evaluations */
function tableOf(evaluations) {
  const every = Math.ceil(evaluations.length / MOST_LISTED);
  const shown = evaluations.filter((_, n) => (evaluations.length - 1 - n) % every === 0);
  const heads = [
    "phase",
    "step",
    "tokens",
    "training loss",
    "validation loss",
    "τ",
    "λ in the loss",
    "open edges",
  ];
  const body = shown.map((row) => [
    PHASE_NAMES[row.phase],
    whole(row.step),
    whole(row.tokens),
    fixed(row.ce, 4),
    fixed(row.validation_ce, 4),
    fixed(row.target, 4),
    row.lambda_acting?.toPrecision(3) ?? "–",
    row.lambda === null ? "–" : percent(row.open_fraction),
  ]);
  const scroll = element(
    "div",
    { className: "scroll", tabIndex: 0, label: "Evaluations", role: "region" },
    element(
      "table",
      { className: "figures" },
      every > 1 && element("caption", {}, `One in ${every} of ${evaluations.length}.`),
      element("thead", {}, element("tr", {}, heads.map((head) => element("th", { scope: "col" }, head)))),
      element(
        "tbody",
        {},
        body.map((cells) => element("tr", {}, cells.map((cell) => element("td", {}, cell)))),
      ),
    ),
  );
  return scroll;
}
