/// <reference lib="dom" />
// @ts-check
/** Elements from data. What is given as text stays text, whatever stands in it. */
import { ago } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * An element with properties (`className`, `onclick`, …), data attributes under `data`, and children.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Partial<Omit<HTMLElementTagNameMap[Tag], "children">> & { data?: Record<string, string>, label?: string }} properties
 * @param {(Child | Child[])[]} children those that are null or false are left out
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, { data = {}, label, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  Object.assign(made.dataset, data);
  if (label !== undefined) made.setAttribute("aria-label", label);
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) made.append(child);
  }
  return made;
}

/** @param {string} tag @param {Record<string, string | number>} attributes */
export function svg(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  return made;
}

/** How long ago something was, which {@link refreshTimes} keeps true. @param {string | null} time ISO 8601 */
export const timeAgo = (time) => time && element("time", { dateTime: time }, ago(time));

/** Brings every {@link timeAgo} up to now. */
export function refreshTimes() {
  for (const time of document.querySelectorAll("time")) time.textContent = ago(time.dateTime);
}

/**
 * A place whose content is made anew from data, and is touched only where it differs: what is typed, selected or
 * unfolded stays as it is until there is news for it. An element with `data-key` that has the focus passes it on to its
 * successor.
 *
 * @template Data
 * @param {(data: Data) => Child | Child[]} render
 */
export function place(render) {
  const at = element("div");
  let shown = "";
  return {
    at,
    /** @param {Data} data */
    show(data) {
      const key = JSON.stringify(data) ?? "";
      if (key === shown) return;
      shown = key;
      const focused = at.contains(document.activeElement)
        ? /** @type {HTMLElement} */ (document.activeElement).dataset.key
        : undefined;
      at.replaceChildren(...element("div", {}, render(data)).childNodes);
      if (focused === undefined) return;
      const next = at.querySelector(`[data-key="${CSS.escape(focused)}"]`);
      /** @type {HTMLElement | null} */ (next)?.focus({ preventScroll: true });
    },
  };
}
