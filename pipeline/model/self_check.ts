/**
 * The check that stands before whatever is computed on an adapter: each operation that it takes runs forward and
 * backward on small fixed inputs, and is held against its float64 reference. A driver that compiles a kernel wrongly would
 * otherwise train to a plausible, wrong result.
 *
 * What is covered:
 *
 * - Sizes at which kernels go round their loops: products of more than two slabs of terms and more than one tile of rows and
 *   columns, attention over two tiles of keys and a part of a third on a GPU (T = 130) and over two vectors and a part of a
 *   third on a CPU driver (T = 19), sums of more elements and rows than a workgroup has lanes. None is a whole number of
 *   these.
 * - Of products, every variant that may be chosen on the adapter, in each layout, and those that end in an addition or in
 *   GELU. Of attention, each mode, at the models' own head size on a GPU; every variant where a tuner chooses, else the one
 *   that is taken; a temperature of 1, and another.
 * - f16, int8 and low-rank adapters where the workload says that a model is so stored or adapted: products, attention, and the
 *   copies that are rounded.
 *
 * What is not:
 *
 * - Kernels are compiled for the sizes that they run at, so that those of the run are others than those checked: a driver that
 *   compiles one wrongly for some sizes alone is not found. On a CPU driver heads are of 36 elements.
 * - Products in slices of a matrix that is larger than a binding, and several products in one dispatch, as circuits take them;
 *   low-rank products in other variants than the one for their size here.
 * - Norms, embeddings, positions and activations that are stored as f16, beyond what products and attention show of storing.
 * - Second rounds of what a GPU sums up over more rows than the loss has here (17), or more elements than the gradients' squares.
 * - Whatever goes wrong now and then: each operation runs once.
 *
 * @module
 */
import { adamwCheck } from "../../kernels/adamw/check.ts";
import { blendCheck } from "../../kernels/blend/check.ts";
import { clipCheck } from "../../kernels/clip/check.ts";
import { crossEntropyCheck, weightedCrossEntropyCheck } from "../../kernels/cross_entropy/check.ts";
import { distillationCheck } from "../../kernels/distillation/check.ts";
import { embeddingCheck } from "../../kernels/embedding/check.ts";
import { explicitAttentionCheck } from "../../kernels/explicit_attention/check.ts";
import {
  cachedAttentionChecks,
  distanceCheck,
  gatedAttentionChecks,
} from "../../kernels/gated_attention/check.ts";
import { gecoCheck } from "../../kernels/geco/check.ts";
import { geluCheck } from "../../kernels/gelu/check.ts";
import { layerNormCheck } from "../../kernels/layer_norm/check.ts";
import { geluReference } from "../../kernels/gelu/reference.ts";
import { type CheckedProduct, matmulCheck, productCheck } from "../../kernels/matmul/check.ts";
import { lowRankCheck } from "../../kernels/matmul/low_rank_check.ts";
import { queryKeyNormChecks } from "../../kernels/query_key_norm/check.ts";
import { residualCheck } from "../../kernels/residual/check.ts";
import { rmsNormCheck } from "../../kernels/rms_norm/check.ts";
import { rotaryCheck } from "../../kernels/rotary/check.ts";
import { roundingCheck } from "../../kernels/rounding/check.ts";
import { swigluCheck } from "../../kernels/swiglu/check.ts";
import type { KernelCheck } from "../../kernels/core/check.ts";
import { DeviceError } from "../../kernels/core/device.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import { destroyTensor, type ElementType, type Tensor } from "../../kernels/core/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { grouped } from "./schedule.ts";
import { type Model, stepsOf, trace, type TracedShape } from "./trace.ts";

/** How one operation fared on the adapter. */
export interface SelfCheckResult {
  /** For example `gated attention backward, sampled`. */
  operation: string;
  /** The largest over its outputs of ‖device − reference‖₂ / ‖reference‖₂; Infinity where a value is not finite. */
  error: number;
  /** The largest error that float32 and WGSL's allowance for exp and log explain. */
  tolerance: number;
}

