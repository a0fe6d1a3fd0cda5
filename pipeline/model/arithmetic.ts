/**
 * Floating-point operations of a training step, counted from the schedule that the network executes: two for each
 * multiplication and addition of a product. What is done element by element is not counted: norms, activations, softmax, the
 * optimiser.
 *
 * @module
 */
import type { ModelConfig } from "./config.ts";
import type { Parameter, Step } from "./op.ts";
import { schedule } from "./schedule.ts";
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

const lengthOf = (shape: readonly number[]): number => shape.reduce((product, axis) => product * axis, 1);

/**
 * Counts a micro-batch.
 *
 * @param parts what is trained; left out, nothing is, and there is no backward
 */
export function countArithmetic(
  config: ModelConfig,
  { batch, context, recompute = false }: { batch: number; context: number; recompute?: boolean },
  parts?: Pick<TrainedParts, "train" | "adapters">,
): Arithmetic {
  const model = trace(config, { batch, context, train: parts?.train, adapters: parts?.adapters });
  const { forward, backward } = schedule(model, { recompute });
  const pairs = batch * config.heads * context * (context + 1) / 2;
  const overPairs = (count: number): number => 2 * count * pairs * config.headSize;
  const product = ({ shape }: Parameter): number => 2 * batch * context * lengthOf(shape);
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
  const counted: Arithmetic = { forward: head, recomputed: 0, backward: 0 };
  for (const step of forward.flat()) counted.forward += forwardOf(step);
  if (!parts) return counted;
  counted.backward += head * (model.head.trainable ? 2 : 1);
  for (const action of backward) {
    if (action.kind === "again") { for (const step of action.group) counted.recomputed += forwardOf(step); }
    if (action.kind === "differentiate") counted.backward += backwardOf(action.step, action.dx !== undefined);
  }
  return counted;
}
