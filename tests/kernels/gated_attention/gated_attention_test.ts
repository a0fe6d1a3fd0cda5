import { assert, assertEquals, assertRejects } from "@std/assert";
import { Gpu } from "../../../kernels/core/gpu.ts";
import { compile } from "../../../kernels/core/kernel.ts";
import randomSource from "../../../kernels/core/random.wgsl" with { type: "text" };
import {
  type AttentionVariant,
  chooseAttentionVariant,
  type GateMode,
  prepareGatedAttention,
} from "../../../kernels/gated_attention/op.ts";
import { distanceWeight } from "../../../kernels/gated_attention/distance.ts";
import { tilingOf } from "../../../kernels/gated_attention/variants.ts";
import {
  attentionGradientReference,
  attentionReference,
  type AttentionReferenceInput,
  distanceWeights,
  logisticNoise,
  randomWord,
} from "../../../kernels/gated_attention/reference.ts";
import { roundingReference } from "../../../kernels/rounding/reference.ts";
import { assertClose, maxAbsoluteError, relativeError } from "../../support/compare.ts";
import { centralDifference } from "../../support/gradient_check.ts";
import { gpuTest, poisoned, upload } from "../../support/gpu.ts";
import { WITH_GPU_KERNELS } from "../../support/gpu_kernels.ts";
import { normals } from "../../support/seeded.ts";

interface Shape {
  batch: number;
  heads: number;
  keyValueHeads?: number;
  positions: number;
  headSize: number;
}
interface Case extends Shape {
  mode: GateMode;
  bias?: number;
  temperature?: number;
  saturationWeight?: number;
  distancePower?: number;
  /** What E weighs beside the loss, so that neither drowns in the other. */
  edgeScale?: number;
  variant?: AttentionVariant;
}

const SEED = 5;
const STEP = 3;
const LAYER = 1;
const SATURATION_WEIGHT = 0.02;
const SATURATION_BOUND = 1.5;
const EDGE_SCALE = 0.6;

function referenceInput(
  {
    mode,
    bias = 0.4,
    temperature = 1,
    saturationWeight = SATURATION_WEIGHT,
    distancePower,
    edgeScale = EDGE_SCALE,
    ...shape
  }: Case,
  qkv: ArrayLike<number>,
): AttentionReferenceInput {
  const edges = shape.batch * shape.heads * shape.positions * (shape.positions + 1) / 2;
  return {
    ...shape,
    qkv,
    gate: mode === "dense" ? undefined : {
      bias,
      temperature,
      noise: mode === "sampled" ? { seed: SEED, step: STEP, layer: LAYER, firstRow: 0 } : undefined,
      saturationBound: SATURATION_BOUND,
      saturationWeight,
      edgeGradient: edgeScale / edges,
      distancePower,
    },
  };
}

/** Runs forward and backward on the device. */
async function run(gpu: Gpu, test: Case, qkvValues: Float32Array, dyValues: Float32Array, firstRow = 0) {
  const { batch, heads, keyValueHeads, positions, headSize, variant, mode, distancePower } = test;
  const { bias = 0.4, temperature = 1, saturationWeight = SATURATION_WEIGHT, edgeScale = EDGE_SCALE } = test;
  const shape = { batch, heads, keyValueHeads, positions, headSize };
  const op = await prepareGatedAttention(gpu, { ...shape, layer: LAYER, variant, distancePower });
  op.configure({
    seed: SEED,
    step: STEP,
    firstRow,
    bias,
    temperature,
    edgeWeight: 1 / (batch * heads * positions * (positions + 1) / 2),
    saturationWeight,
    saturationBound: SATURATION_BOUND,
  });
  const qkv = upload(gpu, "qkv", qkvValues);
  const dy = upload(gpu, "dy", dyValues);
  const edgeScales = upload(gpu, "edge scale", new Float32Array([edgeScale]));
  const y = poisoned(gpu, "y", [dyValues.length]);
  const logSumExp = poisoned(gpu, "log sum exp", [batch * heads * positions]);
  const delta = poisoned(gpu, "delta", [batch * heads * positions]);
  const rowSums = poisoned(gpu, "row sums", [batch * heads * positions, 4]);
  const dqkv = poisoned(gpu, "dqkv", [qkvValues.length]);
  const headSums = gpu.tensor("head sums", [LAYER + 1, heads, 8]);
  gpu.submit("attention", (recorder) => {
    op.forward(recorder, mode, { qkv, y, logSumExp, rowSums });
    op.sumHeads(recorder, { rowSums, headSums });
    op.backward(recorder, mode, { qkv, y, dy, logSumExp, edgeScale: edgeScales, delta, dqkv });
  });
  return {
    y: await gpu.read(y),
    rowSums: await gpu.read(rowSums),
    dqkv: await gpu.read(dqkv),
    headSums: await gpu.read(headSums),
  };
}

