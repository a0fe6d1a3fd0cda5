/**
 * The page of an analysis: one file that needs nothing else, the dense model beside the sparse one.
 *
 * Its one script and its one style block are told to the browser by their hashes where it is served (serve/security.ts).
 *
 * @module
 */
import glossary from "../report/glossary.json" with { type: "json" };
import style from "../report/report.css" with { type: "text" };
import ownStyle from "./report.css" with { type: "text" };
import script from "./report.js" with { type: "text" };
import { type Filling, type Markup, markup } from "../report/markup.ts";
import { pageHtml } from "../report/page.ts";
import { formatShare } from "../report/progress.ts";
import { type Chart, lineChart, type Series } from "../report/svg_chart.ts";
import { fixed } from "../fixed.ts";
import type { Performance } from "./analyse.ts";
import type { Interval } from "./metrics.ts";
import { FEWEST_PROMPTS, MOST } from "./metrics.ts";
import { MOVED, type OffPathEffect } from "./off_paths.ts";
import { calledModel } from "./model_names.ts";
import type { CircuitResults, EdgeResult, ModelResult, Overlap } from "./results.ts";

const MISSING = "–";
/** Edges of a circuit that are drawn one by one: of more, nothing could be seen. */
const DRAWN_EDGES = 2000;
/** Words of the glossary that the page uses. */
const WORDS = ["edge", "open", "circuit"];

/** A number with so many significant digits. */
function digits(value: number | null | undefined, significant = 3): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return MISSING;
  const text = Math.abs(value) >= 1e12
    ? fixed(value, 0)
    : Math.abs(value) >= 1000
    ? Math.round(value).toLocaleString("en-US")
    : String(Number(value.toPrecision(significant)));
  return text.replace("-", "−");
}

/** `2.4 (1.9 to 3.1)`. */
export function intervalText({ value, low, high }: Interval, significant = 3): string {
  if (value === null) return MISSING;
  return low === null || high === null
    ? digits(value, significant)
    : `${digits(value, significant)} (${digits(low, significant)} to ${digits(high, significant)})`;
}

/** `1 edge`, `2,400 edges`. */
const counted = (count: number, what: string): string => `${digits(count)} ${what}${count === 1 ? "" : "s"}`;

/** What closing open edges off the paths changes. */
const effectText = (effect: OffPathEffect | null): string =>
  effect
    ? `${formatShare(effect.moved)}; ${formatShare(effect.changed)}; ${digits(effect.logit, 2)}; ${
      digits(effect.metric, 2)
    }`
    : MISSING;

/** `32 pairs`, or how many of a file's they are. */
export const pairsText = (pairs: number, leftOut = 0): string =>
  leftOut === 0 ? counted(pairs, "pair") : `the first ${digits(pairs)} of ${digits(pairs + leftOut)} pairs`;

/** How many pairs of other lengths are not among those that were counted; nothing where there are none. */
export const otherLengthsText = (pairs = 0): string =>
  pairs === 0 ? "" : ` (${digits(pairs)} of other lengths left out)`;

/** A text as a sentence begins with it, where it begins with a word of ours. */
const asBeginning = (text: string): string => text.replace(/^the /, "The ");

/** A ratio of two models in words. */
function compared(ratio: number, what: string): string {
  if (Math.abs(ratio - 1) < 0.05) return `as many ${what}`;
  return ratio > 1 ? `${digits(ratio, 2)} times fewer ${what}` : `${digits(1 / ratio, 2)} times more ${what}`;
}

/** Why no circuit is looked for in a model. */
export function unableReason({ correct, clean, corrupted }: Performance, leastAccuracy: number): string {
  const right = `${formatShare(correct)} of answers right`;
  // What is right there is what the corrupted prompts are answered with.
  const isExchanged = correct === 0 && (corrupted.value ?? 0) > 0;
  return correct < leastAccuracy
    ? `${right}, where --least-accuracy asks for ${formatShare(leastAccuracy)}${
      isExchanged
        ? `, and the metric is ${intervalText(clean)} for clean prompts and ${
          intervalText(corrupted)
        } for corrupted ones, as if clean and corrupted, or right and wrong answers, had been exchanged`
        : ""
    }`
    : `${right}, but the metric is not surely higher than for corrupted prompts: ${
      intervalText(clean)
    } beside ${intervalText(corrupted)}`;
}

