/// <reference lib="dom" />
// @ts-check
/** All runs, newest first. */
import { html, reactive } from "/lib/arrow.js";
import { get } from "./api.js";
import { ago, duration, fixed, percent, PHASE_NAMES, STATUS_MARKS } from "./format.js";

const REFRESH_MS = 3000;

/**
 * @param {HTMLElement} view
 * @param {{ signal: AbortSignal, setConnection: (state: "live" | "lost" | "") => void }} page
 */
export async function showOverview(view, { signal, setConnection }) {
  document.title = "Sparse attention runs";
  const state = reactive({ runs: await get("/api/runs", { signal }) });
  if (signal.aborted) return;
  html`<h1>Runs</h1>${() => state.runs.length === 0 ? empty() : table(state.runs)}`(view);
  setConnection("live");
  const timer = setInterval(async () => {
    try {
      state.runs = await get("/api/runs", { signal });
      setConnection("live");
    } catch {
      if (!signal.aborted) setConnection("lost");
    }
  }, REFRESH_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
}

const empty = () =>
  html`
    <section class="notice">
      <p>There is no run yet. One command makes one:</p>
      <pre><code>deno task sparsify</code></pre>
      <p>It appears here as soon as it has begun.</p>
    </section>
  `;

/** @param {any[]} runs */
const table = (runs) =>
  html`
    <div class="scroll">
      <table class="runs">
        <thead>
          <tr>
            <th>run</th>
            <th>status</th>
            <th>progress</th>
            <th>loss above target</th>
            <th>open edges</th>
            <th>time left</th>
            <th>last</th>
          </tr>
        </thead>
        <tbody>${runs.map(row)}</tbody>
      </table>
    </div>
  `;

/** @param {any} run */
function row(run) {
  const { last } = run;
  const done = run.phases.reduce((/** @type {number} */ sum, /** @type {any} */ { step }) => sum + step, 0);
  const all = run.phases.reduce((/** @type {number} */ sum, /** @type {any} */ { steps }) => sum + steps, 0);
  const under = run.phases.find((/** @type {any} */ { phase }) => phase === last?.phase);
  return html`
    <tr data-run="${run.name}">
      <td><a href="${`#/runs/${encodeURIComponent(run.name)}`}">${run.name}</a>
          ${run.signatures.length > 0 && run.status !== "finished"
            ? html`<span class="warn" title="${run.signatures.at(-1).message}">⚠ ${
              run.signatures.at(-1).name
            }</span>`
            : ""}</td>
      <td>${status(run)}</td>
      <td>${all > 0
        ? html`
          <progress max="${all}" value="${done}" aria-label="steps done"></progress>
          <span class="quiet">${under
            ? `${PHASE_NAMES[under.phase]} ${under.step} of ${under.steps}`
            : ""}</span>
        `
        : ""}</td>
      <td class="number">${last?.constraint === null || last?.constraint === undefined
        ? "–"
        : `${last.constraint >= 0 ? "+" : "−"}${fixed(Math.abs(last.constraint), 3)}`}</td>
      <td class="number">${percent(openEdges(run))}</td>
      <td class="number">${duration(run.seconds_left)}</td>
      <td class="quiet">${ago(run.updated)}</td>
    </tr>
  `.key(run.name);
}

/** Open edges as last counted, or as expected where training has gone on since. @param {any} run */
export const openEdges = ({ last, evaluation }) =>
  last && evaluation && last.step === evaluation.step || last?.phase === "control"
    ? evaluation?.open_fraction
    : last?.expected_open;

/** A status as mark, word and, where something is wrong, why. @param {any} run */
export const status = (run) =>
  html`<span class="status" data-status="${run.status}"><span aria-hidden="true">${
    STATUS_MARKS[run.status]
  }</span>
    ${run.status}</span>${run.problem ? html`<span class="quiet problem">${run.problem}</span>` : ""}`;
