/// <reference lib="dom" />
// @ts-check
/**
 * The attention of a run's model on a prompt, every open edge as an arc over the tokens, and how the model goes on from
 * it: sparse beside dense.
 */
import { post } from "./api.js";
import { element, svg } from "./dom.js";
import { percent, whole } from "./format.js";

/** @import { AttentionAnswer, AttentionEdge, ContinuationAnswer } from "../api.ts" */

const FONT = "14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace";
/** Pixels between tokens, at least and at most, and beside a drawing. */
const GAP = 10;
const MOST_GAP = 60;
const MARGIN = 40;
/** Pixels from which two panels stand side by side, as style.css has it. */
const PANEL_WIDTH = 620;
/** Layers that have a colour of the palette; of deeper models each layer has a hue of its own. */
const COLOURS = 7;
/** Weights below which edges are not drawn, of both models alike; all from the first on are asked for. */
const THRESHOLDS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5];
const FIRST_THRESHOLD = 2;
/** Arcs drawn of one model, the heaviest: more cannot be told apart. */
const MOST_ARCS = 2000;
/** Edges of a token that are named under the drawing. */
const MOST_NAMED = 12;
/** Tokens that a model goes on by. */
const FURTHER = 32;
const SUM = "12+34=";
const PROMPT = "The President of the United States shall be the Commander in Chief of the Army";

/** A token as it can be seen: line ends and tabs by signs. @param {string} token */
const visible = (token) => token.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␣");

/**
 * @param {HTMLElement} parent @param {string} run @param {any} detail @param {AbortSignal} signal
 */
