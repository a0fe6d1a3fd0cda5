/// <reference lib="dom" />
// @ts-check
/** All runs: sorted, filtered, chosen for comparison. How they are shown stands in the address. */
import { needsToken, repeated } from "./api.js";
import { element, place, timeAgo } from "./dom.js";
import { duration, fixed, flag, folder, percent, PHASE_NAMES, setting, shorten, signed } from "./format.js";
import { aboveTarget, isLive, outcome, standing, status } from "./status.js";
import { word } from "./words.js";

/** @import { RunOverview } from "../api.ts" */

const REFRESH_MS = 3000;
/** Runs that can be told apart when they are laid over each other. */
export const MOST_COMPARED = 8;
/** Characters of a run's name, and of a setting. */
const NAME_CHARACTERS = 28;
const MODEL_CHARACTERS = 20;
const SETTING_CHARACTERS = 12;
/** Pixels that all columns take but those of settings, and one of these, at most: less room leaves one more out. */
const FIXED_WIDTH = 1040;
const SETTING_WIDTH = 95;
const NARROW = 760;
/** Runs that are shown before all are asked for: laying out a thousand rows takes a second. */
const FIRST_SHOWN = 200;

/**
 * @typedef {{ key: string, title: string, word?: string, descending?: boolean, right?: boolean,
 *   value: (run: RunOverview) => string | number | null | undefined,
 *   text?: (run: RunOverview) => any }} Column
 */

/** @param {RunOverview} run */
const share = (run) => {
  const all = run.phases.reduce((sum, { steps }) => sum + steps, 0);
  return all > 0 ? run.phases.reduce((sum, { step }) => sum + step, 0) / all : null;
};

/** Open edges as last counted; expected where none were counted yet. @param {RunOverview} run */
function openEdges(run) {
  if (run.command === "pretrain" && run.last?.lambda === null) return null;
  return standing(run)?.open_fraction ?? run.last?.expected_open ?? null;
}

/** @param {RunOverview} run */
const target = (run) => aboveTarget(standing(run));

/** @type {Column[]} */
const BEFORE = [
  { key: "name", title: "run", value: ({ name }) => name },
  {
    key: "status",
    title: "status",
    value: (run) => `${outcome(run) ?? ""} ${run.status}`,
  },
  { key: "progress", title: "progress", value: share, descending: true },
  {
    key: "model",
    title: "model",
    value: ({ model }) => model,
    text: ({ model }) => model && element("span", { title: model }, shorten(folder(model), MODEL_CHARACTERS)),
  },
];
/** @type {Column[]} */
const AFTER = [
  {
    key: "loss",
    title: "validation loss",
    word: "loss",
    right: true,
    value: (run) => standing(run)?.validation_ce,
    text: (run) => fixed(standing(run)?.validation_ce, 3),
  },
  {
    key: "above",
    title: "above target",
    word: "tau",
    right: true,
    value: target,
    text: (run) => signed(target(run)),
  },
  {
    key: "open",
    title: "open edges",
    word: "open",
    right: true,
    value: openEdges,
    text: (run) =>
      (standing(run)?.open_fraction === undefined && openEdges(run) !== null ? "≈ " : "") +
      percent(openEdges(run)),
  },
  {
    key: "left",
    title: "time left",
    right: true,
    value: ({ seconds_left }) => seconds_left,
    text: ({ seconds_left }) => duration(seconds_left),
  },
  {
    key: "updated",
    title: "last wrote",
    right: true,
    descending: true,
    value: ({ updated }) => updated,
    text: ({ updated }) => timeAgo(updated) ?? "–",
  },
];

/** What runs can be filtered by, besides text. @type {Record<string, (run: RunOverview) => boolean>} */
const FILTERS = {
  "all runs": () => true,
  live: isLive,
  "target met": (run) => run.target_met === true,
  "target missed": (run) => run.target_met === false,
  finished: (run) => run.status === "finished",
  stopped: (run) => run.status === "stopped",
  "failed or interrupted": (run) => ["failed", "interrupted"].includes(run.status),
  broken: (run) => run.status === "broken",
  circuits: (run) => run.command === "circuits",
  sweeps: (run) => run.status === "sweep",
};

