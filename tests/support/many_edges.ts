/**
 * What a large model may answer to a long prompt, for what has to be drawn of it.
 *
 * @module
 */
import type { AttentionEdge } from "../../serve/api.ts";

/**
 * Of 48 layers with 32 heads and 256 tokens, as many edges as the API gives: few heavy ones, as models have; 2,000 have a
 * weight of at least 0.05, 2,820 of at least 0.02.
 */
export const MANY_EDGES = {
  layers: 48,
  heads: 32,
  tokens: Array.from({ length: 256 }, (_, n) => ` token${n}`),
  edges: Array.from({ length: 20_000 }, (_, n): AttentionEdge => {
    const query = n * 7919 % 256;
    return [n % 48, (n >> 4) % 32, query, n * 104_729 % (query + 1), 0.01 + 0.98 * (n % 997 / 997) ** 30, 1];
  }),
  open: 20_000,
  causal_pairs: 48 * 32 * 256 * 257 / 2,
};
