/// <reference lib="dom" />
// @ts-check
/** All runs, newest first. */
import { get } from "./api.js";
import { element, place } from "./dom.js";
import { ago, duration, fixed, percent, PHASE_NAMES, STATUS_MARKS } from "./format.js";

/** @import { RunOverview } from "../api.ts" */

const REFRESH_MS = 3000;
const HEADINGS = ["run", "status", "progress", "loss above target", "open edges", "time left", "last"];

/**
 * @param {HTMLElement} view
 * @param {{ signal: AbortSignal, setConnection: (state: "live" | "lost" | "") => void }} page
 */
export async function showOverview(view, { signal, setConnection }) {
  document.title = "Sparse attention runs";
  const runs = await get("/api/runs", { signal });
  const list = place((/** @type {RunOverview[]} */ runs) => runs.length === 0 ? empty() : table(runs));
  list.show(runs);
  view.replaceChildren(element("h1", {}, "Runs"), list.at);
  setConnection("live");
  const timer = setInterval(async () => {
    try {
      list.show(await get("/api/runs", { signal }));
      setConnection("live");
    } catch {
      if (!signal.aborted) setConnection("lost");
    }
  }, REFRESH_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
}

const empty = () =>
  element(
    "section",
    { className: "notice" },
    element("p", {}, "There is no run yet. One command makes one:"),
    element("pre", {}, element("code", {}, "deno task sparsify")),
    element("p", {}, "It appears here as soon as it has begun."),
  );

/** @param {RunOverview[]} runs */
function table(runs) {
  const head = element(
    "thead",
    {},
    element("tr", {}, HEADINGS.map((text) => element("th", { scope: "col" }, text))),
  );
  return element(
    "div",
    { className: "scroll" },
    element("table", { className: "runs" }, head, element("tbody", {}, runs.map(row))),
  );
}

/** @param {RunOverview} run */
function row(run) {
  const { name, phases, last, signatures } = run;
  const done = phases.reduce((sum, { step }) => sum + step, 0);
  const all = phases.reduce((sum, { steps }) => sum + steps, 0);
  const under = phases.find(({ phase }) => phase === last?.phase);
  const warning = run.status === "finished" ? undefined : signatures.at(-1);
  const above = last?.constraint ?? null;
  return element(
    "tr",
    { data: { run: name } },
    element(
      "td",
      {},
      element("a", { href: `#/runs/${encodeURIComponent(name)}` }, name),
      warning && element("span", { className: "warn", title: warning.message }, ` ⚠ ${warning.name}`),
    ),
    element("td", {}, status(run)),
    element(
      "td",
      {},
      all > 0 && element("progress", { max: all, value: done, label: "steps done" }),
      under &&
        element(
          "span",
          { className: "quiet" },
          ` ${PHASE_NAMES[under.phase]} ${under.step} of ${under.steps}`,
        ),
    ),
    element("td", {}, above === null ? "–" : `${above >= 0 ? "+" : "−"}${fixed(Math.abs(above), 3)}`),
    element("td", {}, percent(openEdges(run))),
    element("td", {}, duration(run.seconds_left)),
    element("td", { className: "quiet" }, ago(run.updated)),
  );
}

/** Open edges as last counted, or as expected where training has gone on since. @param {RunOverview} run */
export function openEdges({ last, evaluation }) {
  const counted = last?.phase === "control" || (last && last.step === evaluation?.step);
  return counted ? evaluation?.open_fraction : last?.expected_open;
}

/** A status as mark, word and, where something is wrong, why. @param {RunOverview} run */
export const status = (run) => [
  element(
    "span",
    { className: "status", data: { status: run.status } },
    element("span", { ariaHidden: "true" }, STATUS_MARKS[run.status]),
    run.status,
  ),
  run.problem !== null && element("span", { className: "quiet problem" }, run.problem),
];
