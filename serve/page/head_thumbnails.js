/// <reference lib="dom" />
// @ts-check
/** A map of small pictures, one a head: what each attends to, on one canvas, from which a head is picked. */
import { canvasOf } from "./canvas.js";
import { element } from "./dom.js";
import { whole } from "./format.js";

/** @import { AttentionEdge } from "../api.ts" */
/** Whose heads are shown, and of their edges those that are heavy enough. @typedef {{ model: string, layers: number, heads: number, tokens: number, edges: AttentionEdge[], chosen: string, least: number }} Shown */

/** Pixels of a head, at most and at least: 32 of these stand beside each other on a phone, with their layers' names. */
const MOST_PIXELS = 64;
const LEAST_PIXELS = 8;
/** Pixels that the map is high, where its heads can still be told apart. */
const HEIGHT = 720;
const NAME_WIDTH = 28;
const GAP = 2;

/**
 * @param {HTMLElement} parent @param {(head: string) => void} onPick told the layer and head that were picked: "3.11"
 */
export function createHeadThumbnails(parent, onPick) {
  const map = element("div", { className: "thumbnails scroll", tabIndex: 0 });
  map.setAttribute("role", "group");
  const told = element("p", { className: "quiet told", role: "status" });
  parent.append(map, told);
  const { at: canvas, begin } = canvasOf(map);

  /** @type {Shown | undefined} */
  let shown;
  /** Edges of each head. */
  let counts = new Uint32Array(0);
  let size = MOST_PIXELS;
  /** The head that is pointed at. */
  let pointed = -1;

  function draw() {
    if (!shown) return;
    const { layers, heads, tokens, edges, chosen } = shown;
    const room = parent.clientWidth - NAME_WIDTH;
    size = Math.max(LEAST_PIXELS, Math.floor(Math.min(MOST_PIXELS, room / heads, HEIGHT / layers)));
    const { context, colour } = begin(NAME_WIDTH + heads * size, layers * size);
    const inner = size - GAP;
    const dot = inner / tokens;
    const mark = Math.max(1, dot);
    const left = (/** @type {number} */ head) => NAME_WIDTH + head * size;
    context.fillStyle = colour("--accent");
    for (const [layer, head, query, key, weight] of edges) {
      context.globalAlpha = 0.3 + 0.7 * weight;
      context.fillRect(left(head) + key * dot, layer * size + query * dot, mark, mark);
    }
    context.globalAlpha = 1;
    context.strokeStyle = colour("--edge");
    for (let n = 0; n < layers * heads; n++) {
      context.strokeRect(left(n % heads) + 0.5, Math.floor(n / heads) * size + 0.5, inner - 1, inner - 1);
    }
    const frame = (/** @type {number} */ n, /** @type {string} */ name) => {
      context.strokeStyle = colour(name);
      context.lineWidth = 3;
      context.strokeRect(left(n % heads), Math.floor(n / heads) * size, inner, inner);
      context.lineWidth = 1;
    };
    const [layer, head] = chosen.split(".").map(Number);
    if (chosen !== "all") frame(layer * heads + head, "--vermillion");
    if (pointed >= 0) frame(pointed, "--ink");
    // As many names as there is room for.
    const every = Math.ceil(14 / size);
    context.fillStyle = colour("--quiet");
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (let layer = 0; layer < layers; layer += every) {
      context.fillText(String(layer), NAME_WIDTH - 6, layer * size + inner / 2);
    }
  }

  function tell() {
    if (!shown) return;
    const { heads, least } = shown;
    told.textContent = pointed < 0
      ? "Each square is a head: its queries down, its keys across. Click one to see it alone, or move with the arrow keys and press Enter."
      : `layer ${Math.floor(pointed / heads)}, head ${pointed % heads}: ${whole(counts[pointed])} ${
        counts[pointed] === 1 ? "edge" : "edges"
      } of at least ${least}`;
  }

  /** @param {number} n */
  function point(n) {
    if (n === pointed) return;
    pointed = n;
    draw();
    tell();
  }
  const pick = () => {
    if (shown && pointed >= 0) onPick(`${Math.floor(pointed / shown.heads)}.${pointed % shown.heads}`);
  };
  /** The head under the pointer; −1 beside them. @param {PointerEvent | MouseEvent} event */
  function under({ offsetX, offsetY }) {
    if (!shown) return -1;
    const [layer, head] = [Math.floor(offsetY / size), Math.floor((offsetX - NAME_WIDTH) / size)];
    return layer < shown.layers && head >= 0 && head < shown.heads ? layer * shown.heads + head : -1;
  }
  canvas.addEventListener("pointermove", (event) => point(under(event)));
  canvas.addEventListener("click", (event) => {
    point(under(event));
    pick();
  });
  map.addEventListener("keydown", (event) => {
    if (!shown) return;
    const { layers, heads } = shown;
    const [down, right] = {
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
    }[event.key] ?? [0, 0];
    if (event.key === "Enter" || event.key === " ") pick();
    else if (down === 0 && right === 0) return;
    else if (pointed < 0) point(0);
    else {
      const layer = Math.min(layers - 1, Math.max(0, Math.floor(pointed / heads) + down));
      point(heads * layer + Math.min(heads - 1, Math.max(0, pointed % heads + right)));
    }
    event.preventDefault();
  });
  new ResizeObserver(draw).observe(parent);

  return {
    /** @param {Shown} what */
    show(what) {
      shown = what;
      const { model, layers, heads, edges } = what;
      counts = new Uint32Array(layers * heads);
      for (const [layer, head] of edges) counts[layer * heads + head]++;
      if (pointed >= layers * heads) pointed = -1;
      map.setAttribute(
        "aria-label",
        `${layers} × ${heads} heads, ${model}; arrow keys move, Enter picks one`,
      );
      draw();
      tell();
    },
  };
}
