/** Layer norm. @module */
import { prepareLayerNorm } from "../../../kernels/layer_norm/op.ts";
import type { Op } from "../op.ts";

/**
 * y = (x − mean) / √(variance + epsilon) · weight + bias of each row, with those of the two that `affine` names;
 * `statistics` are [rows, 2].
 */
export function norm(
  of: { rows: number; width: number; epsilon: number; affine?: "both" | "weight" | "none"; half: boolean },
): Op {
  return {
    key: `norm ${JSON.stringify(of)}`,
    kind: "norm",
    keeps: ["x", "statistics"],
    takesPlus: true,
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
            parameters: gradients && { dweight: gradients.weight, dbias: gradients.bias },
          }),
      };
    },
  };
}
