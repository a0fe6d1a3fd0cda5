/**
 * Everything that is found out about one model and one task: whether the model does the task at all, what each edge and
 * node is worth, how small a circuit does most of it, and how far that can be relied on.
 *
 * @module
 */
import { type RandomStream, randomStream } from "../../kernels/core/random.ts";
import {
  connected,
  edgeCount,
  greedyCircuit,
  headCircuit,
  headSources,
  meanScores,
  rankEdges,
  topEdges,
} from "./discovery.ts";
import type { AttributionMethod, Baselines, CircuitEngine } from "./engine.ts";
import {
  areas,
  bisectForMost,
  bootstrap,
  chosenSizes,
  faithfulness,
  type Interval,
  jaccard,
  ladderSizes,
  mean,
  type Measured,
  rankCorrelation,
  resample,
  type Rung,
  sizeForMost,
} from "./metrics.ts";
import { type PromptSet, splitPairs } from "./prompts.ts";

/** How an analysis is done. */
export interface AnalysisOptions {
  /** How edges are estimated. */
  method: AttributionMethod;
  /** Keys the bootstrap. */
  seed: number;
  /** Share of answers that must be right for a circuit to be looked for; 0.6 when left out. */
  leastAccuracy?: number;
  /** Told what is being done, and how far it is. */
  progress?(text: string, done: number, of: number): void;
}

/** How well a model does a task. */
export interface Performance {
  /** Mean metric of the clean prompts, of the corrupted ones, and the difference of the two, with 95 % intervals. */
  clean: Interval;
  /** Of the corrupted prompts. */
  corrupted: Interval;
  /** Of clean less corrupted. */
  difference: Interval;
  /** Share of answers at which the best right token beats every wrong one, clean prompts. */
  correct: number;
  /** Share of answers that are the model's first choice of all tokens. */
  exact: number;
  /**
   * Whether it does the task well enough for a circuit to mean anything: enough answers are right, and the metric is
   * higher for clean prompts than for corrupted ones, the interval of the difference being above 0 where there is one.
   */
  able: boolean;
}

/** One point of a faithfulness curve. */
export interface CurvePoint {
  /** Share of all edges that were chosen. */
  fraction: number;
  /** Edges chosen, and those of them that are left when what hangs in the air is taken away. */
  chosen: number;
  /** Edges that are left. */
  edges: number;
  /** f of the circuit, see {@link faithfulness}. */
  faithfulness: number;
  /** Of the 95 % interval. */
  low: number | null;
  /** Of the 95 % interval. */
  high: number | null;
}

/**
 * What a circuit of one model looks like. Half of the pairs choose (`splitPairs`): edges and heads are ranked by their
 * effects there. On the other half every circuit is scored, unless it says otherwise. One pair alone does both.
 */
export interface CircuitFindings {
  /** Mean estimated effect of each edge over the pairs that choose. */
  scores: Float64Array;
  /** Estimates of each prompt, [pair][edge]. */
  pairScores: Float32Array[];
  /** Edges in order of absolute estimate. */
  ranked: Uint32Array;
  /** Mean exact effect of each source, over all pairs. */
  noising: Float64Array;
  /** Rise of the metric when a source's output in the corrupted run is the clean run's. */
  denoising: Float64Array;
  /** Exact effects of the top edges beside their estimates, over the pairs that choose. */
  approximation: { edges: number[]; estimated: number[]; exact: number[]; rankCorrelation: number };
  /** At each of `chosenSizes`, edges ranked by absolute estimate, and as they are. */
  curve: CurvePoint[];
  /** The same with edges ranked as they are. */
  signedCurve: CurvePoint[];
  /** Heads, as sources of the graph, in order of their absolute exact effects over the pairs that choose. */
  rankedHeads: number[];
  /** Circuits of growing size, edges and heads, as they were run: metrics of the pairs that score. */
  edgeLadder: Rung[];
  /** Of heads. */
  headLadder: Rung[];
  /** Each prompt's metric with every edge kept, and with none. */
  bounds: { full: Float64Array; empty: Float64Array };
  /**
   * The smallest number for 90 % of the effect such that all larger circuits that were run restore as much; the one with
   * an edge or head less was run and does not. Null where the whole model does not. Intervals are of sizes that were run:
   * away from the value, those of a ladder.
   */
  edges: Interval;
  /** Heads for 90 % of the effect. */
  heads: Interval;
  /** Area under the signed curve. */
  cpr: number;
  /** Area between the curve and 1. */
  cmd: number;
  /** The circuit at that size (all edges where there is none), and one grown from the logits with as many. */
  circuit: Uint8Array;
  /** Edges of the grown circuit, and what it does. */
  greedy: { edges: number; faithfulness: number };
  /** How far all this depends on the prompts. */
  stability: Stability;
}

