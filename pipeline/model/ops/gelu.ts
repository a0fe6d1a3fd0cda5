/** The activation inside an MLP that has no gate. @module */
import { geluCheck } from "../../../kernels/gelu/check.ts";
import type { GeluForm } from "../../../kernels/core/gelu.ts";
import { prepareGelu } from "../../../kernels/gelu/op.ts";
import { geluGradientReference, geluReference } from "../../../kernels/gelu/reference.ts";
import type { Op } from "../op.ts";

/** y = GELU(x), GPT-2's where `form` does not say another, over `length` elements. */
export function gelu(length: number, half: boolean, form: GeluForm = "tanh"): Op {
  return {
    key: `gelu ${form} ${length} ${half}`,
    kind: form === "tanh" ? "gelu" : "exactGelu",
    checks: [geluCheck],
    keeps: ["x"],
    reference: {
      forward: ({ x }) => geluReference(x, form),
      backward: ({ x, dy }) => ({ x: geluGradientReference(x, dy, form) }),
    },
    async compile(gpu) {
      const compiled = await prepareGelu(gpu, { length, form, half });
      return {
        forward: (recorder, { x, y }) => compiled.forward(recorder, { x, y }),
        backward: (recorder, { x, dy, dx }) => compiled.backward(recorder, { x, dy, dx: dx! }),
      };
    },
  };
}
