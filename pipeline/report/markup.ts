/**
 * HTML and SVG text in which whatever is filled in is escaped, unless it is markup itself.
 *
 * @module
 */

/** Text that is markup already. */
export interface Markup {
  readonly markup: string;
}

/** What may stand between the pieces of a template; null and undefined leave nothing. */
export type Filling = Markup | string | number | null | undefined | readonly Filling[];

const ENTITIES: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};
// Neither HTML nor XML can hold these, escaped or not.
// deno-lint-ignore no-control-regex
const FORBIDDEN = /[\0-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]/g;

function fill(filling: Filling): string {
  if (filling === null || filling === undefined) return "";
  if (typeof filling === "number") return String(filling);
  if (typeof filling === "string") {
    return filling.replace(FORBIDDEN, "\ufffd").replace(/[&<>"']/g, (character) => ENTITIES[character]);
  }
  return "markup" in filling ? filling.markup : filling.map(fill).join("");
}

/**
 * A tagged template for markup: strings filled in are escaped, for content and for quoted attributes alike; lists are
 * joined.
 *
 * @example
 * ```ts
 * import { markup } from "./markup.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const item = markup`<li>${"1 < 2"}</li>`;
 * assertEquals(markup`<ul>${[item]}</ul>`.markup, "<ul><li>1 &lt; 2</li></ul>");
 * ```
 */
export function markup(pieces: TemplateStringsArray, ...fillings: Filling[]): Markup {
  return { markup: pieces.reduce((text, piece, n) => text + fill(fillings[n - 1]) + piece) };
}
