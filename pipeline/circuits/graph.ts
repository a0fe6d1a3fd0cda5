/**
 * The graph in which circuits are looked for: a model's heads and MLPs as nodes that read from and write to the residual
 * stream, with an edge from every node to each later node's input. Query, key and value are inputs of their own (Hanna
 * et al., arXiv 2403.17806; Mueller et al., MIB, arXiv 2504.13151). GPT-2 124M has 32,491 edges.
 *
 * @module
 */

import type { ModelConfig } from "../model/config.ts";

/** What writes to the residual stream. */
export interface SourceNode {
  /** What it is. */
  kind: "embedding" | "head" | "mlp";
  /** −1 for the embedding. */
  layer: number;
  /** −1 where it is no head. */
  head: number;
  /** `embed`, `a0.h3`, `m0`. */
  name: string;
}

/** What reads from it. */
export interface NodeInput {
  /** What it is an input of. */
  kind: "query" | "key" | "value" | "mlp" | "logits";
  /** −1 for the logits. */
  layer: number;
  /** Of keys and values the key head; −1 where it is no head. */
  head: number;
  /** `a0.h3.q`, `m0`, `logits`; `a0.g1.k` of a key head that several heads read. */
  name: string;
  /** How many sources come before it: the first that many of {@link CircuitGraph.sources}. */
  sources: number;
  /** Index of its edge from source 0; that from source s is s further on. */
  firstEdge: number;
}

/** All nodes and edges of a model. */
export interface CircuitGraph {
  /** Layers of the model. */
  readonly layers: number;
  /** Heads of a layer. */
  readonly heads: number;
  /** Key and value heads of a layer. */
  readonly keyValueHeads: number;
  /** In the order in which they are computed: the embedding, then each layer's heads and its MLP. */
  readonly sources: readonly SourceNode[];
  /** Each layer's queries (by head), keys and values (by key head), and its MLP; last the logits. */
  readonly inputs: readonly NodeInput[];
  /** Number of edges. */
  readonly edges: number;
}

/**
 * The graph of a model with so many layers and heads. Queries are inputs of their own for each head, keys and values for
 * each key head, which several heads may read; where attention and MLP are parallel, no edge runs from one to the other.
 */
export function createGraph(
  { layers, heads, keyValueHeads = heads, parallel = false }:
    & Pick<ModelConfig, "layers" | "heads">
    & Partial<Pick<ModelConfig, "keyValueHeads" | "parallel">>,
): CircuitGraph {
  const sources: SourceNode[] = [{ kind: "embedding", layer: -1, head: -1, name: "embed" }];
  const inputs: NodeInput[] = [];
  let edges = 0;
  const input = (
    kind: NodeInput["kind"],
    layer: number,
    head: number,
    name: string,
    before = sources.length,
  ): void => {
    inputs.push({ kind, layer, head, name, sources: before, firstEdge: edges });
    edges += before;
  };
  const grouped = keyValueHeads < heads;
  for (let layer = 0; layer < layers; layer++) {
    const before = sources.length;
    for (let head = 0; head < heads; head++) input("query", layer, head, `a${layer}.h${head}.q`);
    for (const kind of ["key", "value"] as const) {
      for (let head = 0; head < keyValueHeads; head++) {
        input(kind, layer, head, `a${layer}.${grouped ? "g" : "h"}${head}.${kind[0]}`);
      }
    }
    for (let head = 0; head < heads; head++) {
      sources.push({ kind: "head", layer, head, name: `a${layer}.h${head}` });
    }
    input("mlp", layer, -1, `m${layer}`, parallel ? before : sources.length);
    sources.push({ kind: "mlp", layer, head: -1, name: `m${layer}` });
  }
  input("logits", layers, -1, "logits");
  return { layers, heads, keyValueHeads, sources, inputs, edges };
}

/** The two ends of edge `edge`. */
export function edgeEnds(graph: CircuitGraph, edge: number): { source: SourceNode; input: NodeInput } {
  let low = 0;
  for (let high = graph.inputs.length - 1; low < high;) {
    const middle = (low + high + 1) >> 1;
    if (graph.inputs[middle].firstEdge <= edge) low = middle;
    else high = middle - 1;
  }
  const input = graph.inputs[low];
  const source = graph.sources[edge - input.firstEdge];
  if (!(edge >= 0 && edge < graph.edges)) {
    throw new RangeError(`Cannot name edge ${edge} as the graph has ${graph.edges}`);
  }
  return { source, input };
}
