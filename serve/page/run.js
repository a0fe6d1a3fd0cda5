/// <reference lib="dom" />
// @ts-check
/** One run: its state, charts, heads, attention, settings and files, live. */
import { ApiError, download, follow, get, hasToken, needsToken, opensByLink, post } from "./api.js";
import { createCharts } from "./charts.js";
import { element, place, timeAgo } from "./dom.js";
import { createExplorer } from "./explorer.js";
import {
  duration,
  fixed,
  flag,
  isAfter,
  percent,
  PHASE_NAMES,
  placeOf,
  setting,
  signed,
  size,
  whole,
} from "./format.js";
import { frontOf, showFront } from "./front.js";
import { createHeadMap, MOST_HEADS } from "./heads.js";
import { aboveTarget, choice, isLive, LIVE, standing, status } from "./status.js";
import { tokenForm } from "./token.js";
import { word } from "./words.js";

/** @import { CheckpointsAnswer, RunDetail } from "../api.ts" */
/** @typedef {{ status: string, control: RunDetail["control"], note: string, token: "given" | "none" | "refused" }} Steering */

const FIRST_POINTS = 1500;
/** Rows held in memory, above which half of them are dropped, evenly over the steps. */
const MOST_ROWS = 5000;
const NOTE_MS = 5000;

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
  let steering = {
    status: detail.status,
    control: detail.control,
    note: "",
    token: hasToken() ? "given" : "none",
  };
  const steer = (/** @type {Partial<Steering>} */ change) => {
    steering = { ...steering, ...change };
    controls.show(steering);
  };
  // Each part has its own data, so that what is typed or unfolded in one outlives news of another.
  const header = place(headerOf);
  const controls = place((/** @type {Steering} */ state) => controlsOf(state, steer, base, detail));
  const events = place(eventsOf);
  const front = place(showFront);
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
    events.at,
    front.at,
    headsAt,
    explorerAt,
    files.at,
    ...(detail.status === "sweep" ? [] : [settingsOf(detail)]),
  );
  const charts = createCharts(chartsAt, signal);
  const map = heads.layers * heads.heads <= MOST_HEADS ? createHeadMap(headsAt, heads) : undefined;
  // A run of circuits has no weights of its own; its report shows what its models attend to.
  if (detail.layers > 0 && detail.command !== "circuits") createExplorer(explorerAt, name, detail, signal);

  /** @type {any[]} */
  let rows = metrics.rows;
  let last = rows.at(-1);
  /** The last row of the phase that has gates, or of pre-training. */
  let main = rows.findLast((row) => row.phase !== "control");
  let drawing = 0;
  let connected = false;
  const draw = () => {
    if (drawing !== 0) return;
    drawing = requestAnimationFrame(() => {
      drawing = 0;
      if (!signal.aborted) charts.draw(rows, happened(run).map(({ step }) => step));
    });
  };
  const show = () => {
    header.show({ run, main });
    events.show(happened(run));
    front.show(frontOf(run.summary));
    setConnection(connected && isLive(run) ? "live" : "");
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
      const fresh = more.filter((row) => isAfter(row, last, rows[0]?.phase));
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
    onConnection(isConnected) {
      connected = isConnected;
      setConnection(connected ? (isLive(run) ? "live" : "") : "lost");
    },
  });
}

/** About so many of the rows, evenly over the steps, with the last and those that hold an evaluation. @param {any[]} rows @param {number} count */
function thin(rows, count) {
  const steps = rows.reduce((most, { step }) => Math.max(most, step), 0);
  const phases = new Set(rows.map(({ phase }) => phase)).size;
  const width = steps * phases / count;
  const slot = (/** @type {any} */ { phase, step }) => `${phase} ${Math.floor(step / width)}`;
  return rows.filter((row, n) =>
    n === 0 || n === rows.length - 1 || row.validation_ce !== null || slot(row) !== slot(rows[n - 1]) ||
    // Where a process went on, the speed begins anew.
    row.seconds < rows[n - 1].seconds || rows[n + 1].seconds < row.seconds
  );
}

