/// <reference lib="dom" />
// @ts-check
/** What is shown, by the address: #/ the runs, #/runs/NAME one of them. */
import { ApiError, setToken, takeToken } from "./api.js";
import { element } from "./dom.js";
import { showOverview } from "./overview.js";
import { showRun } from "./run.js";

const view = /** @type {HTMLElement} */ (document.getElementById("view"));
const connection = /** @type {HTMLElement} */ (document.getElementById("connection"));
/** @type {AbortController | undefined} */
let shown;

/** Says whether what is shown is live. @param {"live" | "lost" | ""} state */
function setConnection(state) {
  connection.dataset.state = state;
  connection.textContent = { live: "● live", lost: "○ connection lost, trying again", "": "" }[state];
}

/** @param {unknown} error */
function showError(error) {
  if (error instanceof ApiError && error.status === 401) return askForToken();
  view.replaceChildren(element(
    "section",
    { className: "notice" },
    element("h1", {}, "That did not work"),
    element("p", {}, error instanceof Error ? error.message : String(error)),
    element("p", {}, element("a", { href: "#/" }, "All runs")),
  ));
}

function askForToken() {
  const input = element("input", { name: "token", type: "password", autocomplete: "off", required: true });
  const onsubmit = (/** @type {Event} */ event) => {
    event.preventDefault();
    setToken(input.value.trim());
    show();
  };
  view.replaceChildren(element(
    "section",
    { className: "notice" },
    element("h1", {}, "A token is needed"),
    element("p", {}, "The server printed it, with its address, when it started."),
    element(
      "form",
      { className: "row", onsubmit },
      element("label", {}, "Token ", input),
      element("button", {}, "Go on"),
    ),
  ));
  input.focus();
}

async function show() {
  shown?.abort();
  shown = new AbortController();
  const { signal } = shown;
  setConnection("");
  const [, name] = /^#\/runs\/([^/]+)$/.exec(location.hash) ?? [];
  view.replaceChildren(element("p", { className: "quiet" }, "Loading…"));
  try {
    if (name === undefined) await showOverview(view, { signal, setConnection });
    else await showRun(view, decodeURIComponent(name), { signal, setConnection });
  } catch (error) {
    if (!signal.aborted) showError(error);
  }
}

takeToken();
addEventListener("hashchange", () => {
  takeToken();
  show();
  view.focus();
});
show();
