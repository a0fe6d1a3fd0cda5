/** The addition on tiny fixed inputs, against the float64 reference. @module */
import { ARITHMETIC, type Check, normals, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareResidual } from "./op.ts";
import { residualReference } from "./reference.ts";

/** Forward. */
export async function residualCheck(gpu: Gpu): Promise<Check> {
  const length = 65;
  const [a, b] = [normals(1, length), normals(2, length)];
  const op = await prepareResidual(gpu, { length });
  const t = { a: upload(gpu, "a", a), b: upload(gpu, "b", b), sum: gpu.tensor("sum", [length]) };
  return {
    record: (recorder) => op.forward(recorder, t),
    comparisons: [{
      operation: "residual",
      outputs: [[t.sum, residualReference(a, b)]],
      tolerance: ARITHMETIC,
    }],
  };
}
