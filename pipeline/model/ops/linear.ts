/** Products with a weight. @module */
import type { KernelCheck } from "../../../kernels/core/check.ts";
import { geluReference } from "../../../kernels/gelu/reference.ts";
import { type CheckedProduct, matmulCheck, productCheck } from "../../../kernels/matmul/check.ts";
import { lowRankCheck } from "../../../kernels/matmul/low_rank_check.ts";
import {
  type LinearEnding,
  type LinearShape,
  prepareLinear,
  prepareLinearGradient,
} from "../../../kernels/matmul/linear.ts";
import {
  type LowRank,
  prepareLowRank,
  prepareLowRankGradient,
  rankOf,
} from "../../../kernels/matmul/low_rank.ts";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import type { Tensor } from "../../../kernels/core/tensor.ts";
import {
  biasGradientReference,
  lowRankGradientReference,
  lowRankReference,
  matmulReference,
} from "../../../kernels/matmul/reference.ts";
import type { CompiledOp, Op, Reals, Roles } from "../op.ts";

/** A product, and the adapters that add to it. */
export interface LinearSizes extends Omit<LinearShape, "accumulate"> {
  /** Left out: none. */
  adapters?: readonly LowRank[];
}

/** Role of the B of the p-th adapter. */
export const roleOfUp = (p: number): string => `up${p}`;

/**
 * y [rows, outputs] = x W, plus b where it has one, with W [inputs, outputs]; an addition or GELU behind it can be a part
 * of its kernel. Where the products with W are added up slice by slice, or to those of adapters, and y is f16, `partial`
 * [rows, outputs] is what they are added up in.
 *
 * With adapters y gets Σ_p s_p (x A_p) B_p too, of which `down` [inputs, R] holds the As side by side, `up0` and so on the
 * Bs [rank, columns], and `low` [rows, R] takes x A. Without the tensor `down` it is the product with W alone.
 */
