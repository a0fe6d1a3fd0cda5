/// <reference lib="dom" />
// @ts-check
/** Tokens in a row, and an arc from each key to its query above them. */
import {
  edgesIn,
  rankedOf,
  THRESHOLDS,
  titleOf,
  visible,
  watchTokens,
  widthsOf,
} from "./attention_tokens.js";
import { canvasOf } from "./canvas.js";
import { element, svg } from "./dom.js";

/** @import { AttentionEdge } from "../api.ts" */
/** @import { Draw, Ranked } from "./attention_tokens.js" */

/** Pixels between tokens, at least and at most, and beside a drawing. */
export const GAP = 10;
const MOST_GAP = 60;
const MARGIN = 40;
const MOST_HEIGHT = 260;
/** Colours of layers; of deeper models each layer has a hue of its own. */
const COLOURS = [1, 3, 2, 4, 5, 6, 7].map((n) => `--series-${n}`);

/** The colour of a layer's edges: no two layers' are the same. @param {(name: string) => string} colour @param {number} layer @param {number} layers */
export const colourOf = (colour, layer, layers) =>
  layers <= COLOURS.length ? colour(COLOURS[layer]) : `oklch(0.62 0.15 ${Math.round(360 * layer / layers)})`;

/** @type {Draw} */
export function drawArcs(scroll, { tokens, layers, edges: all }, room, onToken) {
  const texts = tokens.map(visible);
  const widths = widthsOf(texts).map((width) => Math.max(12, width));
  // Few tokens take the room there is, up to a distance at which arcs can still be followed.
  const taken = widths.reduce((sum, width) => sum + width, 0);
  const gap = Math.max(GAP, Math.min(MOST_GAP, (room - MARGIN - taken) / (texts.length + 1)));
  let x = gap;
  const places = widths.map((width) => {
    const place = { left: x, middle: x + width / 2, width };
    x += width + gap;
    return place;
  });
  // Of all edges, whichever are drawn: what stands below stays where it is.
  const farthest = all.reduce(
    (most, [, , query, key]) => Math.max(most, places[query].middle - places[key].middle),
    20,
  );
  const height = Math.min(MOST_HEIGHT, 30 + farthest / 3);
  const scale = Math.min(1, (height - 20) / (farthest / 2));

  /** @param {AttentionEdge} edge */
  function arcOf([, , query, key]) {
    const [from, to] = [places[key].middle, places[query].middle];
    const arc = new Path2D();
    if (query === key) arc.arc(from, height - 6, 5, 0, 2 * Math.PI);
    else {
      const radius = (to - from) / 2;
      arc.ellipse(from + radius, height, radius, radius * scale, 0, Math.PI, 2 * Math.PI);
    }
    return { arc, from: from - 6, to: to + 6 };
  }

  const row = svg("svg", { width: x, height: 30, viewBox: `0 0 ${x} 30`, role: "group" });
  const tokenAts = texts.map((text, n) => {
    const token = svg("g", { class: "token", tabindex: 0, role: "img", "data-token": n });
    const ground = svg("rect", {
      x: places[n].left - 3,
      y: 4,
      width: places[n].width + 6,
      height: 22,
      rx: 3,
    });
    const label = svg("text", { x: places[n].middle, y: 20, "text-anchor": "middle" });
    label.textContent = text;
    token.append(ground, label);
    row.append(token);
    return token;
  });
  watchTokens(row, onToken);

  const every = element("div", { className: "every" });
  const sky = element("div", { className: "sky" }, every);
  sky.style.height = `${height}px`;
  const picture = element("div", { className: "arcs" }, sky, row);
  picture.style.width = `${x}px`;
  scroll.append(picture);
  /**
   * A canvas for the edges between one position of the slider and the next, the heaviest on top: another position shows
   * or hides canvases, and draws nothing.
   */
  const layersAt = THRESHOLDS.map(() => canvasOf(every));
  const some = canvasOf(sky, "some");

  /** @type {Ranked} */
  let shown = rankedOf([]);
  /** @type {ReturnType<typeof arcOf>[]} */
  let arcs = [];
  /** Arcs on each canvas. */
  const drawn = THRESHOLDS.map(() => 0);
  let position = 0;
  /** @type {number | undefined} */
  let lit;
  /**
   * What the canvases cover, in pixels from the first token: what can be seen, and once it is scrolled as much on either
   * side.
   */
  let [left, right] = [0, 0];

  /**
   * Draws the edges from one place in their order to another that are wanted, the lightest first.
   *
   * @param {ReturnType<typeof canvasOf>} canvas @param {number} first @param {number} end
   * @param {(edge: AttentionEdge) => boolean} [isWanted]
   */
  function draw(canvas, first, end, isWanted = () => true) {
    canvas.at.style.left = `${left}px`;
    const { context, colour } = canvas.begin(right - left, height);
    const colours = Array.from({ length: layers }, (_, layer) => colourOf(colour, layer, layers));
    context.translate(-left, 0);
    let count = 0;
    for (let n = end - 1; n >= first; n--) {
      const edge = shown.edges[n];
      const { arc, from, to } = arcs[n];
      if (to < left || from > right || !isWanted(edge)) continue;
      context.strokeStyle = colours[edge[0]];
      context.lineWidth = 0.5 + 3.5 * edge[4];
      context.stroke(arc);
      count++;
    }
    return count;
  }
  function drawEvery() {
    layersAt.forEach((canvas, n) => {
      const [first, end] = [shown.counts[n + 1] ?? 0, shown.counts[n]];
      drawn[n] = first < end ? draw(canvas, first, end) : 0;
    });
    reveal();
  }
  function reveal() {
    let count = 0;
    layersAt.forEach(({ at }, n) => {
      const isShown = n >= position && drawn[n] > 0;
      if (at.hidden === isShown) at.hidden = !isShown;
      if (isShown) count += drawn[n];
    });
    every.dataset.drawn = String(count);
  }
  function drawLit() {
    const end = lit === undefined ? 0 : shown.counts[position];
    some.at.dataset.drawn = String(draw(some, 0, end, ([, , query, key]) => query === lit || key === lit));
  }
  /** Draws what has come into sight. */
  function follow() {
    const { scrollLeft: start, clientWidth: seen } = scroll;
    if (left <= start && Math.min(x, start + seen) <= right) return;
    const beside = right === 0 ? 0 : seen;
    left = Math.max(0, start - beside);
    right = Math.min(x, start + seen + beside);
    drawEvery();
    drawLit();
  }
  follow();
  scroll.addEventListener("scroll", follow);
  new ResizeObserver(follow).observe(scroll);
  sky.addEventListener("pointermove", ({ clientX, clientY }) => {
    const { context } = some;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.lineWidth = 6;
    const box = sky.getBoundingClientRect();
    const [at, y] = [clientX - box.left, clientY - box.top];
    const end = shown.counts[position];
    const found = arcs.findIndex(({ arc, from, to }, n) =>
      n < end && from <= at && at <= to && context.isPointInStroke(arc, at, y)
    );
    sky.title = found < 0 ? "" : titleOf(texts, shown.edges[found]);
  });
  return {
    show(ranked, at) {
      shown = ranked;
      position = at;
      arcs = ranked.edges.map(arcOf);
      drawEvery();
      drawLit();
    },
    move(at) {
      position = at;
      reveal();
      if (lit !== undefined) drawLit();
    },
    light(token) {
      if (token === lit) return;
      lit = token;
      sky.classList.toggle("lit", lit !== undefined);
      drawLit();
    },
    tell() {
      const end = shown.counts[position];
      const counts = new Uint32Array(texts.length);
      for (const [, , query, key] of shown.edges.slice(0, end)) {
        counts[query]++;
        if (key !== query) counts[key]++;
      }
      tokenAts.forEach((at, n) => at.setAttribute("aria-label", `${texts[n]}: ${edgesIn(counts[n])}`));
      row.setAttribute("aria-label", `${edgesIn(end)} over ${tokens.length} tokens`);
    },
    repaint() {
      drawEvery();
      drawLit();
    },
  };
}