/** What is to be computed on an adapter. */
export interface Workload {
  /** The models that run on it. */
  models: readonly ModelConfig[];
  /** How each of them is stored, and what stands beside it; left out, or of a model: all float32, and nothing. */
  stored?: readonly (StoredAs | undefined)[];
  /** Whether they are trained. */
  training?: boolean;
  /** Whether positions have weights of their own in the loss that they are trained by. */
  weighted?: boolean;
  /** Power of 1 + distance by which edges weigh less in what they are trained by; left out: 0. */
  distancePower?: number;
  /** Whether they continue texts, token by token. */
  generation?: boolean;
  /** Whether activations are read and replaced, and blended. */
  interventions?: boolean;
  /** Whether a tuner chooses between variants of kernels. */
  tuned?: boolean;
}

/** What of a trace decides by which kernels a model is computed. */
export type StoredAs = Pick<TracedShape, "half" | "adapters" | "train" | "frozen">;

/** The loss, whose products with the head are those of every linear layer. */
const OF_EVERY_MODEL = [matmulCheck, crossEntropyCheck];
const OF_TRAINING = [distillationCheck, adamwCheck, gecoCheck];
const OF_INTERVENTIONS = [residualCheck, explicitAttentionCheck, blendCheck];
const GPT2_HEADS = { headSize: 64, half: false };
const ENDED = { layout: "nn", bias: true } as const;
/** Every operation in float32. */
const ALL: readonly KernelCheck[] = [
  ...OF_EVERY_MODEL,
  productCheck({ ...ENDED, residual: true }),
  productCheck({ layout: "nn", residual: true }),
  productCheck({ ...ENDED, gelu: { form: "tanh", reference: geluReference } }),
  productCheck({ ...ENDED, gelu: { form: "exact", reference: geluReference } }),
  lowRankCheck({ half: false, aligned: true }),
  layerNormCheck,
  rmsNormCheck,
  embeddingCheck,
  geluCheck,
  swigluCheck,
  clipCheck,
  rotaryCheck,
  queryKeyNormChecks.head,
  queryKeyNormChecks.all,
  ...gatedAttentionChecks(GPT2_HEADS),
  distanceCheck(GPT2_HEADS),
  ...cachedAttentionChecks(GPT2_HEADS),
  ...OF_INTERVENTIONS,
  ...OF_TRAINING,
  weightedCrossEntropyCheck,
];

/** The products with the matrix of logits that are not all of float32, as the head has them. */
function checksOfHead({ head: { stored, trainable } }: Model, half: boolean): KernelCheck[] {
  if (!half && stored !== "f16") return [];
  const products: CheckedProduct[] = [
    { layout: "nt", half: half ? ["a", "b"] : ["b"] },
    { layout: "nn", half: ["b"] },
    ...half && trainable ? [{ layout: "tn", accumulate: true, half: ["b"] } as const] : [],
  ];
  return products.map(productCheck);
}

/** What a model takes, stored in a way. */
function checksOf(
  config: ModelConfig,
  stored: StoredAs,
  { training, distancePower, generation }: Workload,
): KernelCheck[] {
  const half = stored.half ?? false;
  const shape = { ...stored, batch: 1, context: 1 };
  const traced = [
    trace(config, { ...shape, distancePower }),
    ...generation ? [trace(config, { ...shape, cached: 1 })] : [],
  ];
  return [
    ...traced.flatMap((model) => grouped(stepsOf(model))).flatMap((group) => [
      ...group.flatMap(({ op }) => op.checks),
      ...group.length > 1 ? group[0].op.fusedChecks?.(group[1]!.op) ?? [] : [],
    ]),
    ...checksOfHead(traced[0], half),
    ...training && half ? [roundingCheck] : [],
  ];
}