/** @param {{ run: RunDetail, main: any }} data */
function headerOf({ run, main }) {
  const { last, phases, result, command } = run;
  const live = isLive(run);
  const chosen = choice(run);
  const at = standing(run);
  const which = at !== null && !live && at.step === run.chosen?.step && run.target_met
    ? "chosen step"
    : "step";
  const speed = whole(run.tokens_per_second);
  /** @type {[string, any, string][][]} */
  const groups = command === "circuits" ? [] : [
    live
      ? [
        [`${PHASE_NAMES[last?.phase ?? "sparse"]}, step ${last?.step}`, "", ""],
        ["training loss", "loss", fixed(last?.ce, 3)],
        ["λ in the loss", "lambda", last?.lambda_acting?.toPrecision(2) ?? "–"],
        ["expected open edges", "open", last?.expected_open === null ? "–" : percent(last?.expected_open)],
        ["tokens/s", "", speed],
        ["time left", "", duration(run.seconds_left)],
      ]
      : [],
    [
      [`Validation tokens, ${which} ${at?.step}`, "validation", ""],
      ["loss", "", fixed(at?.validation_ce, 4)],
      ["target τ", "tau", fixed(at?.target, 4)],
      ["above target", "", signed(aboveTarget(at))],
      ["open edges", live ? "" : "open", main?.lambda === null ? "–" : percent(at?.open_fraction)],
    ],
    result && result.kind === "sparsify"
      ? [
        [`Test tokens, ${whole(result.test_tokens)}`, "", ""],
        ["loss", "loss", fixed(result.ce, 4)],
        ["dense loss", "", fixed(result.dense_ce, 4)],
        ["dense control", "control", fixed(result.control_ce, 4)],
        ["open edges", "", percent(result.open_fraction)],
      ]
      : [],
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
      element("span", { className: "quiet" }, timeAgo(run.updated)),
    ),
    ...[resultOf(run)].flat(),
    chosen && element("p", { className: "chosen" }, chosen),
    element("div", { className: "groups" }, groups.map(factsOf)),
    !last && !["broken", "sweep"].includes(run.status) && command !== "circuits" && element(
      "p",
      { className: "notice" },
      live ? "No step is done yet. The charts begin with the first." : "No step was done.",
    ),
  ];
}

/** Figures that belong together, under what they were measured on. @param {[string, string, string][]} group */
function factsOf([title, ...facts]) {
  const shown = (facts ?? []).filter(([, , value]) => value !== "–");
  if (!title || shown.length === 0) return null;
  const [name, about] = title;
  return element(
    "section",
    { className: "group" },
    element("h2", {}, about ? word(name, about) : name),
    element(
      "dl",
      { className: "facts" },
      shown.map(([term, about, value]) =>
        element("div", {}, element("dt", {}, about ? word(term, about) : term), element("dd", {}, value))
      ),
    ),
  );
}

/** What a finished run comes to, in words. @param {RunDetail} run */
function resultOf({ result, name }) {
  if (!result) return null;
  if (result.kind === "circuits") return circuitsOf(result);
  if (result.kind === "sweep") return sweepOf(result, name);
  const { ce, open_fraction, test_tokens } = result;
  if (result.kind === "pretrain") {
    return element(
      "p",
      { className: "result" },
      `The new model reaches a loss of ${fixed(ce, 4)} nats on ${whole(test_tokens)} test tokens` +
        (open_fraction < 1 ? `, with ${percent(open_fraction)} of the attention edges open.` : "."),
    );
  }
  const { dense_ce, control_ce } = result;
  return element(
    "p",
    { className: "result" },
    `${percent(open_fraction)} of the attention edges stay open at a loss of ${fixed(ce, 4)} nats on ${
      whole(test_tokens)
    } test tokens; dense ${fixed(dense_ce, 4)}` +
      (control_ce === null ? "." : `, dense fine-tuned ${fixed(control_ce, 4)}.`),
  );
}

/** The runs of a sweep. @param {Extract<NonNullable<RunDetail["result"]>, { kind: "sweep" }>} result @param {string} name */
function sweepOf({ of, runs }, name) {
  if (of === "study") {
    return [
      element(
        "p",
        { className: "result" },
        "A study, whose runs lie in the folders of its stages. Its page, below, has what came of it.",
      ),
      element(
        "p",
        { className: "quiet" },
        "To watch the runs of a stage, serve its folder: deno task serve --runs with the path of this one and the stage’s name.",
      ),
    ];
  }
  const items = runs.map((run) => {
    const href = `runs/${encodeURIComponent(name)}/reports/${encodeURIComponent(run.name)}/report.html`;
    const about = element("span", { className: "quiet" }, run.finished ? "" : " not finished");
    if (!run.finished) return element("li", {}, run.name, about);
    const link = element("a", { href, target: "_blank", rel: "noopener" }, run.name);
    saveInstead(link, about, `${name}-${run.name}.html`);
    return element("li", {}, link, about);
  });
  return [
    element(
      "p",
      { className: "result" },
      "A sweep, whose runs lie in its folder. Its page, below, lays them beside each other.",
    ),
    runs.length > 0
      ? element("ul", {}, items)
      : element("p", { className: "quiet" }, "It has begun no run yet."),
    element(
      "p",
      { className: "quiet" },
      "To watch its runs as any others, serve its folder: deno task serve --runs with the path of this one.",
    ),
  ];
}