function inputs({ batch, heads, keyValueHeads = heads, positions, headSize }: Shape, seed: number) {
  const size = batch * positions * headSize;
  return { qkv: normals(seed, size * (heads + 2 * keyValueHeads)), dy: normals(seed + 1, size * heads) };
}

/** Query heads H and key heads K: shared by two, by all, by none. */
const GROUPED = [[4, 2], [3, 1], [2, 2]] as const;
// A shape is compiled in, which takes a CPU driver seconds for tiles: tests of one mode share one. Of several batches,
// with rows in three tiles of which the last is not full, and with whole tiles and more than 64 elements in a head.
const TILED: Shape = { batch: 2, heads: 3, positions: 130, headSize: 64 };
const TILES = ["tiled 4 x 4 by 32", "tiled 4 x 8 by 16"] as const;
/** Whether a variant is tried here. */
const isTried = ({ variant = "registers" }: { variant?: AttentionVariant }) =>
  variant === "registers" || WITH_GPU_KERNELS;
const TILED_DENSE: Shape = { batch: 1, heads: 1, positions: 192, headSize: 128 };

/** Edges that weigh by their distance, in rows of more than a tile. */
const BY_DISTANCE = {
  batch: 2,
  heads: 4,
  keyValueHeads: 2,
  positions: 67,
  headSize: 12,
  distancePower: 0.75,
  edgeScale: 1e3,
} as const;

const CASES: Case[] = [
  { batch: 2, heads: 3, positions: 128, headSize: 32, mode: "sampled" },
  { batch: 1, heads: 4, keyValueHeads: 2, positions: 128, headSize: 64, mode: "deterministic", bias: 0 },
  { batch: 1, heads: 2, positions: 128, headSize: 64, mode: "dense" },
  { batch: 2, heads: 1, positions: 61, headSize: 8, mode: "sampled", temperature: 0.5, bias: -0.8 },
  { batch: 1, heads: 2, positions: 65, headSize: 16, mode: "sampled", temperature: 2, bias: 1 },
  { batch: 1, heads: 3, keyValueHeads: 1, positions: 9, headSize: 5, mode: "sampled" },
  { batch: 3, heads: 2, positions: 1, headSize: 4, mode: "sampled" },
  { batch: 1, heads: 4, keyValueHeads: 2, positions: 7, headSize: 1, mode: "deterministic" },
  { ...TILED, mode: "sampled", variant: "tiled 4 x 4 by 32" },
  { ...TILED, batch: 1, mode: "sampled", temperature: 0.5, bias: -0.8, variant: "tiled 4 x 8 by 16" },
  {
    batch: 1,
    heads: 3,
    keyValueHeads: 1,
    positions: 130,
    headSize: 20,
    mode: "deterministic",
    bias: 0,
    variant: "tiled 4 x 8 by 16",
  },
  { ...TILED_DENSE, mode: "dense", variant: "tiled 4 x 4 by 16" },
  { batch: 3, heads: 2, positions: 1, headSize: 4, mode: "dense", variant: "tiled 4 x 4 by 32" },
  ...GROUPED.flatMap(([heads, keyValueHeads]) =>
    (["dense", "deterministic", "sampled"] as const).flatMap((mode) => {
      const test: Case = { batch: 2, heads, keyValueHeads, positions: 67, headSize: 12, mode };
      // Tiles compile slowly; above they stand for three heads too, and ungrouped.
      return heads === 4 ? [test, { ...test, variant: "tiled 4 x 4 by 32" as const }] : [test];
    })
  ),
  { ...TILED, mode: "sampled", variant: "tiled 4 x 8 by 16" },
  { ...BY_DISTANCE, mode: "sampled" },
  { ...BY_DISTANCE, mode: "deterministic", distancePower: 2 },
  { ...BY_DISTANCE, batch: 3, heads: 2, positions: 1, mode: "sampled" },
  { ...BY_DISTANCE, mode: "dense" },
  { ...BY_DISTANCE, mode: "sampled", temperature: 0.5, variant: "tiled 4 x 4 by 32" },
  { ...BY_DISTANCE, mode: "sampled", variant: "tiled 4 x 8 by 16" },
  {
    batch: 2,
    heads: 4,
    keyValueHeads: 2,
    positions: 67,
    headSize: 12,
    mode: "dense",
    variant: "tiled 4 x 8 by 16",
  },
];

