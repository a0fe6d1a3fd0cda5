/**
 * The check that stands before every training: each operation runs forward and backward on the adapter at hand, on
 * tiny fixed inputs, and is held against its float64 reference. A driver that compiles a kernel wrongly would otherwise
 * train to a plausible, wrong result.
 *
 * @module
 */
import { prepareAdamW } from "../kernels/adamw/op.ts";
import { adamwReference } from "../kernels/adamw/reference.ts";
import { DeviceError } from "../kernels/core/device.ts";
import type { Gpu } from "../kernels/core/gpu.ts";
import type { Recorder } from "../kernels/core/recorder.ts";
import type { Tensor } from "../kernels/core/tensor.ts";
import { IGNORED_TARGET, prepareCrossEntropy } from "../kernels/cross_entropy/op.ts";
import { crossEntropyGradientReference, crossEntropyReference } from "../kernels/cross_entropy/reference.ts";
import { prepareDistillation } from "../kernels/distillation/op.ts";
import { distillationReference } from "../kernels/distillation/reference.ts";
import { prepareEmbedding } from "../kernels/embedding/op.ts";
import { embeddingGradientReference, embeddingReference } from "../kernels/embedding/reference.ts";
import { type GateMode, prepareGatedAttention } from "../kernels/gated_attention/op.ts";
import { attentionGradientReference, attentionReference } from "../kernels/gated_attention/reference.ts";
import { prepareGeco } from "../kernels/geco/op.ts";
import { gecoReference } from "../kernels/geco/reference.ts";
import { prepareGelu } from "../kernels/gelu/op.ts";
import { geluGradientReference, geluReference } from "../kernels/gelu/reference.ts";
import { prepareLayerNorm } from "../kernels/layer_norm/op.ts";
import { layerNormGradientReference, layerNormReference } from "../kernels/layer_norm/reference.ts";
import {
  MATMUL_VARIANTS,
  type MatmulConfig,
  prepareBiasGradient,
  prepareMatmul,
  variantCost,
  variantName,
} from "../kernels/matmul/op.ts";
import { biasGradientReference, matmulReference } from "../kernels/matmul/reference.ts";
import { prepareResidual } from "../kernels/residual/op.ts";
import { residualReference } from "../kernels/residual/reference.ts";
import { randomStream } from "./random.ts";

/** How one operation fared on the adapter. */
export interface SelfCheckResult {
  /** For example `gated attention backward, sampled`. */
  operation: string;
  /** The largest over its outputs of ‖device − reference‖₂ / ‖reference‖₂; Infinity where a value is not finite. */
  error: number;
  /** The largest error that float32 and WGSL's allowance for exp and log explain. */
  tolerance: number;
}

/** What one operation writes, and what it must have written. */
interface Comparison {
  operation: string;
  outputs: (readonly [Tensor, ArrayLike<number>])[];
  tolerance: number;
}

/** One room: what is run, and what is compared afterwards. */
interface Check {
  record(recorder: Recorder): void;
  comparisons: Comparison[];
}

// WGSL lets exp be off by 3 + 2|x| units in the last place and log by 2^-21: a few 1e-6 on inputs of order one, well
// below what a wrong kernel or arithmetic in half precision shows (1e-3).
/** For sums and products. Measured on llvmpipe: at most 8e-8. */
const ARITHMETIC = 2e-6;
/** Where exp or log take part. Measured on llvmpipe: at most 2.2e-7. */
const TRANSCENDENTAL = 1e-5;

const CHECKS: ((gpu: Gpu) => Promise<Check>)[] = [
  matmul,
  layerNorm,
  embedding,
  gelu,
  residual,
  (gpu) => gatedAttention(gpu, "dense"),
  (gpu) => gatedAttention(gpu, "deterministic"),
  (gpu) => gatedAttention(gpu, "sampled"),
  crossEntropy,
  distillation,
  adamw,
  geco,
];

