/** Products with a weight. @module */
import type { GeluForm } from "../../../kernels/core/gelu.ts";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import {
  type MatmulConfig,
  type MatmulLayout,
  prepareBiasGradient,
  prepareMatmul,
} from "../../../kernels/matmul/op.ts";
import { biasGradientReference, matmulReference } from "../../../kernels/matmul/reference.ts";
import type { CompiledOp, Op } from "../op.ts";

/** The sizes of a linear layer. */
export interface LinearShape {
  rows: number;
  inputs: number;
  outputs: number;
  /** Whether there is b. */
  bias: boolean;
  /** Which of x, W and y are f16. Gradients are not. */
  half: { x: boolean; weight: boolean; y: boolean };
}

/**
 * y [rows, outputs] = x W, plus b where it has one, with W [inputs, outputs]; an addition or GELU behind it can be a part
 * of its kernel.
 */
export function linear(of: LinearShape): Op {
  const { rows, inputs, outputs, half, bias: hasBias } = of;
  const halves = (...of: [is: boolean, operand: "a" | "b" | "c"][]) =>
    of.filter(([is]) => is).map(([, operand]) => operand);
  const product = (
    gpu: Gpu,
    layout: MatmulLayout,
    m: number,
    n: number,
    k: number,
    options: Partial<MatmulConfig>,
  ) => prepareMatmul(gpu, { layout, m, n, k, ...options });
  const forward = (gpu: Gpu, ending: Partial<MatmulConfig>, y = half.y) =>
    product(gpu, "nn", rows, outputs, inputs, {
      bias: hasBias,
      half: halves([half.x, "a"], [half.weight, "b"], [y, "c"]),
      ...ending,
    });
  const activated = async (gpu: Gpu, gelu: GeluForm): Promise<CompiledOp> => {
    const ended = await forward(gpu, { gelu });
    return {
      forward: (recorder, { x: a, weight: b, bias, y: c, "next.y": activated }) =>
        ended.record(recorder, { a, b, bias, c, activated }),
    };
  };
  const endings: Partial<Record<Op["kind"], (gpu: Gpu) => Promise<CompiledOp>>> = {
    async add(gpu) {
      // The residual stream is never f16.
      const ended = await forward(gpu, { residual: true }, false);
      return {
        forward: (recorder, { x: a, weight: b, bias, "next.stream": residual, "next.y": c }) =>
          ended.record(recorder, { a, b, bias, residual, c }),
      };
    },
    gelu: (gpu) => activated(gpu, "tanh"),
    exactGelu: (gpu) => activated(gpu, "exact"),
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
      const y = await forward(gpu, {});
      const record: CompiledOp["forward"] = (recorder, { x: a, weight: b, bias, y: c }) =>
        y.record(recorder, { a, b, bias, c });
      if (!training) return { forward: record };
      const [ofX, ofWeight, ofBias] = await Promise.all([
        product(gpu, "nt", rows, inputs, outputs, { half: halves([half.weight, "b"]) }),
        product(gpu, "tn", inputs, outputs, rows, {
          accumulate: true,
          half: halves([half.x, "a"]),
        }),
        hasBias ? prepareBiasGradient(gpu, { m: rows, n: outputs, accumulate: true }) : undefined,
      ]);
      return {
        forward: record,
        backward(recorder, { x, weight, dy, dx }, gradients) {
          ofX.record(recorder, { a: dy, b: weight, c: dx! });
          if (!gradients) return;
          ofWeight.record(recorder, { a: x, b: dy, c: gradients.weight });
          ofBias?.record(recorder, { dc: dy, dbias: gradients.bias });
        },
      };
    },
  };
}
