/** The clip on fixed inputs, against the float64 reference. @module */
import { ARITHMETIC, type Check, normals, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareClip } from "./op.ts";
import { clipGradientReference, clipReference } from "./reference.ts";

/** Forward and backward, of more vectors than a workgroup has lanes. */
export async function clipCheck(gpu: Gpu): Promise<Check> {
  const [length, limit] = [4 * 65, 0.75];
  const x = normals(1, length);
  const dy = normals(2, length);
  const op = await prepareClip(gpu, { length, limit });
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
      { operation: "clip forward", outputs: [[t.y, clipReference(x, limit)]], tolerance: ARITHMETIC },
      {
        operation: "clip backward",
        outputs: [[t.dx, clipGradientReference(x, dy, limit)]],
        tolerance: ARITHMETIC,
      },
    ],
  };
}
