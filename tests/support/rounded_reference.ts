/**
 * A network that stores activations and weights as f16, beside the float64 model that is rounded at the same places.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import { crossEntropyGradientReference } from "../../kernels/cross_entropy/reference.ts";
import type { ModelConfig } from "../../pipeline/model/config.ts";
import type { Network } from "../../pipeline/model/network.ts";
import type { ReferencePass } from "../../pipeline/model/op.ts";
import type { Parameters } from "../../pipeline/model/parameters.ts";
import { referenceModel } from "../../pipeline/model/reference_model.ts";
import type { MicroBatch, Trainer } from "../../pipeline/training/trainer.ts";
import { assertClose } from "./compare.ts";
import type { SeededGates } from "./fixture_gates.ts";

/** Logits [B · T, V] behind a forward, of a network whose logits are one block. */
export async function logitsOf(gpu: Gpu, network: Network, parameters: Parameters): Promise<Float32Array> {
  gpu.submit("logits", (recorder) => network.logits(recorder, parameters, 0));
  const logits = await gpu.read(network.logitsTensor);
  const { config: { vocabularySize: V }, shape: { batch, context } } = network;
  const packed = new Float32Array(batch * context * V);
  return packed.map((_, n) => logits[Math.floor(n / V) * network.logitsStride + n % V]);
}

/**
 * The objective of a trainer's first step, (E + ρ R + λ CE) / (1 + λ), for {@link referenceModel}: its gates, and what
 * multiplies the gradient of CE. Without gates it is CE.
 */
export function referenceObjective(
  { layers, heads }: Pick<ModelConfig, "layers" | "heads">,
  { batch, context }: Pick<Network["shape"], "batch" | "context">,
  gates: SeededGates | undefined,
): Pick<ReferencePass, "sampled"> & { lossScale: number } {
  if (!gates) return { lossScale: 1 };
  const { seed, lambdaStart: lambda, ...rest } = gates;
  const edges = layers * heads * batch * context * (context + 1) / 2;
  return {
    sampled: { ...rest, noise: { seed, step: 0, firstRow: 0 }, edgeGradient: 1 / (1 + lambda) / edges },
    lossScale: lambda / (1 + lambda),
  };
}

/**
 * Makes one step at a learning rate of 0, and compares.
 *
 * @param of `gates`: those of the trainer, with the seed of its noise; left out: it trains densely
 * @param tolerances relative errors, of all logits and of each tensor's gradient
 */
export async function assertRoundedReference(
  gpu: Gpu,
  { network, parameters, trainer, batch, gates }: {
    network: Network;
    parameters: Parameters;
    trainer: Trainer;
    batch: MicroBatch;
    gates?: SeededGates;
  },
  tolerances: { logits: number; gradients: number },
): Promise<void> {
  const { inputs, targets } = batch;
  trainer.step(0, 0, [batch]);
  await trainer.log.drain();
  const weights = new Map<string, Float32Array>();
  for (const { name } of network.model.parameters) weights.set(name, await gpu.read(parameters.get(name)!));
  const { sampled, lossScale } = referenceObjective(network.config, network.shape, gates);
  const { logits, backward } = referenceModel(network.model, weights, inputs, { sampled });
  assertClose(await logitsOf(gpu, network, parameters), logits, {
    tolerance: tolerances.logits,
    name: "logits",
  });
  const { vocabularySize } = network.config;
  const counted = targets.filter((target) => target < vocabularySize).length;
  const gradients = backward(
    crossEntropyGradientReference(logits, targets, vocabularySize, lossScale / counted),
  );
  for (const [name, found] of trainer.gradients) {
    assertClose(await gpu.read(found), gradients.get(name)!, {
      tolerance: tolerances.gradients,
      name: `gradient of ${name}`,
    });
  }
}
