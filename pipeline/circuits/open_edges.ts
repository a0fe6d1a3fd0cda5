/**
 * The open attention edges of one prompt, with the tokens at their ends: who looks at whom, by which head, how much, and
 * whether what is seen can reach the answer.
 *
 * @module
 */
import { usageError } from "../errors.ts";
import type { ModelConfig } from "../model/config.ts";
import type { Interventions } from "./interventions.ts";
import { type TokenEdge, visitOpenEdges } from "./token_circuit.ts";

/** An open attention edge of a prompt. */
export interface OpenEdge extends TokenEdge {
  /** What the token that looks spells. */
  queryToken: string;
  /** What the token that is looked at spells. */
  keyToken: string;
}

/**
 * Runs one prompt and lists its open edges, by layer, head, query and key.
 *
 * @param runs compiled for one prompt of as many tokens
 * @param options.answers positions whose logits are the answer, below 0 counted from the end
 * @param options.leastWeight softmax weight below which an edge is not listed; paths go along it nevertheless
 * @throws {RangeError} when an answer is at no position of the prompt
 * @throws {UserError} when the model has no gates, and no least weight is given: every causal edge would be listed
 */
export async function openEdgesOf(
  runs: Interventions,
  { config, spell }: { config: ModelConfig; spell(token: number): string },
  tokens: readonly number[],
  { answers, leastWeight }: { answers: readonly number[]; leastWeight?: number },
): Promise<OpenEdge[]> {
  const { layers, heads, gate } = config;
  const { length } = tokens;
  if (gate === undefined && leastWeight === undefined) {
    const all = layers * heads * length * (length + 1) / 2;
    throw usageError(
      `Cannot list open edges as without gates all ${all} of the prompt are open: give \`leastWeight\`, 0 for all`,
    );
  }
  const names = (what: string) => Array.from({ length: layers }, (_, n) => `blocks.${n}.attn.hook_${what}`);
  const [patterns, gates] = [names("pattern"), gate ? names("gates") : []];
  const { activations } = await runs.run([tokens], { read: [...patterns, ...gates], at: [] });
  const attention = patterns.map((name, layer) => ({
    weights: activations.get(name)!,
    gates: gate ? activations.get(gates[layer])! : new Float32Array(),
  }));
  const texts = tokens.map(spell);
  const found: OpenEdge[] = [];
  visitOpenEdges(attention, { heads, length, answers }, (edge) => {
    if (edge.weight < (leastWeight ?? 0)) return;
    found.push({ ...edge, queryToken: texts[edge.query], keyToken: texts[edge.key] });
  });
  // They come with the last layer's first.
  return found.sort((a, b) => a.layer - b.layer);
}
