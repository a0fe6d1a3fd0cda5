/** SwiGLU on fixed inputs, against the float64 reference. @module */
import { type Check, normals, TRANSCENDENTAL, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareSwiglu } from "./op.ts";
import { swigluGradientReference, swigluReference } from "./reference.ts";

/** Forward and backward, of more vectors than a workgroup has lanes. */
export async function swigluCheck(gpu: Gpu): Promise<Check> {
  const [rows, width] = [11, 28];
  const x = normals(1, rows * 2 * width);
  const dy = normals(2, rows * width);
  const op = await prepareSwiglu(gpu, { rows, width });
  const t = {
    x: upload(gpu, "x", x),
    dy: upload(gpu, "dy", dy),
    y: gpu.tensor("y", [rows, width]),
    dx: gpu.tensor("dx", [rows, 2 * width]),
  };
  return {
    record(recorder) {
      op.forward(recorder, t);
      op.backward(recorder, t);
    },
    comparisons: [
      {
        operation: "SwiGLU forward",
        outputs: [[t.y, swigluReference(x, width)]],
        tolerance: TRANSCENDENTAL,
      },
      {
        operation: "SwiGLU backward",
        outputs: [[t.dx, swigluGradientReference(x, dy, width)]],
        tolerance: TRANSCENDENTAL,
      },
    ],
  };
}
