/// <reference lib="dom" />
// @ts-check
/** One run: its state, charts, heads, attention, settings and files, live. */
import { download, follow, get, hasToken, opensByLink, post } from "./api.js";
import { createCharts } from "./charts.js";
import { element, place, timeAgo } from "./dom.js";
import { createExplorer } from "./explorer.js";
import { duration, fixed, isAfter, percent, PHASE_NAMES, placeOf, signed, size, whole } from "./format.js";
import { createHeadMap } from "./heads.js";
import { openEdges, status } from "./overview.js";

/** @import { CheckpointsAnswer, NamedSignature, RunDetail } from "../api.ts" */
/** @typedef {{ status: string, control: RunDetail["control"], note: string }} Steering */

const FIRST_POINTS = 1500;
/** Rows held in memory, above which half of them are dropped, evenly over the steps. */
const MOST_ROWS = 5000;
/** Heads of a model whose map is drawn: GPT-3 has 9,216. */
const MOST_HEADS = 10_000;
const NOTE_MS = 5000;
const LIVE = ["preparing", "training", "paused"];

/**
 * @param {HTMLElement} view @param {string} name
 * @param {{ signal: AbortSignal, setConnection: (state: "live" | "lost" | "") => void }} page
 */
export async function showRun(view, name, { signal, setConnection }) {
  document.title = `${name} – sparse attention`;
  const base = `api/runs/${encodeURIComponent(name)}`;
  const [detail, metrics, checkpoints] = await Promise.all([
    get(base, { signal }),
    get(`${base}/metrics?points=${FIRST_POINTS}`, { signal }),
    get(`${base}/checkpoints`, { signal }),
  ]);
  // After the rows, behind whose last the live events begin: so no snapshot is missed, and those known are left out.
  const heads = await get(`${base}/heads`, { signal });

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
  const map = heads.layers * heads.heads <= MOST_HEADS ? createHeadMap(headsAt, heads) : undefined;
  if (detail.layers > 0) createExplorer(explorerAt, name, detail, signal);

  /** @type {any[]} */
  let rows = metrics.rows;
  let last = rows.at(-1);
  /** The last row of the phase that has gates, or of pre-training. */
  let main = rows.findLast((row) => row.phase !== "control");
  let drawing = 0;
  const draw = () => {
    if (drawing !== 0) return;
    drawing = requestAnimationFrame(() => {
      drawing = 0;
      if (!signal.aborted) charts.draw(rows, run.signatures);
    });
  };
  const show = () => {
    header.show({ run, main });
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
        rows = thin(rows, MOST_ROWS / 2);
      }
      main = fresh.findLast((row) => row.phase !== "control") ?? main;
      map?.append(fresh);
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
      steer({ note: "The run's folder is gone.", status: "" });
    },
    onConnection: (connected) => setConnection(connected ? "live" : "lost"),
  });
}

/** About so many of the rows, evenly over the steps, with the last and those that hold an evaluation. @param {any[]} rows @param {number} count */
function thin(rows, count) {
  const steps = rows.reduce((most, { step }) => Math.max(most, step), 0);
  const phases = new Set(rows.map(({ phase }) => phase)).size;
  const width = steps * phases / count;
  const slot = (/** @type {any} */ { phase, step }) => `${phase} ${Math.floor(step / width)}`;
  return rows.filter((row, n) =>
    n === 0 || n === rows.length - 1 || row.validation_ce !== null || slot(row) !== slot(rows[n - 1])
  );
}

/** @param {{ run: RunDetail, main: any }} data */
function headerOf({ run, main }) {
  const { last, phases, summary, evaluation } = run;
  const live = LIVE.includes(run.status);
  const facts = [
    ["training loss", live ? fixed(last?.ce, 3) : "–"],
    ["validation loss", fixed(evaluation?.validation_ce, 3)],
    ["target τ", fixed(main?.target, 3)],
    ["above target", signed(main?.constraint)],
    ["λ in the loss", main?.lambda_acting?.toPrecision(2) ?? "–"],
    ["open edges", percent(openEdges(run))],
    ["tokens/s", whole(run.tokens_per_second)],
    ["time left", duration(run.seconds_left)],
  ];
  const shown = facts.filter(([, value]) => live || value !== "–");
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
      element("span", { className: "quiet" }, timeAgo(run.updated)),
    ),
    summary && "sparse" in summary && resultOf(summary),
    element(
      "dl",
      { className: "facts" },
      shown.map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value))),
    ),
    !last && run.status !== "broken" && element(
      "p",
      { className: "notice" },
      live ? "No step is done yet. The charts begin with the first." : "No step was done.",
    ),
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
  const pause = element(
    "button",
    { data: { key: "pause" }, onclick: () => wish({ paused: !paused }) },
    paused ? "Go on" : "Pause",
  );
  const end = element("button", {
    data: { key: "stop" },
    disabled: stop,
    onclick() {
      if (confirm("Stop after the next step, with a checkpoint? It can be resumed.")) wish({ stop: true });
    },
  }, stop ? "Stopping…" : "Stop");
  const input = element("input", {
    data: { key: "slack" },
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
    element("button", { data: { key: "change" } }, "Change"),
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
    const href = `runs/${encodeURIComponent(run)}/reports/${encodeURIComponent(file)}`;
    const link = element("a", { href, target: "_blank", rel: "noopener" }, file);
    const about = element("span", { className: "quiet" }, ` ${size(bytes)}`);
    saveInstead(link, about, `${run}-${file}`);
    return element("li", {}, link, about);
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
        element("li", {}, `${file}, ${size(bytes)}, `, timeAgo(written))
      ),
      checkpoints.torn.map((file) => element("li", {}, `${file}: half-written or damaged`)),
    ),
  ];
}

/**
 * Where reading needs the token, which a link cannot carry, the report is saved to be opened from disk. (Shown from a
 * Blob it would be under this page's policy, which forbids the style that stands in it.)
 *
 * @param {HTMLAnchorElement} link @param {HTMLElement} about @param {string} name
 */
async function saveInstead(link, about, name) {
  const { href } = link;
  if (await opensByLink(href)) return;
  about.append(", saved on this device to be opened there");
  link.onclick = async (event) => {
    event.preventDefault();
    try {
      const address = URL.createObjectURL(await download(href));
      element("a", { href: address, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    } catch (error) {
      about.replaceChildren(` ${error instanceof Error ? error.message : String(error)}`);
    }
  };
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
