/**
 * What an analysis of one or two models comes to, as it is saved: circuits.json for people and programs, edges.arrow,
 * curve.arrow, pairs.arrow and token_edges.arrow for data frames, and the one line that `--json` ends with.
 *
 * @module
 */
import { Bool, Float64, Int32, Table, tableToIPC, Utf8, type Vector, vectorFromArray } from "apache-arrow";
import { join } from "node:path";
import { writeAll, writeAtomically, writeJson } from "../files.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { CurvePoint, Findings, Performance } from "./analyse.ts";
import { connected, topEdges } from "./discovery.ts";
import type { Ablation, AttributionMethod } from "./engine.ts";
import { type CircuitGraph, edgeEnds } from "./graph.ts";
import { faithfulness, FEWEST_PROMPTS, type Interval, jaccard } from "./metrics.ts";
import type { OffPathEffect, TokenCircuits } from "./off_paths.ts";
import { type PromptSet, splitPairs } from "./prompts.ts";
import type { TokenEdge } from "./token_circuit.ts";

/** One edge, named by its ends. */
export interface EdgeResult {
  source: string;
  input: string;
  /** Estimated drop of the metric when it is corrupted. */
  score: number;
  /** Whether the circuit holds it. */
  kept: boolean;
  /** The smallest of the circuits that were run which holds it, as an index of `sizes`. */
  size: number;
}

/** A circuit that was run: the strongest edges by absolute estimate, less those that lead nowhere. */
export interface CircuitSize {
  /** How many edges were chosen. */
  chosen: number;
  /** How many of them are left. */
  edges: number;
  /** Share of the effect that it restores, of the pairs that score; null where there is no effect to restore. */
  faithfulness: number | null;
}

/** What was found of one model. */
export interface ModelResult {
  /** `dense`, `sparse`, or what tells it from another of its kind (see `modelNames`). */
  name: string;
  /** Its folder, or its name on the hub. */
  label: string;
  gated: boolean;
  performance: Performance;
  /** Left out where the model cannot do the task. */
  circuit?: {
    n90_edges: Interval;
    n90_heads: Interval;
    cpr: number;
    cmd: number;
    curve: CurvePoint[];
    signed_curve: CurvePoint[];
    /** Every circuit of edges that was run, by size; each holds those before it. */
    sizes: CircuitSize[];
    /** Names of the heads that `n90_heads` counts, the one with the largest effect first. */
    heads: string[];
    nodes: { name: string; layer: number; head: number; noising: number; denoising: number }[];
    approximation: {
      edges: (EdgeResult & { exact: number })[];
      rank_correlation: number | null;
    };
    greedy: { edges: number; faithfulness: number };
    stability: { resampled: number | null; templates: number | null; held_out: number | null };
    /** Faithfulness of the same circuit when what it leaves out is replaced in another way. */
    ablations: { ablation: Ablation; faithfulness: number }[];
    /** Every edge, in the graph's order. */
    edges: EdgeResult[];
  };
  /** Attention of the first prompt, for looking at. */
  attention?: PromptAttention;
  /** Attention edges over the tokens of all clean prompts, and what closing those off the paths changes. */
  token_circuits: {
    all: number;
    open: number;
    on_paths: number;
    may_matter: number;
    off_paths: number;
    /** Null of a model without gates, as is `anew`: nothing off its paths reaches an answer. */
    held: OffPathEffect | null;
    anew: OffPathEffect | null;
  };
  /** Open attention edges of the first prompts, as many as are listed. */
  token_edges: PromptEdges[];
  /** Of each pair; `circuit`: the metric of the clean prompt under the circuit, null of pairs that do not score it. */
  pairs: { clean: number; corrupted: number; circuit: number | null; correct: number; exact: number }[];
}

/** A pair of prompts, and what it is for. */
export interface PairResult {
  /** The clean prompt as text. */
  clean: string;
  /** The corrupted one. */
  corrupted: string;
  template: string;
  /** What it does to circuits; one pair alone does both. */
  part: "chooses" | "scores" | "both";
}

/** How much two circuits have in common. */
export interface Overlap {
  /** How many edges, or heads, both have. */
  count: number;
  /** Their share of those that either has; 1 where neither has any. */
  jaccard: number;
}

/** The open attention edges of one prompt. */
export interface PromptEdges {
  /** The prompt's tokens as text. */
  tokens: string[];
  /** In any order; `effect`: drop of the metric when the edge alone is closed, null where that was not measured. */
  edges: (TokenEdge & { effect: number | null })[];
}

