/**
 * Log-likelihoods of continuations on the device, in batches of sequences of like length.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { ModelConfig } from "../model/config.ts";
import type { HeldShape } from "../model/held_weights.ts";
import { hardGates } from "../model/gates.ts";
import { type Network, prepareNetwork } from "../model/network.ts";
import type { Parameters } from "../model/parameters.ts";
import type { Exchange } from "../parallel/exchange.ts";
import { IGNORED } from "../../kernels/core/targets.ts";
import { createDeviceLog } from "../training/device_log.ts";
import { turn } from "../turn.ts";
import type { Sequence } from "./requests.ts";

/** What a model gives to the tokens of a sequence that count. */
export interface Likelihood {
  /** Sum of their log-probabilities, nats. */
  logLikelihood: number;
  /** Whether each is the likeliest of the vocabulary. */
  greedy: boolean;
}

/** A model on the device. */
export interface ScoredModel {
  /** With a `gate` its gates are hard, as when it is evaluated; without one they are all open. */
  config: ModelConfig;
  parameters: Parameters;
  /** How these lie there; left out: all as f32. */
  held?: HeldShape;
}

/** How sequences are run. */
export interface LikelihoodOptions {
  /** Tokens of a batch, padding included; at least one sequence. */
  batchTokens: number;
  /** Told how many sequences are done. */
  onDone?(done: number): void;
  /** Aborted to end it before the next batch; with other ranks that of the exchange. */
  signal?: AbortSignal;
  /** The other ranks, with which the batches are shared out, to the same bits at each. */
  exchange?: Exchange;
}

/** Sequences that run together. */
interface SequenceBatch {
  /** Positions and rows of the network that runs it. */
  context: number;
  rows: number;
  /** Which sequences, at most as many as rows. */
  indices: readonly number[];
}

/** Positions of the shortest rows: each number of positions is compiled by itself. */
const FEWEST_POSITIONS = 32;

/** Positions of a row that holds so many tokens: a power of two, or all that the model has. */
export function positionsFor(tokens: number, contextLength: number): number {
  const positions = Math.max(FEWEST_POSITIONS, 2 ** Math.ceil(Math.log2(tokens)));
  return Math.min(positions, contextLength);
}

/**
 * The batches that sequences are run in, the longest first: what does not fit the device shows at once. A sequence of which
 * no token counts is in none.
 *
 * @throws {RangeError} when a sequence is longer than the model's positions and one more
 */
function batchesOf(
  sequences: readonly Sequence[],
  { contextLength, batchTokens }: { contextLength: number; batchTokens: number },
): SequenceBatch[] {
  const buckets = new Map<number, number[]>();
  for (const [index, { tokens, counted }] of sequences.entries()) {
    if (tokens.length > contextLength + 1 || counted >= tokens.length) {
      throw new RangeError(
        `Cannot measure ${counted} of ${tokens.length} tokens: at most ${
          contextLength + 1
        }, and one before those that count`,
      );
    }
    // Nothing to find out.
    if (counted === 0) continue;
    const positions = positionsFor(tokens.length - 1, contextLength);
    const bucket = buckets.get(positions);
    if (bucket) bucket.push(index);
    else buckets.set(positions, [index]);
  }
  return [...buckets].toSorted(([a], [b]) => b - a).flatMap(([context, indices]) => {
    const rows = Math.max(1, Math.min(indices.length, Math.floor(batchTokens / context)));
    return Array.from({ length: Math.ceil(indices.length / rows) }, (_, n) => ({
      context,
      rows,
      indices: indices.slice(n * rows, (n + 1) * rows),
    }));
  });
}

/**
 * Measures every sequence. The rows of a batch are padded behind their end, which no token before it sees. Of several ranks
 * each runs every so many of the batches of one process, so that a sequence has its neighbours, and its bits.
 *
 * @returns in the order of the sequences, at every rank
 * @throws {RangeError} when a sequence is longer than the model's positions and one more
 * @throws the signal's reason when it is aborted
 */
export async function measureLikelihoods(
  gpu: Gpu,
  { config, parameters, held }: ScoredModel,
  sequences: readonly Sequence[],
  { batchTokens, onDone, signal, exchange }: LikelihoodOptions,
): Promise<Likelihood[]> {
  const { contextLength, gate } = config;
  const found: Likelihood[] = sequences.map(() => ({ logLikelihood: 0, greedy: true }));
  const batches = batchesOf(sequences, { contextLength, batchTokens });
  const { rank, size } = exchange ?? { rank: 0, size: 1 };
  /** What this rank found, batch by batch. */
  const measured: Likelihood[][] = [];
  let done = sequences.length - batches.reduce((sum, { indices }) => sum + indices.length, 0);
  let network: Network | undefined;
  let measure: ReturnType<typeof measureRows> | undefined;
  onDone?.(done);
  try {
    for (const [n, { context, rows, indices }] of batches.entries()) {
      if (n % size === 0) await exchange?.agree();
      await turn();
      signal?.throwIfAborted();
      if (n % size === rank) {
        if (!measure || network?.shape.context !== context) {
          network?.destroy();
          // Where the next cannot be prepared it is not destroyed again.
          network = undefined;
          network = await prepareNetwork(gpu, config, { batch: rows, context, training: false, ...held });
          network.configureGates(hardGates(gate?.bias, rows));
          measure = measureRows(gpu, network, parameters, gate ? "deterministic" : "dense");
        }
        measured.push(await measure(indices.map((index) => sequences[index])));
      }
      onDone?.(done += indices.length);
    }
  } finally {
    network?.destroy();
  }
  const ofRanks = await exchange?.gather(measured, "a benchmark") ?? [measured];
  for (const [n, { indices }] of batches.entries()) {
    const likelihoods = ofRanks[n % size][Math.floor(n / size)];
    indices.forEach((index, row) => found[index] = likelihoods[row]);
  }
  return found;
}

/** Runs batches of up to as many sequences as a network has rows. */
function measureRows(
  gpu: Gpu,
  network: Network,
  parameters: Parameters,
  mode: "deterministic" | "dense",
): (sequences: readonly Sequence[]) => Promise<Likelihood[]> {
  const { batch, context } = network.shape;
  return async (sequences) => {
    const inputs = new Uint32Array(batch * context);
    const targets = new Uint32Array(batch * context).fill(IGNORED);
    sequences.forEach(({ tokens, counted }, row) => {
      inputs.set(tokens.slice(0, -1), row * context);
      const first = tokens.length - 1 - counted;
      targets.set(tokens.slice(first + 1), row * context + first);
    });
    network.upload(inputs, targets);
    const log = createDeviceLog(gpu, { lossRows: network.lossRows }, 1);
    try {
      gpu.submit("likelihoods", (recorder) => {
        network.forward(recorder, parameters, mode, { countEdges: false });
        network.head(recorder, parameters);
        log.record(recorder, 0);
      });
      const [{ lossRows }] = await log.drain();
      return sequences.map(({ tokens, counted }, row) => {
        let logLikelihood = 0;
        let greedy = true;
        for (let position = tokens.length - 1 - counted; position < tokens.length - 1; position++) {
          const at = 4 * (row * context + position);
          logLikelihood -= lossRows[at];
          greedy &&= lossRows[at + 1] === 1;
        }
        return { logLikelihood, greedy };
      });
    } finally {
      log.destroy();
    }
  };
}
