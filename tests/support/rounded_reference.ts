/**
 * A network that stores activations and weights as f16, beside the float64 model that is rounded at the same places.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import { crossEntropyGradientReference } from "../../kernels/cross_entropy/reference.ts";
import type { Network } from "../../pipeline/model/network.ts";
import type { Parameters } from "../../pipeline/model/parameters.ts";
import { referenceModel } from "../../pipeline/model/reference_model.ts";
import type { MicroBatch, Trainer } from "../../pipeline/training/trainer.ts";
import { assertClose } from "./compare.ts";

/** Logits [B · T, V] behind a forward, of a network whose logits are one block. */
export async function logitsOf(gpu: Gpu, network: Network, parameters: Parameters): Promise<Float32Array> {
  gpu.submit("logits", (recorder) => network.logits(recorder, parameters, 0));
  const logits = await gpu.read(network.logitsTensor);
  const { config: { vocabularySize: V }, shape: { batch, context } } = network;
  const packed = new Float32Array(batch * context * V);
  return packed.map((_, n) => logits[Math.floor(n / V) * network.logitsStride + n % V]);
}

/**
 * Makes one dense step at a learning rate of 0, and compares.
 *
 * @param tolerances relative errors, of all logits and of each tensor's gradient
 */
export async function assertRoundedReference(
  gpu: Gpu,
  { network, parameters, trainer, batch }: {
    network: Network;
    parameters: Parameters;
    trainer: Trainer;
    batch: MicroBatch;
  },
  tolerances: { logits: number; gradients: number },
): Promise<void> {
  const { inputs, targets } = batch;
  trainer.step(0, 0, [batch]);
  await trainer.log.drain();
  const weights = new Map<string, Float32Array>();
  for (const { name } of network.model.parameters) weights.set(name, await gpu.read(parameters.get(name)!));
  const { logits, backward } = referenceModel(network.model, weights, inputs);
  assertClose(await logitsOf(gpu, network, parameters), logits, {
    tolerance: tolerances.logits,
    name: "logits",
  });
  const { vocabularySize } = network.config;
  const counted = targets.filter((target) => target < vocabularySize).length;
  const gradients = backward(crossEntropyGradientReference(logits, targets, vocabularySize, 1 / counted));
  for (const [name, found] of trainer.gradients) {
    assertClose(await gpu.read(found), gradients.get(name)!, {
      tolerance: tolerances.gradients,
      name: `gradient of ${name}`,
    });
  }
}
