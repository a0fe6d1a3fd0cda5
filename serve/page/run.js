/// <reference lib="dom" />
// @ts-check
/** One run: its state, charts, heads, attention, settings and files, live. */
import { follow, get, hasToken, post, readReport } from "./api.js";
import { createCharts } from "./charts.js";
import { element, place } from "./dom.js";
import { createExplorer } from "./explorer.js";
import { ago, duration, fixed, isAfter, percent, PHASE_NAMES, placeOf, size, whole } from "./format.js";
import { createHeadMap } from "./heads.js";
import { openEdges, status } from "./overview.js";

/** @import { CheckpointsAnswer, NamedSignature, RunDetail } from "../api.ts" */
/** @typedef {{ status: string, control: RunDetail["control"], note: string }} Steering */

const FIRST_POINTS = 1500;
/** Rows held in memory, above which every other one is dropped. */
const MOST_ROWS = 5000;
const NOTE_MS = 5000;
const LIVE = ["preparing", "training", "paused"];

/**
 * @param {HTMLElement} view @param {string} name
 * @param {{ signal: AbortSignal, setConnection: (state: "live" | "lost" | "") => void }} page
 */
export async function showRun(view, name, { signal, setConnection }) {
  document.title = `${name} – sparse attention`;
  const base = `/api/runs/${encodeURIComponent(name)}`;
  const [detail, metrics, heads, checkpoints] = await Promise.all([
    get(base, { signal }),
    get(`${base}/metrics?points=${FIRST_POINTS}`, { signal }),
    get(`${base}/heads`, { signal }),
    get(`${base}/checkpoints`, { signal }),
  ]);

  /** @type {RunDetail} */
  let run = detail;
  /** @type {Steering} */
  let steering = { status: detail.status, control: detail.control, note: "" };
  const steer = (/** @type {Partial<Steering>} */ change) => {
    steering = { ...steering, ...change };
    controls.show(steering);
  };
  // Each part has its own data, so that what is typed or unfolded in one outlives news of another.
  const header = place(headerOf);
  const controls = place((/** @type {Steering} */ state) => controlsOf(state, steer, base, detail));
  const signatures = place(signaturesOf);
  const files = place((/** @type {Files} */ of) => filesOf(of, name));
  const [chartsAt, headsAt, explorerAt] = ["charts", "heads", "explorer"].map((id) =>
    element("section", { id })
  );
  view.replaceChildren(
    element("nav", { label: "breadcrumb" }, element("a", { href: "#/" }, "Runs")),
    element("h1", {}, name),
    header.at,
    controls.at,
    chartsAt,
    signatures.at,
    headsAt,
    explorerAt,
    files.at,
    settingsOf(detail),
  );
  const charts = createCharts(chartsAt, signal);
  const map = createHeadMap(headsAt, heads);
  createExplorer(explorerAt, name, detail, signal);

  /** @type {any[]} */
  let rows = metrics.rows;
  let last = rows.at(-1);
  let drawing = 0;
  const draw = () => {
    if (drawing !== 0) return;
    drawing = requestAnimationFrame(() => {
      drawing = 0;
      if (!signal.aborted) charts.draw(rows, run.signatures);
    });
  };
  const show = () => {
    header.show(run);
    signatures.show(run.signatures);
    steer({ status: run.status });
    draw();
  };
  files.show({ reports: run.reports, checkpoints });
  show();

  const refresh = async () => {
    const [found, checkpoints] = await Promise.all([
      get(base, { signal }),
      get(`${base}/checkpoints`, { signal }),
    ]);
    run = found;
    files.show({ reports: run.reports, checkpoints });
    steer({ control: run.control });
    show();
  };
  await follow(name, {
    signal,
    after: () => last ? placeOf(last) : null,
    onRows(more) {
      const fresh = more.filter((row) => isAfter(row, last));
      if (fresh.length === 0) return;
      rows.push(...fresh);
      last = fresh.at(-1);
      if (rows.length > MOST_ROWS) {
        rows = rows.filter((row, n) => n % 2 === 0 || row.validation_ce !== null || row === last);
      }
      map.append(fresh);
      draw();
      if (fresh.some((row) => row.validation_ce !== null)) refresh().catch(() => {});
    },
    onStatus(overview) {
      const changed = run.status !== overview.status;
      run = { ...run, ...overview };
      show();
      if (changed) refresh().catch(() => {});
    },
    onGone() {
      setConnection("");
      steer({ note: "The run's folder is gone." });
    },
    onConnection: (connected) => setConnection(connected ? "live" : "lost"),
  });
}

/** @param {RunDetail} run */
function headerOf(run) {
  const { last, phases, summary } = run;
  const facts = [
    ["loss", fixed(last?.ce, 3)],
    ["target τ", fixed(last?.target, 3)],
    ["above target", fixed(last?.constraint, 3)],
    ["λ", last?.lambda === null || last?.lambda === undefined ? "–" : last.lambda.toPrecision(2)],
    ["open edges", percent(openEdges(run))],
    ["tokens/s", whole(run.tokens_per_second)],
    ["time left", duration(run.seconds_left)],
  ];
  return [
    element(
      "div",
      { className: "state" },
      ...status(run),
      phases.map(({ phase, step, steps }) =>
        element(
          "span",
          {},
          `${PHASE_NAMES[phase]} `,
          element("progress", { max: steps, value: step, label: phase }),
          ` ${step} of ${steps}`,
        )
      ),
      element("span", { className: "quiet" }, ago(run.updated)),
    ),
    summary && "sparse" in summary && resultOf(summary),
    element(
      "dl",
      { className: "facts" },
      facts.map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value))),
    ),
    !last && element("p", { className: "quiet" }, "No step is done yet."),
  ];
}

