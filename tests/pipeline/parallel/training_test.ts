/**
 * Whole runs of several ranks in one process, beside one of a single rank: what they learn from, what they measure and
 * write, and that they go on where they were stopped.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { createExchange, type Exchange } from "../../../pipeline/parallel/exchange.ts";
import { receiveRun, shareRun } from "../../../pipeline/ranks.ts";
import { type MetricRow, readMetrics } from "../../../pipeline/runs/metrics.ts";
import type { RunFolder } from "../../../pipeline/runs/run_folder.ts";
import { SPARSIFY, type SparsifySettings } from "../../../pipeline/settings.ts";
import { defaultsOf } from "../../../pipeline/settings/resolve.ts";
import { sparsify, type SparsifySummary } from "../../../pipeline/training/sparsify.ts";
import type { PreparedRun } from "../../../pipeline/training/training_run.ts";
import { gpuTest } from "../../support/gpu.ts";
import {
  checkpointWeights,
  prepareTestRun,
  RUN_CONFIG,
  RUN_SHAPE,
  SILENT,
} from "../../support/prepared_run.ts";
import { ranksInProcess } from "../../support/ranks_in_process.ts";
import { randomWeights, type Weights } from "../../support/reference_training.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

const STEPS = 50;
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
interface Left {
  rows: MetricRow[];
  summary: SparsifySummary | undefined;
  /** Checkpoint of a step. */
  weights: Weights;
  /** Whether each rank came to the end. */
  finished: boolean[];
  folder: RunFolder;
}

/** Plays a run of so many ranks; `stopAfter`: rank and step after which that is asked to stop. */
async function play(
  gpu: Gpu,
  size: number,
  { runs, step = STEPS, stopAfter, goesOnIn }: {
    runs: string;
    step?: number;
    stopAfter?: { rank: number; step: number };
    goesOnIn?: RunFolder;
  },
): Promise<Left> {
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
      stage({ done }: { done?: number }) {
        if (stopAfter?.rank === rank && done === stopAfter.step) wish.abort();
      },
    };
    if (rank !== 0) {
      const { run, settings } = await receiveRun<SparsifySettings>(gpu, exchange!);
      return await sparsify(settings, run, reporter, exchange!.signal);
    }
    const prepared = await prepareTestRun(gpu, { runs, weights: WEIGHTS, goesOnIn });
    first = exchange ? await shareRun(prepared, SETTINGS, exchange) : prepared;
    const signal = exchange?.signal ?? wish.signal;
    return await sparsify(SETTINGS, first, reporter, signal);
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
const bitsOf = ({ rows }: Left) => rows.map(({ seconds: _, ...row }) => row);

/** The largest difference of a figure of all rows. */
const farthest = (
  a: Left,
  b: Left,
  name: "ce" | "lambda" | "expected_open" | "grad_norm" | "validation_ce",
) => Math.max(...a.rows.map((row, n) => Math.abs((row[name] ?? 0) - (b.rows[n][name] ?? 0))));

gpuTest("fifty steps of two and of four ranks have the losses of one", async (gpu) => {
  await using folder = await temporaryFolder();
  const played = new Map<number, Left>();
  for (const size of [1, 2, 4]) {
    played.set(size, await play(gpu, size, { runs: `${folder.path}/${size}` }));
  }
  const one = played.get(1)!;
  assertEquals(one.rows.length, STEPS);
  assert(
    one.rows.some(({ open_fraction: open }) => open !== null && open > 0.1 && open < 0.9),
    "gates decide",
  );
  assert(new Set(one.rows.map(({ lambda }) => lambda)).size > 10, "λ moves");
  for (const size of [2, 4]) {
    const left = played.get(size)!;
    assertEquals(left.finished, Array.from({ length: size }, () => true));
    assertEquals(
      left.rows.map(({ step, tokens }) => [step, tokens]),
      one.rows.map(({ step, tokens }) => [step, tokens]),
    );
    // Largest seen: 5e-7 of CE and λ, 2e-7 of the validation loss.
    for (const name of ["ce", "lambda", "expected_open", "validation_ce"] as const) {
      const off = farthest(one, left, name);
      assert(off < 1e-5, `${name} of ${size} ranks is ${off} from that of one`);
    }
    for (const name of ["dense_validation_ce", "target_loss", "test_tokens", "tokens"] as const) {
      const off = Math.abs(left.summary![name] - one.summary![name]);
      assert(off < 1e-6, `${name} of ${size} ranks is ${off} from that of one`);
    }
  }
});

gpuTest(
  "the same ranks have the same bits every time, also where they were stopped and went on",
  async (gpu) => {
    await using folder = await temporaryFolder();
    const whole = await play(gpu, 2, { runs: `${folder.path}/whole` });
    const again = await play(gpu, 2, { runs: `${folder.path}/again` });
    assertEquals(bitsOf(again), bitsOf(whole));
    assertEquals(again.weights, whole.weights);
    // Rank 1 is asked, and both stop at the same step.
    const runs = `${folder.path}/stopped`;
    const stopped = await play(gpu, 2, { runs, step: 14, stopAfter: { rank: 1, step: 14 } });
    assertEquals(stopped.finished, [false, false]);
    assertEquals(stopped.rows.length, 14);
    const gone = await play(gpu, 2, { runs, goesOnIn: stopped.folder });
    assertEquals(bitsOf(gone), bitsOf(whole));
    assertEquals(gone.weights, whole.weights);
  },
);

gpuTest("a run of two ranks goes on as one rank, or four, to the same losses", async (gpu) => {
  await using folder = await temporaryFolder();
  const whole = await play(gpu, 2, { runs: `${folder.path}/whole` });
  for (const size of [1, 4]) {
    const runs = `${folder.path}/${size}`;
    const stopped = await play(gpu, 2, { runs, step: 20, stopAfter: { rank: 0, step: 20 } });
    const gone = await play(gpu, size, { runs, goesOnIn: stopped.folder });
    assertEquals(gone.rows.length, STEPS);
    const off = farthest(whole, gone, "ce");
    assert(off < 1e-5, `losses are ${off} from those of two ranks`);
    assertNotEquals(bitsOf(gone), bitsOf(whole));
  }
});
