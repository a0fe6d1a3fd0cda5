/**
 * What a model is made of: values, parameters, and steps that compute one from the other. The list of steps
 * (trace.ts) is all that the schedule, the memory plan and the network know of an architecture.
 *
 * @module
 */
import type { KernelCheck } from "../../kernels/core/check.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import type { Tensor } from "../../kernels/core/tensor.ts";
import type { GateMode, GateSettings } from "../../kernels/gated_attention/op.ts";

/** Something that is computed and stored. */
export interface Value {
  /** Unique in its model; TransformerLens's name, where it has one for it. */
  readonly name: string;
  /** Sizes of its axes. */
  readonly shape: readonly number[];
  /** Whether it is stored as f16. */
  readonly half?: boolean;
}

/** A tensor that is learnt. */
export interface Parameter {
  /** Its family's name for it, without the prefix. */
  readonly name: string;
  /** Sizes of its axes; linear weights are [in, out]. */
  readonly shape: readonly number[];
  /** A linear weight, a row for each token or position, or one number for each column. */
  readonly kind: "matrix" | "table" | "vector";
  /** The tensors of a file that stand side by side in its columns; left out: one of its own name. */
  readonly parts?: readonly { readonly name: string; readonly columns: number }[];
  /** Whether products read it, which may be from a copy in half precision. */
  readonly readByProducts: boolean;
  /** Its values before training: normal with this deviation, uniform within ± a bound, or all the same. */
  readonly initial: { deviation: number } | { within: number } | { all: number };
  /** Which learning rate moves it: that of embeddings, of queries, keys and values, or the common one. */
  readonly group: "embedding" | "attention" | "other";
  /** First column that weight decay acts on; Infinity where it never does. */
  readonly decayFrom: number;
  /** Whether training moves it. What is frozen has no gradient and no moments. */
  readonly trainable: boolean;
  /** Whether it is an adapter's; left out: the model's own. */
  readonly adapter?: true;
  /** How it lies on the device: what is trained, and every vector, as f32. */
  readonly stored: FrozenType;
}

/** How matrices that are not trained lie on the device. */
export type FrozenType = "f32" | "f16" | "int8";

/** Tensors by the parts that they play in an operation. */
export type Roles = Record<string, Tensor>;

/** The same, where some may not be there. */
export type PartialRoles = Readonly<Record<string, Tensor | undefined>>;

/** Numbers in float64 by the same parts. */
export type Reals = Record<string, ArrayLike<number>>;

/** How float64 runs this time. */
export interface ReferencePass {
  /** Tokens (batch, position) of an embedding. */
  tokens?: ArrayLike<number>;
  /** Bias of hard gates; left out: dense attention. */
  gateBias?: number;
  /** Which gates are open, told their logits (the largest number in dense attention); left out: where that is positive. */
  isOpen?(edge: { layer: number; head: number; query: number; key: number }, gate: number): boolean;
  /**
   * Gates as training samples them, in place of hard ones: as {@link GateSettings}, but with what multiplies the gradient of
   * one edge in the edge objective.
   */
  sampled?:
    & Pick<GateSettings, "bias" | "temperature" | "saturationWeight" | "saturationBound">
    & { noise: Pick<GateSettings, "seed" | "step" | "firstRow">; edgeGradient: number };
}

/** An operation in float64, which its kernels must agree with. */
export interface ReferenceOp {
  /** y, from what the operation reads and its parameters. */
  forward(roles: Reals, pass: ReferencePass): Float64Array;
  /** Gradients by the role of what they are of, from the same and `dy`. */
  backward(roles: Reals, pass: ReferencePass): Record<string, Float64Array>;
}

/** How a network runs this time. */
export interface Pass {
  /** What the gates do. */
  mode: GateMode;
  /** Sums over each head [L, H, 8] that attention adds to; left out: to none. */
  headSums?: Tensor;
  /** [1], multiplies the gradient of the open edges; backward's alone. */
  edgeScale?: Tensor;
}

/**
 * An operation for certain sizes, before it is compiled. It reads its values and parameters and writes its results, all
 * by role; what it differentiates is `y` with respect to `x`, and to its parameters.
 */
export interface Op {
  /** Tells it from every operation that compiles to something else. */
  readonly key: string;
  /** Which operation. */
  readonly kind:
    | "embed"
    | "norm"
    | "linear"
    | "attention"
    | "gelu"
    | "exactGelu"
    | "swiglu"
    | "queryKeyNorm"
    | "rotary"
    | "clip"
    | "add";
  /** Roles of what backward reads beside dy: a value that is none of these need not stand until then. */
  readonly keeps: readonly string[];
  /** Whether backward can add the gradient that x has from elsewhere. */
  readonly takesPlus?: boolean;
  /** Shapes of what backward needs room for. */
  readonly scratch?: Readonly<Record<string, readonly number[]>>;
  /**
   * What an adapter has to pass to compute it, forward and backward; the same functions for all sizes but those that a kernel
   * is unrolled by.
   */
  readonly checks: readonly KernelCheck[];
  /** The same in float64; none of what keeps something from one run to the next. */
  readonly reference?: ReferenceOp;
  /** What it keeps of every position from one run to the next, by role: the shape of one position's. */
  readonly kept?: Readonly<Record<string, Pick<Value, "shape" | "half">>>;
  /**
   * Compiles it.
   *
   * @param training whether backward will be called
   */
  compile(gpu: Gpu, training: boolean): Promise<CompiledOp>;
  /** This operation, but backward takes so many gradients of each row: one whole dy, and dx, behind the other. */
  withGradients?(count: number): Op;
  /**
   * This operation and the one that reads its y, as one kernel with the bits of two; undefined where there is none. The
   * second's roles are `next.x` and so on.
   */
  fused?(next: Op): ((gpu: Gpu) => Promise<CompiledOp>) | undefined;
  /** What an adapter has to pass to compute the two as one kernel. */
  fusedChecks?(next: Op): readonly KernelCheck[];
}

/** An operation that can be recorded. */
export interface CompiledOp {
  /** Overwrites what the operation writes. */
  forward(recorder: Recorder, tensors: Roles, pass: Pass): void;
  /**
   * Overwrites `dx`, where there is one, from `dy`, and adds to the parameters' gradients where there are any. `plus` is
   * added to dx.
   *
   * @param gradients by the parameter's role; undefined of one that is frozen
   */
  backward?(
    recorder: Recorder,
    tensors: Roles & { dy: Tensor; dx?: Tensor; plus?: Tensor },
    gradients: PartialRoles | undefined,
    pass: Pass,
  ): void;
  /** Takes the tokens of the next submissions. */
  upload?(tokens: Uint32Array): void;
  /** Sets what the gates see in the next submissions. */
  configureGates?(settings: GateSettings): void;
  /** Counts only the first rows of the batch. */
  configureRows?(rows: number): void;
  /** Sets the position of the first of each row in the next submissions, 0 at first. */
  startAt?(position: number): void;
  /** Frees what it holds on the device. */
  destroy?(): void;
}

/** One operation of a model: what it reads and writes, by role. */
export interface Step {
  /** What is computed. */
  readonly op: Op;
  /** From these. */
  readonly reads: Readonly<Record<string, Value>>;
  /** Into these; `y` is what other steps read. */
  readonly writes: Readonly<Record<string, Value>>;
  /** And by these. */
  readonly parameters: Readonly<Record<string, Parameter>>;
}