/**
 * Runs every operation, forward and backward, and compares it with its float64 reference. Leaves some 40 KB of tiny
 * tensors on the device, which live as long as it does.
 *
 * @returns one result for each operation, in a fixed order; the same on every call on the same adapter
 * @throws {DeviceError} when the device refuses a kernel or is lost
 */
export async function selfCheck(gpu: Gpu): Promise<SelfCheckResult[]> {
  const checks = await Promise.all(CHECKS.map((check) => check(gpu)));
  const comparisons = checks.flatMap((check) => check.comparisons);
  const lengths = comparisons.flatMap(({ outputs }) => outputs.map(([tensor]) => tensor.length));
  // All outputs go into one tensor, since reading costs a round trip to the device.
  const gathered = gpu.tensor("self-check", [lengths.reduce((sum, length) => sum + length)]);
  let end = 0;
  for (const { record, comparisons } of checks) {
    gpu.submit(`the self-check of ${comparisons[0].operation}`, (recorder) => {
      record(recorder);
      for (const [tensor] of comparisons.flatMap(({ outputs }) => outputs)) {
        recorder.copy(tensor, gathered, end);
        end += tensor.length;
      }
    });
  }
  const actual = await gpu.read(gathered);
  let start = 0;
  return comparisons.map(({ operation, outputs, tolerance }) => {
    const errors = outputs.map(([tensor, expected]) =>
      relativeError(actual.subarray(start, start += tensor.length), expected)
    );
    return { operation, error: Math.max(...errors), tolerance };
  });
}

/**
 * Refuses an adapter whose results are wrong.
 *
 * @throws {DeviceError} naming the adapter and, for each operation that is off, its error and tolerance
 */
export async function assertSelfCheck(gpu: Gpu): Promise<void> {
  const wrong = (await selfCheck(gpu)).filter(({ error, tolerance }) => !(error <= tolerance));
  if (wrong.length === 0) return;
  const found = wrong.map(({ operation, error, tolerance }) =>
    `${operation} is off by ${error.toExponential(1)}, tolerance ${tolerance.toExponential(0)}`
  );
  throw new DeviceError(
    `Cannot train on ${gpu.adapter.name} as every operation must agree with float64: ${found.join("; ")}`,
  );
}

function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let difference = 0;
  let norm = 0;
  for (let n = 0; n < expected.length; n++) {
    difference += (actual[n] - expected[n]) ** 2;
    norm += expected[n] ** 2;
  }
  return Number.isFinite(difference) ? Math.sqrt(difference / norm) : Infinity;
}

/** Standard normal numbers, the same on every machine. */
function normals(seed: number, length: number): Float32Array {
  const stream = randomStream(seed);
  return Float32Array.from({ length }, () => stream.normal());
}

function upload(
  gpu: Gpu,
  label: string,
  values: Float32Array | Float64Array | Uint32Array,
  shape = [values.length],
): Tensor {
  const tensor = gpu.tensor(label, shape, values instanceof Uint32Array ? "u32" : "f32");
  gpu.write(tensor, values instanceof Float64Array ? Float32Array.from(values) : values);
  return tensor;
}

/** `a` + `b`, element by element. */
function plus(a: ArrayLike<number>, b: ArrayLike<number>): Float64Array {
  return Float64Array.from(a, (value, n) => value + b[n]);
}

/**
 * All three layouts where rows are aligned, as in real models, in every variant that this adapter may use, and one where they
 * are not; and the bias's gradient.
 */