for (const [index, test] of CASES.entries()) {
  if (!isTried(test)) continue;
  const { batch, heads, keyValueHeads = heads, positions, headSize, mode, variant = "registers" } = test;
  const byDistance = test.distancePower === undefined ? "" : `, by distance^-${test.distancePower}`;
  gpuTest(
    `gated attention (${mode}, ${variant}${byDistance}) equals float64 at B ${batch}, H ${heads}, K ${keyValueHeads}, ` +
      `T ${positions}, D ${headSize}`,
    async (gpu) => {
      const { maxComputeWorkgroupStorageSize } = gpu.device.limits;
      if (variant !== "registers" && tilingOf(variant, headSize, 4).bytes > maxComputeWorkgroupStorageSize) {
        console.log(
          `left out, as ${gpu.adapter.name} has ${maxComputeWorkgroupStorageSize} bytes for a workgroup`,
        );
        return;
      }
      const { qkv, dy } = inputs(test, 10 * index + 3);
      const input = referenceInput(test, qkv);
      const reference = attentionReference(input);
      const device = await run(gpu, { ...test, variant }, qkv, dy);
      if (mode !== "dense" && positions > 10) {
        const open = reference.masks.reduce((sum, mask) => sum + mask, 0) / reference.masks.length;
        assert(open > 0.2 && open < 0.8, `the test must leave 20 to 80 % of gates open: ${open}`);
      }
      const nearZero = reference.noisyLogits.filter((logit) =>
        mode !== "dense" && Math.abs(logit) < 1e-5
      ).length;
      assertEquals(nearZero, 0, "the inputs put no gate so near 0 that float32 may decide it otherwise");
      // The sum of the mask over keys is exact in float32: equal sums and equal outputs leave no room for a flipped gate.
      for (let row = 0; row < batch * heads * positions; row++) {
        assertEquals(device.rowSums[4 * row + 1], reference.rowSums[4 * row + 1], `open gates of row ${row}`);
        assertEquals(
          device.rowSums[4 * row + 3],
          reference.rowSums[4 * row + 3],
          `open gates without noise, row ${row}`,
        );
      }
      // Measured: 3.0e-7 for y, 8.6e-8 for row sums, 4.7e-7 for dqkv.
      assertClose(device.y, reference.y, { tolerance: 2e-6, name: "y" });
      assertClose(device.rowSums, reference.rowSums, { tolerance: 2e-6, name: "row sums" });
      assertClose(device.dqkv, attentionGradientReference(input, dy), { tolerance: 1e-5, name: "dqkv" });
      for (let head = 0; head < heads; head++) {
        const sums = new Array(6).fill(0);
        for (let b = 0; b < batch; b++) {
          for (let i = 0; i < positions; i++) {
            const at = 4 * ((b * heads + head) * positions + i);
            for (let n = 0; n < 4; n++) sums[n] += reference.rowSums[at + n];
            if (reference.rowSums[at + 1] === 0) sums[4]++;
            if (reference.rowSums[at + 3] === 0) sums[5]++;
          }
        }
        const at = 8 * (LAYER * heads + head);
        // Measured: 8.9e-8.
        assertClose(device.headSums.subarray(at, at + 6), sums, {
          tolerance: 2e-6,
          name: `sums of head ${head}`,
        });
      }
    },
  );
}

gpuTest("every single mask bit equals the reference's", async (gpu) => {
  const small: Shape = { batch: 1, heads: 4, keyValueHeads: 2, positions: 32, headSize: 32 };
  const cases = [
    [small, "sampled", "registers"],
    [small, "deterministic", "registers"],
    [{ ...TILED, batch: 1 }, "sampled", "tiled 4 x 4 by 32"],
    [{ ...TILED, batch: 1 }, "sampled", "tiled 4 x 8 by 16"],
  ] as const;
  for (const [shape, mode, variant] of cases) {
    if (!isTried({ variant })) continue;
    const { heads, keyValueHeads = heads, positions: T, headSize: D }: Shape = shape;
    const { qkv, dy } = inputs(shape, 77);
    let edges = 0;
    let open = 0;
    // With one-hot value vectors y_i[j] = m_ij s_ij, so that each edge can be read out, D keys at a time.
    for (let first = 0; first < T; first += D) {
      for (let t = 0; t < T; t++) {
        const values = (t + 1) * (heads + 2 * keyValueHeads) * D - keyValueHeads * D;
        for (let n = 0; n < keyValueHeads * D; n++) qkv[values + n] = first + n % D === t ? 1 : 0;
      }
      const reference = attentionReference(referenceInput({ ...shape, mode }, qkv));
      const { y } = await run(gpu, { ...shape, mode, variant }, qkv, dy);
      let edge = 0;
      for (let head = 0; head < heads; head++) {
        for (let i = 0; i < T; i++) {
          for (let j = 0; j <= i; j++, edge++) {
            if (j < first || j >= first + D) continue;
            edges++;
            const mask = y[(i * heads + head) * D + j - first] !== 0 ? 1 : 0;
            open += mask;
            if (Math.abs(reference.noisyLogits[edge]) > 1e-4) {
              assertEquals(mask, reference.masks[edge], `mask of head ${head}, query ${i}, key ${j}`);
            }
          }
        }
      }
    }
    assertEquals(edges, heads * T * (T + 1) / 2);
    assert(open > 0.2 * edges && open < 0.8 * edges);
  }
});