/**
 * How far a circuit depends on which prompts were drawn, over all pairs; overlaps are Jaccard's, of circuits of one size.
 */
export interface Stability {
  /** Mean overlap of circuits from two draws of as many prompts; null of one pair, which gives but one draw. */
  resampled: number | null;
  /** Mean overlap of the circuit from one template's prompts with that from all others; null with one template. */
  templates: number | null;
  /** Faithfulness on each template's prompts of the circuit from all others, over all prompts; null with one template. */
  heldOut: number | null;
}

/** What was found of one model. */
export interface Findings {
  /** How well it does the task. */
  performance: Performance;
  /** The same pair by pair. */
  baselines: Baselines;
  /** Left out where the model cannot do the task. */
  circuit?: CircuitFindings;
}

const DRAWS = 1000;
const OVERLAP_DRAWS = 40;
/** Step from one size to the next on the ladder of edges. */
const EDGE_RATIO = 1.25;
const HEAD_RATIO = 1.15;
/** Edges whose effect is also measured exactly. */
const EXACT_EDGES = 30;
/** With two choices half of the answers are right by chance. */
const LEAST_ACCURACY = 0.6;

/**
 * Analyses one model on one task: whether it does the task, what edges and nodes are worth, how small a circuit does
 * most of it, and how far that hangs on the prompts.
 *
 * @param engine made for the prompts of `set`
 * @returns findings without `circuit` where the model cannot do the task
 *
 * @example The circuit for the sum of two numbers in the embedded toy
 * ```ts
 * import assert from "node:assert/strict";
 * import { analyse, createCircuitEngine, edgeEnds, loadModel, randomStream, TASKS } from "../../mod.ts";
 *
 * using model = await loadModel("data/addition-sparse");
 * const set = TASKS.addition.generate({
 *   tokenizer: model.tokenizer,
 *   contextLength: model.config.contextLength,
 *   prompts: 4,
 *   random: randomStream(1),
 * });
 * const engine = await createCircuitEngine(model.gpu, model, { set });
 * const { performance, circuit } = await analyse(engine, set, { method: { name: "eap" }, seed: 1 });
 * assert(performance.correct === 1);
 * const [first] = circuit!.ranked; // the edge whose ablation changes the answer most
 * const { source, input } = edgeEnds(engine.graph, first);
 * assert(typeof `${source.name} -> ${input.name}` === "string");
 * engine.destroy();
 * ```
 */