/** Settings in which runs differ, those that tell most of them apart first. @param {RunOverview[]} runs */
function differing(runs) {
  const trained = runs.filter(({ command }) => command === "sparsify" || command === "pretrain");
  /** @type {Map<string, Set<string>>} */
  const values = new Map();
  for (const { changed } of trained) {
    for (const [name, value] of Object.entries(changed)) {
      const of = values.get(name) ?? new Set();
      values.set(name, of.add(JSON.stringify(value)));
    }
  }
  const kinds = (/** @type {string} */ name) =>
    (values.get(name)?.size ?? 0) + Number(trained.some(({ changed }) => !(name in changed)));
  return [...values.keys()].filter((name) => kinds(name) > 1).sort((a, b) =>
    kinds(b) - kinds(a) || (a < b ? -1 : 1)
  );
}

/** @param {string} name @returns {Column} */
const settingColumn = (name) => ({
  key: `setting.${name}`,
  title: flag(name),
  value: ({ changed }) => {
    const value = changed[name];
    return typeof value === "number" ? value : value === undefined ? null : setting(value);
  },
  text: ({ changed, command }) => {
    if (!(name in changed)) {
      // Another command's defaults are others, and it may not have the setting.
      return element("span", { className: "quiet" }, command === "sparsify" ? "default" : "–");
    }
    const title = setting(changed[name]);
    return element("span", { title }, shorten(setting(changed[name], true), SETTING_CHARACTERS));
  },
});

/** @param {RunOverview} run @param {string} text */
function matches(run, text) {
  if (text.trim() === "") return true;
  const within = [
    run.name,
    run.model,
    run.command,
    run.status,
    outcome(run),
    ...run.signatures.map(({ name }) => name),
    ...Object.entries(run.changed).map(([name, value]) => `${flag(name)}=${setting(value)}`),
  ].join(" ").toLowerCase();
  return text.toLowerCase().split(/\s+/).every((part) => within.includes(part));
}

/** @param {Column} column @param {boolean} descending */
function order({ value }, descending) {
  const sign = descending ? -1 : 1;
  return (/** @type {RunOverview} */ a, /** @type {RunOverview} */ b) => {
    const [of, other] = [value(a) ?? null, value(b) ?? null];
    // What is not known stands last, whichever way.
    if (of === null || other === null) return Number(of === null) - Number(other === null);
    return of === other ? 0 : (of < other ? -1 : 1) * sign;
  };
}

/** How the list is shown, as the address says. */
function wanted() {
  const given = new URLSearchParams(location.hash.split("?")[1] ?? "");
  const [sort, way] = (given.get("sort") ?? "").split(":");
  return {
    text: given.get("q") ?? "",
    filter: given.get("status") ?? "all runs",
    sort: sort || "updated",
    descending: sort ? way === "down" : true,
  };
}

/**
 * @param {HTMLElement} view
 * @param {{ signal: AbortSignal, setConnection: (state: "live" | "lost" | "") => void }} page
 */