Deno.test("the reference's gradient is that of the straight-through surrogate, by central differences", () => {
  for (const [heads, keyValueHeads] of GROUPED) {
    for (const mode of ["sampled", "deterministic", "dense"] as const) {
      for (const temperature of [0.5, 1, 2]) {
        const shape = { batch: 1, heads, keyValueHeads, positions: 5, headSize: 3 };
        const { qkv, dy } = inputs(shape, 31);
        const test = { ...shape, mode, temperature, distancePower: temperature - 0.5 };
        const at = attentionReference(referenceInput(test, qkv));
        const analytic = attentionGradientReference(referenceInput(test, qkv), dy);
        const numeric = centralDifference(
          (x) => surrogate(referenceInput(test, x), dy, at),
          Float64Array.from(qkv),
        );
        const what = `H ${heads}, K ${keyValueHeads}, ${mode}, temperature ${temperature}`;
        assert(relativeError(analytic, numeric) < 1e-8, what); // measured 1.2e-10
      }
    }
  }
});

Deno.test("edges weigh by a power of their distance, and 1 in the mean over a row's causal edges", () => {
  assertEquals(distanceWeights(4, 0), [1, 1, 1, 1]);
  // Two tokens to themselves, one edge from the one to the other of half the weight: 1.2 + 1.2 + 0.6 = 3.
  assert(maxAbsoluteError(distanceWeights(2, 1), [1.2, 0.6]) < 1e-15);
  for (const [positions, power] of [[1, 3], [7, 0.5], [130, 2]]) {
    const weights = distanceWeights(positions, power);
    assert(Math.abs(distanceWeight(positions, power) / weights[0] - 1) < 1e-13);
    const sum = weights.reduce((total, weight, distance) => total + (positions - distance) * weight, 0);
    assert(Math.abs(sum / (positions * (positions + 1) / 2) - 1) < 1e-13);
    weights.forEach((weight, distance) =>
      assert(Math.abs(weight * (1 + distance) ** power / weights[0] - 1) < 1e-13)
    );
  }
});

gpuTest("a power that is no number from 0 to 8 is refused", async (gpu) => {
  const shape = { batch: 1, heads: 1, positions: 2, headSize: 4, layer: 0 };
  for (const distancePower of [-0.1, 8.1, NaN]) {
    await assertRejects(
      () => prepareGatedAttention(gpu, { ...shape, distancePower }),
      RangeError,
      `the power of the distance must be from 0 to 8: ${distancePower}`,
    );
  }
});

Deno.test("grouped queries are queries with their key and value heads repeated, whose gradients add up", () => {
  const [heads, keyValueHeads, headSize] = [6, 2, 4];
  const test: Case = { batch: 2, heads, keyValueHeads, positions: 6, headSize, mode: "sampled" };
  const { qkv, dy } = inputs(test, 8);
  /** The grouped head that each head of the repeated stands for. */
  const groupedHead = [0, 1, 2, 3, 4, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 9, 9];
  const repeated = Array.from({ length: 12 * 18 * headSize }, (_, n) => {
    const [row, head, d] = [Math.floor(n / (18 * headSize)), Math.floor(n / headSize) % 18, n % headSize];
    return qkv[(row * 10 + groupedHead[head]) * headSize + d];
  });
  const [grouped, plain] = [
    referenceInput(test, qkv),
    referenceInput({ ...test, keyValueHeads: undefined }, repeated),
  ];
  assertEquals(attentionReference(grouped), attentionReference(plain));
  const summed = new Float64Array(qkv.length);
  attentionGradientReference(plain, dy).forEach((value, n) => {
    const [row, head, d] = [Math.floor(n / (18 * headSize)), Math.floor(n / headSize) % 18, n % headSize];
    summed[(row * 10 + groupedHead[head]) * headSize + d] += value;
  });
  assert(relativeError(attentionGradientReference(grouped, dy), summed) < 1e-14);
});

/** Σ y · dy with m counted as m₀ + σ((g+ε)/τg) − σ((g₀+ε)/τg) where there is noise, plus the edge objective. */
function surrogate(
  input: AttentionReferenceInput,
  dy: ArrayLike<number>,
  at: { masks: number[]; noisyLogits: number[] },
): number {
  const { heads, keyValueHeads = heads, positions, headSize, qkv, gate } = input;
  const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
  let objective = 0;
  let edge = 0;
  for (let head = 0; head < heads; head++) {
    for (let i = 0; i < positions; i++) {
      const sharing = heads / keyValueHeads;
      const keyHead = (head - head % sharing) / sharing;
      const of = (t: number, part: number, d: number) => {
        const first = t * (heads + 2 * keyValueHeads) * headSize;
        const ofPart = part === 0
          ? head * headSize
          : heads * headSize + ((part - 1) * keyValueHeads + keyHead) * headSize;
        return qkv[first + ofPart + d];
      };
      const l = Array.from({ length: i + 1 }, (_, j) => {
        let score = 0;
        for (let d = 0; d < headSize; d++) score += of(i, 0, d) * of(j, 1, d);
        return score / Math.sqrt(headSize);
      });
      const total = l.reduce((sum, score) => sum + Math.exp(score), 0);
      for (let j = 0; j <= i; j++, edge++) {
        let m: number = at.masks[edge];
        if (gate) {
          const g = l[j] + gate.bias;
          if (gate.noise) {
            const noise = logisticNoise(randomWord({ ...gate.noise, row: gate.noise.firstRow + head, i, j }));
            m += sigmoid((g + noise) / gate.temperature) - sigmoid(at.noisyLogits[edge] / gate.temperature);
          }
          const excess = Math.max(Math.abs(g) - gate.saturationBound, 0);
          const weight = distanceWeights(positions, gate.distancePower ?? 0)[i - j];
          objective += gate.edgeGradient * (weight * sigmoid(g) + gate.saturationWeight * excess ** 2);
        }
        for (let d = 0; d < headSize; d++) {
          objective += m * Math.exp(l[j]) / total * of(j, 2, d) * dy[(i * heads + head) * headSize + d];
        }
      }
    }
  }
  return objective;
}

