/** Products with a weight. @module */
import {
  type LinearEnding,
  type LinearShape,
  prepareLinear,
  prepareLinearGradient,
} from "../../../kernels/matmul/linear.ts";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { biasGradientReference, matmulReference } from "../../../kernels/matmul/reference.ts";
import type { CompiledOp, Op } from "../op.ts";

/**
 * y [rows, outputs] = x W, plus b where it has one, with W [inputs, outputs]; an addition or GELU behind it can be a part
 * of its kernel. Where the products with W are added up slice by slice and y is f16, `partial` [rows, outputs] is what
 * they are added up in.
 */
export function linear(of: LinearShape): Op {
  const { rows, inputs, outputs, half } = of;
  async function ended(gpu: Gpu, ending: LinearEnding, shape = of): Promise<CompiledOp> {
    const compiled = await prepareLinear(gpu, shape, ending);
    return {
      forward: (recorder, { x, weight, bias, y, partial, "next.stream": residual, "next.y": next }) =>
        compiled.record(recorder, {
          x,
          weight,
          bias,
          partial,
          ...(ending.residual ? { residual, y: next } : { y, activated: next }),
        }),
    };
  }
  const endings: Partial<Record<Op["kind"], (gpu: Gpu) => Promise<CompiledOp>>> = {
    // The residual stream is never f16.
    add: (gpu) => ended(gpu, { residual: true }, { ...of, half: { ...half, y: false } }),
    gelu: (gpu) => ended(gpu, { gelu: "tanh" }),
    exactGelu: (gpu) => ended(gpu, { gelu: "exact" }),
  };
  return {
    key: `linear ${JSON.stringify(of)}`,
    kind: "linear",
    keeps: ["x"],
    reference: {
      forward: ({ x: a, weight: b, bias }) =>
        matmulReference({ layout: "nn", m: rows, n: outputs, k: inputs, a, b, bias }),
      backward: ({ x, weight, dy }) => ({
        x: matmulReference({ layout: "nt", m: rows, n: inputs, k: outputs, a: dy, b: weight }),
        weight: matmulReference({ layout: "tn", m: inputs, n: outputs, k: rows, a: x, b: dy }),
        bias: biasGradientReference(rows, outputs, dy),
      }),
    },
    fused: (next) => endings[next.kind],
    async compile(gpu, training) {
      const { forward } = await ended(gpu, {});
      if (!training) return { forward };
      const gradient = await prepareLinearGradient(gpu, of);
      return {
        forward,
        backward: (recorder, { x, weight, dy, dx }, gradients) =>
          gradient.record(
            recorder,
            { x, weight, dy, dx: dx! },
            gradients && { dweight: gradients.weight, dbias: gradients.bias },
          ),
      };
    },
  };
}