/** The result in one or two sentences. */
export function circuitSentence(
  { task, models, ratio, split, enough_pairs, least_accuracy }: CircuitResults,
): string {
  const unable = models.filter(({ performance }) => !performance.able);
  if (unable.length > 0) {
    const names = unable.map(calledModel);
    return `${
      unable.length === 2 ? `Neither ${names.join(" nor ")} does` : `${asBeginning(names[0])} does not do`
    } the task ${task} well enough for a circuit to mean anything: ${
      unable.map(({ performance }) => unableReason(performance, least_accuracy)).join("; ")
    }.`;
  }
  const needs = ({ circuit, ...model }: ModelResult): string =>
    circuit!.n90_edges.value === null
      ? `no circuit of ${calledModel(model)} restores ${100 * MOST} % of the effect`
      : `${calledModel(model)} needs ${counted(circuit!.n90_edges.value, "edge")}, or ${
        circuit!.n90_heads.value === null
          ? "more than all its heads"
          : counted(circuit!.n90_heads.value, "head")
      } with all of their edges`;
  const on = !split
    ? "the one pair, which also chose the circuit"
    : enough_pairs.circuit
    ? "prompts that did not choose the circuit"
    : `${counted(split.scoring, "pair")} that did not choose the circuit, too few for intervals`;
  const sentence = `For ${100 * MOST} % of the effect on ${on}, ${models.map(needs).join("; ")}`;
  const times = ratio && ratio.edges.value !== null
    ? `: ${compared(ratio.edges.value, "edges")}${
      ratio.heads.value === null ? "" : ` and ${compared(ratio.heads.value, "heads")}`
    } in ${models[1].name === "sparse" ? "the sparse one" : models[1].name}`
    : "";
  return `${sentence}${times}.`;
}

/** What stands below the table: where its intervals are from, or why there are none, and what its mark ¹ stands for. */
export function tableNotes({ prompts, split, enough_pairs, models }: CircuitResults): string[] {
  const intervals = "95 % intervals in brackets, by drawing the prompts anew";
  const ofIntervals = !split
    ? "One pair: what takes several, intervals, overlaps and scores on other prompts, cannot be measured."
    : !enough_pairs.metric
    ? `${counted(prompts, "pair")}: too few for 95 % intervals, which take ${FEWEST_PROMPTS}.`
    : !enough_pairs.circuit
    ? `${intervals}; ${
      counted(split.scoring, "pair")
    } that score circuits are too few for theirs, which take ${FEWEST_PROMPTS}.`
    : `${intervals}.`;
  const without = models.filter(({ token_circuits }) => token_circuits.held === null).length;
  if (without === models.length) return [ofIntervals];
  return [
    ofIntervals,
    `¹ Prompts in which a logit moves by more than ${MOVED} at an answer; in which the first choice of all tokens changes ` +
    "there; largest move of a logit; mean move of the metric." +
    (without > 0 ? " Without gates nothing off the paths reaches an answer." : ""),
  ];
}

