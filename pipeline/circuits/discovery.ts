/**
 * From scores of edges to circuits.
 *
 * @module
 */
import type { CircuitGraph, NodeInput } from "./graph.ts";

/** Mean over the pairs that `chosen` lists, or all, of scores [pair][edge]. */
export function meanScores(scores: readonly ArrayLike<number>[], chosen?: ArrayLike<number>): Float64Array {
  const count = chosen?.length ?? scores.length;
  const result = new Float64Array(scores[0].length);
  for (let n = 0; n < count; n++) {
    const of = scores[chosen ? chosen[n] : n];
    for (let edge = 0; edge < result.length; edge++) result[edge] += of[edge] / count;
  }
  return result;
}

/**
 * The edges in order of their scores, the largest first: by absolute value, which finds edges that work against the
 * answer too, or as they are (`signed`), which finds those that help.
 *
 * @param scores estimated effect of each edge, as {@link meanScores} of what {@link CircuitEngine.attribute} gives
 * @returns edges, the first the most important
 *
 * @example The two most important of four edges
 * ```ts
 * import assert from "node:assert/strict";
 * import { edgeCount, rankEdges, topEdges } from "../../mod.ts";
 *
 * const ranked = rankEdges([0.1, -3, 0, 2]);
 * assert(ranked.join() === "1,3,0,2");
 * const kept = topEdges(ranked, 2);
 * assert(kept.join() === "0,1,0,1" && edgeCount(kept) === 2);
 * assert(rankEdges([0.1, -3, 0, 2], { signed: true }).join() === "3,0,2,1");
 * ```
 */
export function rankEdges(scores: ArrayLike<number>, { signed = false } = {}): Uint32Array {
  const by = (edge: number): number => signed ? scores[edge] : Math.abs(scores[edge]);
  // Equal scores in the order of the graph: a ranking depends on nothing else.
  return Uint32Array.from({ length: scores.length }, (_, edge) => edge).sort((a, b) =>
    by(b) - by(a) || a - b
  );
}

/** The first `count` of `ranked` as 0/1 for each edge. */
export function topEdges(ranked: ArrayLike<number>, count: number): Uint8Array {
  const kept = new Uint8Array(ranked.length);
  for (let n = 0; n < count; n++) kept[ranked[n]] = 1;
  return kept;
}

/** Number of edges kept. */
export function edgeCount(kept: Uint8Array): number {
  return kept.reduce((sum, one) => sum + one, 0);
}

/** The sources that an input belongs to, as indices into the graph's: of a key head all heads that read it; −1: the logits. */
function ownersOf({ heads, keyValueHeads }: CircuitGraph, { kind, layer, head }: NodeInput): number[] {
  if (kind === "logits") return [-1];
  const first = 1 + layer * (heads + 1);
  if (kind === "mlp") return [first + heads];
  const group = kind === "query" ? 1 : heads / keyValueHeads;
  return Array.from({ length: group }, (_, n) => first + head * group + n);
}

/**
 * The circuit without edges that hang in the air: those from a node that nothing kept reaches from the embedding, which
 * writes what it writes in the ablated run, and those to a node from which nothing kept reaches the logits. What the
 * circuit computes is the same.
 */
export function connected(graph: CircuitGraph, kept: Uint8Array): Uint8Array {
  const result = kept.slice();
  const owners = graph.inputs.map((input) => ownersOf(graph, input).filter((owner) => owner >= 0));
  // Inputs stand in the order of computation: once forwards for what is reached, once backwards for what reaches.
  const reached = new Uint8Array(graph.sources.length);
  reached[0] = 1;
  for (const [n, { sources, firstEdge }] of graph.inputs.entries()) {
    for (let source = 0; source < sources; source++) {
      if (!result[firstEdge + source]) continue;
      if (!reached[source]) result[firstEdge + source] = 0;
      else for (const owner of owners[n]) reached[owner] = 1;
    }
  }
  const needed = new Uint8Array(graph.sources.length);
  for (const [n, { sources, firstEdge }] of [...graph.inputs.entries()].reverse()) {
    const live = owners[n].length === 0 || owners[n].some((owner) => needed[owner]);
    for (let source = 0; source < sources; source++) {
      if (!live) result[firstEdge + source] = 0;
      else if (result[firstEdge + source]) needed[source] = 1;
    }
  }
  return result;
}

/**
 * A circuit grown backwards from the logits: each time the best edge into a node that is already in it (by absolute
 * score), which brings its source in. Every edge so leads to the logits; those that nothing reaches from the embedding
 * are left out at the end.
 */
export function greedyCircuit(graph: CircuitGraph, scores: ArrayLike<number>, count: number): Uint8Array {
  const kept = new Uint8Array(graph.edges);
  const inputsOf = new Map<number, NodeInput[]>();
  for (const input of graph.inputs) {
    for (const owner of ownersOf(graph, input)) inputsOf.set(owner, [...inputsOf.get(owner) ?? [], input]);
  }
  const inside = new Set<number>();
  const open: number[] = [];
  const better = (a: number, b: number): boolean => Math.abs(scores[a]) > Math.abs(scores[b]);
  const sourceOf = new Map<number, number>();
  /** Adds the edges into a node, in order of score: a binary heap would be faster, and is not needed. */
  function enter(node: number): void {
    if (inside.has(node)) return;
    inside.add(node);
    for (const { sources, firstEdge } of inputsOf.get(node) ?? []) {
      // Another head of its group has brought it in.
      if (sourceOf.has(firstEdge)) continue;
      for (let source = 0; source < sources; source++) {
        const edge = firstEdge + source;
        sourceOf.set(edge, source);
        let [low, high] = [0, open.length];
        while (low < high) {
          const middle = (low + high) >> 1;
          if (better(edge, open[middle])) high = middle;
          else low = middle + 1;
        }
        open.splice(low, 0, edge);
      }
    }
  }
  enter(-1);
  for (let n = 0; n < count && open.length > 0; n++) {
    const edge = open.shift()!;
    kept[edge] = 1;
    enter(sourceOf.get(edge)!);
  }
  return connected(graph, kept);
}

/** Every edge but those from heads that are not among the first `count` of `ranked` heads (indices of sources). */
export function headCircuit(graph: CircuitGraph, ranked: readonly number[], count: number): Uint8Array {
  const left = new Set(ranked.slice(count));
  const kept = new Uint8Array(graph.edges);
  for (const { sources, firstEdge } of graph.inputs) {
    for (let source = 0; source < sources; source++) kept[firstEdge + source] = left.has(source) ? 0 : 1;
  }
  return kept;
}

/** Indices of the graph's heads among its sources. */
export function headSources(graph: CircuitGraph): number[] {
  return graph.sources.flatMap(({ kind }, index) => kind === "head" ? [index] : []);
}
