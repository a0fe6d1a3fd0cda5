/// <reference lib="dom" />
// @ts-check
/** A map of the heads, coloured by their open edges, that can be moved through the run's history. */
import { isAfter, percent, PHASE_NAMES } from "./format.js";

/** Stops of the cividis map (Nuñez, Anderton and Renslow 2018), dark to light: for every colour vision, and in grey. */
const STOPS = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [194, 184, 108], [254, 232, 56]];
/** Shares below this one are the darkest, 1 is the lightest, and between them the scale is logarithmic. */
const LOWEST = 1e-5;

/** @param {number | null | undefined} share missing where a row holds fewer heads than the model */
function colourOf(share) {
  const at = !share || share <= LOWEST
    ? 0
    : (1 - Math.log(Math.min(share, 1)) / Math.log(LOWEST)) * (STOPS.length - 1);
  const below = Math.min(Math.floor(at), STOPS.length - 2);
  const rgb = STOPS[below].map((from, n) => Math.round(from + (at - below) * (STOPS[below + 1][n] - from)));
  const luminance = 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2];
  return { background: `rgb(${rgb.join(" ")})`, ink: luminance > 110 ? "#000" : "#fff" };
}

/**
 * @param {HTMLElement} parent
 * @param {{ layers: number, heads: number, snapshots: any[] }} answer
 */
export function createHeadMap(parent, { layers, heads, snapshots }) {
  const title = document.createElement("h2");
  title.textContent = "Open edges by head";
  const caption = document.createElement("p");
  caption.className = "quiet";
  const slider = document.createElement("input");
  slider.type = "range";
  slider.min = "0";
  slider.setAttribute("aria-label", "Step");
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  const table = document.createElement("table");
  table.className = "heads";
  const top = table.createTHead().insertRow();
  top.append(document.createElement("td"));
  for (let head = 0; head < heads; head++) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = String(head);
    top.append(cell);
  }
  const body = table.createTBody();
  /** @type {HTMLTableCellElement[]} */
  const cells = [];
  for (let layer = 0; layer < layers; layer++) {
    const row = body.insertRow();
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = `layer ${layer}`;
    row.append(name);
    for (let head = 0; head < heads; head++) cells.push(row.insertCell());
  }
  scroll.append(table);
  const key = document.createElement("p");
  key.className = "quiet key";
  const [from, ramp, to] = ["span", "span", "span"].map((tag) => document.createElement(tag));
  from.textContent = percent(LOWEST);
  ramp.className = "ramp";
  to.textContent = "100 %, logarithmic";
  key.append(from, ramp, to);
  parent.append(title, caption, slider, scroll, key);

  let following = true;
  slider.addEventListener("input", () => {
    following = Number(slider.value) === snapshots.length - 1;
    show();
  });

  function show() {
    slider.hidden = snapshots.length < 2;
    slider.max = String(Math.max(0, snapshots.length - 1));
    if (following) slider.value = slider.max;
    const at = Number(slider.value);
    const snapshot = snapshots[at];
    parent.dataset.snapshots = String(snapshots.length);
    parent.hidden = !snapshot;
    if (!snapshot) return;
    const { phase, step, hard, expected } = snapshot;
    const shares = hard ?? expected;
    const which = hard ? "share with hard gates, on validation tokens" : "expected share while training";
    caption.textContent = `${PHASE_NAMES[phase]}, step ${step}: ${which}${
      following ? "; follows the run" : ""
    }`;
    slider.setAttribute("aria-valuetext", `step ${step}`);
    parent.dataset.step = String(step);
    cells.forEach((cell, n) => {
      const { background, ink } = colourOf(shares[n]);
      cell.style.backgroundColor = background;
      cell.style.color = ink;
      cell.textContent = percent(shares[n]).replace(" %", "");
      cell.title = `layer ${Math.floor(n / heads)}, head ${n % heads}: ${percent(shares[n])}`;
    });
  }
  show();

  return {
    /** Takes new rows of metrics, of which some may be known. @param {any[]} rows */
    append(rows) {
      for (const { phase, step, open_by_head: hard, expected_open_by_head: expected } of rows) {
        const snapshot = { phase, step, hard, expected };
        if ((hard || expected) && isAfter(snapshot, snapshots.at(-1))) snapshots.push(snapshot);
      }
      show();
    },
  };
}