/** Rows of the table of results: a label, and the text of each model. */
export function resultRows(results: CircuitResults): { label: string; cells: string[] }[] {
  const { models } = results;
  const row = (label: string, text: (model: ModelResult) => string) => ({ label, cells: models.map(text) });
  const ofCircuit = (label: string, text: (circuit: NonNullable<ModelResult["circuit"]>) => string) =>
    row(label, ({ circuit }) => circuit ? text(circuit) : MISSING);
  const ablations = models.find(({ circuit }) => circuit)?.circuit?.ablations ?? [];
  const rows = [
    row("answers right", ({ performance }) => formatShare(performance.correct)),
    row("first choice of all tokens", ({ performance }) => formatShare(performance.exact)),
    row(`metric, clean prompts`, ({ performance }) => intervalText(performance.clean)),
    row("metric, corrupted prompts", ({ performance }) => intervalText(performance.corrupted)),
    {
      label: "pairs that choose circuits, and that score them",
      cells: models.map(({ circuit }) =>
        circuit
          ? results.split ? `${results.split.choosing}, ${results.split.scoring}` : "1, the same"
          : MISSING
      ),
    },
    ofCircuit(`edges for ${100 * MOST} % of the effect`, ({ n90_edges }) => intervalText(n90_edges)),
    ofCircuit(`heads for ${100 * MOST} % of the effect`, ({ n90_heads }) => intervalText(n90_heads)),
    ...sharedRows(results),
    ofCircuit("CPR (area under faithfulness)", ({ cpr }) => digits(cpr)),
    ofCircuit("CMD (area of its distance from 1)", ({ cmd }) => digits(cmd)),
    ofCircuit("grown from the logits, edges", ({ greedy }) => digits(greedy.edges)),
    ofCircuit("grown from the logits, faithfulness", ({ greedy }) => digits(greedy.faithfulness)),
    ofCircuit(
      "estimate against exact effect, rank correlation",
      ({ approximation }) => digits(approximation.rank_correlation),
    ),
    ofCircuit("overlap of circuits, prompts drawn anew", ({ stability }) => digits(stability.resampled)),
    ofCircuit("overlap, one template and the others", ({ stability }) => digits(stability.templates)),
    ofCircuit("faithfulness on a template left out", ({ stability }) => digits(stability.held_out)),
    ...ablations.map(({ ablation }) =>
      ofCircuit(
        `faithfulness with the rest at ${ablation === "resample" ? "a corrupted prompt’s" : ablation}`,
        (circuit) => digits(circuit.ablations.find((one) => one.ablation === ablation)?.faithfulness),
      )
    ),
    row("attention edges, of a prompt", (model) => digits(model.token_circuits.all)),
    row("attention edges open", (model) => digits(model.token_circuits.open)),
    row("attention edges on paths that carry values", (model) => digits(model.token_circuits.on_paths)),
    row("attention edges that may matter, gates held", (model) => digits(model.token_circuits.may_matter)),
    row("open edges off the paths closed, gates held ¹", (model) => effectText(model.token_circuits.held)),
    row("open edges off the paths closed, gates anew ¹", (model) => effectText(model.token_circuits.anew)),
  ];
  // Of models that cannot do the task there is nothing to say about circuits.
  return rows.filter(({ cells }) => cells.some((cell) => cell !== MISSING));
}

/** What two circuits have in common: how many of each model's edges and heads, and the overlap. */
function sharedRows({ models, shared: { edges, heads } }: CircuitResults): ReturnType<typeof resultRows> {
  const of = (overlap: Overlap | null, size: "n90_edges" | "n90_heads") =>
    models.map(({ circuit }) =>
      overlap ? `${digits(overlap.count)} of ${digits(circuit?.[size].value)}` : MISSING
    );
  const overlaps = edges || heads ? `${digits(edges?.jaccard)}, ${digits(heads?.jaccard)}` : MISSING;
  return [
    { label: "edges of the circuit that the other model’s has too", cells: of(edges, "n90_edges") },
    { label: "heads of the circuit that the other model’s has too", cells: of(heads, "n90_heads") },
    { label: "overlap of the two circuits, edges and heads", cells: models.map(() => overlaps) },
  ];
}

/** The page as HTML. */
export function circuitsHtml(name: string, results: CircuitResults): string {
  const { task, purpose, models } = results;
  return pageHtml({
    title: `${name}: circuits of ${task}`,
    styles: [style, ownStyle],
    main: markup`<p class="of">Circuits of ${models.map(({ label }) => label).join(" and ")}</p>
<h1>${name}: ${task}</h1>
<p class="result">${circuitSentence(results)}</p>
<p>The task: ${purpose}.</p>
${resultTable(results)}
${ratios(results)}
${curves(models)}
${headMaps(results)}
${graphSection(results)}
${attentionSection(models)}
<h2>How it was measured</h2>
${method(results)}
${words()}`,
    scripts: markup`<script type="application/json" id="data">${{
      markup: pageData(results),
    }}</script>
<script>${{ markup: script }}</script>
`,
  });
}