/** The attention of one prompt. */
export interface PromptAttention {
  /** The prompt's tokens as text. */
  tokens: string[];
  /** Of each layer and head how many edges are open, and those (query, key, weight) of at least `least_weight`. */
  heads: { layer: number; head: number; open: number; edges: [number, number, number][] }[];
  /** Weight below which open edges are not listed. */
  least_weight: number;
  /**
   * Attention edges there are, those that are open, of them those on a path that carries values from a token to an answer,
   * and those that may matter with the other gates held, by value, query or key.
   */
  counts: { all: number; open: number; on_paths: number; may_matter: number };
}

/** The whole result. */
export interface CircuitResults {
  task: string;
  purpose: string;
  metric: PromptSet["metric"];
  prompts: number;
  /** How many further pairs their file has. */
  left_out: number;
  /** How many pairs before those are left out as their prompts have another length. */
  other_lengths: number;
  /** How many of them ranked edges and heads, and how many others scored the circuits; null of one pair, which did both. */
  split: { choosing: number; scoring: number } | null;
  /** Whether the pairs are enough for intervals of the metric, and those that score for intervals of circuits. */
  enough_pairs: { metric: boolean; circuit: boolean };
  /** Tokens of each. */
  length: number;
  templates: number;
  method: AttributionMethod;
  ablation: Ablation;
  seed: number;
  /** Share of answers that had to be right for a circuit to be looked for. */
  least_accuracy: number;
  adapter: string;
  seconds: number;
  graph: {
    layers: number;
    heads: number;
    key_value_heads: number;
    edges: number;
    /** Whether a norm stands behind attention, of which each head writes its part. */
    norm_behind_attention: boolean;
  };
  /** One or two: the dense one before the sparse one, two of a kind as they were named. */
  models: ModelResult[];
  /** Each pair of prompts, in their order. */
  pairs: PairResult[];
  /** How many times more the first needs than the second; null without two circuits. */
  ratio: { heads: Interval; edges: Interval } | null;
  /** What the two circuits that `n90_edges` and `n90_heads` count have in common; null where one has no such size. */
  shared: { heads: Overlap | null; edges: Overlap | null };
}

/** What of a result follows from its pairs alone. */
export function ofPairs(
  { pairs, leftOut = 0, otherLengths = 0 }: PromptSet,
  tokenizer: Pick<Tokenizer, "decode">,
): Pick<
  CircuitResults,
  "prompts" | "left_out" | "other_lengths" | "split" | "enough_pairs" | "length" | "templates" | "pairs"
> {
  const { choosing, scoring } = splitPairs(pairs);
  const partOf = (n: number): PairResult["part"] => {
    if (!scoring.includes(n)) return "chooses";
    return choosing.includes(n) ? "both" : "scores";
  };
  return {
    pairs: pairs.map(({ clean, corrupted, template }, n) => ({
      clean: tokenizer.decode(clean),
      corrupted: tokenizer.decode(corrupted),
      template,
      part: partOf(n),
    })),
    prompts: pairs.length,
    left_out: leftOut,
    other_lengths: otherLengths,
    split: pairs.length === 1 ? null : { choosing: choosing.length, scoring: scoring.length },
    enough_pairs: { metric: pairs.length >= FEWEST_PROMPTS, circuit: scoring.length >= FEWEST_PROMPTS },
    length: pairs[0].clean.length,
    templates: new Set(pairs.map(({ template }) => template)).size,
  };
}

/** What the circuits of two models have in common. */
export function sharedOf(models: readonly ModelResult[]): CircuitResults["shared"] {
  type Circuit = NonNullable<ModelResult["circuit"]>;
  const overlap = (size: "n90_heads" | "n90_edges", members: (circuit: Circuit) => boolean[]) => {
    const [first, second] = models.flatMap(({ circuit }) =>
      circuit && circuit[size].value !== null ? [members(circuit).map(Number)] : []
    );
    if (!second) return null;
    return { count: first.filter((one, n) => one && second[n]).length, jaccard: jaccard(first, second) };
  };
  return {
    heads: overlap("n90_heads", ({ nodes, heads }) => nodes.map(({ name }) => heads.includes(name))),
    edges: overlap("n90_edges", ({ edges }) => edges.map(({ kept }) => kept)),
  };
}

/** Each pair's metrics, of `set`'s findings. */
function pairMetrics({ pairs }: PromptSet, { baselines, circuit }: Findings): ModelResult["pairs"] {
  const { scoring } = splitPairs(pairs);
  const metrics = circuit?.edgeLadder.find(({ size }) => size === circuit.edges.value)?.metrics;
  return pairs.map((_, n) => ({
    clean: baselines.clean[n],
    corrupted: baselines.corrupted[n],
    circuit: metrics?.[scoring.indexOf(n)] ?? null,
    correct: baselines.correct[n],
    exact: baselines.exact[n],
  }));
}

