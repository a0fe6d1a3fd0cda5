/** Gated attention on tiny fixed inputs, against the float64 reference. @module */
import { type Check, type KernelCheck, normals, TRANSCENDENTAL, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareCachedAttention } from "./cached_attention.ts";
import { type GateMode, prepareGatedAttention } from "./op.ts";
import { attentionGradientReference, attentionReference } from "./reference.ts";

/**
 * Two query heads share each key head. The inputs leave 63 % of the gates open and none of them nearer to 0 than 0.06,
 * with noise and without, so that no adapter's rounding can decide a gate otherwise than float64 does.
 */
async function gatedAttentionCheck(gpu: Gpu, mode: GateMode, distancePower = 0): Promise<Check> {
  const [batch, heads, keyValueHeads, positions, headSize, layer] = [2, 4, 2, 5, 8, 1];
  const shape = { batch, heads, keyValueHeads, positions, headSize };
  const columns = (heads + 2 * keyValueHeads) * headSize;
  const [seed, step, firstRow, edgeScaleValue] = [5, 3, 4, 0.6];
  const gate = { bias: 0.4, temperature: 0.8, saturationWeight: 0.02, saturationBound: 0.7 };
  // Where the mean over edges is what is checked, it must not drown in the loss.
  const edgeWeight = (distancePower > 0 ? 20 : 1) / (batch * heads * positions * (positions + 1) / 2);
  const qkvValues = normals(12750, batch * positions * columns);
  const dyValues = normals(2, batch * positions * heads * headSize);
  const noise = mode === "sampled" ? { seed, step, layer, firstRow } : undefined;
  const input = {
    ...shape,
    qkv: qkvValues,
    gate: mode === "dense"
      ? undefined
      : { ...gate, noise, edgeGradient: edgeScaleValue * edgeWeight, distancePower },
  };
  const op = await prepareGatedAttention(gpu, { ...shape, layer, distancePower });
  op.configure({ seed, step, firstRow, edgeWeight, ...gate });
  const t = {
    qkv: upload(gpu, "qkv", qkvValues),
    dy: upload(gpu, "dy", dyValues),
    edgeScale: upload(gpu, "edge scale", Float32Array.of(edgeScaleValue)),
    y: gpu.tensor("y", [batch, positions, heads, headSize]),
    logSumExp: gpu.tensor("log-sum-exp", [batch, heads, positions]),
    rowSums: gpu.tensor("row sums", [batch, heads, positions, 4]),
    headSums: gpu.tensor("head sums", [layer + 1, heads, 8]),
    delta: gpu.tensor("delta", [batch, heads, positions]),
    dqkv: gpu.tensor("dqkv", [batch, positions, columns]),
  };
  const want = attentionReference(input);
  const backward = {
    operation: `gated attention backward, ${mode}${distancePower > 0 ? ", by distance" : ""}`,
    outputs: [[t.dqkv, attentionGradientReference(input, dyValues)] as const],
    tolerance: TRANSCENDENTAL,
  };
  return {
    record(recorder) {
      op.forward(recorder, mode, t);
      op.sumHeads(recorder, t);
      op.backward(recorder, mode, t);
    },
    comparisons: distancePower > 0 ? [backward] : [
      {
        operation: `gated attention forward, ${mode}`,
        outputs: [[t.y, want.y], [t.logSumExp, want.logSumExp], [t.rowSums, want.rowSums]],
        tolerance: TRANSCENDENTAL,
      },
      {
        operation: `gated attention head sums, ${mode}`,
        outputs: [[t.headSums, headSumsOf(want.rowSums, { batch, heads, positions, layer })]],
        tolerance: TRANSCENDENTAL,
      },
      backward,
    ],
  };
}

/** The same inputs, three positions and then two more with the keys and values of all kept. */
async function cachedAttentionCheck(
  gpu: Gpu,
  mode: Exclude<GateMode, "sampled">,
): Promise<Check> {
  const [batch, heads, keyValueHeads, positions, headSize] = [2, 4, 2, 5, 8];
  const shape = { batch, heads, keyValueHeads, headSize };
  const columns = (heads + 2 * keyValueHeads) * headSize;
  const gate = { bias: 0.4, temperature: 1, saturationWeight: 0, saturationBound: 1, edgeGradient: 0 };
  const qkv = normals(12750, batch * positions * columns);
  const kept = [positions, batch, keyValueHeads, headSize];
  const [keys, values] = [gpu.tensor("kept keys", kept), gpu.tensor("kept values", kept)];
  const want = attentionReference({ ...shape, positions, qkv, gate: mode === "dense" ? undefined : gate }).y;
  /** Of rows (batch, position, column) those of some positions. */
  const of = <Rows extends Float32Array | Float64Array>(rows: Rows, first: number, count: number): Rows => {
    const width = rows.length / (batch * positions);
    return rows.filter((_, n) => {
      const position = Math.floor(n / width) % positions;
      return position >= first && position < first + count;
    }) as Rows;
  };
  const parts = await Promise.all([{ filled: 0, count: 3 }, { filled: 3, count: 2 }].map(async (place) => {
    const { filled, count } = place;
    const op = await prepareCachedAttention(gpu, shape);
    op.configure({ ...place, bias: gate.bias });
    const t = {
      qkv: upload(gpu, "new qkv", of(qkv, filled, count)),
      keys,
      values,
      y: gpu.tensor("new y", [batch, count, heads, headSize]),
    };
    return { op, t, want: of(want, filled, count) };
  }));
  return {
    record(recorder) {
      for (const { op, t } of parts) {
        op.append(recorder, t);
        op.forward(recorder, mode, t);
      }
    },
    comparisons: [{
      operation: `attention to kept keys, ${mode}`,
      outputs: parts.map(({ t, want }) => [t.y, want] as const),
      tolerance: TRANSCENDENTAL,
    }],
  };
}

/** Of each mode, since training and what measures it take every one. */
export const gatedAttentionChecks: readonly KernelCheck[] = (["dense", "deterministic", "sampled"] as const)
  .map((mode) => (gpu) => gatedAttentionCheck(gpu, mode));

/** Edges that weigh by their distance, where training wants that. */
export const distanceCheck: KernelCheck = (gpu) => gatedAttentionCheck(gpu, "sampled", 0.75);

/** The same, to keys and values that are kept. */
export const cachedAttentionChecks: readonly KernelCheck[] = (["dense", "deterministic"] as const)
  .map((mode) => (gpu) => cachedAttentionCheck(gpu, mode));

/** What `sumHeads` makes of the reference's row sums: (layer, head, 8) with zeros in the layers before. */
function headSumsOf(
  rowSums: Float64Array,
  { batch, heads, positions, layer }: Record<"batch" | "heads" | "positions" | "layer", number>,
): Float64Array {
  const sums = new Float64Array((layer + 1) * heads * 8);
  for (let row = 0; row < batch * heads * positions; row++) {
    const head = Math.floor(row / positions) % heads;
    const at = 8 * (layer * heads + head);
    const [probability, used, saturation, open] = rowSums.subarray(4 * row, 4 * row + 4);
    [probability, used, saturation, open, used === 0 ? 1 : 0, open === 0 ? 1 : 0].forEach((value, n) => {
      sums[at + n] += value;
    });
  }
  return sums;
}
