/**
 * What every request has to pass: a Host header of ours (against DNS rebinding), sizes within bounds, a token where one
 * is needed; and the headers that every answer carries.
 *
 * @module
 */
import { createHash, timingSafeEqual } from "node:crypto";
import type { MiddlewareHandler } from "hono";
import { problem } from "./problem.ts";

const MAX_URL_CHARACTERS = 2048;
const MAX_HEADER_BYTES = 16 << 10;

/** The policy of the page: its own scripts and styles and nothing inline. */
export const PAGE_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** Scripts and styles of a report that are let through: ours have a handful, and a policy is one header. */
const MOST_ELEMENTS = 64;
const [LESS, GREATER, SLASH] = [..."<>/"].map((sign) => sign.charCodeAt(0));

/**
 * The policy of a self-contained report: exactly the scripts and styles that stand in it, told by their hashes, and no
 * connection to anywhere.
 */
export function reportPolicy(html: Uint8Array): string {
  const hashes = { script: new Set<string>(), style: new Set<string>() };
  for (const { tag, text } of inlineElements(html)) {
    if (hashes[tag].size < MOST_ELEMENTS) {
      hashes[tag].add(`'sha256-${createHash("sha256").update(text).digest("base64")}'`);
    }
  }
  const [scripts, styles] = [hashes.script, hashes.style].map((found) => [...found].join(" ") || "'none'");
  return `default-src 'none'; script-src ${scripts}; style-src ${styles}; img-src data:; ` +
    `base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-scripts`;
}

/** The scripts and styles of a page in order; each byte is passed once, whatever is left open. */
function* inlineElements(html: Uint8Array): Generator<{ tag: "script" | "style"; text: Uint8Array }> {
  for (let at = html.indexOf(LESS); at >= 0; at = html.indexOf(LESS, at + 1)) {
    const tag = (["script", "style"] as const).find((name) => isTag(html, at + 1, name));
    if (!tag) continue;
    const begin = html.indexOf(GREATER, at) + 1;
    if (begin === 0) return;
    let end = html.indexOf(LESS, begin);
    while (end >= 0 && !(html[end + 1] === SLASH && isTag(html, end + 2, tag))) {
      end = html.indexOf(LESS, end + 1);
    }
    if (end < 0) return;
    yield { tag, text: html.subarray(begin, end) };
    at = end;
  }
}

/** Whether a tag's name stands at this byte, in capitals or not, and ends there. */
function isTag(html: Uint8Array, at: number, name: string): boolean {
  for (let n = 0; n < name.length; n++) {
    if ((html[at + n] | 0x20) !== name.charCodeAt(n)) return false;
  }
  return /[^\w-]/.test(String.fromCharCode(html[at + name.length] ?? GREATER));
}

/** Headers of every answer. */
export function answerHeaders(): MiddlewareHandler {
  return async (context, next) => {
    await next();
    const { headers } = context.res;
    if (!headers.has("Content-Security-Policy")) headers.set("Content-Security-Policy", PAGE_POLICY);
    if (!headers.has("Cache-Control")) headers.set("Cache-Control", "no-store");
    headers.set("X-Content-Type-Options", "nosniff");
    headers.set("X-Frame-Options", "DENY");
    headers.set("Referrer-Policy", "no-referrer");
    headers.set("Cross-Origin-Resource-Policy", "same-origin");
    headers.set("Cross-Origin-Opener-Policy", "same-origin");
  };
}

/** Refuses URLs and headers beyond any use. */
export function boundedRequest(): MiddlewareHandler {
  return async (context, next) => {
    if (context.req.url.length > MAX_URL_CHARACTERS) throw problem(414, "The address is too long");
    let bytes = 0;
    for (const [name, value] of context.req.raw.headers) bytes += name.length + value.length;
    if (bytes > MAX_HEADER_BYTES) throw problem(431, "The headers are too large");
    await next();
  };
}

/**
 * Refuses requests by another name than this server's. A page of another site can make a browser ask 127.0.0.1 under
 * that site's name, but not under ours; an address in digits cannot be taken over that way.
 */
export function knownHost(names: readonly string[]): MiddlewareHandler {
  const known = new Set(["localhost", ...names.map((name) => name.toLowerCase())]);
  return async (context, next) => {
    const host = (context.req.header("Host") ?? "").toLowerCase().replace(/:\d{1,5}$/, "");
    const isAddress = /^\d{1,3}(\.\d{1,3}){3}$/.test(host) || /^\[[0-9a-f:.]+\]$/.test(host);
    if (!isAddress && !known.has(host)) {
      throw problem(421, "Unknown Host: start the server with --allow-host for this name");
    }
    await next();
  };
}

/** Asks for `Authorization: Bearer <token>`, compared in constant time. */
export function tokenNeeded(token: string): MiddlewareHandler {
  const digest = (text: string): Uint8Array => createHash("sha256").update(text).digest();
  const wanted = digest(token);
  return async (context, next) => {
    const [, given = ""] = /^Bearer ([!-~]{1,512})$/.exec(context.req.header("Authorization") ?? "") ?? [];
    if (!timingSafeEqual(digest(given), wanted)) {
      throw problem(401, "A token is needed: Authorization: Bearer <token>", {
        "WWW-Authenticate": "Bearer",
      });
    }
    await next();
  };
}
