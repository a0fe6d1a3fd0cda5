/**
 * Whether a step's cost grows as it should: linear in layers and in parameters, and not at all with the steps taken.
 *
 * @module
 */
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { gpt2Config, type ModelConfig } from "../../../pipeline/model/config.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { type BenchResult, candidate, median } from "../harness.ts";
import { prepareStep, type StepShape } from "./training_step.ts";

const SHAPE: StepShape = { batch: 4, context: 128 };
const ROUNDS = 5;

/** A small model; its embedding is small beside its blocks. */
function modelOf({ layers, mlpWidth = 512 }: { layers: number; mlpWidth?: number }): ModelConfig {
  return gpt2Config({
    vocabularySize: 512,
    contextLength: SHAPE.context,
    width: 128,
    layers,
    heads: 4,
    mlpWidth,
  });
}

const parameterCount = (config: ModelConfig): number =>
  parametersOf(config).reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);

/** Median milliseconds of each model's step, the models taking turns. */
async function stepTimes(gpu: Gpu, models: readonly ModelConfig[]): Promise<number[]> {
  const steps = [];
  for (const config of models) {
    const { take } = await prepareStep(gpu, config, SHAPE);
    const step = candidate(take, () => gpu.sync());
    await step.time(1);
    steps.push({ step, times: [] as number[] });
  }
  for (let round = 0; round < ROUNDS; round++) {
    for (const { step, times } of steps) times.push(await step.time(2));
  }
  return steps.map(({ times }) => median(times));
}

/** Least squares y = a + b x, and the coefficient of determination. */
function fitLine(x: readonly number[], y: readonly number[]): { a: number; b: number; r2: number } {
  const mean = (values: readonly number[]): number => values.reduce((sum, v) => sum + v, 0) / values.length;
  const [mx, my] = [mean(x), mean(y)];
  const sum = (of: (n: number) => number): number => x.reduce((total, _, n) => total + of(n), 0);
  const b = sum((n) => (x[n] - mx) * (y[n] - my)) / sum((n) => (x[n] - mx) ** 2);
  const a = my - b * mx;
  return { a, b, r2: 1 - sum((n) => (y[n] - a - b * x[n]) ** 2) / sum((n) => (y[n] - my) ** 2) };
}

/** Step times of several models that differ in one thing, and the line through them. */
async function scaling(
  gpu: Gpu,
  models: readonly ModelConfig[],
  of: (config: ModelConfig) => number,
  unit: string,
): Promise<BenchResult> {
  const times = await stepTimes(gpu, models);
  const { a, b, r2 } = fitLine(models.map(of), times);
  return {
    median_ms: times.at(-1)!,
    tokens_per_second: SHAPE.batch * SHAPE.context / times.at(-1)! * 1000,
    peers: {},
    details: {
      ...Object.fromEntries(
        models.map((config, n) => [`ms at ${+of(config).toFixed(2)} ${unit}s`, times[n]]),
      ),
      [`ms a ${unit}`]: b,
      "ms besides": a,
      "r² of the line": r2,
    },
  };
}

/** Of models that differ in their layers. */
export function layersScaling(gpu: Gpu): Promise<BenchResult> {
  const models = [1, 2, 4, 8].map((layers) => modelOf({ layers }));
  return scaling(gpu, models, ({ layers }) => layers, "layer");
}

/** Of models that differ in the parameters of their MLPs. */
export function parametersScaling(gpu: Gpu): Promise<BenchResult> {
  const models = [256, 512, 1024, 2048].map((mlpWidth) => modelOf({ layers: 2, mlpWidth }));
  return scaling(gpu, models, (config) => parameterCount(config) / 1e6, "million parameter");
}

/**
 * One model's step 1 to 50: the fastest of the last ten against the fastest of the first ten, which other work on the
 * machine slows least.
 */
export async function stepsScaling(gpu: Gpu): Promise<BenchResult> {
  const { take } = await prepareStep(gpu, modelOf({ layers: 2 }), SHAPE);
  const step = candidate(take, () => gpu.sync());
  // Compiles.
  await step.time(1);
  const times: number[] = [];
  for (let n = 0; n < 50; n++) times.push(await step.time(1));
  const [first, last] = [Math.min(...times.slice(0, 10)), Math.min(...times.slice(-10))];
  return {
    median_ms: median(times),
    tokens_per_second: SHAPE.batch * SHAPE.context / median(times) * 1000,
    peers: {},
    details: {
      "fastest of steps 2 to 11, ms": first,
      "fastest of steps 42 to 51, ms": last,
      "last over first": last / first,
    },
  };
}
