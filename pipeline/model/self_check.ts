/**
 * The check that stands before every training: each operation runs forward and backward on the adapter at hand, on
 * tiny fixed inputs, and is held against its float64 reference. A driver that compiles a kernel wrongly would otherwise
 * train to a plausible, wrong result.
 *
 * @module
 */
import { adamwCheck } from "../../kernels/adamw/check.ts";
import { clipCheck } from "../../kernels/clip/check.ts";
import { crossEntropyCheck } from "../../kernels/cross_entropy/check.ts";
import { distillationCheck } from "../../kernels/distillation/check.ts";
import { embeddingCheck } from "../../kernels/embedding/check.ts";
import { cachedAttentionCheck, gatedAttentionCheck } from "../../kernels/gated_attention/check.ts";
import { gecoCheck } from "../../kernels/geco/check.ts";
import { geluCheck } from "../../kernels/gelu/check.ts";
import { layerNormCheck } from "../../kernels/layer_norm/check.ts";
import { matmulCheck } from "../../kernels/matmul/check.ts";
import { queryKeyNormCheck } from "../../kernels/query_key_norm/check.ts";
import { residualCheck } from "../../kernels/residual/check.ts";
import { rmsNormCheck } from "../../kernels/rms_norm/check.ts";
import { rotaryCheck } from "../../kernels/rotary/check.ts";
import { swigluCheck } from "../../kernels/swiglu/check.ts";
import type { Check } from "../../kernels/core/check.ts";
import { DeviceError } from "../../kernels/core/device.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";

/** How one operation fared on the adapter. */
export interface SelfCheckResult {
  /** For example `gated attention backward, sampled`. */
  operation: string;
  /** The largest over its outputs of ‖device − reference‖₂ / ‖reference‖₂; Infinity where a value is not finite. */
  error: number;
  /** The largest error that float32 and WGSL's allowance for exp and log explain. */
  tolerance: number;
}

const CHECKS: ((gpu: Gpu) => Promise<Check>)[] = [
  matmulCheck,
  layerNormCheck,
  rmsNormCheck,
  embeddingCheck,
  geluCheck,
  swigluCheck,
  clipCheck,
  rotaryCheck,
  (gpu) => queryKeyNormCheck(gpu, "head"),
  (gpu) => queryKeyNormCheck(gpu, "all"),
  residualCheck,
  (gpu) => gatedAttentionCheck(gpu, "dense"),
  (gpu) => gatedAttentionCheck(gpu, "deterministic"),
  (gpu) => gatedAttentionCheck(gpu, "sampled"),
  (gpu) => cachedAttentionCheck(gpu, "dense"),
  (gpu) => cachedAttentionCheck(gpu, "deterministic"),
  crossEntropyCheck,
  distillationCheck,
  adamwCheck,
  gecoCheck,
];

/**
 * Runs every operation, forward and backward, and compares it with its float64 reference. Leaves some 40 KB of tiny
 * tensors on the device, which live as long as it does.
 *
 * @param progress told how many of how many operations have been handed to the device; a CPU driver compiles each there
 * @returns one result for each operation, in a fixed order; the same on every call on the same adapter
 * @throws {DeviceError} when the device refuses a kernel or is lost
 */
export async function selfCheck(
  gpu: Gpu,
  progress?: (done: number, of: number) => void,
): Promise<SelfCheckResult[]> {
  const checks = await Promise.all(CHECKS.map((check) => check(gpu)));
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
 * @param progress as {@link selfCheck}'s
 * @throws {DeviceError} naming the adapter and, for each operation that is off, its error and tolerance
 */
export async function assertSelfCheck(
  gpu: Gpu,
  progress?: (done: number, of: number) => void,
): Promise<void> {
  const wrong = (await selfCheck(gpu, progress)).filter(({ error, tolerance }) => !(error <= tolerance));
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
