/** The blend on fixed inputs, against the float64 reference. @module */
import { ARITHMETIC, type Check, normals, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareBlend } from "./op.ts";
import { blendReference } from "./reference.ts";

/** More vectors than a workgroup has lanes. */
export async function blendCheck(gpu: Gpu): Promise<Check> {
  const length = 4 * 65;
  const weights = { a: 0.3, b: -0.7 };
  const [a, b] = [normals(1, length), normals(2, length)];
  const op = await prepareBlend(gpu, { length });
  op.configure(weights);
  const t = { a: upload(gpu, "a", a), b: upload(gpu, "b", b), sum: gpu.tensor("sum", [length]) };
  return {
    record: (recorder) => op.forward(recorder, t),
    comparisons: [{
      operation: "blend",
      outputs: [[t.sum, blendReference(a, b, weights)]],
      tolerance: ARITHMETIC,
    }],
  };
}