async function matmul(gpu: Gpu): Promise<Check> {
  const [m, n, k] = [9, 12, 8];
  const variants = MATMUL_VARIANTS.filter((variant) => variantCost(gpu, variant, m, n) < Infinity);
  const configs: MatmulConfig[] = [
    ...variants.flatMap((variant): MatmulConfig[] => [
      { layout: "nn", m, n, k, variant, bias: true },
      { layout: "nt", m, n, k, variant },
      { layout: "tn", m: 12, n, k, variant, accumulate: true },
    ]),
    { layout: "nn", m: 5, n: 7, k: 3, bias: true },
  ];
  const products = await Promise.all(configs.map(async (config, index) => {
    const { layout, m, n, k, variant } = config;
    const values = {
      a: normals(10 + index, m * k),
      b: normals(20 + index, k * n),
      bias: normals(30 + index, n),
    };
    const before = normals(40 + index, m * n);
    const bias = config.bias ? values.bias : undefined;
    const product = matmulReference({ layout, m, n, k, ...values, bias });
    const tensors = {
      a: upload(gpu, "a", values.a),
      b: upload(gpu, "b", values.b),
      bias: upload(gpu, "bias", values.bias),
      c: upload(gpu, "c", before),
    };
    return {
      op: await prepareMatmul(gpu, config),
      tensors,
      operation: `matmul ${layout} of ${m} x ${n} x ${k}` + (variant ? `, ${variantName(variant)}` : ""),
      expected: config.accumulate ? plus(product, before) : product,
    };
  }));
  const dcValues = normals(50, m * n);
  const biasGradient = await prepareBiasGradient(gpu, { m, n, accumulate: true });
  const sums = { dc: upload(gpu, "dc", dcValues), dbias: gpu.tensor("dbias", [n]) };
  return {
    record(recorder) {
      for (const { op, tensors } of products) op.record(recorder, tensors);
      biasGradient.record(recorder, sums);
    },
    comparisons: [
      ...products.map(({ operation, tensors, expected }): Comparison => ({
        operation,
        outputs: [[tensors.c, expected]],
        tolerance: ARITHMETIC,
      })),
      {
        operation: "bias gradient",
        outputs: [[sums.dbias, biasGradientReference(m, n, dcValues)]],
        tolerance: ARITHMETIC,
      },
    ],
  };
}

async function layerNorm(gpu: Gpu): Promise<Check> {
  const [rows, width, epsilon] = [3, 12, 1e-5];
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
  const want = layerNormGradientReference(x, weight, dy, epsilon);
  return {
    record(recorder) {
      op.forward(recorder, t);
      op.backward(recorder, { ...t, ...plain, parameters: plain });
      op.backward(recorder, { ...t, ...residual, parameters: residual });
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
    ],
  };
}

/** Tokens repeat, so that the gradient's scatter has something to add up. */
async function embedding(gpu: Gpu): Promise<Check> {
  const [batch, positions, vocabularySize, width] = [2, 4, 7, 6];
  const tokens = Uint32Array.of(3, 6, 3, 0, 5, 3, 6, 1);
  const tokenEmbedding = normals(1, vocabularySize * width);
  const positionEmbedding = normals(2, positions * width);
  const dx = normals(3, tokens.length * width);
  const op = await prepareEmbedding(gpu, { batch, positions, vocabularySize, width });
  op.upload(tokens);
  const t = {
    tokenEmbedding: upload(gpu, "wte", tokenEmbedding, [vocabularySize, width]),
    positionEmbedding: upload(gpu, "wpe", positionEmbedding, [positions, width]),
    x: gpu.tensor("x", [tokens.length, width]),
    dx: upload(gpu, "dx", dx),
    dtokenEmbedding: gpu.tensor("dwte", [vocabularySize, width]),
    dpositionEmbedding: gpu.tensor("dwpe", [positions, width]),
  };
  const want = embeddingGradientReference(tokens, positions, vocabularySize, dx);
  return {
    record(recorder) {
      op.forward(recorder, t);
      op.backward(recorder, t);
    },
    comparisons: [
      {
        operation: "embedding forward",
        outputs: [[t.x, embeddingReference(tokens, positions, width, tokenEmbedding, positionEmbedding)]],
        tolerance: ARITHMETIC,
      },
      {
        operation: "embedding backward",
        outputs: [[t.dtokenEmbedding, want.dtokenEmbedding], [t.dpositionEmbedding, want.dpositionEmbedding]],
        tolerance: ARITHMETIC,
      },
    ],
  };
}