function resultTable(results: CircuitResults): Markup {
  return markup`<div class="scroll" role="region" aria-label="Results" tabindex="0"><table class="results">
<caption>${tableNotes(results).join(" ")}</caption>
<thead><tr><td></td>${results.models.map(({ name }) => markup`<th scope="col">${name}</th>`)}</tr></thead>
<tbody>${
    resultRows(results).map(({ label, cells }) =>
      markup`<tr><th scope="row">${label}</th>${cells.map((cell) => markup`<td>${cell}</td>`)}</tr>\n`
    )
  }</tbody></table></div>`;
}

function ratios({ ratio, models }: CircuitResults): Markup | undefined {
  if (!ratio) return undefined;
  const names = models.map(({ name }) => name).join(" : ").replace(/^d(?=ense : sparse$)/, "D");
  return markup`<p>${names}, heads ${intervalText(ratio.heads)}, edges ${intervalText(ratio.edges)}.</p>`;
}

/** Which of two looks a model has on the page: the sparse one's, or of two of a kind the second's. */
const isSecond = (models: readonly ModelResult[], model: ModelResult): boolean =>
  models.every(({ gated }) => gated === models[0].gated) && models.length > 1
    ? model === models[1]
    : model.gated;

function curves(models: readonly ModelResult[]): Markup | undefined {
  const series = models.flatMap((model): Series[] =>
    model.circuit
      ? [{
        label: model.name,
        points: model.circuit.curve.map(({ fraction, faithfulness }) =>
          [100 * fraction, faithfulness] as const
        ),
        ...(isSecond(models, model)
          ? { colour: "green", dash: "solid", marker: "circle" }
          : { colour: "blue", dash: "dashed", marker: "square" }),
      }]
      : []
  );
  if (series.length === 0) return undefined;
  const shares = (value: number): string => `${digits(100 * value)} %`;
  const able = models.filter(({ circuit }) => circuit);
  const chart: Chart = {
    description: `Faithfulness of circuits against the share of edges that they choose. ${
      able.map((model) =>
        `${model.name}: ${
          model.circuit!.curve.map(({ fraction, faithfulness }) =>
            `${digits(faithfulness)} at ${shares(fraction)}`
          )
            .join(", ")
        }.`
      ).join(" ")
    }`,
    x: { label: "edges chosen, %", scale: "log" },
    y: { label: "effect" },
    series,
    references: [{ label: "the whole model", y: 1, colour: "ink", dash: "dotted" }],
  };
  // All models' points are at the same numbers of edges, as their graphs are.
  const rows = able[0].circuit!.curve.map(({ fraction, chosen }, n) =>
    markup`<tr><th scope="row">${digits(chosen)} (${shares(fraction)})</th>${
      able.map(({ circuit }) => {
        const { edges, faithfulness, low, high } = circuit!.curve[n];
        return markup`<td>${digits(edges)}</td><td>${intervalText({ value: faithfulness, low, high })}</td>`;
      })
    }</tr>\n`
  );
  return markup`<h2>Faithfulness</h2>
<figure class="chart"><figcaption>How much of the effect circuits restore <span>by the share of edges that are chosen for them, those with the largest estimated effects first</span></figcaption>${
    lineChart(chart)
  }</figure>
<details><summary>Faithfulness as a table</summary>
${
    scrollable(
      "Faithfulness",
      markup`<table><caption>What of the chosen edges leads nowhere is left out. 95 % intervals in brackets.</caption><thead><tr><th scope="col">edges chosen</th>${
        able.map((model) =>
          markup`<th scope="col">${model.name}: edges left</th><th scope="col">${model.name}: effect</th>`
        )
      }</tr></thead><tbody>${rows}</tbody></table>`,
    )
  }</details>`;
}

/** A wide thing that scrolls by itself, also with the keyboard. */
function scrollable(label: string, content: Filling): Markup {
  return markup`<div class="scroll" role="region" aria-label="${label}" tabindex="0">${content}</div>`;
}

