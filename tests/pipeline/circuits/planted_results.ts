/**
 * Results of the planted task as an analysis has them, for testing what is made of results.
 *
 * @module
 */
import { type Findings, ratioOf } from "../../../pipeline/circuits/analyse.ts";
import { type CircuitResults, modelResult, ofPairs, sharedOf } from "../../../pipeline/circuits/results.ts";
import { plantedEngine, plantedSet } from "./planted.ts";

/** Pairs of the planted task. */
export const PROMPTS = 12;
/** How it is analysed. */
export const OPTIONS = { method: { name: "eap" }, seed: 1 } as const;

/** What findings of a dense model, and of a sparse one, come to; or of two dense ones by these names. */
export function resultsOf(
  findings: Findings,
  other: Findings | undefined,
  { graph } = plantedEngine(PROMPTS),
  [first, second] = ["dense", "sparse"],
): CircuitResults {
  const set = plantedSet(findings.baselines.clean.length);
  const attention = {
    tokens: ["one", "<two>", "</script>"],
    heads: [0, 1, 2, 3].map((n) => ({
      layer: n >> 1,
      head: n & 1,
      open: n === 0 ? 2 : n === 3 ? 1 : 0,
      edges: (n === 0 ? [[1, 0, 0.5]] : n === 3 ? [[2, 0, 0.25]] : []) as [number, number, number][],
    })),
    least_weight: 0.005,
    counts: { all: 24, open: 3, on_paths: 1, may_matter: 2 },
  };
  const held = { moved: 0.5, changed: 0, logit: 0.125, metric: 0.03 };
  const tokenCircuits = {
    all: 24,
    open: 3.5,
    onPaths: 1.5,
    mayMatter: 2.5,
    offPaths: 0.75,
    held,
    anew: { moved: 0.75, changed: 0.25, logit: 10.5, metric: 1.5 },
  };
  const edge = {
    layer: 1,
    head: 0,
    query: 2,
    key: 0,
    weight: 0.25,
    onPath: true,
    mayMatter: true,
    effect: 1.5,
  };
  const off = { ...edge, layer: 0, query: 1, onPath: false, mayMatter: false, effect: null };
  const tokenEdges = [{ tokens: ["one", "two", "three"], edges: [edge] }, {
    tokens: ["a", "b", "c"],
    edges: [edge, off],
  }];
  const of = (findings: Findings, name: string) =>
    modelResult(graph, set, {
      name,
      label: "a model",
      gated: name === "sparse",
      findings,
      ablations: [{ ablation: "zero", faithfulness: 0.5 }],
      attention,
      tokenCircuits,
      tokenEdges,
    });
  const { circuit } = findings;
  const models = [of(findings, first), ...(other ? [of(other, second)] : [])];
  const ratio = circuit && other?.circuit
    ? {
      edges: ratioOf(
        { ladder: circuit.edgeLadder, bounds: circuit.bounds },
        { ladder: other.circuit.edgeLadder, bounds: other.circuit.bounds },
        { seed: 1 },
      ),
      heads: { value: 2, low: 1, high: 3 },
    }
    : null;
  return {
    task: "planted",
    purpose: "what was planted",
    metric: "logit_difference",
    ...ofPairs(set, { decode: (tokens) => [...tokens].join(" ") }),
    method: OPTIONS.method,
    ablation: "resample",
    seed: 1,
    least_accuracy: 0.6,
    adapter: "none",
    seconds: 1,
    graph: {
      layers: graph.layers,
      heads: graph.heads,
      key_value_heads: graph.keyValueHeads,
      edges: graph.edges,
      norm_behind_attention: false,
    },
    models,
    ratio,
    shared: sharedOf(models),
  };
}