async function gelu(gpu: Gpu): Promise<Check> {
  const length = 65;
  const x = normals(1, length);
  const dy = normals(2, length);
  const op = await prepareGelu(gpu, { length });
  const t = {
    x: upload(gpu, "x", x),
    dy: upload(gpu, "dy", dy),
    y: gpu.tensor("y", [length]),
    dx: gpu.tensor("dx", [length]),
  };
  return {
    record(recorder) {
      op.forward(recorder, t);
      op.backward(recorder, t);
    },
    comparisons: [
      { operation: "GELU forward", outputs: [[t.y, geluReference(x)]], tolerance: TRANSCENDENTAL },
      {
        operation: "GELU backward",
        outputs: [[t.dx, geluGradientReference(x, dy)]],
        tolerance: TRANSCENDENTAL,
      },
    ],
  };
}

async function residual(gpu: Gpu): Promise<Check> {
  const length = 65;
  const [a, b] = [normals(1, length), normals(2, length)];
  const op = await prepareResidual(gpu, { length });
  const t = { a: upload(gpu, "a", a), b: upload(gpu, "b", b), sum: gpu.tensor("sum", [length]) };
  return {
    record: (recorder) => op.forward(recorder, t),
    comparisons: [{
      operation: "residual",
      outputs: [[t.sum, residualReference(a, b)]],
      tolerance: ARITHMETIC,
    }],
  };
}

/**
 * The inputs leave 63 % of the gates open and none of them nearer to 0 than 0.06, with noise and without, so that
 * no adapter's rounding can decide a gate otherwise than float64 does.
 */
async function gatedAttention(gpu: Gpu, mode: GateMode): Promise<Check> {
  const [batch, heads, positions, headSize, layer] = [2, 2, 5, 8, 1];
  const [seed, step, firstRow, edgeScaleValue] = [5, 3, 4, 0.6];
  const gate = { bias: 0.4, temperature: 0.8, saturationWeight: 0.02, saturationBound: 0.7 };
  const size = batch * positions * heads * headSize;
  const edgeWeight = 1 / (batch * heads * positions * (positions + 1) / 2);
  const qkvValues = normals(59, 3 * size);
  const dyValues = normals(2, size);
  const noise = mode === "sampled" ? { seed, step, layer, firstRow } : undefined;
  const input = {
    batch,
    heads,
    positions,
    headSize,
    qkv: qkvValues,
    gate: mode === "dense" ? undefined : { ...gate, noise, edgeGradient: edgeScaleValue * edgeWeight },
  };
  const op = await prepareGatedAttention(gpu, { batch, heads, positions, headSize, layer });
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
    dqkv: gpu.tensor("dqkv", [batch, positions, 3, heads, headSize]),
  };
  const want = attentionReference(input);
  return {
    record(recorder) {
      op.forward(recorder, mode, t);
      op.sumHeads(recorder, t);
      op.backward(recorder, mode, t);
    },
    comparisons: [
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
      {
        operation: `gated attention backward, ${mode}`,
        outputs: [[t.dqkv, attentionGradientReference(input, dyValues)]],
        tolerance: TRANSCENDENTAL,
      },
    ],
  };
}

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

/** Rows of logits (row, V) laid out with a stride, `padding` in the columns past V. */
function padded(logits: ArrayLike<number>, V: number, stride: number, padding: number): Float64Array {
  const rows = logits.length / V;
  return Float64Array.from({ length: rows * stride }, (_, n) => {
    const v = n % stride;
    return v < V ? logits[Math.floor(n / stride) * V + v] : padding;
  });
}