export function createExplorer(parent, run, detail, signal) {
  const { model: began = "", tokenizer = "", data = [] } = detail.settings;
  const input = element("input", {
    name: "prompt",
    type: "text",
    maxLength: 4096,
    required: true,
    autocomplete: "off",
  });
  // A model that adds has no letters.
  input.value = /addition/.test([began, tokenizer, data].join()) ? SUM : PROMPT;
  const button = element("button", {}, "Show attention");
  const further = element("button", { type: "button" }, "Continue");
  const form = element(
    "form",
    { className: "row prompt" },
    element("label", {}, "Prompt ", input),
    button,
    further,
  );
  const note = element("p", { className: "quiet" });
  note.setAttribute("role", "status");
  const heads = element("div", { className: "head-choice" });
  heads.setAttribute("role", "group");
  heads.setAttribute("aria-label", "Head");
  const panels = element("div", { className: "panels" });
  const slider = element("input", {
    type: "range",
    min: "0",
    max: String(THRESHOLDS.length - 1),
    value: String(FIRST_THRESHOLD),
    oninput: () => {
      showHeads();
      show();
    },
  });
  const least = element("output");
  const view = element(
    "select",
    { onchange: () => show() },
    ["arcs", "matrix"].map((name) => element("option", { value: name }, name)),
  );
  const options = element(
    "div",
    { className: "row", hidden: true },
    element("label", {}, "least weight ", slider, " ", least),
    element("label", {}, "drawn as ", view),
  );
  const continuations = element("div");
  parent.append(
    element("h2", {}, "Attention on a prompt"),
    form,
    note,
    continuations,
    options,
    heads,
    panels,
  );
  const threshold = () => THRESHOLDS[Number(slider.value)];

  /** @type {{ sparse?: AttentionAnswer, dense?: AttentionAnswer }} */
  let answers = {};
  // A run of pre-training trains only one of the two.
  const models = /** @type {("sparse" | "dense")[]} */ (
    detail.command === "pretrain" ? [detail.settings.sparse ? "sparse" : "dense"] : ["sparse", "dense"]
  );
  /** "all", or layer and head. @type {string} */
  let chosen = "all";

  /**
   * Asks every model, says what went wrong, and shows what did not.
   *
   * @param {string} what the last part of the address
   * @param {(model: "sparse" | "dense") => object} request beside prompt and model
   * @param {(answers: Partial<Record<"sparse" | "dense", any>>) => void} showAnswers
   */
  async function ask(what, request, showAnswers) {
    button.disabled = further.disabled = true;
    note.textContent = "Asking the model…";
    const prompt = input.value;
    const address = `api/runs/${encodeURIComponent(run)}/${what}`;
    const results = await Promise.allSettled(
      models.map((model) => post(address, { prompt, model, ...request(model) }, signal)),
    );
    if (signal.aborted) return;
    button.disabled = further.disabled = false;
    /** @type {Partial<Record<"sparse" | "dense", any>>} */
    const found = {};
    const errors = new Set();
    results.forEach((result, n) => {
      if (result.status === "fulfilled") found[models[n]] = { prompt, ...result.value };
      else errors.add(result.reason.message);
    });
    note.textContent = [...errors].join(" ");
    showAnswers(found);
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    await ask("attention", () => ({ threshold: THRESHOLDS[0] }), (found) => {
      answers = found;
      showHeads();
      show();
    });
  });

  further.addEventListener("click", async () => {
    if (!form.reportValidity()) return;
    await ask("continuation", () => ({ tokens: FURTHER }), (found) => {
      continuations.replaceChildren(
        ...models.filter((model) => found[model]).map((model) => continuation(model, found[model])),
      );
    });
  });

  /** The choice of a head: all of them, and below a grid with a row a layer. */
  function showHeads() {
    heads.replaceChildren();
    const counted = answers.sparse ?? answers.dense;
    if (!counted) return;
    const choice = (/** @type {string} */ key, /** @type {string} */ title) => {
      const button = element("button", { type: "button", title }, key === "all" ? "all heads" : key);
      button.dataset.head = key;
      button.addEventListener("click", () => {
        chosen = key;
        show();
      });
      return button;
    };
    const grid = element("div", { className: "head-grid" });
    grid.style.gridTemplateColumns = `repeat(${counted.heads}, max-content)`;
    const shown = new Uint32Array(counted.layers * counted.heads);
    for (const [layer, head, , , weight] of counted.edges) {
      if (weight >= threshold()) shown[layer * counted.heads + head]++;
    }
    for (let layer = 0; layer < counted.layers; layer++) {
      for (let head = 0; head < counted.heads; head++) {
        const edges = shown[layer * counted.heads + head];
        const button = choice(`${layer}.${head}`, `layer ${layer}, head ${head}: ${whole(edges)} edges`);
        colourByLayer(button, layer, counted.layers);
        button.classList.toggle("without", edges === 0);
        grid.append(button);
      }
    }
    heads.append(choice("all", "All layers and heads"), grid);
  }

  function show() {
    for (const button of heads.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.head === chosen));
    }
    options.hidden = Object.keys(answers).length === 0;
    least.textContent = String(threshold());
    slider.setAttribute("aria-valuetext", String(threshold()));
    panels.replaceChildren();
    lights.length = 0;
    for (const model of models) {
      if (answers[model]) panels.append(panel(model, answers[model]));
    }
  }

  /** What lights a token up in each panel: they are linked. @type {((token: number | undefined) => void)[]} */
  const lights = [];

  /** @param {"sparse" | "dense"} model @param {AttentionAnswer} answer */
  function panel(model, answer) {
    const mine = answer.edges.filter(([layer, head, , , weight]) =>
      weight >= threshold() && (chosen === "all" || chosen === `${layer}.${head}`)
    );
    const drawn = mine.length <= MOST_ARCS ? mine : mine.toSorted((a, b) => b[4] - a[4]).slice(0, MOST_ARCS);
    const facts = model === "sparse"
      ? `${whole(answer.open)} of ${whole(answer.causal_pairs)} edges are open (${
        percent(answer.open / answer.causal_pairs)
      })`
      : `all ${whole(answer.causal_pairs)} edges are open`;
    const shown = `${chosen === "all" ? "" : `head ${chosen}, `}${
      whole(mine.length)
    } of at least ${threshold()}`;
    const box = element("figure", { className: "attention", data: { model } });
    const ofToken = element("p", { className: "of-token quiet", role: "status" }, TOKEN_HINT);
    const draw = view.value === "matrix" ? matrix : drawing;
    const across = Object.keys(answers).length > 1 && panels.clientWidth >= 2 * PANEL_WIDTH + GAP ? 2 : 1;
    const { picture, light } = draw(answer, drawn, panels.clientWidth / across, (token) => {
      for (const light of lights) light(token);
    });
    lights.push((token) => {
      light(token);
      ofToken.replaceChildren(
        ...token === undefined || token >= answer.tokens.length
          ? [TOKEN_HINT]
          : describe(token, answer.tokens.map(visible), drawn),
      );
    });
    box.append(
      element("figcaption", {}, element("strong", {}, model), ` ${weightsOf(answer)}: ${facts}; ${shown}.`),
      element(
        "div",
        { className: "scroll", tabIndex: 0, role: "region", label: `Attention, ${model}` },
        picture,
      ),
      ofToken,
      element(
        "p",
        {},
        "Next: ",
        answer.next.flatMap(({ token, probability }) => [
          element("code", {}, visible(token)),
          ` ${percent(probability)}  `,
        ]),
      ),
      element(
        "p",
        { className: "quiet" },
        answer.omitted > 0 ? `The answer leaves out the ${whole(answer.omitted)} lightest edges. ` : "",
        drawn.length < mine.length
          ? `The ${whole(MOST_ARCS)} heaviest of ${whole(mine.length)} are drawn. `
          : "",
        answer.truncated ? `The prompt is cut after ${answer.tokens.length} tokens.` : "",
      ),
    );
    return box;
  }
}

