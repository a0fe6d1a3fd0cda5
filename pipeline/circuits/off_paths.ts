/**
 * What the paths of token circuits leave out, measured: every open edge that carries no value to an answer is closed,
 * and the answers are compared. Keys off the paths set the softmax weights of edges on them, and gates are functions of
 * queries and keys, so that the answers may well change.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { CircuitModel, Progress } from "./engine.ts";
import type { Exchange } from "../parallel/exchange.ts";
import type { Replacement } from "../model/replacement.ts";
import { type AttentionEdge, closedEdges, prepareInterventions } from "./interventions.ts";
import { placeMetric, type PromptSet } from "./prompts.ts";
import { type TokenCircuit, tokenCircuit } from "./token_circuit.ts";

/** How the answers move when the open edges off the paths are closed. */
export interface OffPathEffect {
  /** Share of prompts at one of whose answers a logit moves by more than {@link MOVED}. */
  moved: number;
  /** Share of prompts at one of whose answers the model's first choice of all tokens is another. */
  changed: number;
  /** Largest absolute change of a logit at an answer, of any token and prompt. */
  logit: number;
  /** Mean over prompts of the metric's absolute change. */
  metric: number;
}

/** The token circuits of a set's clean prompts, and what is off them. */
export interface TokenCircuits {
  /** Causal attention edges of a prompt. */
  all: number;
  /** Mean numbers of those that are open, on a path that carries values, and may matter (see {@link TokenCircuit}). */
  open: number;
  /** On a path. */
  onPaths: number;
  /** With the gates held. */
  mayMatter: number;
  /** Share of prompts that have an open edge off the paths. */
  offPaths: number;
  /**
   * All other gates held as they were in the whole run. Null of a model without gates: every edge whose query an answer
   * can see is on a path, so that nothing off them reaches an answer, and nothing is closed.
   */
  held: OffPathEffect | null;
  /** All other gates computed anew: they open and close as queries and keys now have it. Null likewise. */
  anew: OffPathEffect | null;
}

/** What one prompt gives. */
export interface PromptTokenCircuit {
  /** Its edges and paths. */
  circuit: TokenCircuit;
  /** With shares of one prompt, 0 or 1; null of a model without gates. */
  held: OffPathEffect | null;
  /** Likewise, gates anew. */
  anew: OffPathEffect | null;
  /**
   * By how much the metric drops when each edge alone is closed and all other gates are held; 0 of those that cannot
   * matter. Null where so many may that their share of {@link MOST_EFFECTS} does not do, and of a model without gates.
   */
  effects: Float64Array | null;
}

/** A move of a logit that is no rounding: float32 and float64 differ by less than a tenth of this. */
export const MOVED = 1e-4;

/** Single edges that are closed, at most, of all prompts together: each takes a run. Every prompt has the same share. */
export const MOST_EFFECTS = 2048;

const NONE: OffPathEffect = { moved: 0, changed: 0, logit: 0, metric: 0 };

/**
 * Finds each clean prompt's token circuit, runs the prompt without what is off it, and without each edge that may matter.
 * Of a model without gates, which has no edge to close, it finds the token circuits alone.
 *
 * @param exchange the other ranks, which take prompts in turn; every one gets all that is found
 */