export function linear(sizes: LinearSizes): Op {
  const { adapters = [], ...of } = sizes;
  const { rows, inputs, outputs, half } = of;
  const ofAdapters = { rows, inputs, outputs, adapters, half: half.x };
  const isAdapted = adapters.length > 0;
  const upsOf = <Of>(roles: Readonly<Record<string, Of>>): Of[] => adapters.map((_, p) => roles[roleOfUp(p)]);
  const lowRank = (roles: Reals) => ({ ...ofAdapters, x: roles.x, down: roles.down, ups: upsOf(roles) });

  async function ended(gpu: Gpu, ending: LinearEnding, shape: LinearShape = of): Promise<CompiledOp> {
    const alone = await prepareLinear(gpu, shape, ending);
    const [adapted, products] = isAdapted
      ? await Promise.all([
        prepareLinear(gpu, { ...shape, accumulate: true }, ending),
        prepareLowRank(gpu, ofAdapters),
      ])
      : [];
    return {
      forward(recorder, roles) {
        const { x, weight, bias, partial, down, low, "next.stream": residual, "next.y": next } = roles;
        const y = ending.residual ? next : roles.y;
        const tensors = { x, weight, bias, partial, y, residual, activated: ending.gelu && next };
        if (!down) return alone.record(recorder, tensors);
        // First, so that nothing goes over y again: the product with W is added where it is stored anyway.
        products!.record(recorder, { x, down, low, ups: upsOf(roles), sum: shape.half.y ? partial : y });
        adapted!.record(recorder, tensors);
      },
    };
  }
  const endings: Partial<Record<Op["kind"], (gpu: Gpu) => Promise<CompiledOp>>> = {
    // The residual stream is never f16.
    add: (gpu) => ended(gpu, { residual: true }, { ...of, half: { ...half, y: false } }),
    gelu: (gpu) => ended(gpu, { gelu: "tanh" }),
    exactGelu: (gpu) => ended(gpu, { gelu: "exact" }),
  };
  /** What is checked of a product of this layer: which operands lie how. */
  const checked = (
    layout: CheckedProduct["layout"],
    halves: Partial<Record<"a" | "b" | "c", boolean>>,
    ending: Partial<CheckedProduct> = {},
  ): CheckedProduct => ({
    layout,
    half: (["a", "b", "c"] as const).filter((operand) => halves[operand]),
    int8: layout !== "tn" && of.int8 === true,
    ...ending,
  });
  const forwardChecked = (y: boolean, ending: Partial<CheckedProduct> = {}): CheckedProduct =>
    checked("nn", { a: half.x, b: half.weight, c: y }, { bias: of.bias, ...ending });
  /** Those that are not among the products in float32, which every model takes. */
  const checksOfStored = (): KernelCheck[] =>
    [
      forwardChecked(half.y),
      checked("nt", { b: half.weight }),
      ...of.frozen ? [] : [checked("tn", { a: half.x }, { accumulate: true })],
    ].filter((each) => each.int8 || each.half!.length > 0).map(productCheck);
  const endingsChecked: Partial<Record<Op["kind"], () => CheckedProduct>> = {
    add: () => forwardChecked(false, { residual: true }),
    gelu: () => forwardChecked(half.y, { gelu: { form: "tanh", reference: geluReference } }),
    exactGelu: () => forwardChecked(half.y, { gelu: { form: "exact", reference: geluReference } }),
  };
  return {
    key: `linear ${JSON.stringify(sizes)}`,
    kind: "linear",
    checks: [
      matmulCheck,
      ...checksOfStored(),
      ...isAdapted
        ? [lowRankCheck({ half: half.x, aligned: adapters.every(({ rank }) => rank % 4 === 0) })]
        : [],
    ],
    keeps: isAdapted ? ["x", "low"] : ["x"],
    scratch: isAdapted ? { dlow: [rows, rankOf(adapters)] } : undefined,
    reference: {
      forward(roles) {
        const { x: a, weight: b, bias, down } = roles;
        const y = matmulReference({ layout: "nn", m: rows, n: outputs, k: inputs, a, b, bias });
        if (!down) return y;
        return lowRankReference(lowRank(roles)).map((value, n) => y[n] + value);
      },
      backward(roles) {
        const { x, weight, down, dy } = roles;
        const found: Record<string, Float64Array> = {
          x: matmulReference({ layout: "nt", m: rows, n: inputs, k: outputs, a: dy, b: weight }),
          weight: matmulReference({ layout: "tn", m: inputs, n: outputs, k: rows, a: x, b: dy }),
          bias: biasGradientReference(rows, outputs, dy),
        };
        if (!down) return found;
        const { dx, ddown, dups } = lowRankGradientReference(lowRank(roles), dy);
        dups.forEach((dup, p) => found[roleOfUp(p)] = dup);
        return { ...found, x: dx.map((value, n) => found.x[n] + value), down: ddown };
      },
    },
    fused: (next) => endings[next.kind],
    fusedChecks: (next) => {
      const ending = endingsChecked[next.kind];
      return ending ? [productCheck(ending())] : [];
    },
    async compile(gpu, training) {
      const { forward } = await ended(gpu, {});
      if (!training) return { forward };
      const gradient = await prepareLinearGradient(gpu, { ...of, accumulate: isAdapted });
      const ofLowRank = isAdapted ? await prepareLowRankGradient(gpu, ofAdapters) : undefined;
      return {
        forward,
        backward(recorder, roles, gradients) {
          const { x, weight, dy, dx } = roles;
          if (ofLowRank) {
            const { down, low, dlow } = roles;
            const ofAs = gradients?.down && { ddown: gradients.down, dups: upsOf(gradients as Roles) };
            ofLowRank.record(recorder, { x, down, low, dy, dlow, ups: upsOf<Tensor>(roles), dx }, ofAs);
          }
          gradient.record(
            recorder,
            { x, weight, dy, dx },
            gradients && { dweight: gradients.weight, dbias: gradients.bias },
          );
        },
      };
    },
  };
}