/** Which weights answered. @param {Pick<AttentionAnswer, "weights">} answer */
const weightsOf = ({ weights: { kind, step } }) =>
  ({
    model: "the finished model",
    checkpoint: `the checkpoint of step ${step}`,
    dense: "the model that the run began with",
  })[kind];

/** A prompt and what a model makes of it. @param {"sparse" | "dense"} model @param {ContinuationAnswer & { prompt: string }} answer */
function continuation(model, answer) {
  const { prompt, text, ended } = answer;
  const end = {
    tokens: "",
    "end of text": ", to the end of the text",
    positions: ", to the end of its positions",
  };
  return element(
    "figure",
    { className: "continuation", data: { model } },
    element(
      "figcaption",
      {},
      element("strong", {}, model),
      ` ${weightsOf(answer)}, the likeliest token each time${end[ended]}:`,
    ),
    element("p", { className: "text" }, prompt, element("mark", {}, text)),
  );
}

const TOKEN_HINT = "Point at a token, or go to it with Tab, to see its edges and their weights.";

/** What a token reads and what reads it, the heaviest first. @param {number} token @param {string[]} texts @param {AttentionEdge[]} edges */
function describe(token, texts, edges) {
  const own = edges.filter(([, , query, key]) => query === token || key === token).sort((a, b) =>
    b[4] - a[4]
  );
  const items = own.slice(0, MOST_NAMED).map(([layer, head, query, key, weight]) =>
    element(
      "span",
      { className: "edge" },
      element("code", {}, texts[query]),
      " reads ",
      query === key ? "itself" : element("code", {}, texts[key]),
      ` ${weight.toFixed(3)} (${layer}.${head})`,
    )
  );
  const more = own.length - items.length;
  return [
    element("strong", {}, `${texts[token]} has ${own.length} ${own.length === 1 ? "edge" : "edges"}`),
    ...items,
    ...more > 0 ? [`and ${whole(more)} lighter`] : [],
  ];
}

const measure = document.createElement("canvas").getContext("2d");

/** @param {Element} at @param {number} layer @param {number} layers */
function colourByLayer(at, layer, layers) {
  if (layers <= COLOURS) return at.classList.add(`layer-${layer}`);
  // No two layers of one colour, also where there are more than the palette has.
  const colour = `oklch(0.62 0.15 ${Math.round(360 * layer / layers)})`;
  const { style } = /** @type {HTMLElement | SVGElement} */ (at);
  style.stroke = colour;
  style.borderBottomColor = colour;
}

/**
 * What is drawn of an answer, and what lights a token up in it.
 *
 * @typedef {{ picture: SVGElement, light: (token: number | undefined) => void }} Drawn
 */

/**
 * Tokens in a row, and an arc from each key to its query above them. `onToken` is told which one is looked at.
 *
 * @param {AttentionAnswer} answer @param {AttentionEdge[]} edges @param {number} room in pixels @param {(token: number | undefined) => void} onToken
 * @returns {Drawn}
 */