/** One edge's key, random word and logistic noise, from another implementation. */
type FixtureNoise = Parameters<typeof randomWord>[0] & { r: number; epsilon: number };

async function noiseFixture(): Promise<FixtureNoise[]> {
  const path = new URL("../../fixtures/tiny_gpt2/noise.json", import.meta.url);
  return JSON.parse(await Deno.readTextFile(path));
}

Deno.test("the reference's noise is the fixture's, bit for bit, and logistic", async () => {
  const noise = await noiseFixture();
  assert(noise.length > 20);
  for (const { r, epsilon, ...key } of noise) {
    assertEquals(randomWord(key), r);
    assert(Math.abs(logisticNoise(r) - epsilon) < 1e-12);
  }
  assert(Number.isFinite(logisticNoise(0xffffffff)) && logisticNoise(0xffffffff) === -logisticNoise(0));
});

gpuTest("the device's noise words are the fixture's, bit for bit", async (gpu) => {
  const fixture = await noiseFixture();
  const kernel = await compile(gpu, { label: "random words", source: randomSource + RANDOM_WORDS });
  const keys = fixture.flatMap(({ seed, step, layer, row, i, j }) => [seed, step, layer, row, i, j]);
  const tensors = {
    keys: upload(gpu, "keys", Uint32Array.from(keys)),
    words: gpu.tensor("words", [fixture.length], "u32"),
  };
  gpu.submit("random words", (recorder) => recorder.dispatch(kernel, tensors, [fixture.length]));
  assertEquals([...await gpu.readUint32(tensors.words)], fixture.map(({ r }) => r));
});

gpuTest(
  "the device's logistic noise equals float64, and is finite for the lowest and highest words",
  async (gpu) => {
    const fixture = await noiseFixture();
    const words = [
      0,
      0xff,
      0x100,
      0x7fffffff,
      0x80000000,
      0xfffffeff,
      0xffffffff,
      ...fixture.map(({ r }) => r),
    ];
    const kernel = await compile(gpu, { label: "logistic noise", source: randomSource + LOGISTIC_NOISE });
    const tensors = {
      words: upload(gpu, "words", Uint32Array.from(words)),
      noise: gpu.tensor("noise", [words.length]),
    };
    gpu.submit("logistic noise", (recorder) => recorder.dispatch(kernel, tensors, [words.length]));
    const noise = await gpu.read(tensors.noise);
    // Element by element, as the L2 norm would hide one.
    assert(maxAbsoluteError(noise.map((odds) => -Math.log(odds)), words.map(logisticNoise)) < 1e-6);
  },
);

const RANDOM_WORDS = `
@group(0) @binding(0) var<storage, read> keys: array<u32>;
@group(0) @binding(1) var<storage, read_write> words: array<u32>;
@compute @workgroup_size(1) fn main(@builtin(global_invocation_id) id: vec3u) {
  let at = 6u * id.x;
  let key = stream_key(keys[at], keys[at + 1u], keys[at + 2u], keys[at + 3u]);
  words[id.x] = random_word(random_row(key, keys[at + 4u]), key, keys[at + 5u]);
}`;

const LOGISTIC_NOISE = `
@group(0) @binding(0) var<storage, read> words: array<u32>;
@group(0) @binding(1) var<storage, read_write> noise: array<f32>;
@compute @workgroup_size(1) fn main(@builtin(global_invocation_id) id: vec3u) {
  noise[id.x] = inverse_noise_odds(words[id.x]);
}`;

gpuTest("a query with no open edge outputs exactly 0", async (gpu) => {
  const test: Case = { batch: 1, heads: 1, positions: 17, headSize: 8, mode: "deterministic", bias: -1000 };
  const { qkv, dy } = inputs(test, 3);
  const { y, headSums } = await run(gpu, test, qkv, dy);
  assert(y.every((value) => value === 0));
  assertEquals(headSums[8 * LAYER + 5], 17, "dead queries");
});

