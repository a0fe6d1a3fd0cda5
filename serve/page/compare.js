/// <reference lib="dom" />
// @ts-check
/** Runs laid over each other: their charts, what they come to, the settings that differ, their heads. The address holds the choice. */
import { get, needsToken } from "./api.js";
import { percentOf } from "./charts.js";
import { element, place } from "./dom.js";
import { fixed, flag, folder, percent, setting, shorten, signed } from "./format.js";
import { createHeadGrid, headKey, MOST_HEADS } from "./heads.js";
import { MOST_COMPARED } from "./overview.js";
import { createPlot } from "./plot.js";
import { BESIDE_THE_POINT } from "./settings.js";
import { aboveTarget, isLive, standing, status } from "./status.js";
import { word } from "./words.js";

/** @import { RunDetail } from "../api.ts" */
/** @import { Chart, Line, Point } from "./plot.js" */

const POINTS = 600;
const REFRESH_MS = 5000;
const LABEL_CHARACTERS = 26;
/** Characters of a name above a column of a table, of few runs and of many: six stand beside each other at 1280 px. */
const COLUMN_CHARACTERS = [26, 14];
/** One a run, told apart by dash too from the fifth on. */
const COLOURS = ["--blue", "--vermillion", "--green", "--purple"];
const DASHES = [undefined, [7, 4]];

/** What x may be. @type {Record<string, { title: string, of: (row: any) => number }>} */
const AXES = {
  steps: { title: "step", of: ({ step }) => step },
  tokens: { title: "training tokens", of: ({ tokens }) => tokens },
  time: { title: "minutes", of: ({ time }) => time / 60 },
};

/** @type {(Chart & { value: (row: any) => number | null, marked?: boolean })[]} */
const CHARTS = [
  { key: "loss", title: "Validation loss, nats", value: (row) => row.validation_ce, marked: true },
  {
    key: "open",
    title: "Open edges with hard gates, % of causal pairs, validation",
    unit: " %",
    log: true,
    most: 100,
    value: (row) => row.lambda === null ? null : percentOf(row.open_fraction),
    marked: true,
  },
  {
    key: "above",
    title: "Validation loss above target τ, nats",
    value: (row) => row.validation_ce === null || row.target === null ? null : row.validation_ce - row.target,
    marked: true,
  },
  { key: "lambda", title: "Multiplier λ in the loss", log: true, value: (row) => row.lambda_acting },
];

/** @typedef {{ run: RunDetail, rows: any[], n: number }} Compared */

/** Rows of the phase that a run is about, with the time that all its processes took until then. @param {any[]} rows */
export function mainRows(rows) {
  let before = 0;
  let last = 0;
  return rows.filter(({ phase }) => phase !== "control").map((row) => {
    // A process that goes on counts its time anew.
    if (row.seconds < last) before += last;
    last = row.seconds;
    return { ...row, time: before + row.seconds };
  });
}

/** What is compared, as the address says. */
function wanted() {
  const given = new URLSearchParams(location.hash.split("?")[1] ?? "");
  const names = [...new Set((given.get("runs") ?? "").split(",").filter((name) => name))];
  const axis = given.get("x") ?? "steps";
  return { names: names.slice(0, MOST_COMPARED), axis: axis in AXES ? axis : "steps" };
}

/**
 * @param {HTMLElement} view
 * @param {{ signal: AbortSignal, setConnection: (state: "live" | "lost" | "") => void }} page
 */