/** A model's findings on the pairs of `set`, as they are saved. */
export function modelResult(
  graph: CircuitGraph,
  set: PromptSet,
  { name, label, gated, findings, ablations, attention, tokenCircuits, tokenEdges }: {
    name: string;
    label: string;
    gated: boolean;
    findings: Findings;
    ablations: { ablation: Ablation; faithfulness: number }[];
    attention?: PromptAttention;
    tokenCircuits: TokenCircuits;
    tokenEdges: PromptEdges[];
  },
): ModelResult {
  const { performance, circuit } = findings;
  const { onPaths: on_paths, mayMatter: may_matter, offPaths: off_paths, ...others } = tokenCircuits;
  const token_circuits = { ...others, on_paths, may_matter, off_paths };
  const shared = {
    name,
    label,
    gated,
    performance,
    attention,
    token_circuits,
    token_edges: tokenEdges,
    pairs: pairMetrics(set, findings),
  };
  if (!circuit) return shared;
  const smallest = new Int32Array(graph.edges).fill(-1);
  for (const [n, { chosen }] of circuit.edgeLadder.entries()) {
    connected(graph, topEdges(circuit.ranked, chosen)).forEach((kept, edge) => {
      if (kept && smallest[edge] < 0) smallest[edge] = n;
    });
  }
  const edges = Array.from(circuit.scores, (score, edge): EdgeResult => {
    const { source, input } = edgeEnds(graph, edge);
    const kept = circuit.circuit[edge] === 1;
    return { source: source.name, input: input.name, score, kept, size: smallest[edge] };
  });
  const ofHeads = circuit.heads.value ?? 0;
  const { approximation, stability: { resampled, templates, heldOut } } = circuit;
  return {
    ...shared,
    circuit: {
      n90_edges: circuit.edges,
      n90_heads: circuit.heads,
      cpr: circuit.cpr,
      cmd: circuit.cmd,
      curve: circuit.curve,
      signed_curve: circuit.signedCurve,
      sizes: circuit.edgeLadder.map(({ chosen, size, metrics }) => {
        const share = faithfulness(metrics, circuit.bounds);
        return { chosen, edges: size, faithfulness: Number.isFinite(share) ? share : null };
      }),
      heads: circuit.rankedHeads.slice(0, ofHeads).map((source) => graph.sources[source].name),
      nodes: graph.sources.map(({ name, layer, head }, source) => ({
        name,
        layer,
        head,
        noising: circuit.noising[source],
        denoising: circuit.denoising[source],
      })),
      approximation: {
        edges: approximation.edges.map((edge, n) => ({ ...edges[edge], exact: approximation.exact[n] })),
        rank_correlation: Number.isFinite(approximation.rankCorrelation)
          ? approximation.rankCorrelation
          : null,
      },
      greedy: circuit.greedy,
      stability: { resampled, templates, held_out: heldOut },
      ablations,
      edges,
    },
  };
}

/** The line that `--json` ends with. */
export function resultLine({ task, enough_pairs, models, ratio, shared }: CircuitResults): string {
  const brief = (model: ModelResult) => ({
    name: model.name,
    label: model.label,
    gated: model.gated,
    performance: model.performance.correct,
    metric: model.performance.clean.value,
    able: model.performance.able,
    n90_heads: model.circuit?.n90_heads.value ?? null,
    n90_edges: model.circuit?.n90_edges.value ?? null,
    cpr: model.circuit?.cpr ?? null,
    cmd: model.circuit?.cmd ?? null,
    token_circuits: model.token_circuits,
  });
  return JSON.stringify({ task, enough_pairs, models: models.map(brief), ratio, shared });
}

