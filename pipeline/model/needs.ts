/**
 * Device memory of a run by what it is for, worked out from shapes alone: weights, what training holds beside them, and
 * activations as plan.ts places them.
 *
 * @module
 */
import { scaleRows } from "../../kernels/core/int8.ts";
import { elementBytes } from "../../kernels/core/tensor.ts";
import type { Adapters, Trained } from "./adapters.ts";
import type { ModelConfig } from "./config.ts";
import type { FrozenType, Parameter } from "./op.ts";
import { bytesOf, type MemoryPlan, type NetworkShape, planMemory } from "./plan.ts";
import { largestShare, piecesOf } from "./shards.ts";
import { ADDED_AT_ONCE, hasSharedHead, stageOf } from "./stage.ts";
import { trace } from "./trace.ts";

/** Device memory of a run in bytes, by what it is for. */
export interface MemoryNeeds {
  weights: number;
  /** Of `weights`, what is not trained. */
  frozen: number;
  /** Their copies in half precision. */
  copies: number;
  /** What of a frozen dense model to distil from is not the trained one's too. */
  teacher: number;
  gradients: number;
  /** AdamW's two; of ranks that share them, those of the rank that has most. */
  moments: number;
  activations: number;
  /** What a CPU driver reads of all these by texture, about. */
  textures: number;
  /** All of it: everything is held at once. */
  total: number;
  /** The largest buffer that is bound whole. */
  largestBinding: number;
  /** Every buffer. */
  buffers: readonly number[];
}

/**
 * What the program and its compiled shaders take of the system's memory, which on a CPU driver is the device's too. Set by a
 * run of OLMo-7B's shape as int8 (docs/results.md).
 */
export const PROGRAM_BYTES = 450e6;

/** Parameters of which a teacher has its own: those that are trained. What is frozen it shares with the student. */
export function ofTeacherAlone<Of extends Pick<Parameter, "trainable" | "adapter">>(
  parameters: readonly Of[],
  { teacherAdapted = false }: Pick<NetworkShape, "teacherAdapted">,
): Of[] {
  return parameters.filter(({ trainable, adapter }) => trainable && (!adapter || teacherAdapted));
}

/** Bytes of a parameter's buffers: that of its values, and of int8 ones that of their scales. */
function buffersOf({ shape, stored }: Parameter): number[] {
  const values = bytesOf(shape, elementBytes(stored));
  return stored === "int8" ? [values, bytesOf([scaleRows(shape[0]), ...shape.slice(1)])] : [values];
}

/** What is asked of a network's needs. */
export type NeedsShape = NetworkShape & {
  /** Ranks among which AdamW's moments are divided; left out: each has all. */
  shards?: number;
};

/**
 * What training, or only running, a network takes on the device.
 *
 * @param ofNetwork bytes of its activations' buffers, where they were planned already
 */
export function memoryNeeds(
  config: ModelConfig,
  shape: NeedsShape,
  maxBindingBytes: number,
  textureCapacity = 0,
  ofNetwork: readonly number[] = planMemory(config, shape, maxBindingBytes).buffers,
): MemoryNeeds {
  const model = trace(config, { ...shape, batch: 1, context: 1 });
  const { parameters, trained, headIsElsewhere } = stageOf(model, shape.stage);
  const ofParameters = parameters.flatMap(buffersOf);
  const ofTrained = trained.map(({ shape }) => bytesOf(shape));
  // Pieces are of the whole model's.
  const isOwn = new Set(trained.map(({ name }) => name));
  const ofShare = shape.shards === undefined ? ofTrained : largestShare(
    piecesOf(model.parameters.filter(({ trainable }) => trainable), shape.shards, maxBindingBytes)
      .filter(({ name }) => isOwn.has(name)),
  ).map(({ length }) => 4 * length);
  const ofTeacher = shape.distill ? ofTeacherAlone(parameters, shape).map(({ shape }) => bytesOf(shape)) : [];
  const ofCopies = parameters
    .filter(({ readByProducts, stored }) => shape.half && readByProducts && stored === "f32")
    .map(({ shape }) => bytesOf(shape, 2));
  const sum = (sizes: readonly number[]): number => sizes.reduce((total, bytes) => total + bytes, 0);
  const weights = sum(ofParameters);
  // Gradients and two moments are each as large as what is trained, or as a rank's share of it.
  const { index, count } = shape.stage ?? { index: 0, count: 1 };
  const ofHead = bytesOf(model.head.shape);
  // Of a head that is the embedding the last stage has a gradient too, of which the first takes a piece at once.
  const ofSharedHead = headIsElsewhere
    ? [ofHead]
    : index === 0 && hasSharedHead(model, count)
    ? [Math.min(4 * ADDED_AT_ONCE, ofHead)]
    : [];
  const ofGradients = shape.training ? [...ofTrained, ...ofSharedHead] : [];
  const ofMoments = shape.training ? [...ofShare, ...ofShare] : [];
  const buffers = [...ofNetwork, ...ofCopies, ...ofParameters, ...ofTeacher, ...ofGradients, ...ofMoments];
  const held = sum(buffers);
  const textures = Math.min(textureCapacity, held);
  return {
    weights,
    frozen: sum(parameters.filter(({ trainable }) => !trainable).flatMap(buffersOf)),
    copies: sum(ofCopies),
    teacher: sum(ofTeacher),
    gradients: sum(ofGradients),
    moments: sum(ofMoments),
    activations: sum(ofNetwork),
    textures,
    total: held + textures,
    largestBinding: Math.max(...ofNetwork),
    buffers,
  };
}

/** What of a model is trained, and how the rest lies on the device. */
export interface TrainedParts {
  /** What is trained. */
  train: Trained;
  /** Where that is adapters, these. */
  adapters?: Adapters;
  /** How everything else is stored. */
  frozen: FrozenType;
  /** Whether a teacher has adapters of its own, as where they began from one that was saved. */
  teacherAdapted?: boolean;
}

/** Bytes of a training run by what they are for. */
export interface TrainingNeeds extends Omit<MemoryNeeds, "textures" | "buffers"> {
  /** Of `weights`, what is trained. */
  trained: number;
}

/** What a micro-batch is. */
export type TrainedShape = Omit<
  NeedsShape,
  "training" | "keep" | "logitsBytes" | "withLogits" | keyof TrainedParts
>;

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
  return { ...needs, trained: needs.weights - needs.frozen };
}
