/**
 * The check that stands before whatever is computed on an adapter: each operation that it takes runs forward and
 * backward on tiny fixed inputs, and is held against its float64 reference. A driver that compiles a kernel wrongly would
 * otherwise train to a plausible, wrong result.
 *
 * @module
 */
import { adamwCheck } from "../../kernels/adamw/check.ts";
import { clipCheck } from "../../kernels/clip/check.ts";
import { crossEntropyCheck, weightedCrossEntropyCheck } from "../../kernels/cross_entropy/check.ts";
import { distillationCheck } from "../../kernels/distillation/check.ts";
import { embeddingCheck } from "../../kernels/embedding/check.ts";
import {
  cachedAttentionChecks,
  distanceCheck,
  gatedAttentionChecks,
} from "../../kernels/gated_attention/check.ts";
import { gecoCheck } from "../../kernels/geco/check.ts";
import { geluCheck } from "../../kernels/gelu/check.ts";
import { layerNormCheck } from "../../kernels/layer_norm/check.ts";
import { matmulCheck } from "../../kernels/matmul/check.ts";
import { queryKeyNormChecks } from "../../kernels/query_key_norm/check.ts";
import { residualCheck } from "../../kernels/residual/check.ts";
import { rmsNormCheck } from "../../kernels/rms_norm/check.ts";
import { rotaryCheck } from "../../kernels/rotary/check.ts";
import { swigluCheck } from "../../kernels/swiglu/check.ts";
import type { KernelCheck } from "../../kernels/core/check.ts";
import { DeviceError } from "../../kernels/core/device.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { ModelConfig } from "./config.ts";
import { stepsOf, trace } from "./trace.ts";

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
  /** Whether they are trained. */
  training?: boolean;
  /** Whether positions have weights of their own in the loss that they are trained by. */
  weighted?: boolean;
  /** Power of 1 + distance by which edges weigh less in what they are trained by; left out: 0. */
  distancePower?: number;
  /** Whether they continue texts, token by token. */
  generation?: boolean;
}

/** The loss, whose products with the head are those of every linear layer. */
const OF_EVERY_MODEL = [matmulCheck, crossEntropyCheck];
const OF_TRAINING = [distillationCheck, adamwCheck, gecoCheck];
/** Every check that there is. */
const ALL: readonly KernelCheck[] = [
  ...OF_EVERY_MODEL,
  layerNormCheck,
  rmsNormCheck,
  embeddingCheck,
  geluCheck,
  swigluCheck,
  clipCheck,
  rotaryCheck,
  queryKeyNormChecks.head,
  queryKeyNormChecks.all,
  residualCheck,
  ...gatedAttentionChecks,
  distanceCheck,
  ...cachedAttentionChecks,
  ...OF_TRAINING,
  weightedCrossEntropyCheck,
];

/** What an adapter has to pass for a workload: everything where it is left out. */
function checksFor(workload: Workload | undefined): readonly KernelCheck[] {
  if (!workload) return ALL;
  const { models, training, weighted, distancePower, generation } = workload;
  const shape = { batch: 1, context: 1 };
  const traced = models.flatMap((config) => [
    trace(config, { ...shape, distancePower }),
    ...generation ? [trace(config, { ...shape, cached: 1 })] : [],
  ]);
  const needed = new Set([
    ...OF_EVERY_MODEL,
    ...traced.flatMap(stepsOf).flatMap(({ op }) => op.checks),
    ...training ? OF_TRAINING : [],
    ...weighted ? [weightedCrossEntropyCheck] : [],
  ]);
  return ALL.filter((check) => needed.has(check));
}

/** Options of {@link selfCheck}. */
export interface SelfCheckOptions {
  /** Left out: all that there is. */
  workload?: Workload;
  /** Told how many of how many operations have been handed to the device; a CPU driver compiles each there. */
  progress?: (done: number, of: number) => void;
}

/**
 * Runs every operation of a workload, forward and backward, and compares it with its float64 reference. Leaves some 40 KB
 * of tiny tensors on the device, which live as long as it does.
 *
 * @returns one result for each operation, in a fixed order; the same on every call on the same adapter
 * @throws {DeviceError} when the device refuses a kernel or is lost
 */
export async function selfCheck(
  gpu: Gpu,
  { workload, progress }: SelfCheckOptions = {},
): Promise<SelfCheckResult[]> {
  const checks = await Promise.all(checksFor(workload).map((check) => check(gpu)));
  const comparisons = checks.flatMap((check) => check.comparisons);
  const lengths = comparisons.flatMap(({ outputs }) => outputs.map(([tensor]) => tensor.length));
  // All outputs go into one tensor, since reading costs a round trip to the device.
  const gathered = gpu.tensor("self-check", [lengths.reduce((sum, length) => sum + length)]);
  let end = 0;
  for (const [done, { record, comparisons }] of checks.entries()) {
    progress?.(done, checks.length);
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