/** @param {Extract<NonNullable<RunDetail["result"]>, { kind: "circuits" }>} result */
function circuitsOf({ task, models }) {
  const row = (/** @type {import("../api.ts").CircuitSize} */ { name, able, performance, edges, heads }) => {
    const count = (/** @type {number | null} */ of) => able ? String(of ?? "more than all its") : "–";
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      [percent(performance), count(edges), count(heads)].map((text) => element("td", {}, text)),
    );
  };
  const heads = ["prompts answered right", "edges for 90 % of the effect", "heads for 90 % of the effect"];
  return [
    element("p", { className: "result" }, word(`The circuit of ${task}`, "circuit")),
    element(
      "div",
      { className: "scroll", tabIndex: 0, role: "region", label: "Sizes of the circuit" },
      element(
        "table",
        { className: "figures" },
        element(
          "thead",
          {},
          element("tr", {}, element("td", {}), heads.map((head) => element("th", { scope: "col" }, head))),
        ),
        element("tbody", {}, models.map(row)),
      ),
    ),
    models.some(({ able }) => !able) &&
    element("p", { className: "quiet" }, "A model without sizes cannot do the task."),
    element("p", { className: "quiet" }, "Its report, below, has the circuit to explore."),
  ];
}

/**
 * @param {Steering} steering @param {(change: Partial<Steering>) => void} steer @param {string} base
 * @param {RunDetail} detail
 */
function controlsOf({ status, control, note, token }, steer, base, detail) {
  if (note) return element("p", { className: "note", role: "status" }, note);
  if (!LIVE.includes(status)) return null;
  if (token !== "given") {
    return element(
      "div",
      { className: "row controls" },
      token === "refused"
        ? element(
          "span",
          { className: "note", role: "status" },
          "The server refused this token: it printed another one.",
        )
        : element(
          "span",
          { className: "quiet" },
          "To pause or stop this run, open the address that the server printed, or enter its token:",
        ),
      tokenForm(() => steer({ token: "given" })),
    );
  }
  const wish = async (/** @type {object} */ change) => {
    try {
      steer({ control: await post(`${base}/control`, change) });
    } catch (error) {
      if (error instanceof ApiError && needsToken(error)) return steer({ token: "refused" });
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

/**
 * What happened on the way: failure signatures, and what was changed from outside.
 *
 * @param {RunDetail} run
 */
function happened({ signatures, slack_changes, changes }) {
  return [
    ...signatures.map(({ phase, step, message }) => ({ phase, step, message, sign: true })),
    ...slack_changes.map(({ phase, step, slack }) => ({
      phase,
      step: step + 1,
      message: `slack set to ${fixed(slack, 4)} nats from step ${step + 1} on`,
      sign: false,
    })),
    ...changes.map(({ phase, step, setting, before, now }) => ({
      phase,
      step: step + 1,
      message: `${flag(setting)} ${now} in place of ${before} from step ${step + 1} on, as it was resumed`,
      sign: false,
    })),
  ].sort((a, b) => a.step - b.step);
}

/** @param {ReturnType<typeof happened>} found */
function eventsOf(found) {
  if (found.length === 0) return null;
  const items = found.map(({ phase, message, sign }) =>
    element(
      "li",
      {},
      sign && element("span", { className: "warn" }, "⚠ "),
      `${PHASE_NAMES[phase] ?? phase}: ${message}`,
    )
  );
  const title = found.some(({ sign }) => sign)
    ? word("What happened on the way", "signature")
    : "What happened on the way";
  return [element("h2", {}, title), element("ul", {}, items)];
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
  // A click that comes before it is known which of the two it does waits for that.
  let isWaiting = false;
  link.onclick = (event) => {
    event.preventDefault();
    isWaiting = true;
  };
  const isFree = await opensByLink(href);
  link.onclick = null;
  if (!isFree) saveAtClick(link, about, name);
  if (isWaiting) link.click();
}

/** @param {HTMLAnchorElement} link @param {HTMLElement} about @param {string} name */
function saveAtClick(link, about, name) {
  const { href } = link;
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
  const rows = Object.entries({ adapter: run.adapter, ...run.settings }).map(([name, value]) =>
    element("tr", {}, element("th", { scope: "row" }, flag(name)), element("td", {}, setting(value)))
  );
  return element(
    "details",
    {},
    element("summary", {}, "Settings"),
    element("table", { className: "settings" }, element("tbody", {}, rows)),
  );
}
