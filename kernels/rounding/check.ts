/** Rounding to half precision on fixed inputs. @module */
import { type Check, IN_HALF, normals, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareRounding } from "./op.ts";
import { roundingReference } from "./reference.ts";

/** More vectors than a workgroup has lanes. */
export async function roundingCheck(gpu: Gpu): Promise<Check> {
  const length = 4 * 65;
  const values = normals(1, length);
  const op = await prepareRounding(gpu, { length });
  const t = { values: upload(gpu, "values", values), rounded: gpu.tensor("rounded", [length], "f16") };
  return {
    record: (recorder) => op.record(recorder, t),
    comparisons: [{
      operation: "rounding",
      outputs: [[t.rounded, roundingReference(values)]],
      tolerance: IN_HALF,
    }],
  };
}
