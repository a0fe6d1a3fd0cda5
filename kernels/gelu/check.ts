/** GELU on fixed inputs, against the float64 reference. @module */
import { type Check, normals, TRANSCENDENTAL, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareGelu } from "./op.ts";
import { geluGradientReference, geluReference } from "./reference.ts";

/** Both forms, forward and backward, of more vectors than a workgroup has lanes. */
export async function geluCheck(gpu: Gpu): Promise<Check> {
  const length = 4 * 65;
  const x = normals(1, length);
  const dy = normals(2, length);
  const inputs = { x: upload(gpu, "x", x), dy: upload(gpu, "dy", dy) };
  const forms = await Promise.all((["tanh", "exact"] as const).map(async (form) => ({
    form,
    name: form === "tanh" ? "GELU" : "exact GELU",
    op: await prepareGelu(gpu, { length, form }),
    t: { ...inputs, y: gpu.tensor("y", [length]), dx: gpu.tensor("dx", [length]) },
  })));
  return {
    record(recorder) {
      for (const { op, t } of forms) {
        op.forward(recorder, t);
        op.backward(recorder, t);
      }
    },
    comparisons: forms.flatMap(({ form, name, t }) => [
      { operation: `${name} forward`, outputs: [[t.y, geluReference(x, form)]], tolerance: TRANSCENDENTAL },
      {
        operation: `${name} backward`,
        outputs: [[t.dx, geluGradientReference(x, dy, form)]],
        tolerance: TRANSCENDENTAL,
      },
    ]),
  };
}
