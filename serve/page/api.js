/// <reference lib="dom" />
// @ts-check
/** The server, asked with the token where there is one; and its live events, taken up again where they broke off. */

const KEY = "token";

/** The token in the address is kept for this tab and taken out of sight. */
export function takeToken() {
  const found = /[#&]token=([^&]+)/.exec(location.hash);
  if (!found) return;
  sessionStorage.setItem(KEY, decodeURIComponent(found[1]));
  history.replaceState(null, "", location.pathname + location.search + "#/");
}

/** @param {string} token */
export const setToken = (token) => sessionStorage.setItem(KEY, token);

/** Whether there is a token, so that runs can be steered. */
export const hasToken = () => sessionStorage.getItem(KEY) !== null;

/** @returns {Record<string, string>} */
function authorization() {
  const token = sessionStorage.getItem(KEY);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** An answer that is an error, in the server's words. */
export class ApiError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** @param {Response} response */
async function errorOf(response) {
  const { error } = await response.json().catch(() => ({ error: response.statusText }));
  return new ApiError(response.status, error);
}

/** @param {string} path @param {RequestInit} [init] @returns {Promise<any>} */
export async function get(path, init = {}) {
  const response = await fetch(path, { ...init, headers: { ...authorization(), ...init.headers } });
  if (!response.ok) throw await errorOf(response);
  return await response.json();
}

/** @param {string} path @param {unknown} body @param {AbortSignal} [signal] */
export const post = (path, body, signal) =>
  get(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
    signal,
  });

/**
 * Opens a report in a new tab. Where reading needs the token, a plain link cannot carry it.
 * @param {string} path
 */
export async function readReport(path) {
  const response = await fetch(path, { headers: authorization() });
  if (!response.ok) throw await errorOf(response);
  return await response.text();
}

const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 5000;

/**
 * A run's live events, until `signal` ends them. EventSource cannot send a token, so the stream is read by hand.
 *
 * @param {string} run
 * @param {{
 *   after: () => string | null,
 *   onRows: (rows: any[]) => void,
 *   onStatus: (overview: any) => void,
 *   onGone: () => void,
 *   onConnection: (connected: boolean) => void,
 *   signal: AbortSignal,
 * }} options `after` names the place of the last row that was taken
 */
export async function follow(run, { after, onRows, onStatus, onGone, onConnection, signal }) {
  let wait = FIRST_RETRY_MS;
  while (!signal.aborted) {
    try {
      const place = after();
      /** @type {Record<string, string>} */
      const resume = place ? { "Last-Event-ID": place } : {};
      const response = await fetch(`/api/runs/${encodeURIComponent(run)}/events`, {
        headers: { ...authorization(), ...resume },
        signal,
      });
      if (response.status === 404) return onGone();
      if (!response.ok || !response.body) throw await errorOf(response);
      onConnection(true);
      wait = FIRST_RETRY_MS;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let pending = "";
      for (let { value, done } = await reader.read(); !done; { value, done } = await reader.read()) {
        const events = (pending + value).split("\n\n");
        pending = events.pop() ?? "";
        for (const event of events) {
          const field = (/** @type {string} */ name) =>
            event.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
          const data = field("data");
          if (data === undefined) continue;
          const type = field("event");
          if (type === "rows") onRows(JSON.parse(data));
          else if (type === "status") onStatus(JSON.parse(data));
          else if (type === "gone") return onGone();
        }
      }
    } catch {
      // A server that went away, or a network: both are tried again.
    }
    if (signal.aborted) return;
    onConnection(false);
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(2 * wait, LAST_RETRY_MS);
  }
}
