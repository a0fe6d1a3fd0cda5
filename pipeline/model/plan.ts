/**
 * What a network stores and when: every activation with the moments between which its values are needed, and buffers
 * that activations share whose moments do not overlap. Worked out from shapes alone, before anything is compiled or
 * allocated, so that a run can say what it will need.
 *
 * @module
 */
import { elementBytes, elementsOf } from "../../kernels/core/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { blocksOf, headValues, type LogitBlocks } from "./logits.ts";
import type { Value } from "./op.ts";
import { type Group, type Schedule, schedule } from "./schedule.ts";
import { stageOf, type StageShape } from "./stage.ts";
import { shareBuffers } from "./shared_buffers.ts";
import { type Model, trace, type TracedShape } from "./trace.ts";

/** What a network is compiled for; with `half`, sums, gradients, the residual stream and what is trained stay float32. */
export interface NetworkShape extends Omit<TracedShape, "cached" | "maxBindingBytes"> {
  /** Whether backward will be called. */
  training: boolean;
  /** Whether a teacher's logits will be compared. */
  distill?: boolean;
  /** Whether each position has a weight of its own in the loss's gradient; left out: all count alike. */
  weighted?: boolean;
  /**
   * Keeps only the residual stream between forward and backward, and computes a layer's other activations anew when
   * backward reaches it: the same values to the bit, a third more time.
   */
  recompute?: boolean;
  /** Every activation keeps a buffer of its own, so that it can be read after the work is done; gradients do not. */
  keep?: boolean;
  /** Bytes that one block of logits may take; all it can at most is one binding. Left out: half a binding, or 576 MiB. */
  logitsBytes?: number;
  /** Whether there are logits, and what comes of them; left out: there are. */
  withLogits?: boolean;
  /** Whether the teacher has adapters of its own; left out: it is the model without them. */
  teacherAdapted?: boolean;
  /** The layers of one stage, where they are divided; left out: all. */
  stage?: StageShape;
}

/** One stored activation. */
export interface PlannedTensor {
  shape: readonly number[];
  type: "f32" | "f16";
  /** Which of {@link MemoryPlan.buffers} it lies in. */
  buffer: number;
  /** The same of each further micro-batch in flight, where it has its own there. */
  buffersOfOthers?: readonly number[];
  /** First and last moment of each time that it holds something. */
  lifetimes: readonly (readonly [first: number, last: number])[];
}

/** Where a network's activations lie. */
export interface MemoryPlan extends LogitBlocks {
  /** By name; see {@link Network.activations}. */
  readonly tensors: ReadonlyMap<string, PlannedTensor>;
  /** Bytes of each buffer. */
  readonly buffers: readonly number[];
}

/** Bytes of a tensor. */
export const bytesOf = (shape: readonly number[], bytes = 4): number => bytes * elementsOf(shape);

/** Plans the activations of a network. */
export function planMemory(config: ModelConfig, shape: NetworkShape, maxBindingBytes: number): MemoryPlan {
  const model = trace(config, { ...shape, maxBindingBytes });
  return planActions(model, schedule(model, shape), shape, maxBindingBytes);
}

/** Plans what a scheduled model stores. */
export function planActions(
  model: Model,
  { forward, doutput, backward, dinput }: Schedule,
  shape: NetworkShape,
  maxBindingBytes: number,
): MemoryPlan {
  const { vocabularySize } = model.config;
  const { training, distill = false, keep = false, withLogits = true } = shape;
  const { input, output, hasHead } = stageOf(model, shape.stage);
  const { inFlight = 1 } = shape.stage ?? {};
  const ofLogits = blocksOf(
    { positions: shape.batch * shape.context, vocabularySize },
    maxBindingBytes,
    shape.logitsBytes,
  );
  const { logits, teacherLogits, teacherFinal } = headValues(model, shape, ofLogits);
  const final = model.final.writes.y;

  const lifetimes = new Map<Value, [number, number][]>();
  let moment = 0;
  /** One dispatch, or a few in a row: what it reads must hold something, what it writes is overwritten. */
  function act(reads: readonly Value[], writes: readonly Value[]): void {
    for (const value of reads) lifetimes.get(value)!.at(-1)![1] = moment;
    for (const value of writes) {
      if (!lifetimes.has(value)) lifetimes.set(value, []);
      if (!reads.includes(value)) lifetimes.get(value)!.push([moment, moment]);
    }
    moment++;
  }
  function runGroup([first, second]: Group): void {
    const [reads, writes] = [Object.values(first.reads), Object.values(first.writes)];
    act(reads, writes);
    if (!second) return;
    // One kernel does both, and two where a hook looks on: what the one reads still stands.
    const others = Object.values(second.reads).filter((value) => !writes.includes(value));
    act([...reads, ...others, ...writes], Object.values(second.writes));
  }
  function runForward(): void {
    if (input) act([], [input]);
    forward.forEach(runGroup);
    // The next stage gets it.
    if (!hasHead) act([output], []);
  }

  if (distill) {
    runForward();
    if (hasHead) act([final], [teacherFinal]);
  }
  runForward();
  // All blocks at once: what one block writes, such as the gradient, stands until the last is done.
  if (withLogits && hasHead) {
    act(
      distill ? [final, teacherFinal] : [final],
      [logits, ...(distill ? [teacherLogits] : []), ...(training ? [doutput] : [])],
    );
  }
  const activations = new Set(lifetimes.keys());
  const forwardEnd = moment;
  if (training && !hasHead) act([], [doutput]);
  for (const action of training ? backward : []) {
    if (action.kind === "again") runGroup(action.group);
    if (action.kind === "add") act([action.a, action.b], [action.sum]);
    if (action.kind !== "differentiate") continue;
    const { step: { op, reads, writes }, dy, dx, plus, scratch } = action;
    const kept = op.keeps.map((role) => reads[role] ?? writes[role]);
    act([...kept, dy, ...(plus ? [plus] : [])], [...(dx ? [dx] : []), ...Object.values(scratch)]);
  }

  if (training && dinput) act([dinput], []);

  /** Whether it stands while another micro-batch goes forward. */
  const waits = (held: readonly (readonly [number, number])[]): boolean =>
    inFlight > 1 && held.some(([first, last]) => first < forwardEnd && last >= forwardEnd);
  const nameFor = (slot: number, name: string): string => slot === 0 ? name : `${name} of ${slot}`;
  const typeOf = ({ half }: Value) => half ? "f16" as const : "f32" as const;
  const others = Array.from({ length: inFlight - 1 }, (_, n) => n + 1);
  const { buffers, bufferOf } = shareBuffers(
    [...lifetimes].flatMap(([value, held]) =>
      [0, ...(waits(held) ? others : [])].map((slot) => ({
        name: nameFor(slot, value.name),
        bytes: bytesOf(value.shape, elementBytes(typeOf(value))),
        lifetimes: waits(held) || (keep && activations.has(value)) ? [[0, moment] as const] : held,
      }))
    ),
  );
  const tensors = new Map([...lifetimes].map(([value, lifetimes]) => [
    value.name,
    {
      shape: value.shape,
      type: typeOf(value),
      buffer: bufferOf.get(value.name)!,
      ...(waits(lifetimes)
        ? { buffersOfOthers: others.map((slot) => bufferOf.get(nameFor(slot, value.name))!) }
        : {}),
      lifetimes,
    },
  ]));
  return { tensors, buffers, ...ofLogits };
}
