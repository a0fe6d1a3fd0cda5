/**
 * Completions drawn from a model in training: by the network that the step trains, of as many rows, so that its gates and
 * their noise, keyed by seed, step, layer, row, head, query and key, are those of the training pass to the bit. Tokens
 * are put in one position after the other, each after a pass over whole rows: texts as short as these need no keys and values
 * kept.
 *
 * @module
 */
import type { RandomStream } from "../../kernels/core/random.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { GateMode } from "../../kernels/gated_attention/op.ts";
import type { Network } from "../model/network.ts";
import type { Parameters } from "../model/parameters.ts";
import { IGNORED } from "../../kernels/core/targets.ts";
import { logProbabilities, readLogits } from "./policy.ts";
import type { MicroBatch } from "./trainer.ts";

/** Rows with what the model said. */
export interface RollOut {
  /** Prompts with what was drawn behind them, [B · T]. */
  inputs: Uint32Array;
  /** What was drawn at each position [B · T]; {@link IGNORED} where nothing was. */
  targets: Uint32Array;
  /** Log-likelihood of what was drawn at each position [B · T], nats; 0 where nothing was. */
  logLikelihoods: Float64Array;
  /** 1 for a row whose every token is the right one, else 0, [B]. */
  rewards: Uint8Array;
}

/**
 * Draws a token at each position of `rows` whose target counts, at temperature 1, and puts it in for the one behind.
 *
 * @param gpu on which the network is; its gates are configured
 * @param rows prompts with the right completions [B · T]
 * @param options `random`: gives the numbers that a row's tokens are drawn by, one a token; `mode`: how gates are used
 */
export async function rollOut(
  gpu: Gpu,
  network: Network,
  parameters: Parameters,
  rows: MicroBatch,
  { mode, random }: { mode: GateMode; random(row: number): RandomStream },
): Promise<RollOut> {
  const { batch, context } = network.shape;
  const inputs = rows.inputs.slice();
  const targets = new Uint32Array(batch * context).fill(IGNORED);
  const logLikelihoods = new Float64Array(batch * context);
  const rewards = new Uint8Array(batch).fill(1);
  const streams = Array.from({ length: batch }, (_, row) => random(row));
  for (let position = 0; position < context; position++) {
    const drawing = streams.keys().map((row) => row * context + position)
      .filter((at) => rows.targets[at] !== IGNORED).toArray();
    if (drawing.length === 0) continue;
    network.upload(inputs, targets);
    const logits = await readLogits(gpu, network, parameters, mode);
    for (const at of drawing) {
      const row = Math.floor(at / context);
      const of = logProbabilities(logits(at));
      const token = draw(of, streams[row].uniform());
      targets[at] = token;
      logLikelihoods[at] = of[token];
      if (position + 1 < context) inputs[at + 1] = token;
      if (token !== rows.targets[at]) rewards[row] = 0;
    }
  }
  return { inputs, targets, logLikelihoods, rewards };
}

/** The token at which the probabilities of those before it and its own come to more than `uniform`. */
function draw(logProbabilities: Float64Array, uniform: number): number {
  let left = uniform;
  const token = logProbabilities.findIndex((of) => (left -= Math.exp(of)) < 0);
  // Rounding may leave a little of 1: to the last that has any.
  return token >= 0 ? token : logProbabilities.findLastIndex((of) => Math.exp(of) > 0);
}
