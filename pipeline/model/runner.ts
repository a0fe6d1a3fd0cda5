/**
 * Steps, compiled, for whoever runs them: the network as they are scheduled, circuits one branch at a time.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import type { Tensor } from "../../kernels/core/tensor.ts";
import type { CompiledOp, Pass, Roles, Step, Value } from "./op.ts";
import type { Parameters } from "./parameters.ts";
import type { BackwardAction, Group } from "./schedule.ts";

/** Called after each activation is computed; may record a copy out of it, or into it to replace it. */
export type ActivationHook = (name: string, tensor: Tensor, recorder: Recorder) => void;

/** Where steps find what they work on. */
export interface Bindings {
  /** Where a value lies. */
  tensorOf(value: Value): Tensor;
  parameters: Parameters;
  /** Where what its operation keeps lies, by role; needed where one keeps something. */
  keptBy?(step: Step): Roles;
  /** A weight as products read it; left out: as it is trained. */
  weightOf?(parameters: Parameters, name: string): Tensor;
}

/** Compiled steps. */
export interface StepRunner {
  /** Every operation once. */
  readonly ops: readonly CompiledOp[];
  /** Runs steps in one kernel, or each by itself where a hook is to see what lies between. The bits are the same. */
  run(recorder: Recorder, group: Group, bindings: Bindings, pass: Pass, hook?: ActivationHook): void;
  /** Gradients of one step; those of its parameters where `gradients` are there. */
  differentiate(
    recorder: Recorder,
    action: BackwardAction & { kind: "differentiate" },
    bindings: Bindings,
    gradients: Parameters | undefined,
    pass: Pass,
  ): void;
  /** Frees what the operations hold on the device. */
  destroy(): void;
}

const mapped = <From, To>(of: Readonly<Record<string, From>>, to: (value: From, role: string) => To) =>
  Object.fromEntries(Object.entries(of).map(([role, value]) => [role, to(value, role)]));

function rolesOf(step: Step, { tensorOf, parameters, keptBy, weightOf }: Bindings): Roles {
  // An embedding is looked up in the weights themselves.
  const rounded = step.op.kind === "linear" ? weightOf : undefined;
  return {
    ...mapped({ ...step.reads, ...step.writes }, tensorOf),
    ...(step.op.kept && keptBy!(step)),
    ...mapped(step.parameters, ({ name }) => rounded ? rounded(parameters, name) : parameters.get(name)!),
  };
}

/**
 * Compiles every operation of some steps, and every pair that one kernel does.
 *
 * @param options `training`: whether they will be differentiated
 */
export async function prepareSteps(
  gpu: Gpu,
  groups: readonly Group[],
  { training }: { training: boolean },
): Promise<StepRunner> {
  const compiling = new Map<string, Promise<CompiledOp>>();
  for (const group of groups) {
    for (const { op } of group) {
      if (!compiling.has(op.key)) compiling.set(op.key, op.compile(gpu, training));
    }
    const [first, second] = group;
    const key = second && `${first.op.key} + ${second.op.key}`;
    if (key && !compiling.has(key)) compiling.set(key, first.op.fused!(second.op)!(gpu));
  }
  // Of several that fail the first is thrown; the others must not count as unhandled.
  await Promise.allSettled(compiling.values());
  const compiled = new Map<string, CompiledOp>();
  for (const [key, op] of compiling) compiled.set(key, await op);
  return {
    ops: [...compiled.values()],

    run(recorder, [first, second], bindings, pass, hook) {
      if (second && !hook) {
        const roles = rolesOf(first, bindings);
        for (const [role, tensor] of Object.entries(rolesOf(second, bindings))) {
          roles[`next.${role}`] = tensor;
        }
        compiled.get(`${first.op.key} + ${second.op.key}`)!.forward(recorder, roles, pass);
        return;
      }
      for (const step of second ? [first, second] : [first]) {
        const { y } = step.writes;
        compiled.get(step.op.key)!.forward(recorder, rolesOf(step, bindings), pass);
        hook?.(y.name, bindings.tensorOf(y), recorder);
      }
    },

    differentiate(recorder, { step, dy, dx, plus, scratch }, bindings, gradients, pass) {
      const { tensorOf } = bindings;
      const roles = {
        ...rolesOf(step, bindings),
        ...mapped(scratch, tensorOf),
        dy: tensorOf(dy),
        ...(dx ? { dx: tensorOf(dx) } : {}),
        ...(plus ? { plus: tensorOf(plus) } : {}),
      };
      const ofParameters = gradients && mapped(step.parameters, ({ name }) => gradients.get(name));
      compiled.get(step.op.key)!.backward!(recorder, roles, ofParameters, pass);
    },

    destroy() {
      for (const op of compiled.values()) op.destroy?.();
    },
  };
}
