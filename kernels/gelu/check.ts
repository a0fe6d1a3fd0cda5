/** GELU on tiny fixed inputs, against the float64 reference. @module */
import { type Check, normals, TRANSCENDENTAL, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareGelu } from "./op.ts";
import { geluGradientReference, geluReference } from "./reference.ts";

/** Forward and backward. */
export async function geluCheck(gpu: Gpu): Promise<Check> {
  const length = 65;
  const x = normals(1, length);
  const dy = normals(2, length);
  const op = await prepareGelu(gpu, { length });
  const t = {
    x: upload(gpu, "x", x),
    dy: upload(gpu, "dy", dy),
    y: gpu.tensor("y", [length]),
    dx: gpu.tensor("dx", [length]),
  };
  return {
    record(recorder) {
      op.forward(recorder, t);
      op.backward(recorder, t);
    },
    comparisons: [
      { operation: "GELU forward", outputs: [[t.y, geluReference(x)]], tolerance: TRANSCENDENTAL },
      {
        operation: "GELU backward",
        outputs: [[t.dx, geluGradientReference(x, dy)]],
        tolerance: TRANSCENDENTAL,
      },
    ],
  };
}
