/// <reference lib="dom" />
// @ts-check
/** A map of small pictures, one a head: what each attends to, on canvases, from which a head is picked. */
import { edgesIn, THRESHOLDS } from "./attention_tokens.js";
import { canvasOf, pixelsOf } from "./canvas.js";
import { element } from "./dom.js";

/** @import { Ranked } from "./attention_tokens.js" */
/** Whose heads are shown, and their edges. @typedef {{ model: string, layers: number, heads: number, tokens: number, ranked: Ranked, chosen: string }} Shown */

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
  const frames = canvasOf(map, "frames");
  const pictures = pixelsOf(map, "pictures");
  const marks = ["chosen", "pointed"].map((name) => element("span", { className: `mark ${name}` }));
  map.append(...marks);
  pictures.at.style.left = `${NAME_WIDTH}px`;

  /** @type {Shown | undefined} */
  let shown;
  let position = 0;
  /** Edges of each head. */
  let counts = new Uint32Array(0);
  let size = MOST_PIXELS;
  /** The head that is pointed at. */
  let pointed = -1;

  /** Names and frames, which stay as they are while edges come and go. */
  function drawFrames() {
    if (!shown) return;
    const { layers, heads } = shown;
    const room = parent.clientWidth - NAME_WIDTH;
    size = Math.max(LEAST_PIXELS, Math.floor(Math.min(MOST_PIXELS, room / heads, HEIGHT / layers)));
    const { context, colour } = frames.begin(NAME_WIDTH + heads * size, layers * size);
    const inner = size - GAP;
    context.strokeStyle = colour("--edge");
    const all = new Path2D();
    for (let n = 0; n < layers * heads; n++) {
      const [left, top] = cornerOf(n);
      all.rect(left + 0.5, top + 0.5, inner - 1, inner - 1);
    }
    context.stroke(all);
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

  /** @param {number} n */
  function cornerOf(n) {
    const heads = shown?.heads ?? 1;
    return [NAME_WIDTH + n % heads * size, Math.floor(n / heads) * size];
  }

  /** What each head attends to, and how many edges it has. */
  function drawPictures() {
    if (!shown) return;
    const { layers, heads, tokens, ranked } = shown;
    const scale = devicePixelRatio || 1;
    const [width, height] = [heads, layers].map((count) => Math.round(count * size * scale));
    const { set, finish } = pictures.begin(width, height, "--accent");
    Object.assign(pictures.at.style, { width: `${heads * size}px`, height: `${layers * size}px` });
    const dot = (size - GAP) / tokens * scale;
    const side = Math.max(1, Math.round(dot));
    const square = size * scale;
    counts = new Uint32Array(layers * heads);
    const end = ranked.counts[position];
    for (let n = 0; n < end; n++) {
      const [layer, head, query, key, weight] = ranked.edges[n];
      counts[layer * heads + head]++;
      const [left, top] = [head * square + key * dot, layer * square + query * dot].map(Math.floor);
      // Where several fall on one pixel the heaviest, which comes first, is seen.
      for (let y = top; y < top + side; y++) {
        for (let x = left; x < left + side; x++) set(x, y, 0.3 + 0.7 * weight);
      }
    }
    finish();
  }

  function placeMarks() {
    if (!shown) return;
    const { heads, chosen } = shown;
    const [layer, head] = chosen.split(".").map(Number);
    [chosen === "all" ? -1 : layer * heads + head, pointed].forEach((n, at) => {
      const mark = marks[at];
      mark.hidden = n < 0;
      if (n < 0) return;
      const [left, top] = cornerOf(n);
      const side = `${size - GAP}px`;
      Object.assign(mark.style, { left: `${left}px`, top: `${top}px`, width: side, height: side });
    });
  }

  function tell() {
    if (!shown) return;
    const { heads } = shown;
    told.textContent = pointed < 0
      ? "Each square is a head: its queries down, its keys across. Click one to see it alone, or move with the arrow keys and press Enter."
      : `layer ${Math.floor(pointed / heads)}, head ${pointed % heads}: ${
        edgesIn(counts[pointed])
      } of at least ${THRESHOLDS[position]}`;
  }

  /** @param {number} n */
  function point(n) {
    if (n === pointed) return;
    pointed = n;
    placeMarks();
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
  // Nothing else in the map takes the pointer.
  frames.at.addEventListener("pointermove", (event) => point(under(event)));
  frames.at.addEventListener("click", (event) => {
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

  function draw() {
    drawFrames();
    drawPictures();
    placeMarks();
    tell();
  }
  let width = 0;
  new ResizeObserver(() => {
    if (parent.clientWidth === width) return;
    width = parent.clientWidth;
    draw();
  }).observe(parent);

  return {
    /** @param {Shown} what @param {number} at position of the slider */
    show(what, at) {
      shown = what;
      position = at;
      const { model, layers, heads } = what;
      if (pointed >= layers * heads) pointed = -1;
      map.setAttribute(
        "aria-label",
        `${layers} × ${heads} heads, ${model}; arrow keys move, Enter picks one`,
      );
      draw();
    },
    /** Another position of the slider: other edges in the same frames. @param {number} at */
    move(at) {
      position = at;
      drawPictures();
      tell();
    },
    /** Marks the head that is shown alone. @param {string} head */
    choose(head) {
      if (shown) shown = { ...shown, chosen: head };
      placeMarks();
    },
    repaint: draw,
  };
}
