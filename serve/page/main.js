/// <reference lib="dom" />
// @ts-check
/** What is shown, by the address: #/ the runs, #/runs/NAME one of them, #/compare?runs=A,B several. */
import { hasToken, needsToken, takeToken, UnreachableError } from "./api.js";
import { showCompare } from "./compare.js";
import { element, refreshTimes } from "./dom.js";
import { showOverview } from "./overview.js";
import { showRun } from "./run.js";
import { tokenForm } from "./token.js";
import { loadWords } from "./words.js";

const RETRY_MS = 2000;
const TIMES_MS = 1000;

const view = /** @type {HTMLElement} */ (document.getElementById("view"));
const connection = /** @type {HTMLElement} */ (document.getElementById("connection"));
/** @type {AbortController | undefined} */
let shown;

/** Says whether news of a run that goes on arrive. @param {"live" | "lost" | ""} state */
function setConnection(state) {
  connection.dataset.state = state;
  connection.textContent = { live: "● live", lost: "○ connection lost, trying again", "": "" }[state];
}

/** @param {unknown} error */
function showError(error) {
  if (needsToken(error)) return askForToken();
  const again = error instanceof UnreachableError;
  if (again) {
    setConnection("lost");
    const timer = setTimeout(show, RETRY_MS);
    shown?.signal.addEventListener("abort", () => clearTimeout(timer));
  }
  view.replaceChildren(element(
    "section",
    { className: "notice" },
    element("h1", {}, "That did not work"),
    element("p", {}, error instanceof Error ? error.message : String(error)),
    again && element("p", { className: "quiet" }, "Trying again."),
    element("p", {}, element("a", { href: "#/" }, "All runs")),
  ));
}

function askForToken() {
  const form = tokenForm(show);
  view.replaceChildren(element(
    "section",
    { className: "notice" },
    element("h1", {}, "A token is needed"),
    hasToken() && element("p", { className: "note" }, "The server refused the one that was given."),
    element("p", {}, "The server printed it, with its address, when it started."),
    form,
  ));
  form.querySelector("input")?.focus();
}

async function show() {
  shown?.abort();
  shown = new AbortController();
  const { signal } = shown;
  setConnection("");
  const [, name] = /^#\/runs\/([^/?]+)$/.exec(location.hash) ?? [];
  view.replaceChildren(element("p", { className: "quiet" }, "Loading…"));
  try {
    if (location.hash.startsWith("#/compare")) await showCompare(view, { signal, setConnection });
    else if (name === undefined) await showOverview(view, { signal, setConnection });
    else await showRun(view, decodeURIComponent(name), { signal, setConnection });
  } catch (error) {
    if (signal.aborted) return;
    // What was begun ends; only the message is left.
    shown.abort();
    shown = new AbortController();
    setConnection("");
    showError(error);
  }
}

takeToken();
loadWords().catch(() => {});
setInterval(refreshTimes, TIMES_MS);
addEventListener("hashchange", () => {
  takeToken();
  show();
  view.focus();
});
show();
