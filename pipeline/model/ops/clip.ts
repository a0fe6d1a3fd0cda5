/** Values kept within a limit. @module */
import { clipCheck } from "../../../kernels/clip/check.ts";
import { prepareClip } from "../../../kernels/clip/op.ts";
import { clipGradientReference, clipReference } from "../../../kernels/clip/reference.ts";
import type { Op } from "../op.ts";

/** y = x, but no further from 0 than `limit`, over `length` elements. */
export function clip(of: { length: number; limit: number; half: boolean }): Op {
  return {
    key: `clip ${JSON.stringify(of)}`,
    kind: "clip",
    checks: [clipCheck],
    keeps: ["x"],
    reference: {
      forward: ({ x }) => clipReference(x, of.limit),
      backward: ({ x, dy }) => ({ x: clipGradientReference(x, dy, of.limit) }),
    },
    async compile(gpu) {
      const compiled = await prepareClip(gpu, of);
      return {
        forward: (recorder, { x, y }) => compiled.forward(recorder, { x, y }),
        backward: (recorder, { x, dy, dx }) => compiled.backward(recorder, { x, dy, dx: dx! }),
      };
    },
  };
}
