/**
 * A model as a policy: the probabilities that it gives tokens, and what follows from them without drawing any.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { GateMode } from "../../kernels/gated_attention/op.ts";
import type { Network } from "../model/network.ts";
import type { Parameters } from "../model/parameters.ts";
import { IGNORED } from "../../kernels/core/targets.ts";
import type { Batch } from "../text/batches.ts";

/** What is measured of a policy at positions that count, each after the right tokens before it. */
export interface PolicyMeasure {
  /** Mean entropy of a token, nats. */
  entropy: number;
  /** Mean KL(policy ‖ reference) of a token, nats. */
  divergence: number;
}

/** Parameters with how gates are used. */
export interface Policy {
  parameters: Parameters;
  mode: Extract<GateMode, "dense" | "deterministic">;
}

/**
 * Runs what was uploaded last, and reads the logits of all positions.
 *
 * @returns the logits [V] of a position of the batch, by its index in [B · T]
 */
export async function readLogits(
  gpu: Gpu,
  network: Network,
  parameters: Parameters,
  mode: GateMode,
): Promise<(at: number) => Float32Array> {
  const { blocks, logitsStride } = network;
  const read: Float32Array[] = [];
  for (const block of blocks.keys()) {
    gpu.submit("logits", (recorder) => {
      if (block === 0) network.forward(recorder, parameters, mode, { countEdges: false });
      network.logits(recorder, parameters, block);
    });
    read.push(await gpu.read(network.logitsTensor));
  }
  return (at) => {
    const block = blocks.findIndex(({ first, count }) => at < first + count);
    const start = (at - blocks[block].first) * logitsStride;
    return read[block].subarray(start, start + network.config.vocabularySize);
  };
}

/**
 * Log-probabilities of all tokens, nats, in float64.
 *
 * @throws {RangeError} where logits are not finite
 */
export function logProbabilities(logits: ArrayLike<number>): Float64Array {
  const all = Float64Array.from(logits);
  const highest = all.reduce((most, logit) => Math.max(most, logit), -Infinity);
  const normaliser = highest + Math.log(all.reduce((sum, logit) => sum + Math.exp(logit - highest), 0));
  if (!Number.isFinite(normaliser)) {
    throw new RangeError(`Cannot tell probabilities as logits must be finite: their highest is ${highest}`);
  }
  return all.map((logit) => logit - normaliser);
}

/**
 * Measures a policy beside another, both without noise.
 *
 * @param network its gates are configured
 * @throws {RangeError} where no position counts
 */
export async function measurePolicy(
  gpu: Gpu,
  network: Network,
  batches: readonly Batch[],
  policy: Policy,
  reference: Policy,
): Promise<PolicyMeasure> {
  const { context } = network.shape;
  let [entropy, divergence, tokens] = [0, 0, 0];
  for (const batch of batches) {
    network.upload(batch.inputs, batch.targets);
    const own = await readLogits(gpu, network, policy.parameters, policy.mode);
    const other = await readLogits(gpu, network, reference.parameters, reference.mode);
    for (let at = 0; at < batch.rows * context; at++) {
      if (batch.targets[at] === IGNORED) continue;
      const [p, q] = [logProbabilities(own(at)), logProbabilities(other(at))];
      entropy -= p.reduce((sum, of) => sum + Math.exp(of) * of, 0);
      divergence += p.reduce((sum, of, token) => sum + Math.exp(of) * (of - q[token]), 0);
      tokens++;
    }
  }
  if (tokens === 0) throw new RangeError("Cannot measure a policy as at least one token must count: none");
  return { entropy: entropy / tokens, divergence: divergence / tokens };
}
