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
import { loraTargets, trainedParameters, type TrainedParts } from "./trained_parts.ts";

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
 * @param options `parts`: what is trained; left out, nothing is, and there is no backward
 */
export function countArithmetic(
  config: ModelConfig,
  { batch, context, recompute = false }: { batch: number; context: number; recompute?: boolean },
  parts?: Pick<TrainedParts, "train" | "rank" | "targets">,
): Arithmetic {
  const model = trace(config, { batch, context });
  const { forward, backward } = schedule(model, { recompute });
  const rows = batch * context;
  const isTrained = trainedBy(config, parts);
  const pairs = batch * config.heads * context * (context + 1) / 2;
  const overPairs = (count: number): number => 2 * count * pairs * config.headSize;
  const product = (weight: Parameter): number => 2 * rows * lengthOf(weight.shape);
  const head = product(model.head);
  const forwardOf = ({ op, parameters }: Step): number => {
    if (op.kind === "linear") return product(parameters.weight);
    return op.kind === "attention" ? overPairs(ATTENTION_FORWARD) : 0;
  };
  const backwardOf = ({ op, parameters }: Step): number => {
    if (op.kind === "attention") return overPairs(ATTENTION_BACKWARD);
    return op.kind === "linear" ? product(parameters.weight) * (isTrained(parameters.weight) ? 2 : 1) : 0;
  };
  const counted: Arithmetic = { forward: head, recomputed: 0, backward: 0 };
  for (const step of forward.flat()) counted.forward += forwardOf(step);
  if (!parts) return counted;
  counted.backward += head * (isTrained(model.head) ? 2 : 1);
  for (const action of backward) {
    if (action.kind === "again") { for (const step of action.group) counted.recomputed += forwardOf(step); }
    if (action.kind === "differentiate") counted.backward += backwardOf(action.step);
  }
  if (parts.train === "lora") {
    // x A and (x A) B; in backward the gradients of A, of B, of x A and of x.
    const adapters = loraTargets(config, parts.targets)
      .reduce((flop, { inputs, outputs }) => flop + 2 * rows * parts.rank * (inputs + outputs), 0);
    counted.forward += adapters;
    counted.backward += 2 * adapters;
    if (recompute) counted.recomputed += adapters;
  }
  return counted;
}

function trainedBy(
  config: ModelConfig,
  parts: Pick<TrainedParts, "train" | "rank" | "targets"> | undefined,
): (parameter: Parameter) => boolean {
  const names = new Set(parts ? trainedParameters(config, parts).own.map(({ name }) => name) : []);
  return ({ name }) => names.has(name);
}
