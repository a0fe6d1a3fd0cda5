/**
 * A model's layers divided among several devices in a row: the stages. Each runs its own layers, the first also the
 * embedding, the last the final norm and the head. Between two of them one value passes, the residual stream before a
 * layer, and its gradient comes back.
 *
 * A head that is the embedding lies at both ends. It is trained at the first.
 *
 * @module
 */
import type { Tensor } from "../../kernels/core/tensor.ts";
import type { Parameter, Step, Value } from "./op.ts";
import { type Model, stepsOf } from "./trace.ts";

/** Elements of a gradient that comes from elsewhere which the first stage takes at once, at most. */
export const ADDED_AT_ONCE = 8 << 20;

/** Which of the stages that a model's layers are divided among. */
export interface StageShape {
  /** From 0. */
  index: number;
  /** How many there are; at most the layers. */
  count: number;
  /** Micro-batches whose activations stand at once; left out: one. */
  inFlight?: number;
}

/** What one of several devices does of a model, or one alone. */
export interface ModelStage {
  /** In the order in which they are computed. */
  readonly steps: readonly Step[];
  /** What they and the head read, in the model's order. */
  readonly parameters: readonly Parameter[];
  /** What of these is trained here: each parameter that is, at one stage. */
  readonly trained: readonly Parameter[];
  /** The residual stream that it begins with; undefined of the first, which begins with tokens. */
  readonly input: Value | undefined;
  /** What it ends with: the residual stream, of the last the final norm's output. */
  readonly output: Value;
  /** Whether logits and the loss are made here. */
  readonly hasHead: boolean;
  /** Whether the matrix of logits is trained at the first stage, which is another. */
  readonly headIsElsewhere: boolean;
}

/** Where a stage's network meets those of the stages beside it, all [BT, d]; none at the model's ends. */
export interface Cut {
  /** To be written before a forward, and left alone until backward of the same micro-batch is done. */
  readonly input?: Tensor;
  /** Stands behind a forward. */
  readonly output?: Tensor;
  /** To be written before backward. */
  readonly doutput?: Tensor;
  /** Stands behind backward, where a stage before has something to train. */
  readonly dinput?: Tensor;
}

/** The layers of a stage: as many as of any other, or one more or less. */
export function layersOf(layers: number, { index, count }: StageShape): { first: number; end: number } {
  const start = (of: number): number => Math.floor(of * layers / count);
  return { first: start(index), end: start(index + 1) };
}

/**
 * Cuts a stage out of a model.
 *
 * @param shape left out: all of it
 * @throws {RangeError} when there is none such, or more stages than layers
 */
export function stageOf(model: Model, shape: StageShape = { index: 0, count: 1 }): ModelStage {
  const { branches, embed, final, head, parameters: all, config: { layers } } = model;
  const { index, count } = shape;
  if (count > layers || index < 0 || index >= count) {
    throw new RangeError(`Cannot cut stage ${index} of ${count} out of ${layers} layers`);
  }
  const { first, end } = layersOf(layers, shape);
  const own = branches.filter(({ layer }) => layer >= first && layer < end);
  const [isFirst, hasHead] = [index === 0, index === count - 1];
  const inside = new Set(own.flatMap(({ steps }) => steps));
  if (isFirst) inside.add(embed);
  if (hasHead) inside.add(final);
  const steps = stepsOf(model).filter((step) => inside.has(step));
  const read = new Set(steps.flatMap((step) => Object.values(step.parameters)));
  if (hasHead) read.add(head);
  const parameters = all.filter((parameter) => read.has(parameter));
  const headIsElsewhere = hasHead && !isFirst && hasSharedHead(model, count);
  return {
    steps,
    parameters,
    trained: parameters.filter((parameter) =>
      parameter.trainable && !(headIsElsewhere && parameter === head)
    ),
    input: isFirst ? undefined : own[0].stream,
    output: hasHead ? final.writes.y : own.at(-1)!.steps.at(-1)!.writes.y,
    hasHead,
    headIsElsewhere,
  };
}

/** Whether the first and the last of so many stages both have the matrix of logits, which is trained at the first. */
export function hasSharedHead({ config: { tied }, head }: Model, count: number): boolean {
  return tied && count > 1 && head.trainable;
}

/** At which of so many stages each parameter is trained, by name. */
export function stagesThatTrain(model: Model, count: number): ReadonlyMap<string, number> {
  return new Map(
    Array.from(
      { length: count },
      (_, index) => stageOf(model, { index, count }).trained.map(({ name }) => [name, index] as const),
    ).flat(),
  );
}

/** What a stage does with a micro-batch. */
export interface StageAction {
  kind: "forward" | "backward";
  /** From 0. */
  microBatch: number;
}

/** Micro-batches of a step that have gone forward through a stage and not yet backward, at most. */
export function inFlightOf({ index, count }: StageShape, microBatches: number): number {
  return Math.min(count - index, microBatches);
}

/** All stages of a model, with what they have in flight of so many micro-batches; of one the model itself. */
export function stageShapes(count: number, microBatches: number): (StageShape | undefined)[] {
  if (count === 1) return [undefined];
  return Array.from({ length: count }, (_, index) => ({
    index,
    count,
    inFlight: inFlightOf({ index, count }, microBatches),
  }));
}

/**
 * What a stage does in a step, one forward, one backward (arXiv 2006.09503): first as many forwards as there are stages
 * behind it, then a forward and a backward by turns, so that the last stage always has something to do and no more
 * micro-batches wait than must. Every stage goes backward through them in their order, as one process does.
 */
export function stageActions(shape: StageShape, microBatches: number): StageAction[] {
  const ahead = inFlightOf(shape, microBatches) - 1;
  const actions: StageAction[] = [];
  for (let n = 0; n < microBatches + ahead; n++) {
    if (n < microBatches) actions.push({ kind: "forward", microBatch: n });
    if (n >= ahead) actions.push({ kind: "backward", microBatch: n - ahead });
  }
  return actions;
}