export async function showOverview(view, { signal, setConnection }) {
  document.title = "Sparse attention runs";
  const list = repeated("api/runs");
  /** @type {RunOverview[]} */
  let runs = await list.get(signal);
  let { text, filter, sort, descending } = wanted();
  /** @type {Set<string>} */
  const chosen = new Set();

  const search = element("input", {
    type: "search",
    value: text,
    placeholder: "name, model, setting=value",
    autocomplete: "off",
    label: "Filter runs by text",
    oninput() {
      text = search.value;
      changed();
    },
  });
  const select = element(
    "select",
    {
      label: "Filter runs by status",
      onchange() {
        filter = select.value;
        changed();
      },
    },
    Object.keys(FILTERS).map((name) => element("option", { value: name, selected: name === filter }, name)),
  );
  const count = element("span", { className: "quiet", role: "status" });
  const compare = place((/** @type {string[]} */ names) =>
    names.length < 2
      ? element("span", { className: "quiet" }, "Tick two or more runs to compare them.")
      : element(
        "a",
        { className: "button", href: `#/compare?runs=${names.join()}`, data: { key: "compare" } },
        `Compare ${names.length} runs`,
      )
  );
  const tools = element("div", { className: "row tools" }, search, select, count, compare.at);
  const empty = place((/** @type {boolean} */ isEmpty) => isEmpty && noRuns());
  const table = element("table", { className: "runs" });
  const head = table.createTHead();
  const body = table.createTBody();
  const scroll = element("div", { className: "scroll", tabIndex: 0, role: "region", label: "Runs" }, table);
  let most = FIRST_SHOWN;
  const more = element("button", {
    onclick() {
      most = Infinity;
      show();
    },
  });
  view.replaceChildren(element("h1", {}, "Runs"), tools, empty.at, scroll, more);

  /** Rows by name, with what they were made of. @type {Map<string, { key: string, at: HTMLTableRowElement }>} */
  const rows = new Map();
  /** @type {Column[]} */
  let columns = [];
  /** Runs that the filters let through. */
  let matching = 0;

  function changed() {
    const given = new URLSearchParams();
    if (text) given.set("q", text);
    if (filter !== "all runs") given.set("status", filter);
    if (sort !== "updated" || !descending) given.set("sort", `${sort}:${descending ? "down" : "up"}`);
    const query = given.toString();
    history.replaceState(null, "", `${location.pathname}${location.search}#/${query && `?${query}`}`);
    show();
  }

  /** @param {Column} column */
  function heading(column) {
    const { key, title, right } = column;
    const isSorted = sort === key;
    const button = element(
      "button",
      {
        className: "sort",
        type: "button",
        data: { key: `sort-${key}` },
        onclick() {
          descending = isSorted ? !descending : column.descending ?? false;
          sort = key;
          changed();
        },
      },
      title,
      element("span", { ariaHidden: "true" }, isSorted ? (descending ? " ↓" : " ↑") : ""),
    );
    const inner = element(
      "div",
      { className: "heading" },
      button,
      column.word && word("", column.word, title),
    );
    const cell = element("th", { scope: "col", className: right ? "right" : "" }, inner);
    if (isSorted) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
    return cell;
  }

  /** @param {RunOverview} run @returns {HTMLTableRowElement} */
  function rowOf(run) {
    const { name, signatures } = run;
    const warning = signatures.at(-1);
    const tick = element("input", {
      type: "checkbox",
      checked: chosen.has(name),
      disabled: run.command === "circuits" || run.status === "broken" || run.status === "sweep",
      label: `Compare ${name}`,
      data: { key: `tick-${name}` },
      onchange() {
        if (tick.checked && chosen.size >= MOST_COMPARED) tick.checked = false;
        else if (tick.checked) chosen.add(name);
        else chosen.delete(name);
        showChosen();
      },
    });
    const title = element(
      "td",
      { className: "name" },
      element(
        "a",
        { href: `#/runs/${encodeURIComponent(name)}`, title: name, label: name, data: { key: name } },
        shorten(name, NAME_CHARACTERS),
      ),
      warning &&
        element(
          "span",
          { className: "warn", title: signatures.map(({ message }) => message).join("\n") },
          ` ⚠ ${warning.name}`,
        ),
    );
    const first = element("td", { className: "tick" }, tick);
    if (run.status === "broken") {
      const rest = element("td", { colSpan: columns.length - 1, className: "rest" }, status(run));
      return element("tr", { data: { run: name } }, first, title, rest);
    }
    const state = element("td", {}, status(run));
    if (run.command === "circuits" || run.status === "sweep") {
      const last = AFTER[AFTER.length - 1];
      const text = run.status === "sweep" ? sweepText(run) : circuitText(run);
      const rest = element("td", { colSpan: columns.length - 3, className: "rest" }, text);
      return element("tr", { data: { run: name } }, first, title, state, rest, fact(run, last));
    }
    return element(
      "tr",
      { data: { run: name } },
      first,
      title,
      state,
      progressOf(run),
      columns.slice(3).map((column) => fact(run, column)),
    );
  }

  function showChosen() {
    compare.show([...chosen]);
    const full = chosen.size >= MOST_COMPARED;
    count.textContent = `${matching} of ${runs.length}${
      full ? `; ${MOST_COMPARED} are compared at most` : ""
    }`;
  }

  /** How many columns of settings there is room for, at this width. */
  let room = { width: 0, count: 0 };
  function roomForSettings() {
    const width = scroll.clientWidth || view.clientWidth;
    if (width !== room.width) {
      const count = innerWidth <= NARROW ? 0 : Math.floor((width - FIXED_WIDTH) / SETTING_WIDTH);
      room = { width, count: Math.max(0, count) };
    }
    return room.count;
  }

  function show() {
    empty.show(runs.length === 0);
    scroll.hidden = tools.hidden = runs.length === 0;
    const settings = differing(runs);
    const count = Math.min(roomForSettings(), settings.length);
    columns = [...BEFORE, ...settings.slice(0, count).map(settingColumn), ...AFTER];
    const by = [...BEFORE, ...settings.map(settingColumn), ...AFTER].find(({ key }) => key === sort) ??
      AFTER[AFTER.length - 1];
    const keep = FILTERS[filter] ?? FILTERS["all runs"];
    const found = runs.filter((run) => keep(run) && matches(run, text)).sort(order(by, descending));
    const shown = found.slice(0, most);
    more.hidden = shown.length === found.length;
    more.textContent = `Show the other ${found.length - shown.length}`;
    const of = columns.map(({ key }) => key).join();
    const focused = view.contains(document.activeElement)
      ? /** @type {HTMLElement} */ (document.activeElement).dataset.key
      : undefined;
    head.replaceChildren(element("tr", {}, element("td", { className: "tick" }), columns.map(heading)));
    const ats = shown.map((run) => {
      const key = of + JSON.stringify(run);
      const known = rows.get(run.name);
      if (known?.key === key) return known.at;
      const at = rowOf(run);
      rows.set(run.name, { key, at });
      return at;
    });
    if (ats.length !== body.rows.length || ats.some((at, n) => at !== body.rows[n])) {
      body.replaceChildren(...ats);
    }
    const here = new Set(runs.map(({ name }) => name));
    for (const name of rows.keys()) if (!here.has(name)) rows.delete(name);
    for (const name of chosen) if (!here.has(name)) chosen.delete(name);
    if (count > 0 && scroll.scrollWidth > scroll.clientWidth) {
      room = { ...room, count: count - 1 };
      return show();
    }
    matching = found.length;
    showChosen();
    if (focused === undefined) return;
    const next = view.querySelector(`[data-key="${CSS.escape(focused)}"]`);
    if (next && next !== document.activeElement) {
      /** @type {HTMLElement} */ (next).focus({ preventScroll: true });
    }
  }
  show();
  addEventListener("resize", show, { signal });
  while (!signal.aborted) {
    await new Promise((resolve) => setTimeout(resolve, REFRESH_MS));
    try {
      const fresh = await list.get(signal);
      if (fresh) {
        runs = fresh;
        show();
      }
      setConnection("");
    } catch (error) {
      if (signal.aborted || needsToken(error)) throw error;
      setConnection("lost");
    }
  }
}

