/** Layer norm. @module */
import { layerNormCheck } from "../../../kernels/layer_norm/check.ts";
import { prepareLayerNorm } from "../../../kernels/layer_norm/op.ts";
import { layerNormGradientReference, layerNormReference } from "../../../kernels/layer_norm/reference.ts";
import type { Op } from "../op.ts";

/**
 * y = (x − mean) / √(variance + epsilon) · weight + bias of each row, with those of the two that `affine` names;
 * `statistics` are [rows, 2].
 */
export function norm(of: {
  rows: number;
  width: number;
  epsilon: number;
  affine?: "both" | "weight" | "none";
  half: boolean;
  gradients?: number;
}): Op {
  const [ones, zeros] = [1, 0].map((value) => new Float64Array(of.width).fill(value));
  return {
    key: `norm ${JSON.stringify(of)}`,
    kind: "norm",
    checks: [layerNormCheck],
    keeps: ["x", "statistics"],
    takesPlus: true,
    withGradients: (gradients) => norm({ ...of, gradients }),
    reference: {
      forward: ({ x, weight = ones, bias = zeros }) => layerNormReference(x, weight, bias, of.epsilon),
      backward({ x, weight = ones, dy }) {
        const { dx, dweight, dbias } = layerNormGradientReference(x, weight, dy, of.epsilon);
        return { x: dx, weight: dweight, bias: dbias };
      },
    },
    async compile(gpu) {
      const compiled = await prepareLayerNorm(gpu, of);
      return {
        forward: (recorder, { x, weight, bias, y, statistics }) =>
          compiled.forward(recorder, { x, weight, bias, y, statistics }),
        backward: (recorder, { x, weight, statistics, dy, dx, plus }, gradients) =>
          compiled.backward(recorder, {
            x,
            weight,
            statistics,
            dy,
            dresidual: plus,
            dx: dx!,
            // Both are trained, or neither.
            parameters: gradients?.weight && { dweight: gradients.weight, dbias: gradients.bias },
          }),
      };
    },
  };
}