export async function measureOffPaths(
  gpu: Gpu,
  model: CircuitModel,
  { pairs, metric }: PromptSet,
  progress: Progress = () => {},
  exchange?: Exchange,
): Promise<PromptTokenCircuit[]> {
  const { layers, heads, vocabularySize, gate } = model.config;
  const length = pairs[0].clean.length;
  const names = (what: string) => Array.from({ length: layers }, (_, n) => `blocks.${n}.attn.hook_${what}`);
  const [patterns, gates] = [names("pattern"), names("gates")];
  const run = await prepareInterventions(gpu, model, { batch: 1, positions: length });
  const { rank, size } = exchange ?? { rank: 0, size: 1 };
  const found: PromptTokenCircuit[] = [];
  const share = Math.floor(MOST_EFFECTS / pairs.length);
  try {
    for (const [n, { clean, places }] of pairs.entries()) {
      if (n % size === 0) await exchange?.agree();
      exchange?.signal.throwIfAborted();
      if (n % size !== rank) continue;
      progress(n, pairs.length);
      const answers = [...new Set(places.map(({ position }) => position))];
      const { logits, activations } = await run.run([clean], { at: answers, read: [...patterns, ...gates] });
      const circuit = tokenCircuit(
        gates.map((name, layer) => {
          const open = activations.get(name)!;
          return { gates: open, weights: activations.get(patterns[layer])!.map((one, n) => one * open[n]) };
        }),
        { heads, length, answers },
      );
      if (!gate) {
        found.push({ circuit, held: null, anew: null, effects: null });
        continue;
      }
      const off = circuit.edges.filter(({ onPath }) => !onPath);

      const metricOf = (logits: Float32Array): number => {
        const values = places.map((place) => {
          const start = answers.indexOf(place.position) * vocabularySize;
          return placeMetric(metric, logits.subarray(start, start + vocabularySize), place).value;
        });
        return values.reduce((sum, value) => sum + value, 0) / values.length;
      };
      const effectOf = async (replace: Replacement[]): Promise<OffPathEffect> => {
        // Nothing to close: nothing changes.
        if (off.length === 0) return NONE;
        const without = (await run.run([clean], { at: answers, replace })).logits;
        const choice = (logits: Float32Array, row: number): number => {
          const ofRow = logits.subarray(row * vocabularySize, (row + 1) * vocabularySize);
          return ofRow.indexOf(ofRow.reduce((best, logit) => Math.max(best, logit)));
        };
        const move = without.reduce((most, logit, n) => Math.max(most, Math.abs(logit - logits[n])), 0);
        return {
          moved: move > MOVED ? 1 : 0,
          changed: answers.some((_, row) => choice(without, row) !== choice(logits, row)) ? 1 : 0,
          logit: move,
          metric: Math.abs(metricOf(without) - metricOf(logits)),
        };
      };
      const heldWithout = (closed: readonly AttentionEdge[]): Replacement[] =>
        gates.map((activation, layer) => {
          const values = activations.get(activation)!.slice();
          for (const edge of closed) {
            if (edge.layer === layer) values[(edge.head * length + edge.query) * length + edge.key] = 0;
          }
          return { activation, by: { values } };
        });
      const effectsOf = async (): Promise<Float64Array> => {
        const whole = metricOf(logits);
        const effects = new Float64Array(circuit.edges.length);
        for (const [n, edge] of circuit.edges.entries()) {
          if (!edge.mayMatter) continue;
          const without = await run.run([clean], { at: answers, replace: heldWithout([edge]) });
          effects[n] = whole - metricOf(without.logits);
        }
        return effects;
      };
      found.push({
        circuit,
        held: await effectOf(heldWithout(off)),
        anew: await effectOf(closedEdges(off)),
        effects: circuit.mayMatter <= share ? await effectsOf() : null,
      });
    }
    progress(pairs.length, pairs.length);
    const ofRanks = await exchange?.gather(found, "edges off the paths") ?? [found];
    return pairs.map((_, n) => ofRanks[n % size][Math.floor(n / size)]);
  } finally {
    run.destroy();
  }
}

/** The prompts' token circuits together. */
export function summariseOffPaths(prompts: readonly PromptTokenCircuit[]): TokenCircuits {
  const mean = (value: (prompt: PromptTokenCircuit) => number): number =>
    prompts.reduce((sum, prompt) => sum + value(prompt), 0) / prompts.length;
  const together = (effects: (OffPathEffect | null)[]): OffPathEffect | null => {
    const measured = effects.filter((effect) => effect !== null);
    if (measured.length === 0) return null;
    const meanOf = (what: keyof OffPathEffect): number =>
      measured.reduce((sum, effect) => sum + effect[what], 0) / measured.length;
    return {
      moved: meanOf("moved"),
      changed: meanOf("changed"),
      logit: Math.max(...measured.map(({ logit }) => logit)),
      metric: meanOf("metric"),
    };
  };
  return {
    all: prompts[0].circuit.all,
    open: mean(({ circuit }) => circuit.open),
    onPaths: mean(({ circuit }) => circuit.onPaths),
    mayMatter: mean(({ circuit }) => circuit.mayMatter),
    offPaths: mean(({ circuit }) => circuit.open > circuit.onPaths ? 1 : 0),
    held: together(prompts.map(({ held }) => held)),
    anew: together(prompts.map(({ anew }) => anew)),
  };
}
