/// <reference lib="dom" />
// @ts-check
/** One run: its state, charts, heads, attention, settings and files, live. */
import { html, reactive } from "/lib/arrow.js";
import { follow, get, hasToken, post, readReport } from "./api.js";
import { createCharts } from "./charts.js";
import { createExplorer } from "./explorer.js";
import { ago, duration, fixed, isAfter, percent, PHASE_NAMES, placeOf, size, whole } from "./format.js";
import { createHeadMap } from "./heads.js";
import { openEdges, status } from "./overview.js";

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
  if (signal.aborted) return;
  // Each part of the page reads its own field, so that what is typed or unfolded in one outlives news of another.
  const state = reactive({
    run: detail,
    steering: { status: detail.status, control: detail.control, note: "" },
    signatures: detail.signatures,
    files: { reports: detail.reports, checkpoints },
  });
  /** @type {(field: "steering" | "signatures" | "files", value: any) => void} */
  const set = (field, value) => {
    if (JSON.stringify(state[field]) !== JSON.stringify(value)) state[field] = value;
  };
  /** @param {object} change */
  const steer = (change) => set("steering", { ...state.steering, ...change });

  html`<nav aria-label="breadcrumb"><a href="#/">Runs</a></nav>
    <h1>${name}</h1>
    ${() => header(state.run)}
    ${() => controls(state.steering, steer, base, detail)}
    <section id="charts" aria-label="Charts"></section>
    ${() => signatures(state.signatures)}
    <section id="heads"></section>
    <section id="explorer"></section>
    ${() => files(state.files, name)}
    ${settings(detail)}`(view);

  const section = (/** @type {string} */ id) => /** @type {HTMLElement} */ (view.querySelector(`#${id}`));
  const charts = createCharts(section("charts"), signal);
  const map = createHeadMap(section("heads"), heads);
  createExplorer(section("explorer"), name, detail, signal);

  /** @type {any[]} */
  let rows = metrics.rows;
  let last = rows.at(-1);
  let drawn = 0;
  const draw = () => {
    if (drawn !== 0) return;
    drawn = requestAnimationFrame(() => {
      drawn = 0;
      charts.draw(rows, state.signatures);
    });
  };
  draw();

  const refresh = async () => {
    const [run, files] = await Promise.all([get(base, { signal }), get(`${base}/checkpoints`, { signal })]);
    state.run = run;
    set("files", { reports: run.reports, checkpoints: files });
    steer({ status: run.status, control: run.control });
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
      const changed = state.run.status !== overview.status;
      state.run = { ...state.run, ...overview };
      set("signatures", overview.signatures);
      steer({ status: overview.status });
      draw();
      if (changed) refresh().catch(() => {});
    },
    onGone() {
      setConnection("");
      steer({ note: "The run's folder is gone." });
    },
    onConnection: (connected) => setConnection(connected ? "live" : "lost"),
  });
}

/** @param {any} run */
function header(run) {
  const { last } = run;
  const facts = [
    ["loss", fixed(last?.ce, 3)],
    ["target τ", fixed(last?.target, 3)],
    ["above target", fixed(last?.constraint, 3)],
    ["λ", last?.lambda === null || last?.lambda === undefined ? "–" : last.lambda.toPrecision(2)],
    ["open edges", percent(openEdges(run))],
    ["tokens/s", whole(run.tokens_per_second)],
    ["time left", duration(run.seconds_left)],
  ];
  return html`<div class="state">${status(run)}
    ${
    run.phases.map((/** @type {any} */ { phase, step, steps }) =>
      html`
        <span
          class="phase">${PHASE_NAMES[
            phase
          ]} <progress max="${steps}" value="${step}" aria-label="${phase}"></progress>
                ${step} of ${steps}</span>
      `
    )
  }
    <span class="quiet">${ago(run.updated)}</span></div>
    ${run.summary?.sparse ? result(run.summary) : ""}
    <dl class="facts">${
    facts.map(([term, value]) =>
      html`
        <div>
          <dt>${term}</dt>
          <dd>${value}</dd>
        </div>
      `
    )
  }</dl>
    ${last ? "" : html`<p class="quiet">No step is done yet.</p>`}`;
}