/** One position in the block does not count, and padding columns hold values that must not be taken. */
async function crossEntropy(gpu: Gpu): Promise<Check> {
  const [rows, V, stride] = [3, 11, 12];
  const [weight, scale] = [0.5, 0.7];
  const logits = normals(1, rows * V);
  const extra = normals(2, rows * V);
  const targets = Uint32Array.of(4, IGNORED_TARGET, 0);
  const op = await prepareCrossEntropy(gpu, { rows, vocabularySize: V, stride });
  op.configure({ weight });
  const t = {
    targets: upload(gpu, "targets", targets),
    rows: gpu.tensor("loss rows", [rows, 4]),
    totals: gpu.tensor("totals", [4]),
    scale: upload(gpu, "scale", Float32Array.of(scale)),
  };
  const plain = upload(gpu, "logits", padded(logits, V, stride, 9));
  const joined = upload(gpu, "logits", padded(logits, V, stride, 9));
  const extraTensor = upload(gpu, "extra", padded(extra, V, stride, 9));
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
        outputs: [[plain, padded(gradient, V, stride, 0)]],
        tolerance: TRANSCENDENTAL,
      },
      {
        operation: "cross-entropy backward with distillation",
        outputs: [[joined, padded(plus(gradient, extra), V, stride, 0)]],
        tolerance: TRANSCENDENTAL,
      },
    ],
  };
}

async function distillation(gpu: Gpu): Promise<Check> {
  const [rows, V, stride] = [3, 11, 12];
  const [weight, scale] = [0.5, 0.7];
  const teacher = normals(1, rows * V);
  const student = normals(2, rows * V);
  const targets = Uint32Array.of(4, IGNORED_TARGET, 0);
  const op = await prepareDistillation(gpu, { vocabularySize: V, stride });
  op.configure({ weight });
  const t = {
    teacher: upload(gpu, "teacher", padded(teacher, V, stride, 9)),
    student: upload(gpu, "student", padded(student, V, stride, 9)),
    targets: upload(gpu, "targets", targets),
    rows: gpu.tensor("distillation rows", [rows, 4]),
    scale: upload(gpu, "scale", Float32Array.of(scale)),
  };
  const { kl, dstudent } = distillationReference(teacher, student, V);
  const everyRow = new Uint32Array(rows);
  const teacherSums = crossEntropyReference(teacher, everyRow, V).logSumExp;
  const studentSums = crossEntropyReference(student, everyRow, V).logSumExp;
  const counted = [...targets].map((target) => target < V ? 1 : 0);
  return {
    record(recorder) {
      op.forward(recorder, t);
      op.backward(recorder, t);
    },
    comparisons: [
      {
        operation: "distillation forward",
        outputs: [[
          t.rows,
          counted.flatMap((c, row) => [c * kl[row], teacherSums[row], studentSums[row], c]),
        ]],
        tolerance: TRANSCENDENTAL,
      },
      {
        operation: "distillation backward",
        outputs: [[
          t.teacher,
          padded(
            dstudent.map((value, n) => weight * scale * counted[Math.floor(n / V)] * value),
            V,
            stride,
            0,
          ),
        ]],
        tolerance: TRANSCENDENTAL,
      },
    ],
  };
}

/** A matrix of which some columns decay and a vector of which none do, under a clip that is active. */
async function adamw(gpu: Gpu): Promise<Check> {
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

async function geco(gpu: Gpu): Promise<Check> {
  const settings = { scale: 0.8, alpha: 0.9, rate: 0.5, gain: 0.7, lowest: 0.02, highest: 5 };
  const [targetLoss, violation, positions] = [2, 0.5, 8];
  const op = await prepareGeco(gpu);
  op.configure({ ...settings, targetLoss });
  const t = {
    totals: upload(gpu, "totals", Float32Array.of(positions * (targetLoss + violation), 0, 0, positions)),
    state: upload(gpu, "state", Float32Array.of(0.3, 0.1, 0, 0)),
    lossScale: gpu.tensor("loss scale", [1]),
    edgeScale: gpu.tensor("edge scale", [1]),
  };
  const { lambda, average, acting } = gecoReference({ lambda: 0.3, average: 0.1 }, violation, settings);
  return {
    record(recorder) {
      op.measure(recorder, t);
      op.update(recorder, t);
    },
    comparisons: [{
      operation: "GECO",
      outputs: [
        [t.state, [lambda, average, violation, 1]],
        [t.lossScale, [acting / (1 + acting)]],
        [t.edgeScale, [1 / (1 + acting)]],
      ],
      tolerance: TRANSCENDENTAL,
    }],
  };
}