function headMaps(
  { graph, models }: CircuitResults,
): Markup | undefined {
  const shown = models.filter(({ circuit }) => circuit);
  if (shown.length === 0) return undefined;
  const largest = Math.max(
    ...shown.flatMap(({ circuit }) => circuit!.nodes).filter(({ name }) => name !== "embed")
      .map(({ noising }) => Math.abs(noising)),
  );
  const map = (model: ModelResult): Markup => {
    const { nodes, heads: inCircuit } = model.circuit!;
    const cell = (node: (typeof nodes)[number]): Markup => {
      const share = largest > 0 ? Math.abs(node.noising) / largest : 0;
      const shade = share < 0.01 ? 0 : Math.min(7, 1 + Math.floor(share * 6.999));
      return markup`<td class="h${shade}">${digits(node.noising, 2)}${
        inCircuit.includes(node.name) ? " ✓" : undefined
      }</td>`;
    };
    const heads = Array.from({ length: graph.heads }, (_, head) => markup`<th scope="col">head ${head}</th>`);
    const rows = Array.from(
      { length: graph.layers },
      (_, layer) =>
        markup`<tr><th scope="row">layer ${layer}</th>${
          nodes.filter((node) => node.layer === layer).map(cell)
        }</tr>\n`,
    );
    return markup`<figure data-kind="${model.name}"><figcaption><strong>${model.name}</strong><span>✓ ${
      counted(inCircuit.length, "head")
    }</span></figcaption>${
      scrollable(
        `Effects in ${calledModel(model)}`,
        markup`<table class="heads"><thead><tr><td></td>${heads}<th scope="col">MLP</th></tr></thead><tbody>${rows}</tbody></table>`,
      )
    }</figure>`;
  };
  return markup`<h2>Heads and MLPs</h2>
<p>The drop of the metric when one node’s output is the corrupted prompt’s, exactly; shaded by size, on one scale${
    shown.length > 1 ? " for both models" : undefined
  }. ✓: the heads that the headline counts, which do ${
    100 * MOST
  } % of the effect when every edge is kept but those from the other heads.</p>
<div class="beside">${shown.map(map)}</div>`;
}

/** What the circuit that the headline counts runs over: heads and MLPs, each once, the embedding and the logits left out. */
export function circuitNodes(edges: readonly EdgeResult[]): { heads: number; mlps: number } {
  // Whatever is on a way from the embedding to the logits writes to something.
  const names = new Set(edges.filter(({ kept }) => kept).map(({ source }) => source));
  const beginningWith = (letter: string): number => [...names].filter((name) => name[0] === letter).length;
  return { heads: beginningWith("a"), mlps: beginningWith("m") };
}

/** Which of the circuits that were run can be drawn, each once, and the one of them that is drawn at first. */
function drawnSizes({ sizes, n90_edges }: NonNullable<ModelResult["circuit"]>) {
  const drawn = sizes.filter(({ edges }, n) => edges <= DRAWN_EDGES && edges !== sizes[n - 1]?.edges);
  const counted = drawn.findIndex(({ edges }) => edges === n90_edges.value);
  return { drawn, counted, first: counted < 0 ? drawn.length - 1 : counted };
}

