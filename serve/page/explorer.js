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
const GAP = 10;
const COLOURS = 7;
const DENSE_THRESHOLD = 0.1;
/** Arcs drawn of one model, the heaviest: more cannot be told apart. */
const MOST_ARCS = 2000;
/** Edges of a token that are named under the drawing. */
const MOST_NAMED = 12;
/** Tokens that a model goes on by. */
const FURTHER = 32;
const PROMPT = "The President of the United States shall be the Commander in Chief of the Army";

/** A token as it can be seen: line ends and tabs by signs. @param {string} token */
const visible = (token) => token.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␣");

/**
 * @param {HTMLElement} parent @param {string} run @param {any} detail @param {AbortSignal} signal
 */
export function createExplorer(parent, run, detail, signal) {
  const vocabulary = detail.settings.model ?? "";
  const input = element("input", {
    name: "prompt",
    type: "text",
    maxLength: 4096,
    required: true,
    autocomplete: "off",
  });
  input.value = /addition/.test(vocabulary) ? "12+34=" : PROMPT;
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
  const panels = element("div");
  const continuations = element("div");
  parent.append(
    element("h2", {}, "Attention on a prompt"),
    form,
    note,
    continuations,
    heads,
    panels,
  );

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
    const threshold = (/** @type {string} */ model) => model === "sparse" ? 0 : DENSE_THRESHOLD;
    await ask("attention", (model) => ({ threshold: threshold(model) }), (found) => {
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
    for (let layer = 0; layer < counted.layers; layer++) {
      for (let head = 0; head < counted.heads; head++) {
        const edges = counted.edges.filter(([l, h]) => l === layer && h === head).length;
        const button = choice(`${layer}.${head}`, `layer ${layer}, head ${head}: ${whole(edges)} edges`);
        button.classList.add(`layer-${layer % COLOURS}`);
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
    panels.replaceChildren();
    for (const model of models) {
      if (answers[model]) panels.append(panel(model, answers[model]));
    }
  }

  /** @param {"sparse" | "dense"} model @param {AttentionAnswer} answer */
  function panel(model, answer) {
    const mine = answer.edges.filter(([layer, head]) => chosen === "all" || chosen === `${layer}.${head}`);
    const drawn = mine.length <= MOST_ARCS ? mine : mine.toSorted((a, b) => b[4] - a[4]).slice(0, MOST_ARCS);
    const facts = model === "sparse"
      ? `${whole(answer.open)} of ${whole(answer.causal_pairs)} edges are open (${
        percent(answer.open / answer.causal_pairs)
      })`
      : `all ${
        whole(answer.causal_pairs)
      } edges are open; shown are those with a weight of at least ${DENSE_THRESHOLD}`;
    const box = element("figure", { className: "attention", data: { model } });
    const ofToken = element("p", { className: "of-token quiet" }, TOKEN_HINT);
    box.append(
      element("figcaption", {}, element("strong", {}, model), ` ${weightsOf(answer)}: ${facts}.`),
      drawing(answer.tokens, drawn, (token) => {
        ofToken.replaceChildren(
          ...token === undefined ? [TOKEN_HINT] : describe(token, answer.tokens.map(visible), drawn),
        );
      }),
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

/**
 * Tokens in a row, and an arc from each key to its query above them. `onToken` is told which one is looked at.
 * @param {string[]} tokens @param {AttentionEdge[]} edges @param {(token: number | undefined) => void} onToken
 */
function drawing(tokens, edges, onToken) {
  const texts = tokens.map(visible);
  if (measure) measure.font = FONT;
  let x = GAP;
  const places = texts.map((text) => {
    const width = Math.max(12, measure?.measureText(text).width ?? 8 * text.length);
    const place = { left: x, middle: x + width / 2, width };
    x += width + GAP;
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
    role: "img",
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
      class: `arc layer-${layer % COLOURS}`,
      "stroke-width": (0.5 + 3.5 * weight).toFixed(2),
      "data-edge": `${layer}.${head}.${query}.${key}`,
    });
    const title = svg("title", {});
    title.textContent = `layer ${layer}, head ${head}: ${texts[query]} reads ${texts[key]}, weight ${
      weight.toFixed(3)
    }${gate === null ? "" : `, gate logit ${gate.toFixed(2)}`}`;
    arc.append(title);
    arcs.append(arc);
  }
  picture.append(arcs);
  texts.forEach((text, n) => {
    const token = svg("g", { class: "token", tabindex: 0, "data-token": n });
    const ground = svg("rect", {
      x: places[n].left - 3,
      y: height + 4,
      width: places[n].width + 6,
      height: 22,
      rx: 3,
    });
    const label = svg("text", { x: places[n].middle, y: height + 20, "text-anchor": "middle" });
    label.textContent = text;
    const own = edges.filter(([, , query, key]) => query === n || key === n).length;
    const title = svg("title", {});
    title.textContent = `${text}: ${own} edges`;
    token.append(title, ground, label);
    const light = (/** @type {boolean} */ on) => {
      onToken(on ? n : undefined);
      picture.classList.toggle("lit", on);
      for (const arc of arcs.children) {
        const [, , query, key] = (/** @type {SVGElement} */ (arc).dataset.edge ?? "").split(".").map(Number);
        arc.classList.toggle("on", on && (query === n || key === n));
      }
    };
    for (const event of ["pointerenter", "focus"]) token.addEventListener(event, () => light(true));
    for (const event of ["pointerleave", "blur"]) token.addEventListener(event, () => light(false));
    picture.append(token);
  });
  const scroll = element("div", { className: "scroll" });
  scroll.append(picture);
  return scroll;
}
