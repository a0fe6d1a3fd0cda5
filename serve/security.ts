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

/**
 * The policy of a self-contained report: exactly the scripts and styles that stand in it, told by their hashes, and no
 * connection to anywhere.
 */
export function reportPolicy(html: string): string {
  const hashes = (tag: string): string =>
    [...html.matchAll(new RegExp(`<${tag}\\b[^>]*>([\\s\\S]*?)</${tag}>`, "gi"))]
      .map(([, text]) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`)
      .join(" ") || "'none'";
  return `default-src 'none'; script-src ${hashes("script")}; style-src ${hashes("style")}; img-src data:; ` +
    `base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-scripts`;
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