function graphSection(
  { graph, models }: CircuitResults,
): Markup | undefined {
  const shown = models.filter(({ circuit }) => circuit);
  if (shown.length === 0) return undefined;
  const figure = (model: ModelResult): Markup => {
    const [kind, called, circuit] = [model.name, calledModel(model), model.circuit!];
    const { drawn, counted: at, first } = drawnSizes(circuit);
    const size = circuit.n90_edges.value;
    const { heads, mlps } = circuitNodes(circuit.edges);
    const said = size === null
      ? `No circuit that was run restores ${100 * MOST} % of the effect.`
      : `${counted(size, "edge")} of ${digits(graph.edges)} over ${counted(heads, "head")} and ${
        counted(mlps, "MLP")
      } restore ${100 * MOST} % of the effect or more${
        at < 0
          ? `: more than the ${digits(DRAWN_EDGES)} that are drawn, so that smaller circuits are shown`
          : ""
      }.`;
    return markup`<figure class="graph" data-kind="${kind}"><figcaption><strong>${kind}</strong><span>${said}</span></figcaption>
<div class="controls needs-script" hidden=""><label>Circuits that were run <input type="range" min="0" max="${
      drawn.length - 1
    }" value="${first}"/></label></div>
<p class="shown" role="status"></p>
<div class="drawing scroll" role="region" aria-label="The circuit of ${called}" tabindex="0"></div>
<p class="of-node" role="status"></p>
<details class="needs-script" hidden=""><summary>Edges of ${called}’s circuit as a table</summary></details></figure>`;
  };
  const without = models.filter(({ circuit }) => !circuit).map(calledModel);
  return markup`<h2>The circuit</h2>
<p>Heads and MLPs by layer, the tokens at the foot, the answer on top. Blue edges help the answer, dashed orange ones work against it, as wide as their estimated effect, on one scale${
    shown.length > 1 ? " for both models" : undefined
  }. A node that is pointed at or focused shows its own edges, Enter or a click names them, Escape lets go; arrow keys move from node to node.</p>
${
    without.map((called) =>
      markup`<p class="note">${asBeginning(called)} does not do the task, and has no circuit.</p>`
    )
  }
<noscript><p class="note">The drawing needs scripts; edges.arrow, beside this page, holds the same.</p></noscript>
<div class="beside">${shown.map(figure)}</div>`;
}

function attentionSection(models: readonly ModelResult[]): Markup | undefined {
  const shown = models.filter(({ attention }) => attention);
  if (shown.length === 0) return undefined;
  // First the head that matters most, to the sparse model where it does the task.
  const nodes =
    (models.find(({ gated, circuit }) => gated && circuit) ?? models.find(({ circuit }) => circuit))
      ?.circuit?.nodes.filter(({ head }) => head >= 0) ?? [];
  const most = nodes.toSorted((a, b) => Math.abs(b.noising) - Math.abs(a.noising))[0]?.name ?? "a0.h0";
  const options = shown[0].attention!.heads.map(({ layer, head }, n) => {
    const open = shown.map((model) => `${model.name} ${digits(model.attention!.heads[n].open)}`).join(
      ", ",
    );
    return markup`<option value="${layer}.${head}"${
      `a${layer}.h${head}` === most ? markup` selected=""` : undefined
    }>layer ${layer}, head ${head}: ${open} open</option>`;
  });
  const counts = shown.map((model) => {
    const { all, open, on_paths, may_matter } = model.attention!.counts;
    const { off_paths, held, anew } = model.token_circuits;
    const effect = ({ moved, changed, logit }: OffPathEffect): string =>
      `the answer’s logits in ${formatShare(moved)} of the prompts, by up to ${
        digits(logit, 2)
      }, and the first choice in ${formatShare(changed)}`;
    return markup`<li>${model.name}: ${digits(open)} of ${digits(all)} attention edges are open, ${
      digits(on_paths)
    } of them on a path that carries values from a token to the answer; ${
      digits(may_matter)
    } may matter with the gates held, by value, query or key. ${
      held && anew
        ? `${formatShare(off_paths)} of all prompts have open edges off the paths: closing them changes ${
          effect(held)
        } with the other gates held, ${effect(anew)} with gates computed anew.`
        : "It has no gates, and nothing off the paths reaches the answer."
    }</li>`;
  });
  return markup`<h2>Attention over the first prompt</h2>
<ul>${counts}</ul>
<p>What is on no path can still matter: the softmax runs over all earlier keys, open or not, so that queries and keys off the paths set the weights of edges on them, and gates open and close by queries and keys.</p>
<div class="controls needs-script" hidden=""><label>Head <select id="attention-head">${options}</select></label></div>
<noscript><p class="note">The drawing needs scripts; circuits.json, beside this page, holds the same.</p></noscript>
<div id="attention" class="beside">${
    shown.map((model) =>
      markup`<figure class="attention" data-kind="${model.name}"><figcaption><strong>${model.name}</strong><span role="status"></span></figcaption>
<div class="drawing scroll" role="region" aria-label="Attention of ${calledModel(model)}" tabindex="0"></div>
<details class="needs-script" hidden=""><summary>Attention of ${
        calledModel(model)
      }’s head as a table</summary></details></figure>`
    )
  }</div>`;
}

