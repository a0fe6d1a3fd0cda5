/** Gated attention on fixed inputs, against the float64 reference. @module */
import {
  type Check,
  checkOfEach,
  type Comparison,
  IN_HALF,
  inHalf,
  type KernelCheck,
  normals,
  TRANSCENDENTAL,
  upload,
} from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareCachedAttention } from "./cached_attention.ts";
import { type GateMode, prepareGatedAttention } from "./op.ts";
import { attentionGradientReference, attentionReference, type AttentionReferenceInput } from "./reference.ts";
import { type AttentionVariant, possibleVariants } from "./variants.ts";

/** The heads that are checked. */
export interface CheckedHeads {
  /** D on a GPU, whose kernels are unrolled by it. A CPU driver, which compiles each for long, is checked at 36: more than one vector of lanes hands round. */
  headSize: number;
  /** Whether qkv and y are f16. */
  half: boolean;
}

const [BATCH, HEADS, KEY_HEADS, LAYER] = [2, 4, 2, 1];
const [SEED, STEP, FIRST_ROW] = [5, 3, 4];

/**
 * Positions and head size: on a GPU two tiles of 64 positions and a part of a third, and more keys than twice a workgroup's
 * lanes; on a CPU driver as many vectors of up to 8 lanes.
 */
function sizesOf(gpu: Gpu, { headSize }: CheckedHeads): Record<"positions" | "headSize", number> {
  return gpu.adapter.software ? { positions: 19, headSize: 36 } : { positions: 130, headSize };
}

/** What is computed, and a bias by which no rounding decides a gate. */
interface Inputs extends Pick<AttentionReferenceInput, "batch" | "heads" | "positions" | "headSize"> {
  keyValueHeads: number;
  /** (batch, position, H + 2 K, D) */
  qkv: Float32Array;
  bias: number;
}

const made = new Map<string, Inputs>();

/**
 * Two query heads share each key head. The bias is the middle of the widest gap about 0.4 between what decides gates, with
 * noise and without, that it leaves open: of 68,000 edges none is then nearer to 0 than some 1e-4, a hundred times what
 * rounding moves it by, and 60 % of the gates are open.
 */
function inputsOf(gpu: Gpu, of: CheckedHeads): Inputs {
  const sizes = sizesOf(gpu, of);
  const key = JSON.stringify([sizes, of.half]);
  const before = made.get(key);
  if (before) return before;
  const shape = { batch: BATCH, heads: HEADS, keyValueHeads: KEY_HEADS, ...sizes };
  const drawn = normals(12750, BATCH * sizes.positions * (HEADS + 2 * KEY_HEADS) * sizes.headSize);
  const qkv = of.half ? inHalf(drawn) : drawn;
  const gate = { bias: 0, temperature: 1, saturationBound: 1, saturationWeight: 0, edgeGradient: 0 };
  const noise = { seed: SEED, step: STEP, layer: LAYER, firstRow: FIRST_ROW };
  // A gate is closed by a bias below minus its logit.
  const turns = [undefined, noise]
    .flatMap((noise) => attentionReference({ ...shape, qkv, gate: { ...gate, noise } }).noisyLogits)
    .map((logit) => -logit)
    .filter((turn) => Math.abs(turn - 0.4) < 0.1)
    .sort((a, b) => a - b);
  const gaps = turns.slice(1).map((turn, n) => ({ width: turn - turns[n], middle: (turn + turns[n]) / 2 }));
  const { middle } = gaps.reduce((widest, gap) => gap.width > widest.width ? gap : widest);
  const inputs = { ...shape, qkv, bias: Math.fround(middle) };
  made.set(key, inputs);
  return inputs;
}

/**
 * By each variant that a tuner may choose, where there will be one, else by the one that is taken without; with a
 * temperature that is not 1, and, where gates are sampled, with 1 too, of which a GPU has other code.
 */
