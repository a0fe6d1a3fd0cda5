/** Layer norm on fixed inputs, against the float64 reference. @module */
import { ARITHMETIC, type Check, normals, plus, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareLayerNorm } from "./op.ts";
import { layerNormGradientReference, layerNormReference } from "./reference.ts";

/** Forward and backward, with parameters and without; of rows, and vectors of a row, there are more than lanes. */
export async function layerNormCheck(gpu: Gpu): Promise<Check> {
  const [rows, width, epsilon] = [70, 300, 1e-5];
  const x = normals(1, rows * width);
  const weight = normals(2, width);
  const bias = normals(3, width);
  const dy = normals(4, rows * width);
  const dresidual = normals(5, rows * width);
  const op = await prepareLayerNorm(gpu, { rows, width, epsilon });
  const t = {
    x: upload(gpu, "x", x),
    weight: upload(gpu, "weight", weight),
    bias: upload(gpu, "bias", bias),
    dy: upload(gpu, "dy", dy),
    y: gpu.tensor("y", [rows, width]),
    statistics: gpu.tensor("statistics", [rows, 2]),
  };
  const gradients = () => ({
    dx: gpu.tensor("dx", [rows, width]),
    dweight: gpu.tensor("dweight", [width]),
    dbias: gpu.tensor("dbias", [width]),
  });
  const plain = gradients();
  const residual = { ...gradients(), dresidual: upload(gpu, "dresidual", dresidual) };
  const bareOp = await prepareLayerNorm(gpu, { rows, width, epsilon, affine: "none" });
  const bare = { ...t, y: gpu.tensor("y", [rows, width]), dx: gpu.tensor("dx", [rows, width]) };
  const [ones, zeros] = [new Float32Array(width).fill(1), new Float32Array(width)];
  const want = layerNormGradientReference(x, weight, dy, epsilon);
  return {
    record(recorder) {
      op.forward(recorder, t);
      op.backward(recorder, { ...t, ...plain, parameters: plain });
      op.backward(recorder, { ...t, ...residual, parameters: residual });
      bareOp.forward(recorder, bare);
      bareOp.backward(recorder, bare);
    },
    comparisons: [
      {
        operation: "layer norm forward",
        outputs: [[t.y, layerNormReference(x, weight, bias, epsilon)]],
        tolerance: ARITHMETIC,
      },
      {
        operation: "layer norm backward",
        outputs: [[plain.dx, want.dx], [plain.dweight, want.dweight], [plain.dbias, want.dbias]],
        tolerance: ARITHMETIC,
      },
      {
        operation: "layer norm backward with residual",
        outputs: [[residual.dx, plus(want.dx, dresidual)]],
        tolerance: ARITHMETIC,
      },
      {
        operation: "layer norm without parameters",
        outputs: [
          [bare.y, layerNormReference(x, ones, zeros, epsilon)],
          [bare.dx, layerNormGradientReference(x, ones, dy, epsilon).dx],
        ],
        tolerance: ARITHMETIC,
      },
    ],
  };
}
