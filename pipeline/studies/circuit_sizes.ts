/**
 * What a study reads of a circuit that was looked for.
 *
 * @module
 */
import type { CircuitSizes } from "./study.ts";

/**
 * What a summary of circuits says of its one model.
 *
 * @param summary as summary.json has it; one that was written before there was a list of models has them by kind
 */
export function circuitSizes(summary: unknown): CircuitSizes {
  type Sizes = Record<string, number | null> | null;
  const { models, dense, sparse } = summary as { models?: Sizes[]; dense?: Sizes; sparse?: Sizes };
  const of = models?.[0] ?? dense ?? sparse;
  return { edges: of?.n90_edges ?? null, heads: of?.n90_heads ?? null };
}