async function checkAttention(
  gpu: Gpu,
  { mode, distancePower = 0, ...of }: CheckedHeads & { mode: GateMode; distancePower?: number },
  tuned: boolean,
): Promise<Check> {
  const { qkv, bias, ...shape } = inputsOf(gpu, of);
  const { batch, heads, keyValueHeads, positions, headSize } = shape;
  const columns = (heads + 2 * keyValueHeads) * headSize;
  const edgeScaleValue = 0.6;
  const gate = { bias, saturationWeight: 0.02, saturationBound: 0.7 };
  // Where the mean over edges is what is checked, it must not drown in the loss.
  const edgeWeight = (distancePower > 0 ? 20 * positions : 1) /
    (batch * heads * positions * (positions + 1) / 2);
  const dyValues = normals(2, batch * positions * heads * headSize);
  const noise = mode === "sampled"
    ? { seed: SEED, step: STEP, layer: LAYER, firstRow: FIRST_ROW }
    : undefined;
  const inputOf = (temperature: number): AttentionReferenceInput => ({
    ...shape,
    qkv,
    gate: mode === "dense" ? undefined : {
      ...gate,
      temperature,
      noise,
      edgeGradient: edgeScaleValue * edgeWeight,
      distancePower,
    },
  });
  const variants: (AttentionVariant | undefined)[] = tuned
    ? [...new Set(([1, 2] as const).flatMap((results) => possibleVariants(gpu, headSize, results)))]
    : [undefined];
  const type = of.half ? "f16" as const : "f32" as const;
  const shared = {
    qkv: upload(gpu, "qkv", qkv, undefined, type),
    dy: upload(gpu, "dy", dyValues),
    edgeScale: upload(gpu, "edge scale", Float32Array.of(edgeScaleValue)),
  };
  const forward = distancePower > 0 ? undefined : attentionReference(inputOf(1));
  const cases = [0.8, ...(mode === "sampled" && distancePower === 0 ? [1] : [])].map((temperature) => ({
    temperature,
    dqkv: attentionGradientReference(inputOf(temperature), dyValues),
  }));
  const runs = await Promise.all(variants.flatMap((variant) =>
    cases.map(async ({ temperature, dqkv }) => {
      const op = await prepareGatedAttention(gpu, {
        ...shape,
        layer: LAYER,
        distancePower,
        half: of.half,
        variant,
      });
      op.configure({ seed: SEED, step: STEP, firstRow: FIRST_ROW, edgeWeight, temperature, ...gate });
      const t = {
        ...shared,
        y: gpu.tensor("y", [batch, positions, heads, headSize], type),
        logSumExp: gpu.tensor("log-sum-exp", [batch, heads, positions]),
        rowSums: gpu.tensor("row sums", [batch, heads, positions, 4]),
        headSums: gpu.tensor("head sums", [LAYER + 1, heads, 8]),
        delta: gpu.tensor("delta", [batch, heads, positions]),
        dqkv: gpu.tensor("dqkv", [batch, positions, columns]),
      };
      const suffix = [
        mode,
        ...(distancePower > 0 ? ["by distance"] : []),
        ...(temperature === 1 ? ["at temperature 1"] : []),
        ...(of.half ? ["as f16"] : []),
        ...(variant && variants.length > 1 ? [variant] : []),
      ].join(", ");
      return { op, t, dqkv, temperature, suffix };
    })
  ));
  return {
    record(recorder) {
      for (const { op, t } of runs) {
        op.forward(recorder, mode, t);
        op.sumHeads(recorder, t);
        op.backward(recorder, mode, t);
      }
    },
    comparisons: runs.flatMap(({ t, dqkv, temperature, suffix }): Comparison[] => {
      const backward: Comparison = {
        operation: `gated attention backward, ${suffix}`,
        outputs: [[t.dqkv, dqkv]],
        tolerance: of.half ? IN_HALF : TRANSCENDENTAL,
      };
      if (!forward || temperature === 1) return [backward];
      const { y, logSumExp, rowSums } = forward;
      return [
        {
          operation: `gated attention forward, ${suffix}`,
          outputs: [[t.y, y]],
          tolerance: of.half ? IN_HALF : TRANSCENDENTAL,
        },
        {
          operation: `gated attention row sums, ${suffix}`,
          outputs: [[t.logSumExp, logSumExp], [t.rowSums, rowSums]],
          tolerance: TRANSCENDENTAL,
        },
        {
          operation: `gated attention head sums, ${suffix}`,
          outputs: [[t.headSums, headSumsOf(rowSums, { batch, heads, positions, layer: LAYER })]],
          tolerance: TRANSCENDENTAL,
        },
        backward,
      ];
    }),
  };
}

