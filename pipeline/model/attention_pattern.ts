/**
 * What attention looks like for one prompt: weights and gates of every causal edge of every layer and head. For
 * looking, not for training: it holds T × T, on the host, for one row.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import { destroyTensor } from "../../kernels/core/tensor.ts";
import { IGNORED } from "../../kernels/core/targets.ts";
import { usageError } from "../errors.ts";
import { checkOptions, type Kind, KINDS } from "../option_checks.ts";
import { hardGates } from "./gates.ts";
import type { Network } from "./network.ts";
import type { Parameters } from "./parameters.ts";
import { stepIn } from "./trace.ts";

/** The attention of one layer over the T positions of a prompt. */
export interface LayerPattern {
  /** Softmax weight times gate [H, T, T] (head, query, key); 0 where key > query or the gate is closed. */
  weights: Float32Array;
  /** Gate logit g = score + bias [H, T, T]; empty for dense attention. */
  gates: Float32Array;
}

/** A prompt's attention in all layers, and what comes next. */
export interface AttentionPattern {
  /** By layer. */
  layers: LayerPattern[];
  /** Log-probabilities of the token behind the prompt [V]. */
  next: Float32Array;
}

const BIAS: Kind = ["a finite number", Number.isFinite];

/** Which gates attention is read through. */
export interface ReadAttentionOptions {
  /** Reads it as if every causal edge were open, whatever gates the model has. */
  dense?: boolean;
  /** b of the gates; where left out that of `network.config.gate`, and where there is none attention is dense. */
  gateBias?: number;
}

/**
 * Runs a prompt and reads its attention, through the model's gates where it has some.
 *
 * @example Attention of a sparse model, through its gates and without: there the weights of a query's keys sum to 1
 * ```ts
 * import assert from "node:assert/strict";
 * import { loadModel, readAttention } from "../../mod.ts";
 *
 * using model = await loadModel("data/addition-sparse");
 * const tokens = model.tokenizer.encode("12+34=");
 * const read = (dense: boolean) =>
 *   readAttention(model.gpu, model.network, model.parameters, tokens, { dense });
 * const [gated, dense] = [await read(false), await read(true)];
 * const sum = ({ layers }: typeof gated) => layers[0].weights.reduce((sum, weight) => sum + weight, 0);
 * const queries = 4 * 6; // of each head one for each token
 * assert(sum(gated) < queries - 1 && Math.abs(sum(dense) - queries) < 1e-4);
 * ```
 *
 * @param network compiled for one row of at least as many positions as there are tokens
 * @throws {RangeError} when there is no token, or there are more than positions
 * @throws {UserError} on options that are of another type, or that contradict each other
 */
export async function readAttention(
  gpu: Gpu,
  network: Network,
  parameters: Parameters,
  tokens: readonly number[],
  options: ReadAttentionOptions = {},
): Promise<AttentionPattern> {
  const gateBias = biasOf(network, options);
  const { context, batch } = network.shape;
  const { config: { heads, vocabularySize }, model } = network;
  const { keyValueHeads, headSize } = network.config;
  const length = tokens.length;
  if (length < 1 || length > context || batch !== 1) {
    throw new RangeError(
      `Cannot read the attention of ${length} tokens as 1 to ${context} in one row are needed`,
    );
  }
  // Behind the prompt stand zeros, which no position of the prompt sees.
  const inputs = new Uint32Array(context);
  inputs.set(tokens);
  network.upload(inputs, new Uint32Array(context).fill(IGNORED));
  network.configureRows(1);
  network.configureGates(hardGates(gateBias, 1));
  const block = network.blocks.findIndex(({ first, count }) => length - 1 < first + count);
  // Layers may share the memory of their activations: each one's are copied as they are computed.
  const copies = new Map(
    model.branches.filter(({ kind }) => kind === "attention").map((branch) => {
      const { name, shape, half } = stepIn(branch, "attention").reads.x;
      const label = `queries, keys and values of layer ${branch.layer}`;
      return [name, gpu.tensor(label, shape, half ? "f16" : "f32")];
    }),
  );
  try {
    gpu.submit("reading attention", (recorder) => {
      network.forward(recorder, parameters, gateBias === undefined ? "dense" : "deterministic", {
        countEdges: false,
        hook(name, tensor) {
          const copy = copies.get(name);
          if (copy) recorder.copy(tensor, copy);
        },
      });
      network.logits(recorder, parameters, block);
    });
    const row = length - 1 - network.blocks[block].first;
    const logits = await gpu.read(network.logitsTensor, row * network.logitsStride, vocabularySize);
    const patterns: LayerPattern[] = [];
    for (const copy of copies.values()) {
      const qkv = await gpu.read(copy);
      patterns.push(layerPattern(qkv, { heads, keyValueHeads, headSize, length, gateBias }));
    }
    return { layers: patterns, next: logSoftmax(logits) };
  } finally {
    for (const copy of copies.values()) destroyTensor(gpu, copy);
  }
}

/** The bias of the gates that are read through; undefined where all edges are open. */
function biasOf({ config }: Network, options: ReadAttentionOptions): number | undefined {
  const given: unknown = options;
  checkOptions("its options", given, { dense: KINDS.flag, gateBias: BIAS }, "read attention");
  const { dense = false, gateBias } = options;
  if (dense && gateBias !== undefined) {
    throw usageError(`Cannot read attention as \`gateBias\` must be left out where it is dense: ${gateBias}`);
  }
  return dense ? undefined : gateBias ?? config.gate?.bias;
}

/** One layer's pattern from its queries, keys and values [T, H + 2 K, D], in float64 (docs/method.md, gated attention). */
export function layerPattern(
  qkv: ArrayLike<number>,
  { heads, keyValueHeads = heads, headSize, length, gateBias }: {
    heads: number;
    keyValueHeads?: number;
    headSize: number;
    length: number;
    gateBias?: number;
  },
): LayerPattern {
  const weights = new Float32Array(heads * length * length);
  const gates = new Float32Array(gateBias === undefined ? 0 : weights.length);
  const scores = new Float64Array(length);
  const at = (position: number, head: number): number =>
    (position * (heads + 2 * keyValueHeads) + head) * headSize;
  for (let head = 0; head < heads; head++) {
    for (let i = 0; i < length; i++) {
      const query = at(i, head);
      let highest = -Infinity;
      for (let j = 0; j <= i; j++) {
        const key = at(j, heads + Math.floor(head * keyValueHeads / heads));
        let dot = 0;
        for (let d = 0; d < headSize; d++) dot += qkv[query + d] * qkv[key + d];
        scores[j] = dot / Math.sqrt(headSize);
        highest = Math.max(highest, scores[j]);
      }
      let total = 0;
      for (let j = 0; j <= i; j++) total += Math.exp(scores[j] - highest);
      const row = (head * length + i) * length;
      for (let j = 0; j <= i; j++) {
        const gate = gateBias === undefined ? Infinity : scores[j] + gateBias;
        if (gateBias !== undefined) gates[row + j] = gate;
        // The gate does not renormalise: closed edges take their weight with them.
        weights[row + j] = gate > 0 ? Math.exp(scores[j] - highest) / total : 0;
      }
    }
  }
  return { weights, gates };
}

function logSoftmax(logits: Float32Array): Float32Array {
  const highest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit - highest), 0);
  return logits.map((logit) => logit - highest - Math.log(total));
}
