/// <reference lib="dom" />
// @ts-check
/** All runs, newest first. */
import { get, needsToken } from "./api.js";
import { element, place, timeAgo } from "./dom.js";
import { duration, fixed, percent, PHASE_NAMES, signed, STATUS_MARKS } from "./format.js";

/** @import { RunOverview } from "../api.ts" */

const REFRESH_MS = 3000;
const HEADINGS = [
  "run",
  "status",
  "progress",
  "validation loss",
  "above target",
  "open edges",
  "time left",
  "last",
];

/**
 * @param {HTMLElement} view
 * @param {{ signal: AbortSignal, setConnection: (state: "live" | "lost" | "") => void }} page
 */
export async function showOverview(view, { signal, setConnection }) {
  document.title = "Sparse attention runs";
  const runs = await get("api/runs", { signal });
  const list = place((/** @type {RunOverview[]} */ runs) => runs.length === 0 ? empty() : table(runs));
  list.show(runs);
  view.replaceChildren(element("h1", {}, "Runs"), list.at);
  setConnection("live");
  while (!signal.aborted) {
    await new Promise((resolve) => setTimeout(resolve, REFRESH_MS));
    try {
      list.show(await get("api/runs", { signal }));
      setConnection("live");
    } catch (error) {
      if (signal.aborted || needsToken(error)) throw error;
      setConnection("lost");
    }
  }
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
  const { name, phases, last, evaluation, signatures } = run;
  const done = phases.reduce((sum, { step }) => sum + step, 0);
  const all = phases.reduce((sum, { steps }) => sum + steps, 0);
  const under = phases.find(({ phase }) => phase === last?.phase);
  const warning = run.status === "finished" ? undefined : signatures.at(-1);
  const title = element(
    "td",
    {},
    element("a", { href: `#/runs/${encodeURIComponent(name)}`, data: { key: name } }, name),
    warning && element("span", { className: "warn", title: warning.message }, ` ⚠ ${warning.name}`),
  );
  if (run.status === "broken") {
    const rest = element("td", { colSpan: HEADINGS.length - 1, className: "rest" }, status(run));
    return element("tr", { data: { run: name } }, title, rest);
  }
  const facts = [fixed(evaluation?.validation_ce, 3), signed(last?.constraint), percent(openEdges(run))];
  return element(
    "tr",
    { data: { run: name } },
    title,
    element("td", {}, status(run)),
    element(
      "td",
      { className: "progress" },
      element("progress", { max: Math.max(1, all), value: done, label: "steps done" }),
      under &&
        element(
          "span",
          { className: "quiet" },
          ` ${PHASE_NAMES[under.phase]} ${under.step} of ${under.steps}`,
        ),
    ),
    [...facts, duration(run.seconds_left), timeAgo(run.updated) ?? "–"].map((fact, n) =>
      element("td", { className: "fact", data: { name: HEADINGS[n + 3] } }, fact)
    ),
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