const noRuns = () =>
  element(
    "section",
    { className: "notice" },
    element("p", {}, "There is no run yet. One command makes one:"),
    element("pre", {}, element("code", {}, "deno task sparsify")),
    element("p", {}, "It appears here as soon as it has begun."),
  );

/** @param {RunOverview} run @param {Column} column */
function fact(run, { title, value, text, right }) {
  const shown = text ? text(run) : String(value(run) ?? "–");
  return element(
    "td",
    { className: `fact ${right ? "right" : ""} ${shown === "–" ? "none" : ""}`, data: { name: title } },
    shown,
  );
}

/** @param {RunOverview} run */
function progressOf(run) {
  const under = run.phases.find(({ phase }) => phase === run.last?.phase);
  return element(
    "td",
    { className: "progress" },
    element("progress", { max: 1, value: share(run) ?? 0, label: "steps done" }),
    under &&
      element("span", { className: "quiet" }, ` ${PHASE_NAMES[under.phase]} ${under.step} of ${under.steps}`),
  );
}

/** How much of a model does most of a task. @param {import("../api.ts").CircuitSize} size */
function circuitSize({ able, edges, heads }) {
  if (!able) return "cannot do it";
  return `${edges ?? "more than all its"} edges or ${heads ?? "more than all its"} heads do 90 %`;
}

/** How far a sweep is, in words. @param {RunOverview} run */
function sweepText({ result }) {
  if (result?.kind !== "sweep") return "sweep";
  if (result.of === "study") return "a study";
  const finished = result.runs.filter((run) => run.finished).length;
  return `a sweep: ${finished} of the ${result.runs.length} runs that it has begun are finished`;
}

/** What a run of circuits comes to, in words. @param {RunOverview} run */
function circuitText({ result }) {
  if (result?.kind !== "circuits") return "circuits";
  const { task, models } = result;
  return `circuit of ${task}: ${models.map((size) => `${size.name} ${circuitSize(size)}`).join("; ")}`;
}
