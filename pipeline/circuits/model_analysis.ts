/**
 * One model's part of an investigation: its circuit, what other ablations say of it, and its attention over a prompt.
 * Nothing of it stays on the device.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Exchange } from "../parallel/exchange.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { analyse, type AnalysisOptions, type Findings } from "./analyse.ts";
import { type Ablation, type CircuitEngine, type CircuitModel, createCircuitEngine } from "./engine.ts";
import { faithfulness } from "./metrics.ts";
import {
  measureOffPaths,
  type PromptTokenCircuit,
  summariseOffPaths,
  type TokenCircuits,
} from "./off_paths.ts";
import { type PromptSet, splitPairs } from "./prompts.ts";
import type { PromptAttention, PromptEdges } from "./results.ts";
import type { TokenCircuit } from "./token_circuit.ts";

/** What is analysed, and how. */
export interface ModelAnalysisOptions extends AnalysisOptions {
  set: PromptSet;
  /** Names the tokens of the prompt whose attention is drawn. */
  tokenizer: Pick<Tokenizer, "spell">;
  /** The ablation by which the circuit is found. */
  ablation: Ablation;
  /** Bytes that may be held on the device beside the model's parameters. */
  maxBytes: number;
  /** The other ranks, all of which call this, and get the same. */
  exchange?: Exchange;
  /** Told once the model is compiled. */
  onReady?(engine: Pick<CircuitEngine, "graph" | "bytes" | "batch">): void;
}

/** What was found of one model. */
export interface ModelAnalysis {
  findings: Findings;
  /** Of the circuit, with what it leaves out replaced in each way; empty where there is no circuit. */
  ablations: { ablation: Ablation; faithfulness: number }[];
  /** Of the first clean prompt. */
  attention: PromptAttention;
  /** Of all clean prompts. */
  tokenCircuits: TokenCircuits;
  /** Of the first clean prompts: as many as have no more than {@link MOST_TOKEN_EDGES} open edges together. */
  tokenEdges: PromptEdges[];
}

const ABLATIONS: readonly Ablation[] = ["resample", "mean", "zero"];
/** Open attention edges of a model that are listed one by one. */
const MOST_TOKEN_EDGES = 5e5;
/** Open edges of smaller weights are not drawn. */
const DRAWN_WEIGHT = 0.005;

/** Analyses a model whose parameters are on the device, with one engine for all ablations. */
export async function analyseModel(
  gpu: Gpu,
  model: CircuitModel,
  { set, tokenizer, ablation, maxBytes, exchange, onReady, ...options }: ModelAnalysisOptions,
): Promise<ModelAnalysis> {
  const engine = await createCircuitEngine(gpu, model, { set, ablation, maxBytes, exchange });
  let findings: Findings;
  let ablations: ModelAnalysis["ablations"] = [];
  try {
    onReady?.(engine);
    findings = await analyse(engine, set, options);
    if (findings.circuit) {
      ablations = await ablationsOf(engine, set, findings.circuit.circuit, options.progress);
    }
  } finally {
    engine.destroy();
  }
  const prompts = await measureOffPaths(
    gpu,
    model,
    set,
    (done, of) =>
      options.progress?.(model.config.gate ? "closing edges off the paths" : "edges over tokens", done, of),
    exchange,
  );
  return {
    findings,
    ablations,
    attention: promptAttention(set, model.config, prompts[0].circuit, tokenizer),
    tokenCircuits: summariseOffPaths(prompts),
    tokenEdges: firstWithin(prompts, MOST_TOKEN_EDGES).map(({ circuit, effects }, n) => ({
      tokens: spelled(set, n, tokenizer),
      edges: circuit.edges.map((edge, at) => ({ ...edge, effect: effects && effects[at] })),
    })),
  };
}

/** The first prompts, as many as have no more than so many open edges together. */
export function firstWithin<Prompt extends Pick<PromptTokenCircuit, "circuit">>(
  prompts: readonly Prompt[],
  most: number,
): Prompt[] {
  let edges = 0;
  const end = prompts.findIndex(({ circuit }) => (edges += circuit.open) > most);
  return prompts.slice(0, end < 0 ? prompts.length : end);
}

const spelled = ({ pairs }: PromptSet, n: number, tokenizer: Pick<Tokenizer, "spell">): string[] =>
  pairs[n].clean.map((token) => tokenizer.spell(token));

/** The circuit's faithfulness, on pairs that did not choose it, when what it leaves out is replaced in each way. */
async function ablationsOf(
  engine: CircuitEngine,
  { pairs }: PromptSet,
  circuit: Uint8Array,
  progress: AnalysisOptions["progress"],
): Promise<ModelAnalysis["ablations"]> {
  const { scoring } = splitPairs(pairs);
  const { edges } = engine.graph;
  const found = [];
  // The mean of one corrupted prompt is that prompt.
  const ablations = ABLATIONS.filter((ablation) => ablation !== "mean" || pairs.length > 1);
  for (const ablation of ablations) {
    progress?.("other ablations", found.length, ablations.length);
    const full = await engine.run(new Uint8Array(edges).fill(1), ablation);
    const empty = await engine.run(new Uint8Array(edges), ablation);
    const ofCircuit = await engine.run(circuit, ablation);
    found.push({ ablation, faithfulness: faithfulness(ofCircuit, { full, empty }, scoring) });
  }
  return found;
}

/** The attention of the first prompt, for drawing. */
function promptAttention(
  set: PromptSet,
  { heads, layers }: CircuitModel["config"],
  circuit: TokenCircuit,
  tokenizer: Pick<Tokenizer, "spell">,
): PromptAttention {
  return {
    tokens: spelled(set, 0, tokenizer),
    heads: Array.from({ length: layers * heads }, (_, n) => {
      const [layer, head] = [Math.floor(n / heads), n % heads];
      const own = circuit.edges.filter((edge) => edge.layer === layer && edge.head === head);
      return {
        layer,
        head,
        open: own.length,
        edges: own.filter(({ weight }) => weight >= DRAWN_WEIGHT).map((
          { query, key, weight },
        ): [number, number, number] => [
          query,
          key,
          Number(weight.toFixed(3)),
        ]),
      };
    }),
    least_weight: DRAWN_WEIGHT,
    counts: {
      all: circuit.all,
      open: circuit.open,
      on_paths: circuit.onPaths,
      may_matter: circuit.mayMatter,
    },
  };
}