function drawing({ tokens, layers }, edges, room, onToken) {
  const texts = tokens.map(visible);
  if (measure) measure.font = FONT;
  const widths = texts.map((text) => Math.max(12, measure?.measureText(text).width ?? 8 * text.length));
  // Few tokens take the room there is, up to a distance at which arcs can still be followed.
  const taken = widths.reduce((sum, width) => sum + width, 0);
  const gap = Math.max(GAP, Math.min(MOST_GAP, (room - MARGIN - taken) / (texts.length + 1)));
  let x = gap;
  const places = widths.map((width) => {
    const place = { left: x, middle: x + width / 2, width };
    x += width + gap;
    return place;
  });
  const farthest = Math.max(
    20,
    ...edges.map(([, , query, key]) => places[query].middle - places[key].middle),
  );
  const height = Math.min(260, 30 + farthest / 3);
  const scale = Math.min(1, (height - 20) / (farthest / 2));
  const picture = svg("svg", {
    width: x,
    height: height + 30,
    viewBox: `0 0 ${x} ${height + 30}`,
    role: "group",
    "aria-label": `${edges.length} edges over ${tokens.length} tokens`,
  });
  const arcs = svg("g", { class: "arcs" });
  for (const [layer, head, query, key, weight, gate] of edges) {
    const [from, to] = [places[key].middle, places[query].middle];
    const radius = (to - from) / 2;
    const path = query === key
      ? `M ${from - 4} ${height} a 4 8 0 1 1 8 0`
      : `M ${from} ${height} A ${radius} ${radius * scale} 0 0 1 ${to} ${height}`;
    const arc = svg("path", {
      d: path,
      class: "arc",
      "stroke-width": (0.5 + 3.5 * weight).toFixed(2),
      "data-edge": `${layer}.${head}.${query}.${key}`,
    });
    colourByLayer(arc, layer, layers);
    const title = svg("title", {});
    title.textContent = `layer ${layer}, head ${head}: ${texts[query]} reads ${texts[key]}, weight ${
      weight.toFixed(3)
    }${gate === null ? "" : `, gate logit ${gate.toFixed(2)}`}`;
    arc.append(title);
    arcs.append(arc);
  }
  picture.append(arcs);
  texts.forEach((text, n) => {
    const token = svg("g", {
      class: "token",
      tabindex: 0,
      role: "img",
      "data-token": n,
      "aria-label": `${text}: ${edges.filter(([, , query, key]) => query === n || key === n).length} edges`,
    });
    const ground = svg("rect", {
      x: places[n].left - 3,
      y: height + 4,
      width: places[n].width + 6,
      height: 22,
      rx: 3,
    });
    const label = svg("text", { x: places[n].middle, y: height + 20, "text-anchor": "middle" });
    label.textContent = text;
    token.append(ground, label);
    for (const event of ["pointerenter", "focus"]) token.addEventListener(event, () => onToken(n));
    for (const event of ["pointerleave", "blur"]) token.addEventListener(event, () => onToken(undefined));
    picture.append(token);
  });
  return {
    picture,
    light(lit) {
      picture.classList.toggle("lit", lit !== undefined);
      edges.forEach(([, , query, key], n) => {
        arcs.children[n].classList.toggle("on", lit !== undefined && (query === lit || key === lit));
      });
    },
  };
}

/**
 * A cell for each query (down) and key (across), as dark as the heaviest of its edges. `onToken` is told which query is
 * looked at.
 *
 * @param {AttentionAnswer} answer @param {AttentionEdge[]} edges @param {number} room in pixels @param {(token: number | undefined) => void} onToken
 * @returns {Drawn}
 */
function matrix({ tokens }, edges, room, onToken) {
  const texts = tokens.map(visible);
  if (measure) measure.font = FONT;
  const names = Math.min(160, Math.max(...texts.map((text) => measure?.measureText(text).width ?? 8)) + 12);
  const cell = Math.max(5, Math.min(22, (room / 2 - names - MARGIN) / texts.length));
  const size = cell * texts.length;
  const picture = svg("svg", {
    width: names + size,
    height: size,
    viewBox: `0 0 ${names + size} ${size}`,
    role: "group",
    "aria-label": `${edges.length} edges, queries down, keys across, of ${tokens.length} tokens`,
  });
  /** @type {Map<string, AttentionEdge>} */
  const heaviest = new Map();
  for (const edge of edges) {
    const at = `${edge[2]}.${edge[3]}`;
    if (edge[4] > (heaviest.get(at)?.[4] ?? 0)) heaviest.set(at, edge);
  }
  const rows = texts.map((text, n) => {
    const row = svg("g", {
      class: "token row-of",
      tabindex: 0,
      role: "img",
      "data-token": n,
      "aria-label": `${text}: ${edges.filter(([, , query]) => query === n).length} edges`,
    });
    row.append(svg("rect", { x: 0, y: cell * n, width: names + cell * (n + 1), height: cell }));
    if (cell >= 12) {
      const label = svg("text", { x: names - 6, y: cell * (n + 0.75), "text-anchor": "end" });
      label.textContent = text;
      row.append(label);
    }
    for (const event of ["pointerenter", "focus"]) row.addEventListener(event, () => onToken(n));
    for (const event of ["pointerleave", "blur"]) row.addEventListener(event, () => onToken(undefined));
    picture.append(row);
    return row;
  });
  for (const [layer, head, query, key, weight] of heaviest.values()) {
    const at = svg("rect", {
      class: "cell",
      x: names + cell * key,
      y: cell * query,
      width: cell,
      height: cell,
      opacity: (0.15 + 0.85 * weight).toFixed(2),
    });
    const title = svg("title", {});
    title.textContent = `layer ${layer}, head ${head}: ${texts[query]} reads ${texts[key]}, weight ${
      weight.toFixed(3)
    }`;
    at.append(title);
    rows[query].append(at);
  }
  return {
    picture,
    light(lit) {
      rows.forEach((row, n) => row.classList.toggle("on", n === lit));
    },
  };
}
