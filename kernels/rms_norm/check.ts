/** RMS norm on fixed inputs, against the float64 reference. @module */
import { ARITHMETIC, type Check, normals, plus, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareRmsNorm, prepareRmsNormParts } from "./op.ts";
import { rmsNormGradientReference, rmsNormPartsReference, rmsNormReference } from "./reference.ts";

/** Forward and backward; of rows, and vectors of a row, there are more than lanes. */
export async function rmsNormCheck(gpu: Gpu): Promise<Check> {
  const [rows, width, epsilon] = [70, 300, 1e-5];
  const x = normals(1, rows * width);
  const weight = normals(2, width);
  const dy = normals(4, rows * width);
  const dresidual = normals(5, rows * width);
  const op = await prepareRmsNorm(gpu, { rows, width, epsilon });
  const t = {
    x: upload(gpu, "x", x),
    weight: upload(gpu, "weight", weight),
    dy: upload(gpu, "dy", dy),
    y: gpu.tensor("y", [rows, width]),
    statistics: gpu.tensor("statistics", [rows, 1]),
    dx: gpu.tensor("dx", [rows, width]),
  };
  const dweight = gpu.tensor("dweight", [width]);
  const past = { dresidual: upload(gpu, "dresidual", dresidual), dx: gpu.tensor("dx", [rows, width]) };
  // x and another as two parts, of whose sum the statistics are.
  const stride = rows * width;
  const others = normals(6, stride);
  const sum = plus(x, others);
  const parts = await prepareRmsNormParts(gpu, { rows, width, count: 2, stride });
  const ofParts = {
    sum: upload(gpu, "sum", sum),
    y: gpu.tensor("y of the sum", [rows, width]),
    statistics: gpu.tensor("statistics of the sum", [rows, 1]),
    residual: upload(gpu, "residuals", Float32Array.of(...dy, ...dresidual)),
    parts: upload(gpu, "parts", Float32Array.of(...x, ...others)),
  };
  const want = rmsNormGradientReference(x, weight, dy, epsilon);
  return {
    record(recorder) {
      op.forward(recorder, t);
      op.backward(recorder, { ...t, dweight });
      op.backward(recorder, { ...t, ...past });
      op.forward(recorder, { ...ofParts, x: ofParts.sum, weight: t.weight });
      parts.record(recorder, { ...ofParts, weight: t.weight });
    },
    comparisons: [
      {
        operation: "RMS norm forward",
        outputs: [[t.y, rmsNormReference(x, weight, epsilon)]],
        tolerance: ARITHMETIC,
      },
      {
        operation: "RMS norm backward",
        outputs: [[t.dx, want.dx], [dweight, want.dweight]],
        tolerance: ARITHMETIC,
      },
      {
        operation: "RMS norm backward with residual",
        outputs: [[past.dx, plus(want.dx, dresidual)]],
        tolerance: ARITHMETIC,
      },
      {
        operation: "RMS norm of parts",
        outputs: [[
          ofParts.parts,
          rmsNormPartsReference([x, others], weight, [dy, dresidual], epsilon).flatMap((of) => [...of]),
        ]],
        tolerance: ARITHMETIC,
      },
    ],
  };
}