gpuTest(
  "the same inputs give the same bits, and a micro-batch the noise of its rows in the whole batch",
  async (gpu) => {
    const whole: Case = {
      batch: 4,
      heads: 4,
      keyValueHeads: 2,
      positions: 19,
      headSize: 8,
      mode: "sampled",
    };
    const { qkv, dy } = inputs(whole, 9);
    const first = await run(gpu, whole, qkv, dy);
    assertEquals(await run(gpu, whole, qkv, dy), first);
    const half = qkv.length / 2;
    const second = await run(
      gpu,
      { ...whole, batch: 2 },
      qkv.slice(half),
      dy.slice(dy.length / 2),
      2 * whole.heads,
    );
    assertEquals(second.y, first.y.slice(first.y.length / 2));
    assertEquals(second.rowSums, first.rowSums.slice(first.rowSums.length / 2));
  },
);

gpuTest("memory grows as T: nothing of size T x T is allocated", async (gpu) => {
  // Every buffer that is created counts, whoever creates it.
  const { device } = gpu;
  const original = device.createBuffer;
  let bytes = 0;
  device.createBuffer = (descriptor) => {
    bytes += descriptor.size;
    return original.call(device, descriptor);
  };
  const allocated: number[] = [];
  try {
    for (const positions of [16, 32, 64]) {
      bytes = 0;
      const test: Case = { batch: 1, heads: 2, positions, headSize: 8, mode: "sampled" };
      const { qkv, dy } = inputs(test, 1);
      await run(gpu, test, qkv, dy);
      allocated.push(bytes);
    }
  } finally {
    device.createBuffer = original;
  }
  const perPosition = (allocated[1] - allocated[0]) / 16;
  assert(perPosition > 0);
  assertEquals(allocated[2] - allocated[1], 32 * perPosition);
});

gpuTest("the edge objective's gradient alone holds where gates stand wide open", async (gpu) => {
  // p (1 - p) is then as small as 4e-6, of which float32 would keep two digits if it were computed so.
  for (const bias of [3, 12, -12]) {
    const shape = { batch: 1, heads: 2, positions: 17, headSize: 16 };
    const test: Case = { ...shape, mode: "deterministic", bias, saturationWeight: 0 };
    const { qkv, dy } = inputs(test, 5);
    dy.fill(0);
    const { dqkv } = await run(gpu, test, qkv, dy);
    const want = attentionGradientReference(referenceInput(test, qkv), dy);
    assertClose(dqkv, want, { tolerance: 1e-5, name: `dqkv, bias ${bias}` }); // measured 6.7e-7
  }
});

gpuTest("rows that are only padding are not counted in the heads' sums", async (gpu) => {
  const [batch, heads, positions, headSize] = [3, 2, 5, 4];
  const op = await prepareGatedAttention(gpu, { batch, heads, positions, headSize, layer: 0 });
  const tensors = {
    rowSums: upload(gpu, "row sums", new Float32Array(batch * heads * positions * 4).fill(1)),
    headSums: gpu.tensor("head sums", [1, heads, 8]),
  };
  op.configureRows(2);
  gpu.submit("head sums", (recorder) => op.sumHeads(recorder, tensors));
  const counted = 2 * positions;
  const head = [counted, counted, counted, counted, 0, 0, 0, 0];
  assertEquals([...await gpu.read(tensors.headSums)], [...head, ...head]);
});

gpuTest("an extent that is no positive integer is refused", async (gpu) => {
  const shape = { batch: 1, heads: 1, positions: 4, headSize: 4, layer: 0 };
  await assertRejects(() => prepareGatedAttention(gpu, { ...shape, positions: 0 }), RangeError, "positions");
  await assertRejects(() => prepareGatedAttention(gpu, { ...shape, headSize: 1.5 }), RangeError, "1.5");
});

gpuTest("key heads that the heads cannot be shared out to are refused", async (gpu) => {
  const shape = { batch: 1, heads: 4, positions: 4, headSize: 4, layer: 0 };
  for (
    const [keyValueHeads, message] of [[3, "must divide the 4 heads: 3"], [8, "heads: 8"], [
      0,
      "integer: 0",
    ]] as const
  ) {
    await assertRejects(() => prepareGatedAttention(gpu, { ...shape, keyValueHeads }), RangeError, message);
  }
});

gpuTest(
  "without subgroups, where each lane loads for itself, grouped queries equal float64 too",
  async () => {
    const plain = await Gpu.open({ subgroups: false });
    try {
      assertEquals(plain.lanes, undefined);
      const small: Shape = { batch: 2, heads: 4, keyValueHeads: 2, positions: 19, headSize: 12 };
      const cases: Case[] = (["dense", "deterministic", "sampled"] as const)
        .map((mode) => ({ ...small, mode }));
      const { distancePower, edgeScale } = BY_DISTANCE;
      for (const test of [...cases, { ...small, mode: "sampled" as const, distancePower, edgeScale }]) {
        const { mode } = test;
        const { qkv, dy } = inputs(test, 21);
        const { y, dqkv } = await run(plain, { ...test, variant: "registers" }, qkv, dy);
        const input = referenceInput(test, qkv);
        // Measured: 1.4e-7 for y, 1.9e-7 for dqkv.
        assertClose(y, attentionReference(input).y, { tolerance: 2e-6, name: `y, ${mode}` });
        assertClose(dqkv, attentionGradientReference(input, dy), { tolerance: 1e-5, name: `dqkv, ${mode}` });
      }
    } finally {
      plain.close();
    }
  },
);

