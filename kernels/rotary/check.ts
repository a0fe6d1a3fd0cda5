/** Rotary positions on small fixed inputs, against the float64 reference. @module */
import { ARITHMETIC, type Check, normals, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareRotary } from "./op.ts";
import { rotaryGradientReference, rotaryReference } from "./reference.ts";

/** A part of each head turned, forward and backward, by Llama 3's frequencies; the context ends with the row. */
export async function rotaryCheck(gpu: Gpu): Promise<Check> {
  const [batch, positions, start] = [2, 3, 5];
  const scaling = { type: "llama3" as const, factor: 8, low: 1, high: 4, original: 32 };
  const shape = { positions, heads: 2, keyValueHeads: 1, headSize: 24, rotated: 16, theta: 100, scaling };
  const rows = [batch * positions, 4 * shape.headSize];
  const x = normals(1, rows[0] * rows[1]);
  const dy = normals(2, x.length);
  const op = await prepareRotary(gpu, { ...shape, batch, contextLength: start + positions });
  op.startAt(start);
  const t = {
    x: upload(gpu, "x", x),
    dy: upload(gpu, "dy", dy),
    y: gpu.tensor("y", rows),
    dx: gpu.tensor("dx", rows),
  };
  return {
    record(recorder) {
      op.forward(recorder, t);
      op.backward(recorder, t);
    },
    comparisons: [
      {
        operation: "rotary forward",
        outputs: [[t.y, rotaryReference(x, { ...shape, start })]],
        tolerance: ARITHMETIC,
      },
      {
        operation: "rotary backward",
        outputs: [[t.dx, rotaryGradientReference(dy, { ...shape, start })]],
        tolerance: ARITHMETIC,
      },
    ],
  };
}
