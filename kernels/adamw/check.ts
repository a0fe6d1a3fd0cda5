/** AdamW on small fixed inputs, against the float64 reference. @module */
import { ARITHMETIC, type Check, normals, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareAdamW } from "./op.ts";
import { adamwReference } from "./reference.ts";

/** A matrix of which some columns decay and a vector of which none do, under a clip that is active. */
export async function adamwCheck(gpu: Gpu): Promise<Check> {
  const settings = { learningRate: 0.1, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.1, step: 3 };
  const clip = 1;
  const shapes = [{ shape: [4, 6], decayFrom: 2 }, { shape: [5], decayFrom: Infinity }];
  const parameters = shapes.map(({ shape, decayFrom }, index) => {
    const length = shape.reduce((a, b) => a * b);
    const values = {
      weight: normals(4 * index, length),
      gradient: normals(4 * index + 1, length),
      first: normals(4 * index + 2, length),
      second: normals(4 * index + 3, length).map(Math.abs),
    };
    return {
      values: { ...values, columns: shape.at(-1)!, decayFrom },
      tensors: {
        weight: upload(gpu, "weight", values.weight, shape),
        gradient: upload(gpu, "gradient", values.gradient, shape),
        first: upload(gpu, "first moment", values.first, shape),
        second: upload(gpu, "second moment", values.second, shape),
        decayFrom,
      },
    };
  });
  const op = await prepareAdamW(gpu, parameters.map(({ tensors }) => tensors));
  op.configure({ ...settings, clip });
  const update = gpu.tensor("update", [4]);
  const norm = Math.hypot(...parameters.flatMap(({ values }) => [...values.gradient]));
  const clipFactor = Math.min(1, clip / norm);
  return {
    record: (recorder) => op.record(recorder, { update }),
    comparisons: [
      { operation: "gradient clip", outputs: [[update, [norm, clipFactor, 0, 0]]], tolerance: ARITHMETIC },
      {
        operation: "AdamW",
        outputs: parameters.flatMap(({ values, tensors }) => {
          const want = adamwReference({ ...values, ...settings, clipFactor });
          return [[tensors.weight, want.weight], [tensors.first, want.first], [
            tensors.second,
            want.second,
          ]] as const;
        }),
        tolerance: ARITHMETIC,
      },
    ],
  };
}
