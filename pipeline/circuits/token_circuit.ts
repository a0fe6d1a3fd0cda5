/**
 * The circuit over tokens that hard gates give for one prompt: which attention edges are open, and which of them lie on
 * a path that carries values from a token to the answer. The paths are exact, but they are not all that matters:
 *
 * - The softmax runs over all causal keys, open or not. What is off the paths also writes to queries and keys, and so
 *   moves the weights of open edges on them.
 * - A gate is computed from its query and its key: what is off the paths can open closed gates and close open ones.
 *
 * How much that is, closing it tells (off_paths.ts).
 *
 * @module
 */
import type { LayerPattern } from "../model/attention_pattern.ts";
import { fromStart } from "../model/replacement.ts";
import type { AttentionEdge } from "./interventions.ts";

/** An open attention edge. */
export interface TokenEdge extends AttentionEdge {
  /** Softmax weight. */
  weight: number;
  /** Whether it carries a value to an answer: through open edges and the residual stream. */
  onPath: boolean;
  /**
   * Whether an answer can change at all when it is closed and the other gates are held: what it carries reaches an answer
   * by value, or a query or key that sets the weight of an open edge that does. With gates computed anew any may matter
   * whose query an answer can see: in the last layer those of the answers, below those up to the last answer.
   */
  mayMatter: boolean;
}

/** Which tokens' values can have reached the answers, and by which edges. */
export interface TokenCircuit {
  /** Positions of the answers, from 0. */
  answers: readonly number[];
  /** Every open edge of the prompt, the last layer's first. */
  edges: TokenEdge[];
  /** Number of causal edges, open or not. */
  all: number;
  /** Number of those that are open. */
  open: number;
  /** Number of those that lie on a path that carries values. */
  onPaths: number;
  /** Number of the open ones that may matter with the other gates held: those on paths, and what moves their weights. */
  mayMatter: number;
  /** Positions of the tokens that a path begins at. */
  sources: number[];
  /**
   * Which nodes reach an answer by value: `reached[n][t]` is the residual stream at position t before layer n, and for n
   * the number of layers behind the last one.
   */
  reached: boolean[][];
  /** Number of paths from each token to an answer. */
  paths: Float64Array;
}

/** What layers' patterns are of. */
export interface TokenCircuitShape {
  /** Of each layer. */
  heads: number;
  /** Tokens of the prompt. */
  length: number;
  /** Positions whose logits are the answer, below 0 counted from the end. */
  answers: readonly number[];
}

/**
 * The open edges of a prompt, and the paths along which values go through them.
 *
 * A path runs from an answer's position down: through a layer it stays at its position, by the residual stream, or goes
 * from a query to a key that some head of the layer has open to it.
 *
 * @example The open edges of a sparse model on a prompt, and which of them carry values to the answer
 * ```ts
 * import assert from "node:assert/strict";
 * import { loadModel, readAttention, tokenCircuit } from "../../mod.ts";
 *
 * using model = await loadModel("data/addition-sparse");
 * const { gpu, network, parameters, config: { heads } } = model;
 * const tokens = model.tokenizer.encode("12+34=");
 * const { layers } = await readAttention(gpu, network, parameters, tokens);
 * const { edges, all, open, onPaths } = tokenCircuit(layers, { heads, length: 6, answers: [-1] });
 * assert(edges.length === open && onPaths <= open && open < all);
 * ```
 *
 * @param layers as `readAttention` gives them, or with 0 and 1 for gates; without gates every causal edge is open
 * @param shape.answers positions whose logits are the answer, below 0 counted from the end
 * @throws {RangeError} when an answer is at no position of the prompt
 */
export function tokenCircuit(layers: readonly LayerPattern[], shape: TokenCircuitShape): TokenCircuit {
  const edges: TokenEdge[] = [];
  const { answers, reached, paths } = visitOpenEdges(layers, shape, (edge) => edges.push(edge));
  const { heads, length } = shape;
  return {
    answers,
    edges,
    all: layers.length * heads * length * (length + 1) / 2,
    open: edges.length,
    onPaths: edges.filter(({ onPath }) => onPath).length,
    mayMatter: edges.filter(({ mayMatter }) => mayMatter).length,
    sources: [...paths.keys()].filter((position) => paths[position] > 0),
    reached,
    paths,
  };
}

/**
 * As {@link tokenCircuit}, but tells of each open edge, the last layer's first, and keeps none.
 *
 * @returns positions of the answers counted from the start, and what of a {@link TokenCircuit} is not of single edges
 * @throws {RangeError} as there
 */
export function visitOpenEdges(
  layers: readonly LayerPattern[],
  { heads, length, answers: given }: TokenCircuitShape,
  visit: (edge: TokenEdge) => void,
): Pick<TokenCircuit, "answers" | "reached" | "paths"> {
  const answers = fromStart(given, length, (position) => {
    throw new RangeError(`Cannot find what reaches position ${position} as the prompt has ${length} tokens`);
  });
  let paths = new Float64Array(length);
  for (const answer of new Set(answers)) paths[answer] = 1;
  const reached = [Array.from(paths, (count) => count > 0)];
  /** Positions whose residual stream reaches an answer by value, or by a query or key that sets an open edge's weight. */
  let matters = reached[0];
  for (let layer = layers.length - 1; layer >= 0; layer--) {
    const { weights, gates } = layers[layer];
    const below = paths.slice();
    const mattersBelow = matters.slice();
    for (let head = 0; head < heads; head++) {
      for (let query = 0; query < length; query++) {
        for (let key = 0; key <= query; key++) {
          const at = (head * length + query) * length + key;
          if (gates.length > 0 && !(gates[at] > 0)) continue;
          below[key] += paths[query];
          // The weight of an open edge depends on all of its query's keys.
          if (matters[query]) mattersBelow.fill(true, 0, query + 1);
          const onPath = paths[query] > 0;
          visit({ layer, head, query, key, weight: weights[at], onPath, mayMatter: matters[query] });
        }
      }
    }
    paths = below;
    matters = mattersBelow;
    reached.unshift(Array.from(paths, (count) => count > 0));
  }
  return { answers, reached, paths };
}

/** One path: its token, its answer, and in each layer the edge that it goes along; undefined: the residual stream. */
export interface TokenPath {
  /** Position of its token. */
  source: number;
  /** Position of its answer. */
  answer: number;
  /** By layer. */
  steps: (TokenEdge | undefined)[];
}

/** The paths of a circuit, those through the fewest edges first, up to `limit`. */
export function tokenPaths({ answers, edges, reached }: TokenCircuit, limit: number): TokenPath[] {
  const layers = reached.length - 1;
  const into = Map.groupBy(edges.filter(({ onPath }) => onPath), ({ layer, query }) => `${layer} ${query}`);
  const found: TokenPath[] = [];
  /** Paths through exactly `left` more edges in the layers up to `layer`, from `position` behind it. */
  function walk(
    answer: number,
    layer: number,
    position: number,
    left: number,
    steps: TokenPath["steps"],
  ): void {
    if (found.length >= limit || left > layer + 1) return;
    if (layer < 0) {
      found.push({ source: position, answer, steps });
      return;
    }
    if (left <= layer) walk(answer, layer - 1, position, left, [undefined, ...steps]);
    if (left === 0) return;
    for (const edge of into.get(`${layer} ${position}`) ?? []) {
      walk(answer, layer - 1, edge.key, left - 1, [edge, ...steps]);
    }
  }
  for (let count = 0; count <= layers; count++) {
    for (const answer of new Set(answers)) walk(answer, layers - 1, answer, count, []);
  }
  return found;
}
