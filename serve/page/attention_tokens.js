/// <reference lib="dom" />
// @ts-check
/** What drawings of attention have in common: tokens as they are read, and edges from the heaviest on. */
import { whole } from "./format.js";

/** @import { AttentionAnswer, AttentionEdge } from "../api.ts" */

const FONT = "14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace";
const measure = document.createElement("canvas").getContext("2d");

/** Weights below which edges are not drawn, by the slider's position; all from the first on are asked for. */
export const THRESHOLDS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5];

/**
 * @typedef {object} Drawing
 * @property {(shown: Ranked, position: number) => void} show draws these edges, at a position of the slider
 * @property {(position: number) => void} move the slider stands elsewhere: within a frame, also of thousands of edges
 * @property {(token: number | undefined) => void} light lights a token's edges up
 * @property {() => void} tell says in words how many edges are drawn, once the slider stands
 * @property {() => void} repaint draws everything anew, in other colours
 */

/**
 * Draws an answer in `scroll`, which has so many pixels of room, and tells which token is looked at. Elements are made
 * once; edges are drawn on canvases: as elements, thousands of them would take longer to lay out than a frame.
 *
 * @typedef {(scroll: HTMLElement, answer: AttentionAnswer, room: number,
 *   onToken: (token: number | undefined) => void) => Drawing} Draw
 */

/** A token as it can be seen: line ends and tabs by signs. @param {string} token */
export const visible = (token) => token.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␣");

/** @param {number} count */
export const edgesIn = (count) => `${whole(count)} ${count === 1 ? "edge" : "edges"}`;

/** Pixels that each text takes. @param {string[]} texts */
export function widthsOf(texts) {
  if (measure) measure.font = FONT;
  return texts.map((text) => measure?.measureText(text).width ?? 8 * text.length);
}

/**
 * Edges from the heaviest on, and how many of them are drawn at each position of the slider.
 *
 * @typedef {{ edges: AttentionEdge[], counts: number[] }} Ranked
 */

/** @param {AttentionEdge[]} edges sorted, the heaviest first @returns {Ranked} */
export function rankedOf(edges) {
  const counts = THRESHOLDS.map((least) => {
    let [low, high] = [0, edges.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (edges[middle][4] >= least) low = middle + 1;
      else high = middle;
    }
    return low;
  });
  return { edges: edges.slice(0, counts[0]), counts };
}

/** What an edge is, for who points at it. @param {string[]} texts @param {AttentionEdge} edge */
export const titleOf = (texts, [layer, head, query, key, weight, gate]) =>
  `layer ${layer}, head ${head}: ${texts[query]} reads ${texts[key]}, weight ${weight.toFixed(3)}${
    gate === null ? "" : `, gate logit ${gate.toFixed(2)}`
  }`;

/**
 * Tells which token is pointed at or has the focus. One listener for all of them, as there may be hundreds.
 *
 * @param {Element} parent of elements with `data-token` @param {(token: number | undefined) => void} onToken
 */
export function watchTokens(parent, onToken) {
  const tokenOf = (/** @type {Event} */ { target }) => {
    const found = /** @type {Element} */ (target).closest("[data-token]")?.getAttribute("data-token");
    return found === undefined || found === null ? undefined : Number(found);
  };
  for (const name of ["pointerover", "focusin"]) {
    parent.addEventListener(name, (event) => onToken(tokenOf(event)));
  }
  for (const name of ["pointerleave", "focusout"]) parent.addEventListener(name, () => onToken(undefined));
}