gpuTest("a tile is left out only where that moves no result by 2^-24 of the largest value", async (gpu) => {
  // Scores are 0 for the first 64 keys and -fall for the others, values 0 for the first and 1e6 for the others: what the
  // later tiles add shows by itself. One may be left out below 2^-24 / 3 of the mass, 2.0e-8.
  const { positions: T, headSize: D } = TILED_DENSE;
  const shape: Case = { ...TILED_DENSE, mode: "dense", variant: "tiled 4 x 4 by 16" };
  for (const ratio of [1e-9, 1e-7]) {
    const qkv = new Float32Array(T * 3 * D);
    for (let t = 0; t < T; t++) {
      qkv[3 * D * t] = Math.sqrt(D);
      if (t < 64) continue;
      qkv[3 * D * t + D] = Math.log(ratio);
      qkv.fill(1e6, 3 * D * t + 2 * D, 3 * D * (t + 1));
    }
    const reference = attentionReference(referenceInput(shape, qkv));
    const { y } = await run(gpu, shape, qkv, new Float32Array(T * D));
    if (ratio === 1e-9) {
      assert(reference.y.some((value) => value > 0));
      assert(y.every((value) => value === 0));
      assert(maxAbsoluteError(y, reference.y) < 2 ** -24 * 1e6);
    } else assertClose(y, reference.y, { tolerance: 1e-5, name: "y" }); // measured 3e-7
  }
}, { ignore: !WITH_GPU_KERNELS });

gpuTest(
  "gates that are all closed leave y at 0, in tiles too, and the gradient of their opening",
  async (gpu) => {
    const small: Shape = { batch: 1, heads: 1, positions: 70, headSize: 8 };
    for (const variant of ["registers", ...TILES] as const) {
      if (!isTried({ variant })) continue;
      const shape = variant === "registers" ? small : { ...TILED, batch: 1 };
      const test: Case = { ...shape, mode: "sampled", bias: -40, variant };
      const { qkv, dy } = inputs(test, 9);
      const { y, rowSums, dqkv } = await run(gpu, test, qkv, dy);
      assert(y.every((value) => value === 0));
      assert(rowSums.every((value, n) => n % 4 !== 1 || value === 0));
      const want = attentionGradientReference(referenceInput(test, qkv), dy);
      assertClose(dqkv, want, { tolerance: 1e-5, name: `dqkv, ${variant}` });
    }
  },
);

gpuTest("a gradient that is no number makes none of queries, keys and values, in tiles too", async (gpu) => {
  for (const variant of ["registers", "tiled 4 x 4 by 16"] as const) {
    if (!isTried({ variant })) continue;
    const { qkv, dy } = inputs(TILED_DENSE, 9);
    const { dqkv } = await run(gpu, { ...TILED_DENSE, mode: "dense", variant }, qkv, dy.fill(NaN));
    assert(dqkv.every(Number.isNaN), variant);
  }
});

gpuTest("a GPU gets tiles where they fit its workgroup memory, a CPU driver never", (gpu) => {
  const chosen = (headSize: number, maxComputeWorkgroupStorageSize = 49152, vendor = "", software = false) =>
    ([1, 2] as const).map((results) =>
      chooseAttentionVariant(
        { adapter: { software, vendor }, device: { limits: { maxComputeWorkgroupStorageSize } } } as Gpu,
        headSize,
        results,
      )
    );
  const both = (variant: AttentionVariant) => [variant, variant];
  const [narrow, wide] = ["tiled 4 x 4 by 32", "tiled 4 x 8 by 16"] as const;
  assertEquals(chosen(64), both(narrow));
  assertEquals(chosen(64, 32768), both(narrow));
  assertEquals(chosen(128), both(narrow));
  assertEquals(chosen(128, 32768), both("tiled 4 x 4 by 16"));
  assertEquals(chosen(64, 49152, "4318"), both(wide));
  // Of keys and values there are two gradients, for which 4 x 8 edges leave too few registers.
  assertEquals(chosen(128, 49152, "4318"), [wide, narrow]);
  assertEquals(chosen(256, 65536, "4318"), both(narrow));
  assertEquals(chosen(64, 16384), both("registers"));
  assertEquals(chosen(5), both("registers"));
  assertEquals(chosen(64, 49152, "", true), both("registers"));
  assert(gpu.adapter.software || chooseAttentionVariant(gpu, 64, 1).startsWith("tiled"));
  return Promise.resolve();
});

