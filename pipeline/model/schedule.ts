/**
 * In which order a model's steps run, forward and backward: what the network executes and the memory plan reads.
 *
 * Backward is derived: every step is differentiated in reverse order, an addition hands its gradient on to both that
 * were added, and where a value has gradients from several that read it, they are added. Where nothing that is trained
 * lies before a value, nobody asks for its gradient, and backward ends there.
 *
 * @module
 */
import { elementsOf } from "../../kernels/core/tensor.ts";
import type { Parameter, Step, Value } from "./op.ts";
import { stageOf, type StageShape } from "./stage.ts";
import { type Model, stepsOf } from "./trace.ts";

/** One step, or two that a kernel can do at once where nobody is to see what lies between. */
export type Group = readonly [Step] | readonly [Step, Step];

/** One thing that backward does. */
export type BackwardAction =
  /** Computes activations anew. */
  | { kind: "again"; group: Group }
  /** A value's gradient stands. */
  | { kind: "seen"; value: Value; gradient: Value }
  | {
    kind: "differentiate";
    step: Step;
    dy: Value;
    /** Left out where there is nothing to differentiate by but parameters. */
    dx: Value | undefined;
    /** Added to dx. */
    plus: Value | undefined;
    scratch: Readonly<Record<string, Value>>;
  }
  | { kind: "add"; a: Value; b: Value; sum: Value };

/** What is done when. */
export interface Schedule {
  readonly forward: readonly Group[];
  /** The first gradient: what the final norm's output gets from the head, or a stage's from the next. */
  readonly doutput: Value;
  readonly backward: readonly BackwardAction[];
  /** What a stage gives back to the one before it, where that has something to train. */
  readonly dinput: Value | undefined;
}

/** A stretch of backward, behind which the gradients of some parameters stand: nothing later adds to them. */
export interface Stretch {
  /** Its first action. */
  readonly first: number;
  /** The action behind its last. */
  readonly end: number;
  /** Names of the parameters. */
  readonly complete: readonly string[];
}

/**
 * Cuts backward where gradients of so many bytes stand that did not before. The first stretch has those to which the head
 * alone adds, before any action, and the last those that stand at the end, however few.
 *
 * @param trained parameters that have gradients, float32
 */
export function stretchesOf(
  backward: readonly BackwardAction[],
  trained: readonly Pick<Parameter, "name" | "shape">[],
  bytes: number,
): Stretch[] {
  const last = new Map<string, number>(trained.map(({ name }) => [name, -1]));
  for (const [at, action] of backward.entries()) {
    if (action.kind !== "differentiate") continue;
    for (const { name } of Object.values(action.step.parameters)) if (last.has(name)) last.set(name, at);
  }
  const stretches: Stretch[] = [];
  let first = 0;
  let complete: string[] = [];
  let held = 0;
  for (let at = -1; at < backward.length; at++) {
    for (const { name, shape } of trained) {
      if (last.get(name) !== at) continue;
      complete.push(name);
      held += 4 * elementsOf(shape);
    }
    const end = at + 1;
    if (held < bytes && end < backward.length) continue;
    stretches.push({ first, end, complete });
    [first, complete, held] = [end, [], 0];
  }
  return stretches;
}

/** Puts steps that follow each other together where one kernel can do both. */
export function grouped(steps: readonly Step[]): Group[] {
  const groups: Group[] = [];
  for (let n = 0; n < steps.length; n++) {
    const [step, next] = [steps[n], steps[n + 1]];
    if (next?.reads.x === step.writes.y && step.op.fused?.(next.op)) {
      groups.push([step, next]);
      n++;
    } else groups.push([step]);
  }
  return groups;
}

