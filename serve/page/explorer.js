/// <reference lib="dom" />
// @ts-check
/**
 * The attention of a run's model on a prompt, every open edge as an arc over the tokens, and how the model goes on from
 * it: sparse beside dense.
 */
import { post } from "./api.js";
import { canvasOf } from "./canvas.js";
import { element, svg } from "./dom.js";
import { percent, whole } from "./format.js";
import { createHeadThumbnails } from "./head_thumbnails.js";

/** @import { AttentionAnswer, AttentionEdge, ContinuationAnswer } from "../api.ts" */

const FONT = "14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace";
/** Pixels between tokens, at least and at most, and beside a drawing. */
const GAP = 10;
const MOST_GAP = 60;
const MARGIN = 40;
/** Pixels from which two panels stand side by side, as style.css has it. */
const PANEL_WIDTH = 620;
/** Colours of layers; of deeper models each layer has a hue of its own. */
const COLOURS = [1, 3, 2, 4, 5, 6, 7].map((n) => `--series-${n}`);
/** Weights below which edges are not drawn, of both models alike; all from the first on are asked for. */
const THRESHOLDS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5];
const FIRST_THRESHOLD = 2;
/** Arcs drawn of one model, the heaviest: more cannot be told apart. */
const MOST_ARCS = 2000;
/** Pixels that a matrix of many tokens is high. */
const MOST_MATRIX = 1500;
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
  const heads = element("div", { className: "head-choice", hidden: true });
  const all = element("button", {
    type: "button",
    onclick: () => choose("all"),
  }, "all heads");
  const which = element("span", { className: "quiet" });
  heads.append(element("div", { className: "row" }, all, which));
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
  const thumbnails = createHeadThumbnails(heads, (head) => choose(head));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    showHeads();
    show();
  }, { signal });

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

  /** @param {string} head "all", or layer and head */
  function choose(head) {
    chosen = head;
    showHeads();
    show();
  }

  /** The choice of a head: all of them, and a map of what each attends to. */
  function showHeads() {
    const model = answers.sparse ? "sparse" : "dense";
    const counted = answers[model];
    heads.hidden = !counted;
    if (!counted) return;
    all.setAttribute("aria-pressed", String(chosen === "all"));
    which.textContent = chosen === "all"
      ? `heads of the ${model} model`
      : `layer ${chosen.replace(".", ", head ")} is shown`;
    thumbnails.show({
      model,
      layers: counted.layers,
      heads: counted.heads,
      tokens: counted.tokens.length,
      edges: counted.edges.filter(([, , , , weight]) => weight >= threshold()),
      chosen,
      least: threshold(),
    });
  }

  function show() {
    options.hidden = Object.keys(answers).length === 0;
    least.textContent = String(threshold());
    slider.setAttribute("aria-valuetext", String(threshold()));
    for (const scroll of panels.querySelectorAll("figure > .scroll")) {
      const { model = "" } = /** @type {HTMLElement} */ (scroll.parentElement).dataset;
      lefts[model] = scroll.scrollLeft;
    }
    panels.replaceChildren();
    lights.length = 0;
    for (const model of models) {
      if (answers[model]) panel(model, answers[model]);
    }
  }

  /** How far each panel is scrolled, which outlives what is drawn anew. @type {Record<string, number>} */
  const lefts = {};
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
    const scroll = element("div", {
      className: "scroll",
      tabIndex: 0,
      role: "region",
      label: `Attention, ${model}`,
      data: { left: String(lefts[model] ?? 0) },
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
      scroll,
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
    box.append(tableOf(model, answer.tokens, drawn));
    // What is drawn has to know how wide it is.
    panels.append(box);
    box.dataset.edges = String(drawn.length);
    const { light } = draw(scroll, answer, drawn, panels.clientWidth / across, (token) => {
      for (const light of lights) light(token);
    });
  }
}