/** @param {any} summary */
const result = ({ dense, control, sparse, test_tokens }) =>
  html`<p class="result">${percent(sparse.open_fraction)} of the attention edges stay open at a loss of
    ${fixed(sparse.ce, 4)} nats on ${whole(test_tokens)} test tokens; dense ${fixed(dense.ce, 4)}${
    control ? `, dense fine-tuned ${fixed(control.ce, 4)}` : ""
  }.${sparse.feasible ? "" : " The constraint held at no evaluation."}</p>`;

/**
 * @param {{ status: string, control: any, note: string }} steering
 * @param {(change: object) => void} steer
 * @param {string} base @param {any} detail
 */
function controls({ status, control, note }, steer, base, detail) {
  if (note) return html`<p class="note" role="status">${note}</p>`;
  if (!LIVE.includes(status)) return "";
  if (!hasToken()) {
    return html`<p class="quiet">To pause or stop this run, open the address that the server printed.</p>`;
  }
  const wish = async (/** @type {object} */ change) => {
    try {
      steer({ control: await post(`${base}/control`, change) });
    } catch (error) {
      steer({ note: error instanceof Error ? error.message : String(error) });
      setTimeout(() => steer({ note: "" }), NOTE_MS);
    }
  };
  const { paused, stop } = control;
  return html`<div class="row controls">
    <button @click="${() => wish({ paused: !paused })}">${paused ? "Go on" : "Pause"}</button>
    <button disabled="${stop}" @click="${() =>
    confirm("Stop after the next step, with a checkpoint? It can be resumed.") && wish({ stop: true })}">${
    stop ? "Stopping…" : "Stop"
  }</button>
    ${
    detail.command === "sparsify"
      ? html`
        <form class="row"
          @submit="${(/** @type {Event} */ event) => {
            event.preventDefault();
            const value = Number(new FormData(/** @type {HTMLFormElement} */ (event.target)).get("slack"));
            if (Number.isFinite(value)) wish({ slack: value });
          }}"><label>slack, nats <input name="slack" type="number" step="any" value="${control.slack ??
            detail.settings.slack}"></label><button>Change</button></form>
      `
      : ""
  }</div>`;
}

/** @param {any[]} found */
const signatures = (found) =>
  found.length === 0 ? "" : html`
    <section>
      <h2>Failure signatures</h2>
      <ul>${found.map(({ phase, message }) =>
        html`<li><span class="warn">⚠</span> ${PHASE_NAMES[phase]}: ${message}</li>`
      )}</ul>
    </section>
  `;

/** @param {{ reports: any[], checkpoints: any }} files @param {string} name */
function files({ reports, checkpoints }, name) {
  const open = async (/** @type {Event} */ event, /** @type {string} */ path) => {
    if (!hasToken()) return;
    event.preventDefault();
    const tab = globalThis.open("", "_blank");
    const page = new Blob([await readReport(path)], { type: "text/html" });
    if (tab) tab.location.href = URL.createObjectURL(page);
  };
  return html`<section><h2>Reports and checkpoints</h2>
    ${reports.length === 0 ? html`<p class="quiet">A finished run writes its report here.</p>` : ""}
    <ul>${
    reports.map(({ file, bytes }) => {
      const path = `/runs/${encodeURIComponent(name)}/reports/${encodeURIComponent(file)}`;
      return html`<li><a href="${path}" target="_blank" rel="noopener" @click="${(
        /** @type {Event} */ event,
      ) => open(event, path)}">${file}</a> <span class="quiet">${size(bytes)}</span></li>`;
    })
  }</ul>
    <ul class="quiet">${
    checkpoints.checkpoints.map((/** @type {any} */ { file, bytes, written }) =>
      html`<li>${file}, ${size(bytes)}, ${ago(written)}</li>`
    )
  }${
    checkpoints.torn.map((/** @type {string} */ file) => html`<li>${file}: half-written or damaged</li>`)
  }</ul></section>`;
}

/** @param {any} run */
const settings = (run) =>
  html`
    <details>
      <summary>Settings</summary>
      <table class="settings">
        <tbody>
        <tr><td>adapter</td><td>${run.adapter ?? "–"}</td></tr>
        ${Object.entries(run.settings).map(([name, value]) =>
          html`
            <tr>
              <td>${name}</td>
              <td>${value === null ? "–" : Array.isArray(value) ? value.join(", ") : String(value)}</td>
            </tr>
          `
        )}</tbody>
      </table>
    </details>
  `;
