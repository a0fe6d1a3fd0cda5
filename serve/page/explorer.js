/// <reference lib="dom" />
// @ts-check
/**
 * The attention of a run's model on a prompt, every open edge as an arc over the tokens, and how the model goes on from
 * it: sparse beside dense.
 */
import { post } from "./api.js";
import { drawArcs, GAP } from "./attention_arcs.js";
import { drawMatrix } from "./attention_matrix.js";
import { edgesIn, rankedOf, THRESHOLDS, visible } from "./attention_tokens.js";
import { element } from "./dom.js";
import { percent, whole } from "./format.js";
import { createHeadThumbnails } from "./head_thumbnails.js";

/** @import { AttentionAnswer, AttentionEdge, ContinuationAnswer } from "../api.ts" */
/** @import { Ranked } from "./attention_tokens.js" */

/** Pixels from which two panels stand side by side, as style.css has it. */
const PANEL_WIDTH = 620;
const FIRST_POSITION = 2;
/** Milliseconds without a move of the slider after which words and tables follow what is drawn. */
const SETTLED_MS = 150;
/** Edges drawn of one model, the heaviest: more cannot be told apart. */
const MOST_DRAWN = 2000;
/** Edges of a token that are named under the drawing. */
const MOST_NAMED = 12;
/** Tokens that a model goes on by. */
const FURTHER = 32;
const SUM = "12+34=";
const PROMPT = "The President of the United States shall be the Commander in Chief of the Army";
const TOKEN_HINT = "Point at a token, or go to it with Tab, to see its edges and their weights.";

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
    value: String(FIRST_POSITION),
    oninput: move,
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
  const position = () => Number(slider.value);
  const thumbnails = createHeadThumbnails(heads, (head) => choose(head));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    thumbnails.repaint();
    for (const { repaint } of shown) repaint();
  }, { signal });

  /** With the edges from the heaviest on. @type {Partial<Record<"sparse" | "dense", AttentionAnswer & { ranked: Ranked }>>} */
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
      for (const answer of Object.values(found)) {
        answer.edges.sort((/** @type {AttentionEdge} */ a, /** @type {AttentionEdge} */ b) => b[4] - a[4]);
        answer.ranked = rankedOf(answer.edges);
      }
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
    thumbnails.choose(head);
    nameChoice();
    for (const panel of shown) panel.choose();
  }

  function nameChoice() {
    all.setAttribute("aria-pressed", String(chosen === "all"));
    which.textContent = chosen === "all"
      ? `heads of the ${answers.sparse ? "sparse" : "dense"} model`
      : `layer ${chosen.replace(".", ", head ")} is shown`;
  }

  /** The choice of a head: all of them, and a map of what each attends to. */
  function showHeads() {
    const model = answers.sparse ? "sparse" : "dense";
    const counted = answers[model];
    heads.hidden = !counted;
    if (!counted) return;
    nameChoice();
    const { layers, heads: count, tokens, ranked } = counted;
    thumbnails.show({ model, layers, heads: count, tokens: tokens.length, ranked, chosen }, position());
  }

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let settling;
  /** The slider stands elsewhere: what is drawn follows at once, words and tables when it rests. */
  function move() {
    tellLeast();
    thumbnails.move(position());
    for (const panel of shown) panel.move();
    clearTimeout(settling);
    settling = setTimeout(() => {
      for (const panel of shown) panel.tell();
    }, SETTLED_MS);
  }
  function tellLeast() {
    least.textContent = String(THRESHOLDS[position()]);
    slider.setAttribute("aria-valuetext", String(THRESHOLDS[position()]));
  }

  function show() {
    options.hidden = Object.keys(answers).length === 0;
    tellLeast();
    panels.replaceChildren();
    shown.length = 0;
    for (const model of models) {
      const answer = answers[model];
      if (answer) shown.push(panel(model, answer));
    }
  }

  /** A panel a model. @type {ReturnType<typeof panel>[]} */
  const shown = [];

  /** @param {"sparse" | "dense"} model @param {AttentionAnswer & { ranked: Ranked }} answer */
  function panel(model, answer) {
    const texts = answer.tokens.map(visible);
    const facts = model === "sparse"
      ? `${whole(answer.open)} of ${whole(answer.causal_pairs)} edges are open (${
        percent(answer.open / answer.causal_pairs)
      })`
      : `all ${whole(answer.causal_pairs)} edges are open`;
    /** Edges of the heads that are shown, and those of them that are drawn. */
    let mine = answer.ranked;
    let drawn = mine;
    /** @type {number | undefined} */
    let lit;
    const heavyEnough = () => drawn.edges.slice(0, drawn.counts[position()]);

    const count = element("span");
    const leftOut = element("span");
    const ofToken = element("p", { className: "of-token quiet", role: "status" }, TOKEN_HINT);
    const scroll = element("div", {
      className: "scroll",
      tabIndex: 0,
      role: "region",
      label: `Attention, ${model}`,
    });
    const table = tableOf(model, answer.tokens, heavyEnough);
    const box = element(
      "figure",
      { className: "attention", data: { model } },
      element(
        "figcaption",
        {},
        element("strong", {}, model),
        ` ${weightsOf(answer)}: ${facts}; `,
        count,
      ),
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
        leftOut,
        answer.truncated ? `The prompt is cut after ${answer.tokens.length} tokens.` : "",
      ),
      table.at,
    );
    // What is drawn has to know how wide it is.
    panels.append(box);
    const across = Object.keys(answers).length > 1 && panels.clientWidth >= 2 * PANEL_WIDTH + GAP ? 2 : 1;
    const draw = view.value === "matrix" ? drawMatrix : drawArcs;
    const drawing = draw(scroll, answer, panels.clientWidth / across, (token) => {
      for (const panel of shown) panel.light(token);
    });

    function tellCount() {
      const all = mine.counts[position()];
      count.textContent = `${chosen === "all" ? "" : `head ${chosen}, `}${whole(all)} of at least ${
        THRESHOLDS[position()]
      }.`;
      leftOut.textContent = all > MOST_DRAWN
        ? `The ${whole(MOST_DRAWN)} heaviest of ${whole(all)} are drawn. `
        : "";
    }
    function tellToken() {
      const isToken = lit !== undefined && lit < texts.length;
      ofToken.replaceChildren(...isToken ? describe(Number(lit), texts, heavyEnough()) : [TOKEN_HINT]);
    }
    function tell() {
      drawing.tell();
      table.refresh();
      if (lit !== undefined) tellToken();
    }
    function choose() {
      const [ofLayer, ofHead] = chosen.split(".").map(Number);
      mine = chosen === "all"
        ? answer.ranked
        : rankedOf(answer.ranked.edges.filter(([layer, head]) => layer === ofLayer && head === ofHead));
      drawn = mine.edges.length > MOST_DRAWN ? rankedOf(mine.edges.slice(0, MOST_DRAWN)) : mine;
      drawing.show(drawn, position());
      tellCount();
      tell();
    }
    choose();

    return {
      /** Shows the edges of the heads that are chosen. */
      choose,
      /** Shows those that are heavy enough by now. */
      move() {
        drawing.move(position());
        tellCount();
      },
      tell,
      repaint: drawing.repaint,
      /** @param {number | undefined} token */
      light(token) {
        lit = token;
        drawing.light(token);
        tellToken();
      },
    };
  }
}

/**
 * What is drawn as a table, filled while it is unfolded.
 *
 * @param {string} model @param {string[]} tokens @param {() => AttentionEdge[]} drawn the heaviest first
 */
function tableOf(model, tokens, drawn) {
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
  function refresh() {
    if (!details.open) return body.replaceChildren();
    const rows = drawn().map(([layer, head, query, key, weight, gate]) =>
      element(
        "tr",
        {},
        [layer, head, where(query), where(key), weight.toFixed(3), gate === null ? "–" : gate.toFixed(2)]
          .map((cell) => element("td", {}, String(cell))),
      )
    );
    body.replaceChildren(...rows);
  }
  details.addEventListener("toggle", refresh);
  return { at: details, refresh };
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

/** What a token reads and what reads it, the heaviest first. @param {number} token @param {string[]} texts @param {AttentionEdge[]} edges the heaviest first */
function describe(token, texts, edges) {
  const own = edges.filter(([, , query, key]) => query === token || key === token);
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
    element("strong", {}, `${texts[token]} has ${edgesIn(own.length)}`),
    ...items,
    ...more > 0 ? [`and ${whole(more)} lighter`] : [],
  ];
}