/** What is drawn as a table, made when it is unfolded. @param {string} model @param {string[]} tokens @param {AttentionEdge[]} edges */
function tableOf(model, tokens, edges) {
  const where = (/** @type {number} */ position) => `${visible(tokens[position])} (${position + 1})`;
  const body = element("tbody");
  const columns = ["layer", "head", "token", "reads", "weight", "gate logit"];
  const details = element(
    "details",
    {},
    element("summary", {}, `Edges of the ${model} model as a table`),
    element(
      "div",
      { className: "scroll", tabIndex: 0, role: "region", label: `Edges, ${model}` },
      element(
        "table",
        { className: "figures" },
        element(
          "thead",
          {},
          element("tr", {}, columns.map((text) => element("th", { scope: "col" }, text))),
        ),
        body,
      ),
    ),
  );
  details.addEventListener("toggle", () => {
    if (!details.open || body.rows.length > 0) return;
    const rows = edges.toSorted((a, b) => b[4] - a[4]).map(([layer, head, query, key, weight, gate]) =>
      element(
        "tr",
        {},
        [layer, head, where(query), where(key), weight.toFixed(3), gate === null ? "–" : gate.toFixed(2)]
          .map((cell) => element("td", {}, String(cell))),
      )
    );
    body.append(...rows);
  });
  return details;
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

/** The colour of a layer's edges: no two layers' are the same. @param {(name: string) => string} colour @param {number} layer @param {number} layers */
const colourOf = (colour, layer, layers) =>
  layers <= COLOURS.length ? colour(COLOURS[layer]) : `oklch(0.62 0.15 ${Math.round(360 * layer / layers)})`;

/** What an edge is, for who points at it. @param {string[]} texts @param {AttentionEdge} edge */
const titleOf = (texts, [layer, head, query, key, weight, gate]) =>
  `layer ${layer}, head ${head}: ${texts[query]} reads ${texts[key]}, weight ${weight.toFixed(3)}${
    gate === null ? "" : `, gate logit ${gate.toFixed(2)}`
  }`;

/**
 * Tells which token is pointed at or has the focus. One listener for all of them, as there may be hundreds.
 *
 * @param {Element} parent of elements with `data-token` @param {(token: number | undefined) => void} onToken
 */
function watchTokens(parent, onToken) {
  const tokenOf = (/** @type {Event} */ { target }) => {
    const found = /** @type {Element} */ (target).closest("[data-token]")?.getAttribute("data-token");
    return found === undefined || found === null ? undefined : Number(found);
  };
  for (const name of ["pointerover", "focusin"]) {
    parent.addEventListener(name, (event) => onToken(tokenOf(event)));
  }
  for (const name of ["pointerleave", "focusout"]) parent.addEventListener(name, () => onToken(undefined));
}

/**
 * What draws an answer, and gives back what lights a token up in it. Edges are drawn on canvases: as elements, thousands
 * of them would take longer to lay out than a frame.
 *
 * @callback Draw
 * @param {HTMLElement} scroll where it is drawn
 * @param {AttentionAnswer} answer
 * @param {AttentionEdge[]} edges
 * @param {number} room in pixels
 * @param {(token: number | undefined) => void} onToken told which token is looked at
 * @returns {{ light: (token: number | undefined) => void }}
 */

/** Tokens in a row, and an arc from each key to its query above them. @type {Draw} */
function drawing(scroll, { tokens, layers }, edges, room, onToken) {
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
  const arcs = edges.map(([, , query, key]) => {
    const [from, to] = [places[key].middle, places[query].middle];
    const arc = new Path2D();
    if (query === key) arc.arc(from, height - 6, 5, 0, 2 * Math.PI);
    else {arc.ellipse(
        (from + to) / 2,
        height,
        (to - from) / 2,
        (to - from) / 2 * scale,
        0,
        Math.PI,
        2 * Math.PI,
      );}
    return { arc, from: from - 6, to: to + 6 };
  });

  const row = svg("svg", { width: x, height: 30, viewBox: `0 0 ${x} 30`, role: "group" });
  row.setAttribute("aria-label", `${edges.length} edges over ${tokens.length} tokens`);
  const counts = new Uint32Array(texts.length);
  for (const [, , query, key] of edges) {
    counts[query]++;
    if (key !== query) counts[key]++;
  }
  texts.forEach((text, n) => {
    const token = svg("g", {
      class: "token",
      tabindex: 0,
      role: "img",
      "data-token": n,
      "aria-label": `${text}: ${counts[n]} edges`,
    });
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
  });
  watchTokens(row, onToken);

  const sky = element("div", { className: "sky" });
  sky.style.height = `${height}px`;
  const picture = element("div", { className: "arcs" }, sky, row);
  picture.style.width = `${x}px`;
  scroll.append(picture);
  scroll.scrollLeft = Number(scroll.dataset.left);
  const canvases = ["every", "some"].map((name) => canvasOf(sky, name));
  const [every, some] = canvases;
  /** @type {number | undefined} */
  let lit;
  /**
   * What the canvases cover, in pixels from the first token: what can be seen, and once it is scrolled as much on either
   * side.
   */
  let [left, right] = [0, 0];

  /** @param {typeof every} canvas @param {(edge: AttentionEdge) => boolean} isDrawn */
  function draw(canvas, isDrawn) {
    const { context, colour } = canvas.begin(right - left, height);
    const colours = Array.from({ length: layers }, (_, layer) => colourOf(colour, layer, layers));
    context.translate(-left, 0);
    let drawn = 0;
    edges.forEach((edge, n) => {
      const { arc, from, to } = arcs[n];
      if (to < left || from > right || !isDrawn(edge)) return;
      context.strokeStyle = colours[edge[0]];
      context.lineWidth = 0.5 + 3.5 * edge[4];
      context.stroke(arc);
      drawn++;
    });
    canvas.at.dataset.drawn = String(drawn);
  }
  const drawLit = () => draw(some, ([, , query, key]) => query === lit || key === lit);
  /** Draws what has come into sight. */
  function follow() {
    const { scrollLeft: start, clientWidth: seen } = scroll;
    if (left <= start && Math.min(x, start + seen) <= right) return;
    const beside = right === 0 ? 0 : seen;
    left = Math.max(0, start - beside);
    right = Math.min(x, start + seen + beside);
    for (const { at } of canvases) at.style.left = `${left}px`;
    draw(every, () => true);
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
    const found = arcs.findLastIndex(({ arc, from, to }) =>
      from <= at && at <= to && context.isPointInStroke(arc, at, y)
    );
    sky.title = found < 0 ? "" : titleOf(texts, edges[found]);
  });
  return {
    light(token) {
      if (token === lit) return;
      lit = token;
      sky.classList.toggle("lit", lit !== undefined);
      drawLit();
    },
  };
}

