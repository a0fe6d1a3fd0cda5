/** RMS norm. @module */
import { rmsNormCheck } from "../../../kernels/rms_norm/check.ts";
import { prepareRmsNorm } from "../../../kernels/rms_norm/op.ts";
import { rmsNormGradientReference, rmsNormReference } from "../../../kernels/rms_norm/reference.ts";
import type { Op } from "../op.ts";

/** y = x / √(mean(x²) + epsilon) · weight of each row; `statistics` are [rows, 1]. */
export function rmsNorm(
  of: { rows: number; width: number; epsilon: number; half: boolean; gradients?: number },
): Op {
  return {
    key: `rms norm ${JSON.stringify(of)}`,
    kind: "norm",
    checks: [rmsNormCheck],
    keeps: ["x", "statistics"],
    takesPlus: true,
    withGradients: (gradients) => rmsNorm({ ...of, gradients }),
    reference: {
      forward: ({ x, weight }) => rmsNormReference(x, weight, of.epsilon),
      backward({ x, weight, dy }) {
        const { dx, dweight } = rmsNormGradientReference(x, weight, dy, of.epsilon);
        return { x: dx, weight: dweight };
      },
    },
    async compile(gpu) {
      const compiled = await prepareRmsNorm(gpu, of);
      return {
        forward: (recorder, { x, weight, y, statistics }) =>
          compiled.forward(recorder, { x, weight, y, statistics }),
        backward: (recorder, { x, weight, statistics, dy, dx, plus }, gradients) =>
          compiled.backward(recorder, {
            x,
            weight,
            statistics,
            dy,
            dresidual: plus,
            dx: dx!,
            dweight: gradients?.weight,
          }),
      };
    },
  };
}
