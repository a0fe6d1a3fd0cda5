/** Rotary positions of queries and keys. @module */
import { rotaryCheck } from "../../../kernels/rotary/check.ts";
import { prepareRotary, type RotaryConfig } from "../../../kernels/rotary/op.ts";
import { rotaryGradientReference, rotaryReference } from "../../../kernels/rotary/reference.ts";
import type { Op } from "../op.ts";

/** y (batch, position, (H + 2 K) · D) from x of the same shape, the heads of values unchanged. */
export function rotary(of: RotaryConfig): Op {
  return {
    key: `rotary ${JSON.stringify(of)}`,
    kind: "rotary",
    checks: [rotaryCheck],
    keeps: [],
    reference: {
      forward: ({ x }) => rotaryReference(x, of),
      backward: ({ dy }) => ({ x: rotaryGradientReference(dy, of) }),
    },
    async compile(gpu) {
      const compiled = await prepareRotary(gpu, of);
      return {
        forward: (recorder, { x, y }) => compiled.forward(recorder, { x, y }),
        backward: (recorder, { dy, dx }) => compiled.backward(recorder, { dy, dx: dx! }),
        startAt: (position) => compiled.startAt(position),
        destroy: () => compiled.destroy(),
      };
    },
  };
}
