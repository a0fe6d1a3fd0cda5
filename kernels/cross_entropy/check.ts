/** Cross-entropy on fixed inputs, against the float64 reference. @module */
import { type Check, normals, padded, plus, TRANSCENDENTAL, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { IGNORED } from "../core/targets.ts";
import { prepareCrossEntropy } from "./op.ts";
import { crossEntropyGradientReference, crossEntropyReference } from "./reference.ts";

/** Columns of logits, of which there are more vectors than lanes on any adapter, and with padding. */
const [V, STRIDE] = [1101, 1104];

/**
 * One position in the block does not count, one has its target predicted, and padding columns hold values that must not be
 * taken. Rows are more than the lanes of a CPU driver, but not of a GPU.
 */
export async function crossEntropyCheck(gpu: Gpu): Promise<Check> {
  const rows = 17;
  const [weight, scale] = [0.5, 0.7];
  const logits = normals(1, rows * V);
  const extra = normals(2, rows * V);
  const targets = Uint32Array.from({ length: rows }, (_, row) => (row * 211) % V);
  targets[1] = IGNORED;
  const predicted = logits.subarray(2 * V, 3 * V);
  targets[2] = predicted.indexOf(Math.max(...predicted));
  const op = await prepareCrossEntropy(gpu, { rows, vocabularySize: V, stride: STRIDE });
  op.configure({ weight });
  const t = {
    targets: upload(gpu, "targets", targets),
    rows: gpu.tensor("loss rows", [rows, 4]),
    totals: gpu.tensor("totals", [4]),
    scale: upload(gpu, "scale", Float32Array.of(scale)),
  };
  const plain = upload(gpu, "logits", padded(logits, V, STRIDE, 9));
  const joined = upload(gpu, "logits", padded(logits, V, STRIDE, 9));
  const extraTensor = upload(gpu, "extra", padded(extra, V, STRIDE, 9));
  const { losses, logSumExp, correct } = crossEntropyReference(logits, targets, V);
  const lossRows = [...targets].map((target, row) =>
    target < V ? [losses[row], correct[row], logSumExp[row], 1] : [0, 0, logSumExp[row], 0]
  );
  const totals = [0, 1, 3].map((column) => lossRows.reduce((sum, row) => sum + row[column], 0));
  const gradient = crossEntropyGradientReference(logits, targets, V, weight * scale);
  return {
    record(recorder) {
      op.record(recorder, { ...t, logits: plain });
      op.total(recorder, t);
      op.record(recorder, { ...t, logits: plain }, t);
      op.record(recorder, { ...t, logits: joined }, { ...t, extra: extraTensor });
    },
    comparisons: [
      {
        operation: "cross-entropy forward",
        outputs: [[t.rows, lossRows.flat()], [t.totals, [totals[0], totals[1], 0, totals[2]]]],
        tolerance: TRANSCENDENTAL,
      },
      {
        operation: "cross-entropy backward",
        outputs: [[plain, padded(gradient, V, STRIDE, 0)]],
        tolerance: TRANSCENDENTAL,
      },
      {
        operation: "cross-entropy backward with distillation",
        outputs: [[joined, padded(plus(gradient, extra), V, STRIDE, 0)]],
        tolerance: TRANSCENDENTAL,
      },
    ],
  };
}

/** A gradient to which each position has a weight of its own, one of them below 0. */
export async function weightedCrossEntropyCheck(gpu: Gpu): Promise<Check> {
  const rows = 3;
  const [weight, scale] = [0.5, 0.7];
  const logits = normals(1, rows * V);
  const targets = Uint32Array.of(4, 7, 0);
  const ofRows = [-0.6, 2, 1.5];
  const op = await prepareCrossEntropy(gpu, { rows, vocabularySize: V, stride: STRIDE, weighted: true });
  op.configure({ weight });
  const t = {
    targets: upload(gpu, "targets", targets),
    rows: gpu.tensor("loss rows", [rows, 4]),
    scale: upload(gpu, "scale", Float32Array.of(scale)),
    weights: upload(gpu, "weights", Float32Array.from(ofRows)),
    logits: upload(gpu, "logits", padded(logits, V, STRIDE, 9)),
  };
  const ofPositions = ofRows.map((ofRow) => weight * scale * ofRow);
  const gradient = crossEntropyGradientReference(logits, targets, V, ofPositions);
  return {
    record: (recorder) => op.record(recorder, t, t),
    comparisons: [{
      operation: "cross-entropy backward, weighted",
      outputs: [[t.logits, padded(gradient, V, STRIDE, 0)]],
      tolerance: TRANSCENDENTAL,
    }],
  };
}
