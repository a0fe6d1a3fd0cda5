/**
 * Device memory of a training run in which a part of the model may be frozen, with what of its weights is.
 *
 * @module
 */
import type { Adapters, Trained } from "./adapters.ts";
import type { ModelConfig } from "./config.ts";
import type { FrozenType } from "./op.ts";
import { type MemoryNeeds, memoryNeeds, type MemoryPlan, type NetworkShape, planMemory } from "./plan.ts";

/** What of a model is trained, and how the rest lies on the device. */
export interface TrainedParts {
  /** What is trained. */
  train: Trained;
  /** Where that is adapters, these. */
  adapters?: Adapters;
  /** How everything else is stored. */
  frozen: FrozenType;
}

/** Bytes of a training run by what they are for. */
export interface TrainingNeeds extends Omit<MemoryNeeds, "textures" | "buffers"> {
  /** Of `weights`, what is not trained. */
  frozen: number;
  /** Of `weights`, what is trained. */
  trained: number;
}

/** What a micro-batch is. */
export type TrainedShape = Omit<NetworkShape, "training" | "keep" | "logitsBytes" | keyof TrainedParts>;

/** Plans a micro-batch's activations, which do not depend on how what is frozen is stored. */
export function planTrained(
  config: ModelConfig,
  shape: TrainedShape,
  { train, adapters }: Pick<TrainedParts, "train" | "adapters">,
  maxBindingBytes: number,
): MemoryPlan {
  return planMemory(config, { ...shape, train, adapters, training: true }, maxBindingBytes);
}

/**
 * What training takes on the device.
 *
 * @param maxBindingBytes larger matrices are bound in slices
 * @param planned its activations, where they were planned already
 */
export function trainingNeeds(
  config: ModelConfig,
  shape: TrainedShape,
  parts: TrainedParts,
  maxBindingBytes: number,
  planned: MemoryPlan = planTrained(config, shape, parts, maxBindingBytes),
): TrainingNeeds {
  const of = { ...shape, ...parts, training: true };
  const { textures: _, buffers: __, ...needs } = memoryNeeds(config, of, maxBindingBytes, 0, planned.buffers);
  // A gradient is as large as what it is of.
  return { ...needs, frozen: needs.weights - needs.gradients, trained: needs.gradients };
}
