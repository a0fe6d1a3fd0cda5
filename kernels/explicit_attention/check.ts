/** Attention whose scores, pattern and gates are stored, on fixed inputs, against the float64 reference. @module */
import { ARITHMETIC, type Check, normals, TRANSCENDENTAL, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareExplicitAttention } from "./op.ts";
import { mixReference, patternReference, scoresReference } from "./reference.ts";

/**
 * With gates, and more positions than twice the lanes of a workgroup. The inputs leave none of the gates nearer to 0 than
 * 0.00014, so that no adapter's rounding can decide one otherwise than float64 does.
 */
export async function explicitAttentionCheck(gpu: Gpu): Promise<Check> {
  const ofDevice = gpu.adapter.software
    ? { positions: 19, gateBias: 0.4 }
    : { positions: 130, gateBias: 0.371374 };
  const shape = { batch: 2, heads: 4, keyValueHeads: 2, headSize: 12, ...ofDevice };
  const { batch, heads, positions, headSize } = shape;
  const qkv = normals(12750, batch * positions * 8 * headSize);
  const op = await prepareExplicitAttention(gpu, shape);
  const squares = [batch, heads, positions, positions];
  const t = {
    qkv: upload(gpu, "qkv", qkv),
    pattern: gpu.tensor("pattern", squares),
    gates: gpu.tensor("gates", squares),
    y: gpu.tensor("y", [batch, positions, heads, headSize]),
  };
  const want = patternReference(shape, scoresReference({ ...shape, qkv }));
  return {
    record(recorder) {
      op.scores(recorder, { ...t, scores: t.pattern });
      op.pattern(recorder, t);
      op.open(recorder, t);
      op.mix(recorder, t);
    },
    comparisons: [
      {
        operation: "explicit attention pattern",
        outputs: [[t.pattern, want.pattern]],
        tolerance: TRANSCENDENTAL,
      },
      { operation: "explicit attention gates", outputs: [[t.gates, want.gates]], tolerance: ARITHMETIC },
      {
        operation: "explicit attention mix",
        outputs: [[t.y, mixReference({ ...shape, qkv }, want.pattern, want.gates)]],
        tolerance: TRANSCENDENTAL,
      },
    ],
  };
}
