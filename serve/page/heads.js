/// <reference lib="dom" />
// @ts-check
/** Maps of the heads, coloured by their open edges; one that can be moved through the run's history. */
import { isAfter, percent, PHASE_NAMES } from "./format.js";

/** Upper ends of the classes by which a cell is coloured, as in a report; the first is 0 itself. */
export const CLASSES = [0, 0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 1];
/** Heads of a model whose map is drawn: GPT-3 has 9,216. */
export const MOST_HEADS = 10_000;
/** Pixels that a cell with its number takes, and a layer's name. */
const CELL_WIDTH = 57;
const NAME_WIDTH = 66;

/** @param {number | null | undefined} share missing where a row holds fewer heads than the model */
export function classOf(share) {
  const found = CLASSES.findIndex((end) => (share ?? 0) <= end);
  return found < 0 ? CLASSES.length - 1 : found;
}

/** What a cell's number is: per cent. @param {number | null | undefined} share */
const cellText = (share) => percent(share).replace(" %", "");

/**
 * A map of layers × heads. Where its cells are too narrow for numbers it is compact, and the head under the pointer, or
 * the one that arrow keys move to, is told below.
 *
 * @param {HTMLElement} parent @param {{ layers: number, heads: number, label: string }} of
 */
export function createHeadGrid(parent, { layers, heads, label }) {
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", `${label}; arrow keys move from head to head`);
  const table = document.createElement("table");
  table.className = "heads";
  const top = table.createTHead().insertRow();
  top.append(document.createElement("td"));
  for (let head = 0; head < heads; head++) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = String(head);
    cell.className = head % 4 === 0 ? "" : "between";
    top.append(cell);
  }
  const body = table.createTBody();
  /** @type {HTMLTableCellElement[]} */
  const cells = [];
  for (let layer = 0; layer < layers; layer++) {
    const row = body.insertRow();
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = String(layer);
    name.prepend(Object.assign(document.createElement("span"), { className: "wide", textContent: "layer " }));
    row.append(name);
    for (let head = 0; head < heads; head++) cells.push(row.insertCell());
  }
  scroll.append(table);
  const told = document.createElement("p");
  told.className = "quiet told";
  told.setAttribute("role", "status");
  parent.append(scroll, told);

  /** @type {(number | null)[]} */
  let shares = [];
  /** The class of each cell as it stands. @type {number[]} */
  const classes = [];
  let at = -1;
  let compact = false;
  /** Numbers, where there is room for them: laying out a thousand that nobody can read would take longest. */
  const write = () => {
    for (const [n, cell] of cells.entries()) cell.textContent = compact ? "" : cellText(shares[n]);
  };
  const tell = () => {
    told.textContent = at < 0
      ? "Point at a head, or move with the arrow keys, to read its share."
      : `layer ${Math.floor(at / heads)}, head ${at % heads}: ${percent(shares[at])}`;
  };
  /** @param {number} to */
  function point(to) {
    cells[at]?.classList.remove("at");
    at = to;
    cells[at]?.classList.add("at");
    tell();
  }
  table.addEventListener("pointermove", ({ target }) => {
    const over = cells.indexOf(/** @type {any} */ (target));
    if (over >= 0 && over !== at) point(over);
  });
  scroll.addEventListener("keydown", (event) => {
    const [down, right] = {
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
    }[event.key] ?? [0, 0];
    if (down === 0 && right === 0) return;
    event.preventDefault();
    if (at < 0) return point(0);
    const layer = Math.min(layers - 1, Math.max(0, Math.floor(at / heads) + down));
    point(heads * layer + Math.min(heads - 1, Math.max(0, at % heads + right)));
  });
  new ResizeObserver(() => {
    const narrow = parent.clientWidth < NAME_WIDTH + CELL_WIDTH * heads;
    if (narrow === compact) return;
    compact = narrow;
    scroll.classList.toggle("compact", compact);
    write();
  }).observe(parent);
  tell();

  return {
    /** @param {(number | null)[]} all of layer · heads + head */
    show(all) {
      shares = all;
      if (!compact) write();
      cells.forEach((cell, n) => {
        const found = classOf(all[n]);
        if (classes[n] === found) return;
        cell.className = n === at ? `h${found} at` : `h${found}`;
        classes[n] = found;
      });
      if (at >= 0) tell();
    },
  };
}

/** What the colours mean. */
export function headKey() {
  const key = document.createElement("ul");
  key.className = "key";
  key.setAttribute("aria-label", "Colours, per cent of a head’s causal pairs");
  CLASSES.forEach((end, n) => {
    const item = document.createElement("li");
    item.className = `h${n}`;
    const from = n === 1 ? ">0" : String(100 * CLASSES[n - 1]);
    item.textContent = n === 0 ? "0" : `${from} to ${100 * end} %`;
    key.append(item);
  });
  return key;
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
  parent.append(title, caption, slider);
  const grid = createHeadGrid(parent, { layers, heads, label: "Open edges by layer and head" });
  parent.append(headKey());

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
    const which = hard ? "share with hard gates, on validation tokens" : "expected share while training";
    caption.textContent = `${PHASE_NAMES[phase]}, step ${step}: ${which}, per cent of a head’s causal pairs${
      following ? "; follows the run" : ""
    }`;
    slider.setAttribute("aria-valuetext", `step ${step}`);
    parent.dataset.step = String(step);
    grid.show(hard ?? expected);
  }
  show();

  return {
    /** Takes new rows of metrics, of which some may be known. @param {any[]} rows */
    append(rows) {
      for (const { phase, step, open_by_head: hard, expected_open_by_head: expected } of rows) {
        const snapshot = { phase, step, hard, expected };
        if ((hard || expected) && isAfter(snapshot, snapshots.at(-1), snapshots[0]?.phase)) {
          snapshots.push(snapshot);
        }
      }
      show();
    },
  };
}
