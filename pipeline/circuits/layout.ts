/**
 * What an engine keeps on the device, worked out from shapes alone, so that it is known what fits before anything is
 * compiled.
 *
 * @module
 */
import { elementsOf } from "../../kernels/core/tensor.ts";
import { planMemory } from "../model/plan.ts";
import type { ModelConfig } from "../model/config.ts";
import type { CircuitGraph } from "./graph.ts";

/** The shape of one batch. */
export interface CircuitShape {
  /** Pairs. */
  batch: number;
  /** Positions T of each. */
  positions: number;
  /** Positions of the whole batch at which an answer is read. */
  answers: number;
}

/** Rows of logits that are held at once take no more than this. */
const LOGITS_BYTES = 32 << 20;

/** The next multiple of 64 elements: where bindings may start. */
export const aligned = (length: number): number => 64 * Math.ceil(length / 64);

/** Where the heads and the MLP of a layer stand among a graph's sources and inputs, and how many inputs its heads have. */
export function layerIndices(graph: CircuitGraph, layer: number) {
  const { heads, keyValueHeads } = graph;
  const ofHeads = heads + 2 * keyValueHeads;
  const firstHead = 1 + layer * (heads + 1);
  const firstInput = layer * (ofHeads + 1);
  return { firstHead, mlp: firstHead + heads, firstInput, ofHeads, mlpInput: firstInput + ofHeads };
}

/** Shapes of an engine's tensors; see there for what they hold. */
export function engineShapes(
  config: ModelConfig,
  graph: CircuitGraph,
  { batch, positions, answers }: CircuitShape,
  maxBindingBytes: number,
) {
  const { width, layers, vocabularySize } = config;
  const { ofHeads } = layerIndices(graph, 0);
  const rows = batch * positions;
  const stride = aligned(rows * width);
  const sources = graph.sources.length;
  const columns = aligned(sources);
  const logitsStride = 4 * Math.ceil(vocabularySize / 4);
  const fitting = Math.floor(Math.min(LOGITS_BYTES, maxBindingBytes) / (4 * logitsStride));
  const logitsRows = fitting >= answers ? answers : Math.max(64, 64 * Math.floor(fitting / 64));
  const answerRows = logitsRows * Math.ceil(answers / logitsRows);
  return {
    /** What each source wrote in this run less its ablated value (source, row · width). */
    delta: [sources, stride],
    /** The ablated value, negated, as delta. */
    minusAblated: [sources, stride],
    /** The ablated residual stream that each branch reads, and at the end (stream, row · width). */
    base: [2 * layers + 1, stride],
    /** What the inputs of one layer read (input, row, width). */
    streams: [ofHeads, rows, width],
    /** The same after the norm. */
    norms: [ofHeads, rows, width],
    statistics: [ofHeads * rows, 2],
    /** 1 where an edge is kept (input, source), 0 elsewhere. */
    mask: [graph.inputs.length, columns],
    /** Sums over steps of the estimated effects (input, pair · source). */
    scores: [graph.inputs.length, batch * columns],
    /** The final norm's output where answers are read (answer, width), and its gradient. */
    answers: [answerRows, width],
    answerGradients: [answerRows, width],
    /** Logits of some of them. */
    logits: [logitsRows, logitsStride],
    edgeScale: [1],
    /** Means over all corrupted prompts (source or stream, position · width). */
    meanOutputs: [sources, positions * width],
    meanStreams: [2 * layers + 1, positions * width],
    /** What each pair of a batch counts in them, and the same negated. */
    shares: [1, 4 * Math.ceil(batch / 4)],
    negativeShares: [1, 4 * Math.ceil(batch / 4)],
  } satisfies Record<string, number[]>;
}

/** The tensors of an engine. */
export type EngineTensor = keyof ReturnType<typeof engineShapes>;

/** Bytes of an engine's tensors and of its network's activations, and of the largest, weights included, that is bound whole. */
export function engineBytes(
  config: ModelConfig,
  graph: CircuitGraph,
  shape: CircuitShape,
  maxBindingBytes: number,
): { total: number; largest: number } {
  const own = Object.values(engineShapes(config, graph, shape, maxBindingBytes))
    .map((axes) => 4 * elementsOf(axes));
  const ofNetwork = planMemory(config, networkShape(shape), maxBindingBytes).buffers;
  const rows = shape.batch * shape.positions;
  // Tokens and their order, of the network and of the patched run; the network's targets, loss rows and sums; uniforms;
  // both runs' rotary angles and where they begin.
  const { headSize, positions } = config;
  const angles = positions.kind === "rotary"
    ? [16, 4 * shape.positions * Math.floor(positions.share * headSize)]
    : [];
  const others = [48 * rows, 20 * rows, 32, 32 * config.layers * config.heads, 64 * config.layers + 144];
  others.push(...angles, ...angles);
  const all = [...own, ...ofNetwork, ...others];
  return {
    total: all.reduce((sum, bytes) => sum + bytes, 0),
    largest: Math.max(...all, ...wholeWeights(config)),
  };
}

/** Bytes of the weights that the circuits' own products bind whole: the network's are bound in slices. */
function wholeWeights({ width, heads, keyValueHeads, headSize, mlpWidth, mlp, norm }: ModelConfig): number[] {
  const intoMlp = norm.at === "output" ? mlpWidth * (mlp === "swiglu" ? 2 : 1) : 0;
  return [(heads + 2 * keyValueHeads) * headSize, heads * headSize, intoMlp].map((columns) =>
    4 * width * columns
  );
}

/** What the unpatched network is compiled for: it is never asked for logits. */
export function networkShape({ batch, positions }: CircuitShape) {
  return { batch, context: positions, training: true, logitsBytes: 1 };
}
