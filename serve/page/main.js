/// <reference lib="dom" />
// @ts-check
/** What is shown, by the address: #/ the runs, #/runs/NAME one of them. */
import { html } from "/lib/arrow.js";
import { ApiError, setToken, takeToken } from "./api.js";
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
  view.replaceChildren();
  if (error instanceof ApiError && error.status === 401) return askForToken();
  const message = error instanceof Error ? error.message : String(error);
  html`
    <section class="notice">
      <h1>That did not work</h1>
      <p>${message}</p>
      <p><a href="#/">All runs</a></p>
    </section>
  `(view);
}

function askForToken() {
  html`
    <section class="notice">
      <h1>A token is needed</h1>
      <p>The server printed it, with its address, when it started.</p>
      <form class="row"
        @submit="${(/** @type {Event} */ event) => {
          event.preventDefault();
          const form = /** @type {HTMLFormElement} */ (event.target);
          setToken(String(new FormData(form).get("token") ?? "").trim());
          show();
        }}"><label>Token <input name="token" type="password" autocomplete="off" required></label>
        <button>Go on</button></form>
    </section>
  `(view);
  view.querySelector("input")?.focus();
}

async function show() {
  shown?.abort();
  shown = new AbortController();
  const { signal } = shown;
  setConnection("");
  const [, name] = /^#\/runs\/([^/]+)$/.exec(location.hash) ?? [];
  view.replaceChildren();
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
