/**
 * How an activation lies in a shard: its first axis is always the token, so that all of a shard's tensors are read by the
 * same index.
 *
 * @module
 */
import type { ActivationAxis } from "../model/activation_names.ts";

/** What stands in a shard for an activation. */
export interface StoredForm {
  /** Name of the activation. */
  name: string;
  /**
   * - `values`: (token, …), as it is computed
   * - `map`: (token, head, key), where a token is the query, and key its position in the row
   * - `edges`: no tensor of this name but `.query`, `.key` and `.head`, an element for each open edge; query and key are rows
   *   of the shard's other tensors
   */
  kind: "values" | "map" | "edges";
  /** Axes as they are stored, the slowest first. */
  axes: readonly string[];
}

/** The parts of an edge, each a tensor with the activation's name before it. */
export const EDGE_PARTS = ["query", "key", "head"] as const;

/** The form of an activation with these axes. */
export function storedForm(name: string, axes: readonly ActivationAxis[]): StoredForm {
  if (name.endsWith(".hook_gates")) return { name, kind: "edges", axes: ["edge"] };
  if (axes.includes("query")) return { name, kind: "map", axes: ["token", "head", "key"] };
  return { name, kind: "values", axes: ["token", ...axes.slice(2)] };
}

/** The first `queries` of a row's map (head, query, key) as they are stored (query, head, key). */
export function byQuery(map: Float32Array, positions: number, queries: number): Float32Array {
  const heads = map.length / positions ** 2;
  const stored = new Float32Array(heads * queries * positions);
  for (let head = 0; head < heads; head++) {
    for (let query = 0; query < queries; query++) {
      const from = (head * positions + query) * positions;
      stored.set(map.subarray(from, from + positions), (query * heads + head) * positions);
    }
  }
  return stored;
}

/**
 * The open edges of a row's gates (head, query, key), by query, then head, then key. Behind a padded row's end none is open.
 *
 * @param first row of the shard at which the row of text begins
 */
export function openEdges(
  gates: Float32Array,
  positions: number,
  first: number,
): Record<typeof EDGE_PARTS[number], Int32Array> {
  const heads = gates.length / positions ** 2;
  const count = gates.reduce((sum, gate) => sum + (gate === 0 ? 0 : 1), 0);
  const [query, key, head] = EDGE_PARTS.map(() => new Int32Array(count));
  let at = 0;
  for (let q = 0; q < positions; q++) {
    for (let h = 0; h < heads; h++) {
      const row = (h * positions + q) * positions;
      for (let k = 0; k <= q; k++) {
        if (gates[row + k] === 0) continue;
        query[at] = first + q;
        key[at] = first + k;
        head[at++] = h;
      }
    }
  }
  return { query, key, head };
}