/** What an adapter has to pass for a workload: everything in float32 where it is left out. */
function checksFor(workload: Workload | undefined): readonly KernelCheck[] {
  if (!workload) return ALL;
  const { models, stored = [], training, weighted, interventions } = workload;
  return [
    ...new Set([
      ...OF_EVERY_MODEL,
      ...models.flatMap((config, n) => checksOf(config, stored[n] ?? {}, workload)),
      ...interventions ? OF_INTERVENTIONS : [],
      ...training ? OF_TRAINING : [],
      ...weighted ? [weightedCrossEntropyCheck] : [],
    ]),
  ];
}

/** Options of {@link selfCheck}. */
export interface SelfCheckOptions {
  /** Left out: all that there is. */
  workload?: Workload;
  /** Told how many of how many operations have been handed to the device; a CPU driver compiles each there. */
  progress?: (done: number, of: number) => void;
}

/**
 * Runs every operation of a workload, forward and backward, and compares it with its float64 reference. Leaves small
 * tensors on the device, some 2 MB on a CPU driver and 20 to 60 MB on a GPU, which live as long as it does.
 *
 * @returns one result for each operation, in a fixed order; the same on every call on the same adapter
 * @throws {DeviceError} when the device refuses a kernel or is lost
 */
export async function selfCheck(
  gpu: Gpu,
  { workload, progress }: SelfCheckOptions = {},
): Promise<SelfCheckResult[]> {
  const scope = { tuned: workload?.tuned ?? false };
  const checks = await Promise.all(checksFor(workload).map((check) => check(gpu, scope)));
  const comparisons = checks.flatMap((check) => check.comparisons);
  const outputs = comparisons.flatMap(({ outputs }) => outputs.map(([tensor]) => tensor));
  // All outputs of a type go into one tensor, since reading costs a round trip to the device.
  const gathered = new Map<ElementType, Tensor>();
  for (const type of new Set(outputs.map(({ type }) => type))) {
    const length = outputs.reduce((sum, tensor) => sum + (tensor.type === type ? tensor.length : 0), 0);
    gathered.set(type, gpu.tensor(`self-check of ${type}`, [length], type));
  }
  const ends = new Map<ElementType, number>();
  /** Where a tensor's elements stand among all of its type, each of which is placed once and in order. */
  const place = (tensor: Tensor, of: Map<ElementType, number>): number => {
    const start = of.get(tensor.type) ?? 0;
    of.set(tensor.type, start + tensor.length);
    return start;
  };
  for (const [done, { record, comparisons }] of checks.entries()) {
    progress?.(done, checks.length);
    gpu.submit(`the self-check of ${comparisons[0].operation}`, (recorder) => {
      record(recorder);
      for (const [tensor] of comparisons.flatMap(({ outputs }) => outputs)) {
        recorder.copy(tensor, gathered.get(tensor.type)!, place(tensor, ends));
      }
    });
  }
  const actual = new Map<ElementType, Float32Array>();
  for (const [type, tensor] of gathered) {
    actual.set(type, await gpu.read(tensor));
    destroyTensor(gpu, tensor);
  }
  const starts = new Map<ElementType, number>();
  return comparisons.map(({ operation, outputs, tolerance }) => {
    const errors = outputs.map(([tensor, expected]) => {
      const start = place(tensor, starts);
      return relativeError(actual.get(tensor.type)!.subarray(start, start + tensor.length), expected);
    });
    return { operation, error: Math.max(...errors), tolerance };
  });
}

/**
 * Refuses an adapter whose results are wrong.
 *
 * @throws {DeviceError} naming the adapter and, for each operation that is off, its error and tolerance
 */
export async function assertSelfCheck(gpu: Gpu, options: SelfCheckOptions = {}): Promise<void> {
  const wrong = (await selfCheck(gpu, options)).filter(({ error, tolerance }) => !(error <= tolerance));
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
