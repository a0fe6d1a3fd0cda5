/// <reference lib="dom" />
// @ts-check
/** A cell for each query (down) and key (across), as dark as the heaviest of its edges. */
import { edgesIn, rankedOf, titleOf, visible, watchTokens, widthsOf } from "./attention_tokens.js";
import { pixelsOf } from "./canvas.js";
import { element, svg } from "./dom.js";

/** @import { Draw, Ranked } from "./attention_tokens.js" */

const MARGIN = 40;
/** Pixels that a matrix of many tokens is high. */
const MOST_HEIGHT = 1500;
const MOST_NAME = 160;

/** @type {Draw} */
export function drawMatrix(scroll, { tokens }, room, onToken) {
  const texts = tokens.map(visible);
  const names = Math.min(MOST_NAME, Math.max(...widthsOf(texts)) + 12);
  const least = Math.max(2, Math.min(5, MOST_HEIGHT / texts.length));
  const cell = Math.max(least, Math.min(22, (room / 2 - names - MARGIN) / texts.length));
  const size = cell * texts.length;
  const picture = svg("svg", {
    width: names + size,
    height: size,
    viewBox: `0 0 ${names + size} ${size}`,
    role: "group",
  });
  const rows = texts.map((text, n) => {
    const row = svg("g", { class: "token row-of", tabindex: 0, role: "img", "data-token": n });
    row.append(svg("rect", { x: 0, y: cell * n, width: names + cell * (n + 1), height: cell }));
    if (cell >= 12) {
      const label = svg("text", { x: names - 6, y: cell * (n + 0.75), "text-anchor": "end" });
      label.textContent = text;
      row.append(label);
    }
    picture.append(row);
    return row;
  });
  watchTokens(picture, onToken);
  const both = element("div", { className: "matrix" }, picture);
  scroll.append(both);
  // A pixel for each cell, made as large as the cell by the browser.
  const pixels = pixelsOf(both, "cells");
  Object.assign(pixels.at.style, { left: `${names}px`, width: `${size}px`, height: `${size}px` });

  /** @type {Ranked} */
  let shown = rankedOf([]);
  /** The heaviest edge of each cell by its place in their order; −1 where there is none. */
  const heaviest = new Int32Array(texts.length ** 2);
  let position = 0;

  function draw() {
    const end = shown.counts[position];
    const { set, finish } = pixels.begin(texts.length, texts.length, "--accent");
    let drawn = 0;
    for (let n = 0; n < end; n++) {
      const [, , query, key, weight] = shown.edges[n];
      // The heaviest edge of a cell comes first.
      if (heaviest[query * texts.length + key] !== n) continue;
      set(key, query, 0.15 + 0.85 * weight);
      drawn++;
    }
    finish();
    pixels.at.dataset.drawn = String(drawn);
  }
  both.addEventListener("pointermove", ({ clientX, clientY }) => {
    const { left, top } = both.getBoundingClientRect();
    const [query, key] = [clientY - top, clientX - left - names].map((at) => Math.floor(at / cell));
    const isWithin = [query, key].every((at) => at >= 0 && at < texts.length);
    const found = isWithin ? heaviest[query * texts.length + key] : -1;
    both.title = found >= 0 && found < shown.counts[position] ? titleOf(texts, shown.edges[found]) : "";
  });
  let lit = -1;
  return {
    show(ranked, at) {
      shown = ranked;
      position = at;
      heaviest.fill(-1);
      for (const [n, [, , query, key]] of shown.edges.entries()) {
        const place = query * texts.length + key;
        if (heaviest[place] < 0) heaviest[place] = n;
      }
      draw();
    },
    move(at) {
      position = at;
      draw();
    },
    light(token) {
      rows[lit]?.classList.remove("on");
      lit = token ?? -1;
      rows[lit]?.classList.add("on");
    },
    tell() {
      const end = shown.counts[position];
      const counts = new Uint32Array(texts.length);
      for (const [, , query] of shown.edges.slice(0, end)) counts[query]++;
      rows.forEach((at, n) => at.setAttribute("aria-label", `${texts[n]}: ${edgesIn(counts[n])}`));
      picture.setAttribute(
        "aria-label",
        `${edgesIn(end)}, queries down, keys across, of ${tokens.length} tokens`,
      );
    },
    repaint: draw,
  };
}
