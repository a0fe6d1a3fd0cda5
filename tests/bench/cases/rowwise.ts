/**
 * Kernels that memory bounds: layer norm, cross-entropy and AdamW.
 *
 * @module
 */
import { prepareAdamW } from "../../../kernels/adamw/op.ts";
import { adamwReference } from "../../../kernels/adamw/reference.ts";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { destroyTensor, type Tensor } from "../../../kernels/core/tensor.ts";
import { prepareCrossEntropy } from "../../../kernels/cross_entropy/op.ts";
import {
  crossEntropyGradientReference,
  crossEntropyReference,
} from "../../../kernels/cross_entropy/reference.ts";
import { prepareLayerNorm } from "../../../kernels/layer_norm/op.ts";
import { layerNormGradientReference, layerNormReference } from "../../../kernels/layer_norm/reference.ts";
import { assertClose } from "../../support/compare.ts";
import { upload } from "../../support/gpu.ts";
import { fill } from "../data.ts";
import { type BenchCase, kernelCandidate } from "../harness.ts";

/** Rows that the float64 references go over. */
const REFERENCE_ROWS = 64;
const EPSILON = 1e-5;
/** At most 9.9e-8 was seen, in layer norm's dweight. */
const TOLERANCE = 1e-6;

const destroyAll = (gpu: Gpu, tensors: Record<string, Tensor>) => (): void => {
  for (const tensor of Object.values(tensors)) destroyTensor(gpu, tensor);
};

/** Layer norm over (rows, width), forward or backward, the latter with the parameters' gradients. */
export async function layerNormCase(
  gpu: Gpu,
  { rows, width, pass }: { rows: number; width: number; pass: "forward" | "backward" },
): Promise<BenchCase> {
  const of = async (rows: number) => {
    const values = { x: fill(1, rows * width), dy: fill(2, rows * width), weight: fill(3, width) };
    const tensors = {
      x: upload(gpu, "x", values.x, [rows, width]),
      dy: upload(gpu, "dy", values.dy, [rows, width]),
      weight: upload(gpu, "weight", values.weight),
      bias: gpu.tensor("bias", [width]),
      y: gpu.tensor("y", [rows, width]),
      dx: gpu.tensor("dx", [rows, width]),
      statistics: gpu.tensor("statistics", [rows, 2]),
      dweight: gpu.tensor("dweight", [width]),
      dbias: gpu.tensor("dbias", [width]),
    };
    const op = await prepareLayerNorm(gpu, { rows, width, epsilon: EPSILON });
    const { dweight, dbias } = tensors;
    const run = {
      forward: () => gpu.submit("layer norm", (recorder) => op.forward(recorder, tensors)),
      backward: () =>
        gpu.submit(
          "layer norm",
          (recorder) => op.backward(recorder, { ...tensors, parameters: { dweight, dbias } }),
        ),
    };
    return { values, tensors, run, destroy: destroyAll(gpu, tensors) };
  };
  const { run, destroy } = await of(rows);
  run.forward();
  return {
    // x and y; or x, dy and dx.
    bytes: 4 * rows * width * (pass === "forward" ? 2 : 3),
    ours: kernelCandidate(gpu, run[pass]),
    async check() {
      const { values: { x, dy, weight }, tensors, run, destroy } = await of(Math.min(rows, REFERENCE_ROWS));
      run.forward();
      run.backward();
      const y = layerNormReference(x, weight, new Float32Array(width), EPSILON);
      const { dx, dweight } = layerNormGradientReference(x, weight, dy, EPSILON);
      for (const [name, expected] of Object.entries({ y, dx, dweight })) {
        const actual = await gpu.read(tensors[name as keyof typeof tensors]);
        assertClose(actual, expected, { tolerance: TOLERANCE, name });
      }
      destroy();
    },
    destroy,
  };
}

