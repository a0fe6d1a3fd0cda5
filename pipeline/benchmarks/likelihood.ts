/**
 * Log-likelihoods of continuations on the device, in batches of sequences of like length.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { ModelConfig } from "../model/config.ts";
import type { HeldShape } from "../model/held_weights.ts";
import { hardGates, type Network, prepareNetwork } from "../model/network.ts";
import type { Parameters } from "../model/parameters.ts";
import { IGNORED } from "../text/batches.ts";
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
export interface MeasuredModel {
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
  /** Aborted to end it before the next batch. */
  signal?: AbortSignal;
}

/** Positions of the shortest rows: each number of positions is compiled by itself. */
const FEWEST_POSITIONS = 32;

/** Positions of a row that holds so many tokens: a power of two, or all that the model has. */
export function positionsFor(tokens: number, contextLength: number): number {
  const positions = Math.max(FEWEST_POSITIONS, 2 ** Math.ceil(Math.log2(tokens)));
  return Math.min(positions, contextLength);
}

/**
 * Measures every sequence. The rows of a batch are padded behind their end, which no token before it sees.
 *
 * @returns in the order of the sequences
 * @throws {RangeError} when a sequence is longer than the model's positions and one more
 * @throws the signal's reason when it is aborted
 */
export async function measureLikelihoods(
  gpu: Gpu,
  { config, parameters, held }: MeasuredModel,
  sequences: readonly Sequence[],
  { batchTokens, onDone, signal }: LikelihoodOptions,
): Promise<Likelihood[]> {
  const { contextLength, gate } = config;
  const found: Likelihood[] = sequences.map(() => ({ logLikelihood: 0, greedy: true }));
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
  let done = sequences.length - [...buckets.values()].reduce((sum, { length }) => sum + length, 0);
  onDone?.(done);
  // The largest first: what does not fit the device shows at once.
  for (const [positions, indices] of [...buckets].toSorted(([a], [b]) => b - a)) {
    const batch = Math.max(1, Math.min(indices.length, Math.floor(batchTokens / positions)));
    const shape = { batch, context: positions, training: false, ...held };
    const network = await prepareNetwork(gpu, config, shape);
    try {
      network.configureGates(hardGates(gate?.bias, batch));
      const rows = measureRows(gpu, network, parameters, gate ? "deterministic" : "dense");
      for (let first = 0; first < indices.length; first += batch) {
        await turn();
        signal?.throwIfAborted();
        const some = indices.slice(first, first + batch);
        const likelihoods = await rows(some.map((index) => sequences[index]));
        some.forEach((index, row) => found[index] = likelihoods[row]);
        onDone?.(done += some.length);
      }
    } finally {
      network.destroy();
    }
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
