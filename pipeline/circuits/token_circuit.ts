/**
 * The exact circuit over tokens that hard gates give for one prompt: which attention edges exist at all, and which of
 * them lie on a path from the answer back to a token. Nothing is estimated: a closed gate passes nothing on.
 *
 * @module
 */
import type { LayerPattern } from "../attention_pattern.ts";

/** An open attention edge. */
export interface TokenEdge {
  layer: number;
  head: number;
  query: number;
  key: number;
  weight: number;
  /** Whether the answer depends on it: its query's residual stream reaches an answer's position. */
  onPath: boolean;
}

/**
 * The open edges of a prompt, and the paths through them.
 *
 * A path runs from an answer's position down: through a layer it stays at its position, by the residual stream, or goes
 * from a query to a key that some head of the layer has open to it.
 *
 * @param layers as `readAttention` gives them
 * @param answers positions whose logits are the answer
 */
export function tokenCircuit(
  layers: readonly LayerPattern[],
  { heads, length, answers }: { heads: number; length: number; answers: readonly number[] },
): { edges: TokenEdge[]; all: number; open: number; onPaths: number; sources: number[] } {
  const edges: TokenEdge[] = [];
  let live = new Set(answers);
  for (let layer = layers.length - 1; layer >= 0; layer--) {
    const { weights, gates } = layers[layer];
    const below = new Set(live);
    for (let head = 0; head < heads; head++) {
      for (let query = 0; query < length; query++) {
        for (let key = 0; key <= query; key++) {
          const at = (head * length + query) * length + key;
          if (gates.length > 0 && !(gates[at] > 0)) continue;
          const onPath = live.has(query);
          if (onPath) below.add(key);
          edges.push({ layer, head, query, key, weight: weights[at], onPath });
        }
      }
    }
    live = below;
  }
  return {
    edges,
    all: layers.length * heads * length * (length + 1) / 2,
    open: edges.length,
    onPaths: edges.filter(({ onPath }) => onPath).length,
    sources: [...live].sort((a, b) => a - b),
  };
}
