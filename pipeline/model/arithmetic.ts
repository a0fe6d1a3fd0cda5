/**
 * Floating-point operations of a training step, counted from the schedule that the network executes: two for each
 * multiplication and addition of a product. What is done element by element is not counted: norms, activations, softmax, the
 * optimiser.
 *
 * @module
 */
import { elementsOf } from "../../kernels/core/tensor.ts";
import type { ModelConfig } from "./config.ts";
import type { Parameter, Step } from "./op.ts";
import { type BackwardAction, schedule, stretchesOf } from "./schedule.ts";
import { stageOf } from "./stage.ts";
import { trace } from "./trace.ts";
import type { TrainedParts } from "./needs.ts";

/** FLOP of one micro-batch. */
export interface Arithmetic {
  /** To the loss. */
  forward: number;
  /** What backward computes anew. */
  recomputed: number;
  /** Gradients of activations and of what is trained. */
  backward: number;
}

/** Products over each causal pair of positions: q·k and the sum of values forward; in backward its two kernels repeat both. */
const ATTENTION_FORWARD = 2;
/** dq: q·k, dy·v, dl k. dk and dv: q·k, dy·v, dl q, m dy. */
const ATTENTION_BACKWARD = 7;

/** How a micro-batch is run. */
interface CountedShape {
  batch: number;
  context: number;
  recompute?: boolean;
}

/** A model's schedule, and what each part of it takes. */
function counted(
  config: ModelConfig,
  { batch, context, recompute = false }: CountedShape,
  parts?: Pick<TrainedParts, "train" | "adapters">,
) {
  const model = trace(config, { batch, context, train: parts?.train, adapters: parts?.adapters });
  const { forward, backward } = schedule(model, { recompute });
  const pairs = batch * config.heads * context * (context + 1) / 2;
  const overPairs = (count: number): number => 2 * count * pairs * config.headSize;
  const product = ({ shape }: Parameter): number => 2 * batch * context * elementsOf(shape);
  /** The matrices of a product: its weight, and those of its adapters. */
  const matricesOf = ({ parameters }: Step): Parameter[] =>
    Object.values(parameters).filter(({ shape }) => shape.length === 2);
  const sum = (matrices: readonly Parameter[]): number =>
    matrices.reduce((flop, matrix) => flop + product(matrix), 0);
  const forwardOf = (step: Step): number => {
    if (step.op.kind === "attention") return overPairs(ATTENTION_FORWARD);
    return step.op.kind === "linear" ? sum(matricesOf(step)) : 0;
  };
  /** Those whose x always has a gradient: an adapter's second, as what its first gave has one whether or not x has. */
  const secondOf = ({ parameters }: Step): Parameter[] =>
    Object.entries(parameters).flatMap(([role, matrix]) =>
      matrix.shape.length === 2 && role !== "weight" && role !== "down" ? [matrix] : []
    );
  const backwardOf = (step: Step, hasDx: boolean): number => {
    if (step.op.kind === "attention") return overPairs(ATTENTION_BACKWARD);
    if (step.op.kind !== "linear") return 0;
    const matrices = matricesOf(step);
    const ofActivations = hasDx ? matrices : secondOf(step);
    return sum(ofActivations) + sum(matrices.filter(({ trainable }) => trainable));
  };
  const head = product(model.head);
  return {
    model,
    forwardOf,
    headForward: head,
    forward: head + forward.flat().reduce((flop, step) => flop + forwardOf(step), 0),
    headBackward: head * (model.head.trainable ? 2 : 1),
    backward,
    /** What an action of backward computes anew, and what it differentiates. */
    of(action: BackwardAction): { again: number; differentiate: number } {
      return {
        again: action.kind === "again" ? action.group.reduce((flop, step) => flop + forwardOf(step), 0) : 0,
        differentiate: action.kind === "differentiate" ? backwardOf(action.step, action.dx !== undefined) : 0,
      };
    },
  };
}

/**
 * Counts a micro-batch.
 *
 * @param parts what is trained; left out, nothing is, and there is no backward
 */
export function countArithmetic(
  config: ModelConfig,
  shape: CountedShape,
  parts?: Pick<TrainedParts, "train" | "adapters">,
): Arithmetic {
  const { forward, headBackward, backward, of } = counted(config, shape, parts);
  if (!parts) return { forward, recomputed: 0, backward: 0 };
  const actions = backward.map(of);
  return {
    forward,
    recomputed: actions.reduce((flop, { again }) => flop + again, 0),
    backward: actions.reduce((flop, { differentiate }) => flop + differentiate, headBackward),
  };
}

/** A stretch of backward as ranks have it: what it takes, and the gradients that stand behind it. */
export interface StretchArithmetic {
  /** FLOP, with what is computed anew; the head's are the first one's. */
  flop: number;
  /** Of the gradients, float32. */
  bytes: number;
}

/**
 * Counts the stretches in which ranks do backward.
 *
 * @param bytes of gradients behind which a stretch ends
 */
export function countStretches(
  config: ModelConfig,
  shape: CountedShape,
  parts: Pick<TrainedParts, "train" | "adapters">,
  bytes: number,
): StretchArithmetic[] {
  const { model, headBackward, backward, of } = counted(config, shape, parts);
  const trained = model.parameters.filter(({ trainable }) => trainable);
  const sizes = new Map(trained.map(({ name, shape }) => [name, 4 * elementsOf(shape)]));
  return stretchesOf(backward, trained, bytes).map(({ first, end, complete }, n) => ({
    flop: backward.slice(first, end).map(of).reduce(
      (flop, { again, differentiate }) => flop + again + differentiate,
      n === 0 ? headBackward : 0,
    ),
    bytes: complete.reduce((sum, name) => sum + sizes.get(name)!, 0),
  }));
}

/** What a stage does of a micro-batch, in FLOP. */
export interface StageArithmetic {
  forward: number;
  /** With what is computed anew. */
  backward: number;
}

/** Counts a micro-batch by the stages that a model's layers are divided among. */
export function countStages(
  config: ModelConfig,
  shape: CountedShape,
  parts: Pick<TrainedParts, "train" | "adapters">,
  count: number,
): StageArithmetic[] {
  const { model, forwardOf, headForward, headBackward, backward, of } = counted(config, shape, parts);
  return Array.from({ length: count }, (_, index) => {
    const { steps, hasHead } = stageOf(model, { index, count });
    const own = new Set(steps);
    const isOwn = (action: BackwardAction): boolean =>
      action.kind === "again"
        ? own.has(action.group[0])
        : action.kind === "differentiate" && own.has(action.step);
    return {
      forward: steps.reduce((flop, step) => flop + forwardOf(step), hasHead ? headForward : 0),
      backward: backward.filter(isOwn).map(of).reduce(
        (flop, { again, differentiate }) => flop + again + differentiate,
        hasHead ? headBackward : 0,
      ),
    };
  });
}