gpuTest(
  "every tiled variant gives the same bits, as which is taken may differ from start to start",
  async (gpu) => {
    // The shape and the variants of tests above, which are compiled.
    const test: Case = { ...TILED, mode: "sampled" };
    const { qkv, dy } = inputs(test, 41);
    const [first, second] = await Promise.all(
      TILES.map((variant) => run(gpu, { ...test, variant }, qkv, dy)),
    );
    assertEquals(second, first);
  },
  { ignore: !WITH_GPU_KERNELS },
);

gpuTest("each kernel is the variant that a device's tuner finds, measured on its own shape", async () => {
  const other = await Gpu.open({ subgroups: false });
  try {
    // As a GPU without memory for more than slabs of 16, which compile fastest.
    Object.defineProperty(other, "adapter", { value: { ...other.adapter, software: false, vendor: "" } });
    Object.defineProperty(other.device, "limits", { value: { maxComputeWorkgroupStorageSize: 24_000 } });
    const names = ["tiled 4 x 4 by 16", "tiled 4 x 8 by 16"];
    const asked: string[] = [];
    other.tuner = {
      async choose(gpu, key, candidates, prepare) {
        asked.push(key);
        assertEquals(candidates, names);
        const contest = await prepare();
        assertEquals([...contest!.candidates.keys()], names);
        const found = key.includes("query") ? names[1] : names[0];
        // The other candidate would take a CPU driver seconds to compile.
        gpu.submit("a candidate", contest!.candidates.get(found)!);
        contest!.destroy();
        return found;
      },
    };
    const test: Case = { batch: 1, heads: 4, positions: 512, headSize: 16, mode: "sampled" };
    const { qkv, dy } = inputs(test, 33);
    const { y, dqkv } = await run(other, test, qkv, dy);
    const input = referenceInput(test, qkv);
    // Measured: 2.1e-7 for y, 4.7e-7 for dqkv.
    assertClose(y, attentionReference(input).y, { tolerance: 2e-6, name: "y" });
    assertClose(dqkv, attentionGradientReference(input, dy), { tolerance: 1e-5, name: "dqkv" });
    const shape = "1 x 512, 4 heads of 16 by 4";
    const kernels = ["forward", "backward query", "backward key value"];
    assertEquals(asked, kernels.map((kernel) => `attention ${kernel} ${shape}`));
  } finally {
    other.close();
  }
}, { ignore: !WITH_GPU_KERNELS });

gpuTest(
  "queries, keys, values and results in half precision: the reference of what was rounded",
  async (gpu) => {
    const cases = [
      ...GROUPED.map(([heads, keyValueHeads]) => ({ heads, keyValueHeads, variant: "registers" as const })),
      { heads: 4, keyValueHeads: 2, variant: "tiled 4 x 8 by 16" as const },
    ];
    for (const { heads, keyValueHeads, variant } of cases.filter(isTried)) {
      const test: Case = {
        batch: 1,
        heads,
        keyValueHeads,
        positions: 70,
        headSize: 8,
        mode: "deterministic",
      };
      const { qkv, dy } = inputs(test, 12);
      const rounded = roundingReference(qkv);
      const input = referenceInput(test, rounded);
      const op = await prepareGatedAttention(gpu, { ...test, layer: LAYER, variant, half: true });
      op.configure({
        seed: SEED,
        step: STEP,
        firstRow: 0,
        bias: 0.4,
        temperature: 1,
        edgeWeight: 1 / (heads * 70 * 71 / 2),
        saturationWeight: SATURATION_WEIGHT,
        saturationBound: SATURATION_BOUND,
      });
      const t = {
        qkv: gpu.tensor("qkv", [qkv.length], "f16"),
        y: gpu.tensor("y", [dy.length], "f16"),
        dy: upload(gpu, "dy", dy),
        edgeScale: upload(gpu, "edge scale", new Float32Array([EDGE_SCALE])),
        logSumExp: gpu.tensor("log sum exp", [heads * 70]),
        delta: gpu.tensor("delta", [heads * 70]),
        rowSums: gpu.tensor("row sums", [heads * 70, 4]),
        dqkv: gpu.tensor("dqkv", [qkv.length]),
      };
      gpu.write(t.qkv, qkv);
      gpu.submit("attention", (recorder) => {
        op.forward(recorder, "deterministic", t);
        op.backward(recorder, "deterministic", t);
      });
      // y is rounded to 2^-11, and delta is made from it. Measured: 2.0e-4 and 9.2e-5.
      assertClose(await gpu.read(t.y), attentionReference(input).y, {
        tolerance: 5e-4,
        name: `y, ${variant}, H ${heads}, K ${keyValueHeads}`,
      });
      assertClose(await gpu.read(t.dqkv), attentionGradientReference(input, dy), {
        tolerance: 5e-4,
        name: `dqkv, ${variant}, H ${heads}, K ${keyValueHeads}`,
      });
    }
  },
);