/** The steps of a layer whose results backward reads, or that those read, from the layer's input on. */
function stepsToRepeat(steps: readonly Step[], input: Value): Step[] {
  const needed = new Set<Value>();
  for (const { op, reads, writes } of steps) {
    for (const role of op.keeps) needed.add(reads[role] ?? writes[role]);
  }
  needed.delete(input);
  const repeated: Step[] = [];
  for (const step of steps.toReversed()) {
    if (!Object.values(step.writes).some((value) => needed.has(value))) continue;
    repeated.unshift(step);
    for (const value of Object.values(step.reads)) if (value !== input) needed.add(value);
  }
  return repeated;
}

/** Values that something trained has a part in. */
function valuesToDifferentiate(steps: readonly Step[]): ReadonlySet<Value> {
  const found = new Set<Value>();
  for (const { reads, writes, parameters } of steps) {
    const trained = Object.values(parameters).some(({ trainable }) => trainable);
    if (trained || Object.values(reads).some((value) => found.has(value))) found.add(writes.y);
  }
  return found;
}

const gradientOf = ({ name, shape }: Value): Value => ({ name: `gradient of ${name}`, shape });

/**
 * Schedules a model.
 *
 * @param options `recompute`: only the residual stream before each layer stands from forward to backward; `stage`: only what
 * this one does
 */
export function schedule(
  model: Model,
  { recompute = false, stage }: { recompute?: boolean; stage?: StageShape } = {},
): Schedule {
  const { steps, input, output } = stageOf(model, stage);
  const differentiated = valuesToDifferentiate(stepsOf(model));
  const doutput = gradientOf(output);
  const backward: BackwardAction[] = [];
  /** Of each value, the gradients that it has so far. */
  const pending = new Map<Value, Value[]>([[output, [doutput]]]);
  const take = (value: Value): Value => {
    const gradients = pending.get(value)!;
    for (let n = 1; gradients.length > 1; n++) {
      const [a, b, ...rest] = gradients;
      const sum = { ...gradientOf(value), name: `sum ${n} of the gradients of ${value.name}` };
      backward.push({ kind: "add", a, b, sum });
      gradients.splice(0, gradients.length, sum, ...rest);
    }
    backward.push({ kind: "seen", value, gradient: gradients[0] });
    return gradients[0];
  };
  const give = (value: Value, gradient: Value): void => {
    pending.set(value, [...pending.get(value) ?? [], gradient]);
  };
  /** What must be computed anew before a step is differentiated: the layer's, before its last. */
  const before = new Map<Step, Step[]>();
  for (let layer = 0; recompute && layer < model.config.layers; layer++) {
    const branches = model.branches.filter((branch) => branch.layer === layer);
    const ofLayer = branches.flatMap(({ steps }) => steps);
    before.set(ofLayer.at(-1)!, stepsToRepeat(ofLayer, branches[0].stream));
  }
  for (const step of steps.toReversed()) {
    const { op, reads, writes } = step;
    if (!differentiated.has(writes.y)) continue;
    const again = before.get(step) ?? [];
    const dy = take(writes.y);
    backward.push(...grouped(again).map((group) => ({ kind: "again" as const, group })));
    if (op.kind === "add") {
      for (const value of [reads.x, reads.stream]) if (differentiated.has(value)) give(value, dy);
      continue;
    }
    // Of the operations that have both x and parameters only products are trained where what they read is not.
    const x = reads.x && (op.kind !== "linear" || differentiated.has(reads.x)) ? reads.x : undefined;
    const scratch = Object.fromEntries(
      Object.entries(op.scratch ?? {}).map((
        [role, shape],
      ) => [role, { name: `${role} of ${writes.y.name}`, shape }]),
    );
    const plus = x && op.takesPlus ? pending.get(x)?.pop() : undefined;
    const others = x ? pending.get(x)?.length ?? 0 : 0;
    const dx = x && { ...gradientOf(x), name: `gradient ${others > 0 ? `${others + 1} ` : ""}of ${x.name}` };
    backward.push({ kind: "differentiate", step, dy, dx, plus, scratch });
    if (x) give(x, dx!);
  }
  const dinput = input && differentiated.has(input) ? take(input) : undefined;
  return { forward: grouped(steps), doutput, backward, dinput };
}