function method(results: CircuitResults): Markup {
  const {
    prompts,
    left_out,
    other_lengths,
    length,
    templates,
    method,
    ablation,
    graph,
    metric,
    seed,
    adapter,
  } = results;
  const name = method.name === "eap" ? "EAP" : `EAP-IG over ${method.steps} steps`;
  const { split } = results;
  return markup`<p>${
    pairsText(prompts, left_out).replace(/^t/, "T") + otherLengthsText(other_lengths)
  } of prompts of ${length} tokens in ${templates} ${templates === 1 ? "template" : "templates"}; metric: ${
    metric.replace("_", " ")
  }. The graph has ${
    digits(graph.edges)
  } edges between heads, with query, key and value as inputs of their own${
    graph.key_value_heads < graph.heads
      ? ` (keys and values of each of ${graph.key_value_heads} key heads, g, which several heads read)`
      : ""
  }, and MLPs. ${
    graph.norm_behind_attention
      ? "A head writes its part of what the norm behind attention makes of its layer’s sum, by the scale that the sum has in the same run. "
      : ""
  }Edges are estimated by ${name} (arXiv 2403.17806); what a circuit leaves out is replaced by ${
    ablation === "resample"
      ? "what it is for the corrupted prompt"
      : ablation === "mean"
      ? "its mean"
      : "zero"
  }. ${
    split
      ? `${split.choosing} of the pairs rank edges and heads; the other ${split.scoring} score every circuit but those of a template left out.`
      : "The one pair ranks edges and heads and scores every circuit, so that nothing here says how the circuit does on another prompt."
  } Faithfulness is (M(C) − M(∅)) / (M(model) − M(∅)) of means over prompts. The size for ${
    100 * MOST
  } % is the smallest from which on all larger circuits that were run restore as much, bisected to the edge or head, on ${
    split ? "the pairs that score" : "this pair"
  }, so that this circuit restores as much of ${split ? "them" : "it"} by construction${
    split
      ? `; its interval is of sizes that were run, and there is none of fewer than ${FEWEST_PROMPTS} pairs`
      : undefined
  }. Edges that lead nowhere are not counted, and a circuit of heads keeps every edge but those from the heads it leaves out. CPR ranks edges by their estimate, CMD and everything else by its absolute value (MIB, arXiv 2504.13151), over the shares of edges that were chosen, each number of edges once. ${
    split ? "Intervals draw the prompts anew and measure the same circuits on them. " : undefined
  }Seed ${seed}; ${adapter}.</p>`;
}

/** The glossary's words that the page uses. */
function words(): Markup {
  const used = glossary.filter(({ id }) => WORDS.includes(id));
  return markup`<details><summary>Words</summary>
<dl>${used.map(({ term, text }) => markup`<dt>${term}</dt><dd>${text}</dd>\n`)}</dl></details>`;
}

/** What the script reads; `<` is written so that no text can end the script element. */
function pageData({ graph, models }: CircuitResults): string {
  const data = {
    layers: graph.layers,
    heads: graph.heads,
    key_value_heads: graph.key_value_heads,
    models: models.map((model) => ({
      name: model.name,
      called: calledModel(model),
      circuit: model.circuit ? circuitData(model.circuit) : null,
      attention: model.attention ?? null,
    })),
  };
  return JSON.stringify(data).replaceAll("<", "\\u003c");
}

/** The circuits that can be drawn, and their edges, the strongest first. */
function circuitData(circuit: NonNullable<ModelResult["circuit"]>) {
  const { drawn, counted } = drawnSizes(circuit);
  // Which of the drawn circuits is the first to hold an edge: sizes of as many edges are one circuit.
  const first = circuit.sizes.map(({ edges }) => drawn.findIndex((size) => size.edges === edges));
  return {
    counted,
    sizes: drawn,
    edges: circuit.edges.filter(({ size }) => first[size] >= 0)
      .toSorted((a, b) => Math.abs(b.score) - Math.abs(a.score))
      .map(({ source, input, score, size }) => [source, input, Number(score.toPrecision(4)), first[size]]),
  };
}
