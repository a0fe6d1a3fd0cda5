/** The gating inside a SwiGLU MLP. @module */
import { swigluCheck } from "../../../kernels/swiglu/check.ts";
import { prepareSwiglu } from "../../../kernels/swiglu/op.ts";
import { swigluGradientReference, swigluReference } from "../../../kernels/swiglu/reference.ts";
import type { Op } from "../op.ts";

/** y [rows, width] = silu(gate) · up from x [rows, 2 · width], the gate's columns first. */
export function swiglu(of: { rows: number; width: number; half: boolean }): Op {
  return {
    key: `swiglu ${JSON.stringify(of)}`,
    kind: "swiglu",
    checks: [swigluCheck],
    keeps: ["x"],
    reference: {
      forward: ({ x }) => swigluReference(x, of.width),
      backward: ({ x, dy }) => ({ x: swigluGradientReference(x, dy, of.width) }),
    },
    async compile(gpu) {
      const compiled = await prepareSwiglu(gpu, of);
      return {
        forward: (recorder, { x, y }) => compiled.forward(recorder, { x, y }),
        backward: (recorder, { x, dy, dx }) => compiled.backward(recorder, { x, dy, dx: dx! }),
      };
    },
  };
}