/** @param {any} summary */
function resultOf({ dense, control, sparse, test_tokens }) {
  return element(
    "p",
    { className: "result" },
    `${percent(sparse.open_fraction)} of the attention edges stay open at a loss of ${
      fixed(sparse.ce, 4)
    } nats on ` +
      `${whole(test_tokens)} test tokens; dense ${fixed(dense.ce, 4)}` +
      (control ? `, dense fine-tuned ${fixed(control.ce, 4)}.` : ".") +
      (sparse.feasible ? "" : " The constraint held at no evaluation."),
  );
}

/**
 * @param {Steering} steering @param {(change: Partial<Steering>) => void} steer @param {string} base
 * @param {RunDetail} detail
 */
function controlsOf({ status, control, note }, steer, base, detail) {
  if (note) return element("p", { className: "note", role: "status" }, note);
  if (!LIVE.includes(status)) return null;
  if (!hasToken()) {
    return element(
      "p",
      { className: "quiet" },
      "To pause or stop this run, open the address that the server printed.",
    );
  }
  const wish = async (/** @type {object} */ change) => {
    try {
      steer({ control: await post(`${base}/control`, change) });
    } catch (error) {
      steer({ note: error instanceof Error ? error.message : String(error) });
      setTimeout(() => steer({ note: "" }), NOTE_MS);
    }
  };
  const { paused, stop, slack } = control;
  const pause = element("button", { onclick: () => wish({ paused: !paused }) }, paused ? "Go on" : "Pause");
  const end = element("button", {
    disabled: stop,
    onclick() {
      if (confirm("Stop after the next step, with a checkpoint? It can be resumed.")) wish({ stop: true });
    },
  }, stop ? "Stopping…" : "Stop");
  const input = element("input", {
    type: "number",
    step: "any",
    value: String(slack ?? detail.settings.slack),
  });
  const form = element(
    "form",
    {
      className: "row",
      onsubmit(/** @type {Event} */ event) {
        event.preventDefault();
        if (Number.isFinite(input.valueAsNumber)) wish({ slack: input.valueAsNumber });
      },
    },
    element("label", {}, "slack, nats ", input),
    element("button", {}, "Change"),
  );
  return element("div", { className: "row controls" }, pause, end, detail.command === "sparsify" && form);
}

/** @param {NamedSignature[]} found */
function signaturesOf(found) {
  if (found.length === 0) return null;
  const items = found.map(({ phase, message }) =>
    element("li", {}, element("span", { className: "warn" }, "⚠ "), `${PHASE_NAMES[phase]}: ${message}`)
  );
  return [element("h2", {}, "Failure signatures"), element("ul", {}, items)];
}

/** @typedef {{ reports: RunDetail["reports"], checkpoints: CheckpointsAnswer }} Files */

/** @param {Files} files @param {string} run */
function filesOf({ reports, checkpoints }, run) {
  const reportItems = reports.map(({ file, bytes }) => {
    const href = `/runs/${encodeURIComponent(run)}/reports/${encodeURIComponent(file)}`;
    const onclick = async (/** @type {MouseEvent} */ event) => {
      // A link cannot carry the token, which reading needs beyond loopback.
      if (!hasToken()) return;
      event.preventDefault();
      const tab = open("", "_blank");
      const page = new Blob([await readReport(href)], { type: "text/html" });
      if (tab) tab.location.href = URL.createObjectURL(page);
    };
    const link = element("a", { href, target: "_blank", rel: "noopener", onclick }, file);
    return element("li", {}, link, element("span", { className: "quiet" }, ` ${size(bytes)}`));
  });
  return [
    element("h2", {}, "Reports and checkpoints"),
    reports.length > 0
      ? element("ul", {}, reportItems)
      : element("p", { className: "quiet" }, "A finished run writes its report here."),
    element(
      "ul",
      { className: "quiet" },
      checkpoints.checkpoints.map(({ file, bytes, written }) =>
        element("li", {}, `${file}, ${size(bytes)}, ${ago(written)}`)
      ),
      checkpoints.torn.map((file) => element("li", {}, `${file}: half-written or damaged`)),
    ),
  ];
}

/** @param {RunDetail} run */
function settingsOf(run) {
  const text = (/** @type {unknown} */ value) =>
    value === null || value === undefined ? "–" : Array.isArray(value) ? value.join(", ") : String(value);
  const rows = Object.entries({ adapter: run.adapter, ...run.settings }).map(([name, value]) =>
    element("tr", {}, element("td", {}, name), element("td", {}, text(value)))
  );
  return element(
    "details",
    {},
    element("summary", {}, "Settings"),
    element("table", { className: "settings" }, element("tbody", {}, rows)),
  );
}
