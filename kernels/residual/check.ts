/** The addition on fixed inputs, against the float64 reference. @module */
import { ARITHMETIC, type Check, normals, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareAdditionTo, prepareResidual } from "./op.ts";
import { residualReference } from "./reference.ts";

/** Forward, and an addition to a sum, of more vectors than a workgroup has lanes. */
export async function residualCheck(gpu: Gpu): Promise<Check> {
  const length = 4 * 65;
  const [a, b] = [normals(1, length), normals(2, length)];
  const op = await prepareResidual(gpu, { length });
  const addTo = await prepareAdditionTo(gpu, { length });
  const t = { a: upload(gpu, "a", a), b: upload(gpu, "b", b), sum: gpu.tensor("sum", [length]) };
  const onto = upload(gpu, "b", b);
  const outputs = [t.sum, onto].map((tensor) => [tensor, residualReference(a, b)] as const);
  return {
    record(recorder) {
      op.forward(recorder, t);
      addTo.record(recorder, { a: t.a, sum: onto });
    },
    comparisons: [{ operation: "residual", outputs, tolerance: ARITHMETIC }],
  };
}