export async function showCompare(view, { signal, setConnection }) {
  document.title = "Compared runs – sparse attention";
  const { names, axis } = wanted();
  /** @type {string[]} */
  let missing = [];

  /** Every run as of now; the rows of one that has written nothing since are those known. @param {Compared[]} known */
  async function load(known) {
    const answers = await Promise.all(names.map(async (name, n) => {
      const base = `api/runs/${encodeURIComponent(name)}`;
      try {
        const run = await get(base, { signal });
        const before = known.find((one) => one.n === n);
        if (before && !isLive(run) && run.updated === before.run.updated) return { ...before, run };
        const metrics = await get(`${base}/metrics?points=${POINTS}`, { signal });
        return { run, rows: mainRows(metrics.rows), n };
      } catch (error) {
        if (error instanceof Error && "status" in error && error.status === 404) return undefined;
        throw error;
      }
    }));
    missing = names.filter((_, n) => !answers[n]);
    return /** @type {Compared[]} */ (answers.filter((answer) => answer));
  }

  let runs = await load([]);
  let x = axis;
  const choice = element(
    "select",
    {
      onchange() {
        x = choice.value;
        const query = `runs=${names.join()}${x === "steps" ? "" : `&x=${x}`}`;
        history.replaceState(null, "", `${location.pathname}${location.search}#/compare?${query}`);
        draw();
      },
    },
    Object.keys(AXES).map((name) => element("option", { value: name, selected: name === x }, name)),
  );
  const key = place(keyOf);
  const chartsAt = element("section", { id: "charts" });
  const results = place(resultsOf);
  const settings = place(settingsOf);
  const headsAt = element("section", { className: "beside" });
  view.replaceChildren(
    element("nav", { label: "breadcrumb" }, element("a", { href: "#/" }, "Runs")),
    element("h1", {}, `${names.length} runs compared`),
    element(
      "p",
      { className: "quiet" },
      "The address of this page holds the choice: whoever opens it sees the same.",
    ),
    missing.length > 0 &&
        element("p", { className: "note" }, `There is no such run: ${missing.join(", ")}`) || "",
    names.length === 0 ? element("p", {}, "Tick runs in the list to compare them.") : "",
    element("div", { className: "row" }, key.at, element("label", {}, "against ", choice)),
    chartsAt,
    results.at,
    settings.at,
    element("h2", {}, "Open edges by head"),
    element(
      "p",
      { className: "quiet" },
      "At the chosen step, or the last that was evaluated: with hard gates, on each run’s validation tokens, per cent of a head’s causal pairs.",
    ),
    headKey(),
    headsAt,
  );
  const plots = CHARTS.map((chart) => createPlot(chartsAt, chart, signal));
  /** @type {Map<string, ReturnType<typeof createHeadGrid>>} */
  const grids = new Map();

  function draw() {
    const { title, of } = AXES[x];
    CHARTS.forEach(({ value, marked }, at) => {
      const lines = runs.map(({ run, rows, n }) => ({
        ...lineOf(run.name, n),
        marked,
        points: rows.flatMap((row) => {
          const y = value(row);
          return y === null ? [] : [/** @type {Point} */ ([of(row), y])];
        }),
      }));
      plots[at].show(lines, { axis: title });
    });
    chartsAt.dataset.axis = x;
    key.show(runs.map(({ run, n }) => ({ name: run.name, n })));
    results.show(runs.map(({ run, n }) => ({ run, n })));
    settings.show(runs.map(({ run, n }) => ({ run, n })));
    for (const { run, rows, n } of runs) {
      const { name, layers, heads } = run;
      const row = rows.findLast((row) => row.open_by_head && row.step === standing(run)?.step) ??
        rows.findLast((row) => row.open_by_head);
      if (!row || layers * heads > MOST_HEADS) continue;
      let grid = grids.get(name);
      if (!grid) {
        const at = element("figure", { data: { run: name } }, element("figcaption", {}, swatch(n), name));
        headsAt.append(at);
        grids.set(
          name,
          grid = createHeadGrid(at, { layers, heads, label: `Open edges of ${name} by layer and head` }),
        );
      }
      const [caption] = headsAt.querySelectorAll(`[data-run="${CSS.escape(name)}"] figcaption`);
      caption.replaceChildren(swatch(n), ` ${name}, step ${row.step}: ${percent(row.open_fraction)}`);
      grid.show(row.open_by_head);
    }
  }
  draw();
  while (!signal.aborted) {
    await new Promise((resolve) => setTimeout(resolve, REFRESH_MS));
    if (!runs.some(({ run }) => isLive(run))) continue;
    try {
      runs = await load(runs);
      draw();
      setConnection(runs.some(({ run }) => isLive(run)) ? "live" : "");
    } catch (error) {
      if (signal.aborted || needsToken(error)) throw error;
      setConnection("lost");
    }
  }
}