/** The same inputs, two thirds of the positions and then the others, with the keys and values of all kept. */
async function checkCachedAttention(
  gpu: Gpu,
  { mode, ...checked }: CheckedHeads & { mode: Exclude<GateMode, "sampled"> },
): Promise<Check> {
  const { qkv, bias, ...all } = inputsOf(gpu, checked);
  const { positions, ...shape } = all;
  const { batch, heads, keyValueHeads, headSize } = shape;
  const { half } = checked;
  const type = half ? "f16" as const : "f32" as const;
  const gate = { bias, temperature: 1, saturationWeight: 0, saturationBound: 1, edgeGradient: 0 };
  const kept = [positions, batch, keyValueHeads, headSize];
  const [keys, values] = [gpu.tensor("kept keys", kept, type), gpu.tensor("kept values", kept, type)];
  const want = attentionReference({ ...all, qkv, gate: mode === "dense" ? undefined : gate }).y;
  /** Of rows (batch, position, column) those of some positions. */
  const of = <Rows extends Float32Array | Float64Array>(rows: Rows, first: number, count: number): Rows => {
    const width = rows.length / (batch * positions);
    return rows.filter((_, n) => {
      const position = Math.floor(n / width) % positions;
      return position >= first && position < first + count;
    }) as Rows;
  };
  const filled = Math.floor(2 * positions / 3);
  const places = [{ filled: 0, count: filled }, { filled, count: positions - filled }];
  const parts = await Promise.all(places.map(async (place) => {
    const { filled, count } = place;
    const op = await prepareCachedAttention(gpu, { ...shape, half });
    op.configure({ ...place, bias: gate.bias });
    const t = {
      qkv: upload(gpu, "new qkv", of(qkv, filled, count), undefined, type),
      keys,
      values,
      y: gpu.tensor("new y", [batch, count, heads, headSize], type),
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
      operation: `attention to kept keys, ${mode}${half ? ", as f16" : ""}`,
      outputs: parts.map(({ t, want }) => [t.y, want] as const),
      tolerance: half ? IN_HALF : TRANSCENDENTAL,
    }],
  };
}

const attentionCheck = checkOfEach(
  (gpu, of: CheckedHeads & { mode: GateMode; distancePower?: number }, { tuned = false }) =>
    checkAttention(gpu, of, tuned),
);

/** Of each mode, since training and what measures it take every one. */
export const gatedAttentionChecks = ({ headSize, half }: CheckedHeads): readonly KernelCheck[] =>
  (["dense", "deterministic", "sampled"] as const).map((mode) => attentionCheck({ headSize, half, mode }));

/** Edges that weigh by their distance, where training wants that. */
export const distanceCheck = ({ headSize, half }: CheckedHeads): KernelCheck =>
  attentionCheck({ headSize, half, mode: "sampled", distancePower: 0.75 });

const cachedCheck = checkOfEach(checkCachedAttention);

/** The same, to keys and values that are kept. */
export const cachedAttentionChecks = ({ headSize, half }: CheckedHeads): readonly KernelCheck[] =>
  (["dense", "deterministic"] as const).map((mode) => cachedCheck({ headSize, half, mode }));

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
