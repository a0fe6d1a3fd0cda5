/// <reference lib="dom" />
// @ts-check
/** The attention of a run's model on a prompt: every open edge as an arc over the tokens, sparse beside dense. */
import { post } from "./api.js";
import { element, svg } from "./dom.js";
import { percent, whole } from "./format.js";

/** @import { AttentionAnswer, AttentionEdge } from "../api.ts" */

const FONT = "14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace";
const GAP = 10;
const COLOURS = 7;
const DENSE_THRESHOLD = 0.1;
/** Arcs drawn of one model, the heaviest: more cannot be told apart. */
const MOST_ARCS = 2000;
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
  const form = element("form", { className: "row prompt" }, element("label", {}, "Prompt ", input), button);
  const note = element("p", { className: "quiet" });
  note.setAttribute("role", "status");
  const heads = element("div", { className: "head-choice" });
  heads.setAttribute("role", "group");
  heads.setAttribute("aria-label", "Head");
  const panels = element("div", { className: "panels" });
  parent.append(
    element("h2", {}, "Attention on a prompt"),
    form,
    note,
    heads,
    panels,
  );

  /** @type {{ sparse?: AttentionAnswer, dense?: AttentionAnswer }} */
  let answers = {};
  /** "all", or layer and head. @type {string} */
  let chosen = "all";

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    note.textContent = "Asking the model…";
    const ask = (/** @type {"sparse" | "dense"} */ model) =>
      post(
        `/api/runs/${encodeURIComponent(run)}/attention`,
        { prompt: input.value, model, threshold: model === "sparse" ? 0 : DENSE_THRESHOLD },
        signal,
      );
    const [sparse, dense] = await Promise.allSettled([ask("sparse"), ask("dense")]);
    button.disabled = false;
    const errors = [sparse, dense].flatMap((result) =>
      result.status === "rejected" ? [result.reason.message] : []
    );
    answers = {
      sparse: sparse.status === "fulfilled" ? sparse.value : undefined,
      dense: dense.status === "fulfilled" ? dense.value : undefined,
    };
    note.textContent = [...new Set(errors)].join(" ");
    show();
  });

  function show() {
    const counted = answers.sparse ?? answers.dense;
    heads.replaceChildren();
    panels.replaceChildren();
    parent.dataset.head = chosen;
    if (!counted) return;
    const count = (/** @type {string} */ key) =>
      counted.edges.filter(([layer, head]) => key === "all" || key === `${layer}.${head}`).length;
    const keys = ["all"];
    for (let layer = 0; layer < counted.layers; layer++) {
      for (let head = 0; head < counted.heads; head++) keys.push(`${layer}.${head}`);
    }
    for (const key of keys) {
      const edges = count(key);
      const choice = element("button", { type: "button" }, key === "all" ? "all heads" : key);
      choice.title = key === "all"
        ? "All layers and heads"
        : `layer ${key.replace(".", ", head ")}: ${edges} edges`;
      choice.setAttribute("aria-pressed", String(key === chosen));
      choice.classList.toggle("without", edges === 0);
      if (key !== "all") choice.classList.add(`layer-${Number(key.split(".")[0]) % COLOURS}`);
      choice.addEventListener("click", () => {
        chosen = key;
        show();
      });
      heads.append(choice);
    }
    for (const model of /** @type {const} */ (["sparse", "dense"])) {
      if (answers[model]) panels.append(panel(model, answers[model]));
    }
  }

  /** @param {"sparse" | "dense"} model @param {AttentionAnswer} answer */
  function panel(model, answer) {
    const mine = answer.edges.filter(([layer, head]) => chosen === "all" || chosen === `${layer}.${head}`);
    const drawn = mine.length <= MOST_ARCS ? mine : mine.toSorted((a, b) => b[4] - a[4]).slice(0, MOST_ARCS);
    const weights = {
      model: "the finished model",
      checkpoint: `the checkpoint of step ${answer.weights.step}`,
      dense: "the model that the run began with",
    }[answer.weights.kind];
    const facts = model === "sparse"
      ? `${whole(answer.open)} of ${whole(answer.causal_pairs)} edges are open (${
        percent(answer.open / answer.causal_pairs)
      })`
      : `all ${
        whole(answer.causal_pairs)
      } edges are open; shown are those with a weight of at least ${DENSE_THRESHOLD}`;
    const box = element("figure", { className: "attention" });
    box.dataset.model = model;
    box.dataset.edges = String(mine.length);
    box.append(
      element("figcaption", {}, element("strong", {}, model), ` ${weights}: ${facts}.`),
      drawing(answer.tokens, drawn),
      element(
        "p",
        { className: "quiet" },
        drawn.length < mine.length ? `The ${MOST_ARCS} heaviest of ${whole(mine.length)} are drawn. ` : "",
        answer.truncated ? `The prompt is cut after ${answer.tokens.length} tokens. ` : "",
        "Next: ",
        answer.next.map(({ token, probability }) => `${visible(token)} ${percent(probability)}`).join(", "),
      ),
    );
    return box;
  }

  show();
}

const measure = document.createElement("canvas").getContext("2d");

/** Tokens in a row, and an arc from each key to its query above them. @param {string[]} tokens @param {AttentionEdge[]} edges */
function drawing(tokens, edges) {
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
      picture.classList.toggle("lit", on);
      for (const arc of arcs.children) {
        const [, , query, key] = (/** @type {SVGElement} */ (arc).dataset.edge ?? "").split(".").map(Number);
        arc.classList.toggle("on", on && (query === n || key === n));
      }
    };
    for (
      const [event, on]
        of /** @type {[string, boolean][]} */ ([["pointerenter", true], ["pointerleave", false], [
          "focus",
          true,
        ], ["blur", false]])
    ) {
      token.addEventListener(event, () => light(on));
    }
    picture.append(token);
  });
  const scroll = element("div", { className: "scroll" });
  scroll.append(picture);
  return scroll;
}
