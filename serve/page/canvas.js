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

/**
 * A canvas whose pixels are set one by one, in one colour of the page: thousands of them within a frame, where as many
 * small rectangles take several.
 *
 * @param {HTMLElement} parent @param {string} [className]
 */
export function pixelsOf(parent, className = "") {
  const { at, context } = canvasOf(parent, className);
  let image = context.createImageData(1, 1);
  let words = new Uint32Array(image.data.buffer);
  return {
    at,
    /** Begins a picture of so many pixels of the canvas, empty. @param {number} width @param {number} height @param {string} name of the colour */
    begin(width, height, name) {
      if (at.width !== width || at.height !== height || image.width !== width || image.height !== height) {
        Object.assign(at, { width, height });
        image = context.createImageData(width, height);
        words = new Uint32Array(image.data.buffer);
      }
      words.fill(0);
      // A colour that is taken is given back as #rrggbb.
      context.fillStyle = getComputedStyle(at).getPropertyValue(name).trim();
      const taken = String(context.fillStyle);
      const [red, green, blue] = [1, 3, 5].map((n) => parseInt(taken.slice(n, n + 2), 16));
      const word = blue << 16 | green << 8 | red;
      return {
        /** Sets a pixel that is not set yet. @param {number} x @param {number} y @param {number} alpha */
        set(x, y, alpha) {
          const n = y * width + x;
          if (words[n] === 0) words[n] = Math.round(255 * alpha) << 24 | word;
        },
        finish: () => context.putImageData(image, 0, 0),
      };
    },
  };
}