/** Cross-entropy over (rows, vocabulary) with its gradient, which takes the logits' place. */
export async function crossEntropyCase(
  gpu: Gpu,
  { rows, vocabularySize }: { rows: number; vocabularySize: number },
): Promise<BenchCase> {
  const stride = 4 * Math.ceil(vocabularySize / 4);
  const of = async (rows: number) => {
    const logits = fill(1, rows * stride, 2);
    const targets = Uint32Array.from({ length: rows }, (_, row) => (row * 7919) % vocabularySize);
    const tensors = {
      logits: upload(gpu, "logits", logits, [rows, stride]),
      targets: upload(gpu, "targets", targets),
      rows: gpu.tensor("rows", [rows, 4]),
      scale: upload(gpu, "scale", Float32Array.of(1)),
    };
    const op = await prepareCrossEntropy(gpu, { rows, vocabularySize, stride });
    op.configure({ weight: 1 / rows });
    const run = () =>
      gpu.submit("cross-entropy", (recorder) => op.record(recorder, tensors, { scale: tensors.scale }));
    return { logits, targets, tensors, run, destroy: destroyAll(gpu, tensors) };
  };
  const { run, destroy } = await of(rows);
  return {
    // Logits are read and their gradients written.
    bytes: 8 * rows * vocabularySize,
    ours: kernelCandidate(gpu, run),
    async check() {
      const count = Math.min(rows, REFERENCE_ROWS);
      const { logits, targets, tensors, run, destroy } = await of(count);
      run();
      const packed = (values: Float32Array) =>
        Float32Array.from(
          { length: count * vocabularySize },
          (_, n) => values[Math.floor(n / vocabularySize) * stride + n % vocabularySize],
        );
      const values = packed(logits);
      const losses = (await gpu.read(tensors.rows)).filter((_, n) => n % 4 === 0);
      const expected = crossEntropyReference(values, targets, vocabularySize).losses;
      assertClose(losses, expected, { tolerance: TOLERANCE, name: "losses" });
      const gradient = crossEntropyGradientReference(values, targets, vocabularySize, 1 / count);
      const actual = packed(await gpu.read(tensors.logits));
      assertClose(actual, gradient, { tolerance: TOLERANCE, name: "gradient of the logits" });
      destroy();
    },
    destroy,
  };
}

/** AdamW with gradient clipping over `count` parameters in matrices of `columns`. */
export async function adamwCase(
  gpu: Gpu,
  { rows, columns }: { rows: number; columns: number },
): Promise<BenchCase> {
  const settings = { learningRate: 1e-3, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.01, step: 1 };
  const length = rows * columns;
  const values = {
    weight: fill(1, length),
    gradient: fill(2, length),
    first: fill(3, length),
    second: fill(4, length).map(Math.abs),
  };
  const tensors = {
    weight: upload(gpu, "weight", values.weight, [rows, columns]),
    gradient: upload(gpu, "gradient", values.gradient, [rows, columns]),
    first: upload(gpu, "first moment", values.first, [rows, columns]),
    second: upload(gpu, "second moment", values.second, [rows, columns]),
    update: gpu.tensor("update", [4]),
  };
  const adamw = await prepareAdamW(gpu, [{ ...tensors, decayFrom: 0 }]);
  adamw.configure({ ...settings, clip: 1e9 });
  const run = () => gpu.submit("adamw", (recorder) => adamw.record(recorder, tensors));
  return {
    // The gradient is read twice, for its norm and for the update; weight and moments are read and written.
    bytes: 4 * length * 8,
    ours: kernelCandidate(gpu, run),
    async check() {
      run();
      const count = Math.min(rows, REFERENCE_ROWS) * columns;
      const parts = Object.fromEntries(
        Object.entries(values).map(([name, all]) => [name, all.subarray(0, count)]),
      ) as typeof values;
      const expected = adamwReference({ ...settings, ...parts, columns, decayFrom: 0, clipFactor: 1 });
      for (const name of ["weight", "first", "second"] as const) {
        const actual = await gpu.read(tensors[name], 0, count);
        assertClose(actual, expected[name], { tolerance: TOLERANCE, name });
      }
    },
    destroy: destroyAll(gpu, tensors),
  };
}
