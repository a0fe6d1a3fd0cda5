/**
 * A model in float64, step by step through each operation's reference: what every family's network must agree with.
 * Readable and slow.
 *
 * @module
 */
import { matmulReference } from "../../kernels/matmul/reference.ts";
import type { Reals, ReferencePass, Step, Value } from "./op.ts";
import { type Model, stepsOf } from "./trace.ts";

/** Weights by the names of a model's parameters. */
export type ReferenceWeights = ReadonlyMap<string, ArrayLike<number>>;

/** What a run gives. */
export interface ReferenceRun {
  /** What every step wrote, by the value's name. */
  values: ReadonlyMap<string, Float64Array>;
  /** [B · T, V]. */
  logits: Float64Array;
  /** Gradients of all parameters, by name, for one into the logits. */
  backward(dlogits: ArrayLike<number>): Map<string, Float64Array>;
}

/** What a step reads, and its parameters, by role. */
export function referenceRoles(
  { reads, parameters }: Step,
  valueOf: (value: Value) => ArrayLike<number>,
  weights: ReferenceWeights,
): Reals {
  return Object.fromEntries([
    ...Object.entries(reads).map(([role, value]) => [role, valueOf(value)]),
    ...Object.entries(parameters).map(([role, { name }]) => [role, weights.get(name)!]),
  ]);
}

/**
 * Runs B · T tokens through a model that is traced for B × T. Where it is traced with `half`, what it stores as f16 and the
 * weights that products read are rounded to it, through which gradients pass as they are.
 */
export function referenceModel(
  model: Model,
  weights: ReferenceWeights,
  tokens: ArrayLike<number>,
  options: Omit<ReferencePass, "tokens"> = {},
): ReferenceRun {
  const steps = stepsOf(model);
  const pass = { ...options, tokens };
  const values = new Map<string, Float64Array>();
  const isHalf = model.final.writes.y.half;
  const rounded: ReferenceWeights = new Map(model.parameters.map(({ name, readByProducts }) => {
    const exact = weights.get(name)!;
    return [name, isHalf && readByProducts ? Float64Array.from(exact, Math.f16round) : exact];
  }));
  // An embedding is no product, also where the head that reads the same table is one.
  const rolesOf = (step: Step) =>
    referenceRoles(step, ({ name }) => values.get(name)!, step === model.embed ? weights : rounded);
  for (const step of steps) {
    const { name, half } = step.writes.y;
    const y = step.op.reference!.forward(rolesOf(step), pass);
    values.set(name, half ? y.map(Math.f16round) : y);
  }
  const final = values.get(model.final.writes.y.name)!;
  const head = rounded.get(model.head.name)!;
  const [m, n, k] = [tokens.length, model.config.vocabularySize, model.config.width];
  return {
    values,
    logits: matmulReference({ layout: "nt", m, n, k, a: final, b: head }),
    backward(dlogits) {
      /** Of values and of parameters, by name. */
      const gradients = new Map<string, Float64Array>();
      const give = (name: string, gradient: Float64Array): void => {
        const before = gradients.get(name);
        gradients.set(name, before ? before.map((value, n) => value + gradient[n]) : gradient);
      };
      give(
        model.final.writes.y.name,
        matmulReference({ layout: "nn", m, n: k, k: n, a: dlogits, b: head }),
      );
      give(model.head.name, matmulReference({ layout: "tn", m: n, n: k, k: m, a: dlogits, b: final }));
      for (const step of steps.toReversed()) {
        const dy = gradients.get(step.writes.y.name)!;
        const found = step.op.reference!.backward({ ...rolesOf(step), dy }, pass);
        for (const [role, gradient] of Object.entries(found)) {
          const of = step.reads[role] ?? step.parameters[role];
          if (of) give(of.name, gradient);
        }
      }
      return new Map(model.parameters.map(({ name }) => [name, gradients.get(name)!]));
    },
  };
}
