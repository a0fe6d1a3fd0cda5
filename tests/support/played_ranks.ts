/**
 * Whole runs of several ranks in one process.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import { createExchange, type Exchange } from "../../pipeline/parallel/exchange.ts";
import { receiveRun, shareRun } from "../../pipeline/ranks.ts";
import { type MetricRow, readMetrics } from "../../pipeline/runs/metrics.ts";
import type { RunFolder } from "../../pipeline/runs/run_folder.ts";
import { SPARSIFY, type SparsifySettings } from "../../pipeline/settings.ts";
import { defaultsOf } from "../../pipeline/settings/resolve.ts";
import { sparsify, type SparsifySummary } from "../../pipeline/training/sparsify.ts";
import type { PreparedRun } from "../../pipeline/training/training_run.ts";
import { checkpointWeights, prepareTestRun, RUN_CONFIG, RUN_SHAPE, SILENT } from "./prepared_run.ts";
import { ranksInProcess } from "./ranks_in_process.ts";
import { randomWeights, type Weights } from "./reference_training.ts";

/** Steps of a run, where nothing else is said. */
export const STEPS = 50;
/** Four rows a step: four ranks have one each, two a micro-batch. */
const SETTINGS: SparsifySettings = {
  ...(defaultsOf(SPARSIFY) as SparsifySettings),
  ...RUN_SHAPE,
  steps: STEPS,
  accumulate: 2,
  lr: 1e-3,
  warmup: 5,
  seed: 3,
  slack: 0.02,
  targetLoss: "auto",
  distill: 0.3,
  evalEvery: 20,
  checkpointEvery: 10,
  keepCheckpoints: 10,
  constraintEvery: 2,
  validationTokens: 1000,
  evalTokens: 1000,
  control: false,
};
const WEIGHTS = randomWeights(RUN_CONFIG, 6);

/** What a run of ranks left. */
export interface Left {
  rows: MetricRow[];
  summary: SparsifySummary | undefined;
  /** Checkpoint of a step. */
  weights: Weights;
  /** Whether each rank came to the end. */
  finished: boolean[];
  folder: RunFolder;
}

/** Plays a run of so many ranks; `stopAfter`: rank and step after which that is asked to stop. */
export async function play(
  gpu: Gpu,
  size: number,
  { runs, settings: others = {}, step = others.steps ?? STEPS, stopAfter, goesOnIn }: {
    runs: string;
    settings?: Partial<SparsifySettings>;
    /** Of the checkpoint that is looked at. */
    step?: number;
    stopAfter?: { rank: number; step: number };
    goesOnIn?: RunFolder;
  },
): Promise<Left> {
  const given = { ...SETTINGS, ...others };
  const wish = new AbortController();
  const transports = ranksInProcess(size);
  let first: PreparedRun | undefined;
  const ended = await Promise.all(transports.map(async (transport) => {
    const { rank } = transport;
    const exchange: Exchange | undefined = size === 1 ? undefined : createExchange(transport, {
      limit: 1,
      wish: stopAfter?.rank === rank ? wish.signal : undefined,
    });
    const reporter = {
      ...SILENT,
      activity({ done }: { done?: number }) {
        if (stopAfter?.rank === rank && done === stopAfter.step) wish.abort();
      },
    };
    if (rank !== 0) {
      const { run, settings } = await receiveRun<SparsifySettings>(gpu, exchange!);
      return await sparsify(settings, run, reporter, exchange!.signal);
    }
    const prepared = await prepareTestRun(gpu, { runs, weights: WEIGHTS, goesOnIn });
    first = exchange ? await shareRun(prepared, given, exchange) : prepared;
    const signal = exchange?.signal ?? wish.signal;
    return await sparsify(given, first, reporter, signal);
  }));
  const { folder, metrics } = first!;
  metrics.close();
  folder.release();
  return {
    rows: await readMetrics(folder.metrics),
    summary: ended[0],
    weights: await checkpointWeights(first!, { phase: "sparse", step }),
    finished: ended.map((summary) => summary !== undefined),
    folder,
  };
}

/** Rows without the time. */
export const bitsOf = ({ rows }: Left) => rows.map(({ seconds: _, ...row }) => row);

/** The largest difference of a figure of all rows. */
export const farthest = (
  a: Left,
  b: Left,
  name: "ce" | "lambda" | "expected_open" | "grad_norm" | "validation_ce",
) => Math.max(...a.rows.map((row, n) => Math.abs((row[name] ?? 0) - (b.rows[n][name] ?? 0))));