/** @param {string} name @param {number} n @returns {Omit<Line, "points">} */
const lineOf = (name, n) => ({
  label: shorten(name, LABEL_CHARACTERS),
  colour: COLOURS[n % COLOURS.length],
  dash: DASHES[Math.floor(n / COLOURS.length)],
  width: 2,
});

/** The colour and dash of a run. @param {number} n */
const swatch = (n) =>
  element("span", { className: `swatch c${n % COLOURS.length} ${n < COLOURS.length ? "" : "dashed"}` });

/** @param {{ name: string, n: number }[]} runs */
const keyOf = (runs) =>
  runs.map(({ name, n }) =>
    element("span", { className: "legend" }, swatch(n), shorten(name, LABEL_CHARACTERS))
  );

/** A table of what differs: a column a run. @param {{ run: RunDetail, n: number }[]} runs @param {[any, (run: RunDetail) => any][]} rows @param {string} title */
function tableOf(runs, rows, title) {
  const head = element(
    "tr",
    {},
    element("td", {}),
    runs.map(({ run: { name }, n }) =>
      element(
        "th",
        { scope: "col" },
        swatch(n),
        element(
          "a",
          {
            href: `#/runs/${encodeURIComponent(name)}`,
            title: name,
            label: name,
            data: { key: `${title} ${name}` },
          },
          shorten(name, COLUMN_CHARACTERS[Number(runs.length > 4)]),
        ),
      )
    ),
  );
  return element(
    "div",
    { className: "scroll", tabIndex: 0, role: "region", label: title },
    element(
      "table",
      { className: "figures compared" },
      element("thead", {}, head),
      element(
        "tbody",
        {},
        rows.map(([name, value]) =>
          element(
            "tr",
            {},
            element("th", { scope: "row" }, name),
            runs.map(({ run }) => element("td", {}, value(run))),
          )
        ),
      ),
    ),
  );
}

/** @param {{ run: RunDetail, n: number }[]} runs */
function resultsOf(runs) {
  if (runs.length === 0) return null;
  const test = (/** @type {(result: any) => any} */ read) => (/** @type {RunDetail} */ { result }) =>
    result && result.kind !== "circuits" ? read(result) : "–";
  return [
    element("h2", {}, "What they come to"),
    tableOf(runs, [
      ["status", (run) => status(run)],
      ["model", ({ model }) => model === null ? "a new one" : folder(model)],
      ["chosen, or last evaluated, step", (run) => String(standing(run)?.step ?? "–")],
      [word("validation loss", "validation"), (run) => fixed(standing(run)?.validation_ce, 4)],
      [word("target τ", "tau"), (run) => fixed(standing(run)?.target, 4)],
      ["above target", (run) => signed(aboveTarget(standing(run)))],
      [word("open edges, validation", "open"), (run) => percent(standing(run)?.open_fraction)],
      ["test loss", test(({ ce }) => fixed(ce, 4))],
      ["test loss, dense", test(({ dense_ce }) => fixed(dense_ce, 4))],
      [word("test loss, dense control", "control"), test(({ control_ce }) => fixed(control_ce, 4))],
      ["open edges, test", test(({ open_fraction }) => percent(open_fraction))],
      [
        word("failure signatures", "signature"),
        ({ signatures }) => signatures.map(({ name }) => name).join(", ") || "none",
      ],
    ], "What they come to"),
  ];
}

/** @param {{ run: RunDetail, n: number }[]} runs */
function settingsOf(runs) {
  if (runs.length < 2) return null;
  const all = [...new Set(runs.flatMap(({ run }) => Object.keys(run.settings)))];
  const differ = all.filter((name) =>
    !BESIDE_THE_POINT.includes(name) &&
    new Set(runs.map(({ run }) => JSON.stringify(run.settings[name]))).size > 1
  );
  return [
    element("h2", {}, "Settings that differ"),
    differ.length === 0 ? element("p", { className: "quiet" }, "None: every setting is the same.") : tableOf(
      runs,
      differ.map((name) => [element("code", {}, flag(name)), ({ settings }) => setting(settings[name])]),
      "Settings that differ",
    ),
  ];
}