/** A cell for each query (down) and key (across), as dark as the heaviest of its edges. @type {Draw} */
function matrix(scroll, { tokens }, edges, room, onToken) {
  const texts = tokens.map(visible);
  if (measure) measure.font = FONT;
  const names = Math.min(160, Math.max(...texts.map((text) => measure?.measureText(text).width ?? 8)) + 12);
  const least = Math.max(2, Math.min(5, MOST_MATRIX / texts.length));
  const cell = Math.max(least, Math.min(22, (room / 2 - names - MARGIN) / texts.length));
  const size = cell * texts.length;
  const picture = svg("svg", {
    width: names + size,
    height: size,
    viewBox: `0 0 ${names + size} ${size}`,
    role: "group",
    "aria-label": `${edges.length} edges, queries down, keys across, of ${tokens.length} tokens`,
  });
  /** @type {Map<number, AttentionEdge>} */
  const heaviest = new Map();
  const counts = new Uint32Array(texts.length);
  for (const edge of edges) {
    const [, , query, key, weight] = edge;
    counts[query]++;
    const at = query * texts.length + key;
    if (weight > (heaviest.get(at)?.[4] ?? 0)) heaviest.set(at, edge);
  }
  const rows = texts.map((text, n) => {
    const row = svg("g", {
      class: "token row-of",
      tabindex: 0,
      role: "img",
      "data-token": n,
      "aria-label": `${text}: ${counts[n]} edges`,
    });
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
  const { at: canvas, begin } = canvasOf(both);
  const { context, colour } = begin(names + size, size);
  context.fillStyle = colour("--accent");
  for (const [, , query, key, weight] of heaviest.values()) {
    context.globalAlpha = 0.15 + 0.85 * weight;
    context.fillRect(names + cell * key, cell * query, cell, cell);
  }
  canvas.dataset.drawn = String(heaviest.size);
  both.addEventListener("pointermove", ({ clientX, clientY }) => {
    const { left, top } = both.getBoundingClientRect();
    const [query, key] = [clientY - top, clientX - left - names].map((at) => Math.floor(at / cell));
    const found = key < 0 ? undefined : heaviest.get(query * texts.length + key);
    both.title = found ? titleOf(texts, found) : "";
  });
  let lit = -1;
  return {
    light(token) {
      rows[lit]?.classList.remove("on");
      lit = token ?? -1;
      rows[lit]?.classList.add("on");
    },
  };
}
