/// <reference lib="dom" />
// @ts-check
/** Canvases that are as sharp as the screen, in the page's colours. */
import { element } from "./dom.js";

/** @param {HTMLElement} parent @param {string} [className] */
export function canvasOf(parent, className = "") {
  const at = element("canvas", { className });
  // What it shows is told beside it, in words and in a table.
  at.setAttribute("aria-hidden", "true");
  parent.append(at);
  const context = /** @type {CanvasRenderingContext2D} */ (at.getContext("2d"));
  return {
    at,
    context,
    /** Begins a drawing of so many pixels of the page, empty. @param {number} width @param {number} height */
    begin(width, height) {
      const scale = devicePixelRatio || 1;
      const [across, down] = [
        Math.max(1, Math.round(width * scale)),
        Math.max(1, Math.round(height * scale)),
      ];
      // A size that is set empties the canvas and takes its memory anew.
      if (at.width !== across || at.height !== down) {
        at.width = across;
        at.height = down;
        at.style.width = `${width}px`;
        at.style.height = `${height}px`;
      }
      context.setTransform(scale, 0, 0, scale, 0, 0);
      context.clearRect(0, 0, width, height);
      const style = getComputedStyle(at);
      return { context, colour: (/** @type {string} */ name) => style.getPropertyValue(name).trim() };
    },
  };
}