export async function analyse(
  engine: CircuitEngine,
  set: PromptSet,
  { method, seed, leastAccuracy = LEAST_ACCURACY, progress = () => {} }: AnalysisOptions,
): Promise<Findings> {
  const { graph } = engine;
  const count = set.pairs.length;
  const random = (part: number): RandomStream => randomStream(seed, part);
  const told = (text: string) => (done: number, of: number): void => progress(text, done, of);

  const baselines = await engine.baselines();
  const { clean, corrupted, correct, exact } = baselines;
  const meanOf = (values: ArrayLike<number>, part: number): Interval =>
    bootstrap([count], (chosen) => mean(values, chosen), { draws: DRAWS, random: random(part) });
  const difference = meanOf(clean.map((value, n) => value - corrupted[n]), 3);
  const performance: Performance = {
    clean: meanOf(clean, 1),
    corrupted: meanOf(corrupted, 2),
    difference,
    correct: mean(correct),
    exact: mean(exact),
    // Of few pairs there is no interval; their difference itself has to do.
    able: mean(correct) >= leastAccuracy && (difference.low ?? difference.value ?? 0) > 0,
  };
  if (!performance.able) return { performance, baselines };

  const pairScores = await engine.attribute(method, told("attribution"));
  const { choosing, scoring } = splitPairs(set.pairs);
  const scores = meanScores(pairScores, choosing);
  const ranked = rankEdges(scores);
  const noisingOf = await engine.patchNodes("noising", told("patching nodes"));
  const noising = meanScores(noisingOf);
  const denoising = meanScores(await engine.patchNodes("denoising", told("patching nodes back")));
  const top = Array.from(ranked.subarray(0, EXACT_EDGES));
  const exactEffects = Array.from(
    meanScores(await engine.patchEdges(top, told("patching edges")), choosing),
  );
  const estimated = top.map((edge) => scores[edge]);

  const whole = { full: clean, empty: await engine.run(new Uint8Array(graph.edges)) };
  const scored = (metrics: Float64Array): Float64Array => Float64Array.from(scoring, (pair) => metrics[pair]);
  const bounds = { full: scored(whole.full), empty: scored(whole.empty) };
  const ladder = async (
    text: string,
    sizes: readonly number[],
    circuitOf: (size: number) => Uint8Array,
    sizeOf: (size: number, kept: Uint8Array) => number,
  ): Promise<Rung[]> => {
    const rung = (chosen: number, kept: Uint8Array, metrics: Float64Array): Rung => ({
      chosen,
      size: sizeOf(chosen, kept),
      metrics: scored(metrics),
    });
    progress(text, 0, sizes.length);
    const circuits = sizes.map(circuitOf);
    const metrics = await engine.runEach(circuits, told(text));
    const measured = sizes.map((chosen, n) => rung(chosen, circuits[n], metrics[n]));
    await bisectForMost(measured, bounds, async (chosen) => {
      const kept = circuitOf(chosen);
      return rung(chosen, kept, await engine.run(kept));
    });
    progress(text, sizes.length, sizes.length);
    return measured;
  };
  const atFractions = chosenSizes(graph.edges);
  const byEdges = await ladder(
    "circuits of edges",
    ladderSizes(graph.edges, EDGE_RATIO, atFractions),
    (chosen) => connected(graph, topEdges(ranked, chosen)),
    (_, kept) => edgeCount(kept),
  );
  const signedRank = rankEdges(scores, { signed: true });
  const bySigned = await ladder(
    "circuits of helping edges",
    atFractions,
    (chosen) => connected(graph, topEdges(signedRank, chosen)),
    (_, kept) => edgeCount(kept),
  );
  const heads = headSources(graph);
  const chosenBy = meanScores(noisingOf, choosing);
  const rankedHeads = heads.toSorted((a, b) => Math.abs(chosenBy[b]) - Math.abs(chosenBy[a]));
  const byHeads = await ladder(
    "circuits of heads",
    [0, ...ladderSizes(heads.length, HEAD_RATIO)],
    (chosen) => headCircuit(graph, rankedHeads, chosen),
    (chosen) => chosen,
  );

  const curveOf = (measured: readonly Rung[], part: number): CurvePoint[] =>
    atFractions.map((chosen) => {
      const { size, metrics } = measured.find((rung) => rung.chosen === chosen)!;
      const { value, low, high } = bootstrap(
        [scoring.length],
        (drawn) => faithfulness(metrics, bounds, drawn),
        { draws: DRAWS, random: random(part) },
      );
      return {
        fraction: chosen / graph.edges,
        chosen,
        edges: size,
        faithfulness: value ?? NaN,
        low,
        high,
      };
    });
  const curve = curveOf(byEdges, 4);
  const signedCurve = curveOf(bySigned, 5);
  const sizeOf = (measured: readonly Measured[], part: number): Interval =>
    bootstrap([scoring.length], (chosen) => sizeForMost(measured, bounds, chosen), {
      draws: DRAWS,
      random: random(part),
    });
  const edges = sizeOf(byEdges, 6);
  // What was chosen to get the size is found again.
  const chosenCount = byEdges.find(({ size }) => size === edges.value)?.chosen ?? graph.edges;
  const circuit = connected(graph, topEdges(ranked, chosenCount));
  const grown = greedyCircuit(graph, scores, chosenCount);
  const greedy = {
    edges: edgeCount(grown),
    faithfulness: faithfulness(scored(await engine.run(grown)), bounds),
  };

  return {
    performance,
    baselines,
    circuit: {
      scores,
      pairScores,
      ranked,
      noising,
      denoising,
      approximation: {
        edges: top,
        estimated,
        exact: exactEffects,
        rankCorrelation: rankCorrelation(estimated, exactEffects),
      },
      curve,
      signedCurve,
      rankedHeads,
      edgeLadder: byEdges,
      headLadder: byHeads,
      bounds,
      edges,
      heads: sizeOf(byHeads, 7),
      cpr: areas(signedCurve).cpr,
      cmd: areas(curve).cmd,
      circuit,
      greedy,
      stability: await stabilityOf(engine, set, pairScores, chosenCount, whole, random(8)),
    },
  };
}