/** Writes circuits.json, edges.arrow, curve.arrow, pairs.arrow and token_edges.arrow into a run's folder. */
export async function saveResults(folder: string, { pairs, ...results }: CircuitResults): Promise<void> {
  const { models } = results;
  // Edges and pairs are tables of their own.
  const withoutTables = (model: ModelResult) => ({
    ...model,
    token_edges: tokenEdgeCounts(model),
    pairs: undefined,
    circuit: model.circuit && { ...model.circuit, edges: undefined },
  });
  await writeJson(join(folder, "circuits.json"), { ...results, models: models.map(withoutTables) });
  await savePairs(join(folder, "pairs.arrow"), pairs, models);
  const edges = models.flatMap((model) =>
    (model.circuit?.edges ?? []).map((edge) => ({ ...edge, model: model.name }))
  );
  await writeTable(join(folder, "edges.arrow"), {
    model: vectorFromArray(edges.map(({ model }) => model), new Utf8()),
    source: vectorFromArray(edges.map(({ source }) => source), new Utf8()),
    input: vectorFromArray(edges.map(({ input }) => input), new Utf8()),
    score: vectorFromArray(edges.map(({ score }) => score), new Float64()),
    in_circuit: vectorFromArray(edges.map(({ kept }) => kept), new Bool()),
  });
  await saveTokenEdges(join(folder, "token_edges.arrow"), models);
  const points = models.flatMap((model) =>
    (["curve", "signed_curve"] as const).flatMap((ranking) =>
      (model.circuit?.[ranking] ?? []).map((point) => ({ ...point, model: model.name, ranking }))
    )
  );
  const numbers = (name: "fraction" | "faithfulness" | "low" | "high") =>
    vectorFromArray(points.map((point) => point[name]), new Float64());
  await writeTable(join(folder, "curve.arrow"), {
    model: vectorFromArray(points.map(({ model }) => model), new Utf8()),
    ranking: vectorFromArray(
      points.map(({ ranking }) => ranking === "curve" ? "absolute" : "signed"),
      new Utf8(),
    ),
    fraction: numbers("fraction"),
    edges: vectorFromArray(points.map(({ edges }) => edges), new Int32()),
    faithfulness: numbers("faithfulness"),
    low: numbers("low"),
    high: numbers("high"),
  });
}

/** How much of a model's attention token_edges.arrow has: its first prompts, and those of them whose effects it has. */
export function tokenEdgeCounts({ token_edges }: Pick<ModelResult, "token_edges">) {
  return {
    prompts: token_edges.length,
    edges: token_edges.reduce((sum, { edges }) => sum + edges.length, 0),
    with_effects: token_edges.filter(({ edges }) => edges.every(({ effect }) => effect !== null)).length,
  };
}

async function savePairs(
  path: string,
  pairs: readonly PairResult[],
  models: readonly ModelResult[],
): Promise<void> {
  const rows = models.flatMap((model) =>
    model.pairs.map((metrics, prompt) => ({ model: model.name, prompt, pair: pairs[prompt], metrics }))
  );
  const texts = (name: keyof PairResult) => vectorFromArray(rows.map(({ pair }) => pair[name]), new Utf8());
  const numbers = (name: keyof ModelResult["pairs"][number]) =>
    vectorFromArray(rows.map(({ metrics }) => metrics[name]), new Float64());
  await writeTable(path, {
    model: vectorFromArray(rows.map(({ model }) => model), new Utf8()),
    prompt: vectorFromArray(Int32Array.from(rows, ({ prompt }) => prompt)),
    clean: texts("clean"),
    corrupted: texts("corrupted"),
    template: texts("template"),
    part: texts("part"),
    clean_metric: numbers("clean"),
    corrupted_metric: numbers("corrupted"),
    circuit_metric: numbers("circuit"),
    correct: numbers("correct"),
    exact: numbers("exact"),
  });
}

async function saveTokenEdges(path: string, models: readonly ModelResult[]): Promise<void> {
  const rows = models.flatMap(({ name, token_edges }) =>
    token_edges.flatMap(({ tokens, edges }, prompt) =>
      edges.map((edge) => ({ ...edge, name, prompt, tokens }))
    )
  );
  const integers = (name: "prompt" | "layer" | "head" | "query" | "key") =>
    vectorFromArray(Int32Array.from(rows, (row) => row[name]));
  await writeTable(path, {
    model: vectorFromArray(rows.map(({ name }) => name), new Utf8()),
    prompt: integers("prompt"),
    layer: integers("layer"),
    head: integers("head"),
    query: integers("query"),
    key: integers("key"),
    query_token: vectorFromArray(rows.map(({ tokens, query }) => tokens[query]), new Utf8()),
    key_token: vectorFromArray(rows.map(({ tokens, key }) => tokens[key]), new Utf8()),
    weight: vectorFromArray(rows.map(({ weight }) => weight), new Float64()),
    on_path: vectorFromArray(rows.map(({ onPath }) => onPath), new Bool()),
    may_matter: vectorFromArray(rows.map(({ mayMatter }) => mayMatter), new Bool()),
    effect: vectorFromArray(rows.map(({ effect }) => effect), new Float64()),
  });
}

async function writeTable(
  path: string,
  columns: Record<string, Vector>,
): Promise<void> {
  const bytes = tableToIPC(new Table(columns), "file");
  await writeAtomically(path, (file) => writeAll(file, bytes));
}
