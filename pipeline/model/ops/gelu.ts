/** The activation inside GPT-2's MLP. @module */
import { prepareGelu } from "../../../kernels/gelu/op.ts";
import type { Op } from "../op.ts";

/** y = GELU(x) in its tanh form, over `length` elements. */
export function gelu(length: number, half: boolean): Op {
  return {
    key: `gelu ${length} ${half}`,
    kind: "gelu",
    keeps: ["x"],
    async compile(gpu) {
      const compiled = await prepareGelu(gpu, { length, half });
      return {
        forward: (recorder, { x, y }) => compiled.forward(recorder, { x, y }),
        backward: (recorder, { x, dy, dx }) => compiled.backward(recorder, { x, dy, dx: dx! }),
      };
    },
  };
}
