/// <reference lib="dom" />
// @ts-check
/**
 * The server, asked with the token where there is one; and its live events, taken up again where they broke off. Paths
 * are relative to the page, which may stand below a path of a proxy.
 */

const KEY = "token";
/** A token may hold these characters, in an address as they are. */
const IN_ADDRESS = /[#&]token=([A-Za-z0-9._~-]+)/;

/** The token in the address is kept for this tab and taken out of sight. */
export function takeToken() {
  const found = IN_ADDRESS.exec(location.hash);
  if (!found) return;
  sessionStorage.setItem(KEY, found[1]);
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

/** There was no answer at all. */
export class UnreachableError extends Error {}

/** Whether the server wants a token, or another one. @param {unknown} error */
export const needsToken = (error) => error instanceof ApiError && error.status === 401;

/** @param {Response} response */
async function errorOf(response) {
  const { error } = await response.json().catch(() => ({ error: response.statusText }));
  return new ApiError(response.status, error);
}

/** @param {string} path @param {RequestInit} [init] @param {number[]} [also] statuses that are no errors either */
async function answerTo(path, init = {}, also = []) {
  let response;
  try {
    response = await fetch(path, { ...init, headers: { ...authorization(), ...init.headers } });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new UnreachableError("The server cannot be reached", { cause: error });
  }
  if (!response.ok && !also.includes(response.status)) throw await errorOf(response);
  return response;
}

/** @param {string} path @param {RequestInit} [init] @returns {Promise<any>} */
export async function get(path, init = {}) {
  const response = await answerTo(path, init);
  return await response.json();
}

/**
 * Asks again and again for what may be as it was: that is not sent again.
 *
 * @param {string} path
 */
export function repeated(path) {
  let etag = "";
  return {
    /** The answer; undefined where it is as it was. @param {AbortSignal} signal @returns {Promise<any>} */
    async get(signal) {
      const response = await answerTo(path, { signal, headers: etag ? { "If-None-Match": etag } : {} }, [
        304,
      ]);
      if (response.status === 304) return undefined;
      const answer = await response.json();
      etag = response.headers.get("ETag") ?? "";
      return answer;
    },
  };
}

/** @param {string} path @param {unknown} body @param {AbortSignal} [signal] */
export const post = (path, body, signal) =>
  get(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
    signal,
  });

/** A file's bytes. @param {string} path */
export const download = async (path) => await (await answerTo(path)).blob();

/** @type {Promise<boolean> | undefined} */
let readingIsFree;

/** Whether a plain link, which carries no token, opens what lies there. The server is asked once. @param {string} path */
export function opensByLink(path) {
  if (!hasToken()) return Promise.resolve(true);
  return readingIsFree ??= fetch(path, { method: "HEAD" }).then(({ status }) => status !== 401, () => true);
}

const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 5000;
/** The server gives a sign of life every 15 s: after more than two left out, the connection is one in name only. */
const SILENCE_MS = 40_000;

/**
 * A run's live events, until `signal` ends them. EventSource cannot send a token, so the stream is read by hand. Throws
 * where the server wants a token.
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
    const silence = new AbortController();
    const giveUp = () => silence.abort();
    let timer = setTimeout(giveUp, SILENCE_MS);
    try {
      const place = after();
      /** @type {Record<string, string>} */
      const resume = place ? { "Last-Event-ID": place } : {};
      const response = await fetch(`api/runs/${encodeURIComponent(run)}/events`, {
        headers: { ...authorization(), ...resume },
        signal: AbortSignal.any([signal, silence.signal]),
      });
      if (response.status === 404) return onGone();
      if (!response.ok || !response.body) throw await errorOf(response);
      onConnection(true);
      wait = FIRST_RETRY_MS;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let pending = "";
      for (let { value, done } = await reader.read(); !done; { value, done } = await reader.read()) {
        clearTimeout(timer);
        timer = setTimeout(giveUp, SILENCE_MS);
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
    } catch (error) {
      // A server that went away, or a network: both are tried again.
      if (needsToken(error)) throw error;
    } finally {
      clearTimeout(timer);
    }
    if (signal.aborted) return;
    onConnection(false);
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(2 * wait, LAST_RETRY_MS);
  }
}
