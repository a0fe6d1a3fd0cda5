/** A branch added to the residual stream. @module */
import { residualCheck } from "../../../kernels/residual/check.ts";
import { prepareResidual } from "../../../kernels/residual/op.ts";
import { residualReference } from "../../../kernels/residual/reference.ts";
import type { Op } from "../op.ts";

/** y = x + stream, over `length` elements. Its gradient passes to both unchanged: there is no backward to run. */
export function add(length: number): Op {
  return {
    key: `add ${length}`,
    kind: "add",
    checks: [residualCheck],
    keeps: [],
    reference: {
      forward: ({ x, stream }) => residualReference(stream, x),
      backward: ({ dy }) => ({ x: Float64Array.from(dy), stream: Float64Array.from(dy) }),
    },
    async compile(gpu) {
      const residual = await prepareResidual(gpu, { length });
      return {
        forward: (recorder, { x, stream, y }) => residual.forward(recorder, { a: stream, b: x, sum: y }),
      };
    },
  };
}
