/**
 * Device memory of a training run in which a part of the model may be frozen and kept smaller. Where all is trained it is
 * what memoryNeeds says.
 *
 * @module
 */
import type { ModelConfig } from "./config.ts";
import { type MemoryPlan, type NetworkShape, planMemory } from "./plan.ts";
import { parametersOf } from "./trace.ts";
import { frozenBytes, loraTargets, trainedParameters, type TrainedParts } from "./trained_parts.ts";

/** Bytes of a training run by what they are for. */
export interface TrainingNeeds {
  /** Of `weights`, what is not trained. */
  frozen: number;
  /** Of `weights`, what is trained. */
  trained: number;
  /** All of them, low-rank matrices too. */
  weights: number;
  /** Copies in half precision of those that are float32 and that products read. */
  copies: number;
  /** Of a teacher, what it does not share: the weights that are trained, as they were. */
  teacher: number;
  /** Of what is trained. */
  gradients: number;
  /** AdamW's two of what is trained. */
  moments: number;
  /** Activations and their gradients, products with A too. */
  activations: number;
  /** All of it: everything is held at once. */
  total: number;
  /** The largest activation, which is bound whole, and its name. */
  largestActivation: { name: string; bytes: number };
  /** The largest weight, or its gradient, which is bound in slices where it must be. */
  largestWeight: { name: string; bytes: number };
}

const F32 = 4;
const F16 = 2;

const sum = (sizes: readonly number[]): number => sizes.reduce((total, bytes) => total + bytes, 0);
const lengthOf = (shape: readonly number[]): number => shape.reduce((product, axis) => product * axis, 1);

/** The largest of some named sizes, the first of equals. */
function largestOf(sizes: Iterable<{ name: string; bytes: number }>): { name: string; bytes: number } {
  let largest = { name: "", bytes: 0 };
  for (const each of sizes) if (each.bytes > largest.bytes) largest = each;
  return largest;
}

/**
 * Bytes of what low-rank matrices compute beside a model's activations: x A [rows, r] of each target, which stands until
 * backward reaches it, and the gradient of one of them. With `recompute` it is that of one layer at a time.
 */
export function loraActivationBytes(
  config: ModelConfig,
  { batch, context, recompute = false }: Pick<NetworkShape, "batch" | "context" | "recompute">,
  { rank, targets }: Pick<TrainedParts, "rank" | "targets">,
): number {
  const count = loraTargets(config, targets).length / (recompute ? config.layers : 1);
  return F32 * batch * context * rank * (count + 1);
}

/**
 * What training takes on the device.
 *
 * @param maxBindingBytes larger matrices are bound in slices
 * @param planned its activations, where they were planned already
 */
export function trainingNeeds(
  config: ModelConfig,
  shape: Omit<NetworkShape, "training" | "keep" | "logitsBytes">,
  parts: TrainedParts,
  maxBindingBytes: number,
  planned: MemoryPlan = planMemory(config, { ...shape, training: true }, maxBindingBytes),
): TrainingNeeds {
  const { own, adapters } = trainedParameters(config, parts);
  const names = new Set(own.map(({ name }) => name));
  const others = parametersOf(config).filter(({ name }) => !names.has(name));
  const numbers = sum([...own, ...adapters].map(({ shape }) => lengthOf(shape)));
  const frozen = sum(others.map((parameter) => frozenBytes(config, parameter, parts.frozen)));
  const trained = F32 * numbers;
  // What is stored in float32 is read by products through copies, but for adapters.
  const rounded = [
    ...own.filter(({ readByProducts }) => readByProducts),
    ...(parts.frozen === "f32" ? others.filter(({ readByProducts }) => readByProducts) : []),
  ];
  const copies = shape.half ? F16 * sum(rounded.map(({ shape }) => lengthOf(shape))) : 0;
  // Without its low-rank matrices the model is its own teacher.
  const teacher = shape.distill ? F32 * sum(own.map(({ shape }) => lengthOf(shape))) : 0;
  const activations = sum(planned.buffers) +
    (parts.train === "lora" ? loraActivationBytes(config, shape, parts) : 0);
  const weights = frozen + trained;
  const gradients = trained;
  const moments = 2 * trained;
  return {
    frozen,
    trained,
    weights,
    copies,
    teacher,
    gradients,
    moments,
    activations,
    total: weights + copies + teacher + gradients + moments + activations,
    largestActivation: largestOf(
      [...planned.tensors].map(([name, { shape, type }]) => ({
        name,
        bytes: lengthOf(shape) * (type === "f16" ? F16 : F32),
      })),
    ),
    largestWeight: largestOf([
      ...[...own, ...adapters].map(({ name, shape }) => ({ name, bytes: F32 * lengthOf(shape) })),
      ...others.map((parameter) => ({
        name: parameter.name,
        bytes: frozenBytes(config, parameter, parts.frozen),
      })),
    ]),
  };
}