async function stabilityOf(
  engine: CircuitEngine,
  { pairs }: PromptSet,
  pairScores: readonly Float32Array[],
  size: number,
  bounds: { full: Float64Array; empty: Float64Array },
  random: RandomStream,
): Promise<Stability> {
  if (pairs.length === 1) return { resampled: null, templates: null, heldOut: null };
  const circuitOf = (chosen: ArrayLike<number>): Uint8Array =>
    connected(engine.graph, topEdges(rankEdges(meanScores(pairScores, chosen)), size));
  const average = (values: readonly number[]): number =>
    values.reduce((sum, one) => sum + one, 0) / values.length;
  const resampled = average(Array.from({ length: OVERLAP_DRAWS }, () => {
    const [one, other] = [resample(pairs.length, random), resample(pairs.length, random)];
    return jaccard(circuitOf(one), circuitOf(other));
  }));
  const templates = [...new Set(pairs.map(({ template }) => template))];
  if (templates.length < 2) return { resampled, templates: null, heldOut: null };
  // Each prompt's metric under the circuit that its template had no part in.
  const held = new Float64Array(pairs.length);
  const parts = templates.map((template) => {
    const own = pairs.flatMap((pair, n) => pair.template === template ? [n] : []);
    const others = pairs.flatMap((pair, n) => pair.template === template ? [] : [n]);
    return { own, found: circuitOf(others) };
  });
  const overlaps = parts.map(({ own, found }) => jaccard(circuitOf(own), found));
  const metrics = await engine.runEach(parts.map(({ found }) => found));
  parts.forEach(({ own }, n) => own.forEach((pair) => held[pair] = metrics[n][pair]));
  return { resampled, templates: average(overlaps), heldOut: faithfulness(held, bounds) };
}

/** How many times more one model needs than another, over the same draws of prompts for both. */
export function ratioOf(
  one: { ladder: readonly Measured[]; bounds: CircuitFindings["bounds"] },
  another: { ladder: readonly Measured[]; bounds: CircuitFindings["bounds"] },
  { seed }: { seed: number },
): Interval {
  const count = one.bounds.full.length;
  return bootstrap([count], (chosen) => {
    const [of, by] = [
      sizeForMost(one.ladder, one.bounds, chosen),
      sizeForMost(another.ladder, another.bounds, chosen),
    ];
    return of === null || by === null || by === 0 ? null : of / by;
  }, { draws: DRAWS, random: randomStream(seed, 9) });
}
