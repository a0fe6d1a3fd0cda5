/**
 * The graph in which circuits are looked for: a model's heads and MLPs as nodes that read from and write to the residual
 * stream, with an edge from every node to each later node's input. Query, key and value are inputs of their own (Hanna
 * et al., arXiv 2403.17806; Mueller et al., MIB, arXiv 2504.13151). GPT-2 124M has 32,491 edges.
 *
 * @module
 */

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
  /** −1 where it is no head. */
  head: number;
  /** `a0.h3.q`, `m0`, `logits`. */
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
  /** In the order in which they are computed: the embedding, then each layer's heads and its MLP. */
  readonly sources: readonly SourceNode[];
  /** Each layer's queries (by head), keys, values, and its MLP; last the logits. */
  readonly inputs: readonly NodeInput[];
  /** Number of edges. */
  readonly edges: number;
}

/** The graph of a model with so many layers and heads. */
export function createGraph({ layers, heads }: { layers: number; heads: number }): CircuitGraph {
  const sources: SourceNode[] = [{ kind: "embedding", layer: -1, head: -1, name: "embed" }];
  const inputs: NodeInput[] = [];
  let edges = 0;
  const input = (kind: NodeInput["kind"], layer: number, head: number, name: string): void => {
    inputs.push({ kind, layer, head, name, sources: sources.length, firstEdge: edges });
    edges += sources.length;
  };
  for (let layer = 0; layer < layers; layer++) {
    for (const kind of ["query", "key", "value"] as const) {
      for (let head = 0; head < heads; head++) input(kind, layer, head, `a${layer}.h${head}.${kind[0]}`);
    }
    for (let head = 0; head < heads; head++) {
      sources.push({ kind: "head", layer, head, name: `a${layer}.h${head}` });
    }
    input("mlp", layer, -1, `m${layer}`);
    sources.push({ kind: "mlp", layer, head: -1, name: `m${layer}` });
  }
  input("logits", layers, -1, "logits");
  return { layers, heads, sources, inputs, edges };
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
