/** Reinforcement learning of a few steps: what it trains on, what λ follows, and that a run that was stopped goes on. */
import { assert, assertAlmostEquals, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { readMetrics } from "../../../pipeline/runs/metrics.ts";
import { findResumePoint } from "../../../pipeline/runs/resume.ts";
import type { TokenSource } from "../../../pipeline/text/batches.ts";
import { IGNORED } from "../../../kernels/core/targets.ts";
import { reinforce, type ReinforceSettings, repeatRows } from "../../../pipeline/training/reinforce.ts";
import type { PreparedRun } from "../../../pipeline/training/training_run.ts";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { gpuTest } from "../../support/gpu.ts";
import { checkpointWeights, prepareTestRun, RUN_CONFIG, SILENT } from "../../support/prepared_run.ts";
import { randomWeights } from "../../support/reference_training.ts";
import { seeded } from "../../support/seeded.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

const [CONTEXT, BATCH, GROUP] = [7, 32, 8];
/** The answer to whatever is asked: one token, which an untrained model seldom gives. */
const ANSWER = 5;

const SETTINGS: ReinforceSettings = {
  steps: 6,
  accumulate: 2,
  context: CONTEXT,
  lr: 1e-2,
  embeddingRate: 1,
  attentionRate: 1,
  warmup: 0,
  decay: 0,
  weightDecay: 0,
  clip: 1,
  seed: 3,
  evalEvery: 2,
  checkpointEvery: 1,
  keepCheckpoints: 10,
  shardOptimizer: false,
  gateBias: 0.3,
  temperature: 1,
  saturationWeight: 0,
  saturationBound: 6,
  lambdaStart: 2,
  constraintScale: 0.5,
  average: 0,
  lambdaRate: 0.5,
  lambdaGain: 0,
  lambdaMin: 0.01,
  lambdaMax: 100,
  algorithm: "leave-one-out",
  group: GROUP,
  drawThrough: "noise",
  targetReward: 0.9,
  validationTokens: 1000,
  evalTokens: 1000,
};

/** Prompts of random tokens, each with the one answer. */
function examples(name: string, count: number, seed: number): TokenSource {
  const random = seeded(seed);
  const length = CONTEXT + 1;
  const tokens = Uint32Array.from(
    { length: count * length },
    (_, at) => at % length === CONTEXT ? ANSWER : random.integer(RUN_CONFIG.vocabularySize),
  );
  const counted = tokens.map((_, at) => Number(at % length === CONTEXT));
  return {
    name,
    length: tokens.length,
    exampleTokens: length,
    window: (start, size) => tokens.subarray(start, start + size),
    countedWindow: (start, size) => counted.subarray(start, start + size),
  };
}

async function prepared(gpu: Gpu, runs: string): Promise<PreparedRun> {
  const run = await prepareTestRun(gpu, { runs, weights: randomWeights(RUN_CONFIG, 2) });
  const tokens = {
    train: examples("train", 40, 1),
    validation: examples("validation", 9, 2),
    test: examples("test", 7, 3),
  };
  return { ...run, batch: BATCH, tokens };
}

const rowsOf = async (run: PreparedRun) =>
  (await readMetrics(run.folder.metrics)).map(({ seconds: _, ...row }) => row);

gpuTest(
  "a policy learns what is rewarded, λ follows the reward, and a run that was stopped ends with the same bits",
  async (gpu) => {
    const { signal } = new AbortController();
    const results = [];
    for (const stopAt of [undefined, 2]) {
      await using folder = await temporaryFolder();
      let run = await prepared(gpu, folder.path);
      let step = 0;
      run = {
        ...run,
        control: { slackAt: () => undefined, beforeStep: () => Promise.resolve({ stop: step++ === stopAt }) },
      };
      let summary = await reinforce(SETTINGS, run, SILENT, signal);
      assertEquals(summary === undefined, stopAt !== undefined);
      if (!summary) {
        const resume = await findResumePoint(run.folder.checkpoints, SETTINGS.steps, run.id);
        assertEquals(resume.last.step, 3);
        summary = await reinforce(SETTINGS, { ...run, resume }, SILENT, signal);
      }
      const weights = await checkpointWeights(run, { phase: "sparse", step: SETTINGS.steps });
      assertEquals((await readModelConfig(run.folder.model)).gate, { bias: 0.3, temperature: 1 });
      results.push({ summary: summary!, rows: await rowsOf(run), weights });
      run.metrics.close();
      run.folder.release();
    }
    const [whole, resumed] = results;
    assertEquals(resumed, whole);

    const { rows, summary } = whole;
    assert(rows[0].constraint! > 0.6, `at first few are right: ${rows[0].constraint}`);
    const counts = rows.map((row) => Math.round(64 * (0.9 - row.constraint!)));
    assert(counts.some((right) => right % 2 === 1), `rewards are of both micro-batches: ${counts}`);
    let lambda = SETTINGS.lambdaStart;
    for (const row of rows) {
      assertAlmostEquals(
        row.target!,
        0.1,
        1e-6,
        "the share of wrong answers is what is held below the target",
      );
      // Of 64 answers so many were right.
      const right = 64 * (0.9 - row.constraint!);
      assertAlmostEquals(right, Math.round(right), 1e-4, `rewards of step ${row.step}`);
      const violation = Math.max(-1, Math.min(1, row.constraint! / SETTINGS.constraintScale));
      lambda *= Math.exp(SETTINGS.lambdaRate * violation);
      assertAlmostEquals(row.lambda!, lambda, 1e-4 * lambda, `λ of step ${row.step}`);
    }
    const { start, validation, constraint } = summary;
    assert(start.reward < 0.3, `at first it is seldom right: ${start.reward}`);
    assert(validation.reward > start.reward + 0.2, `it learns: ${validation.reward} behind ${start.reward}`);
    assertEquals(constraint!.target_reward, 0.9);
    assertEquals(summary.samples, 6 * 2 * BATCH);
    assert(summary.test.kl_start > 0.1, `it went from where it began: ${summary.test.kl_start}`);
  },
);

gpuTest("without a target there are no gates, and a group must divide the rows", async (gpu) => {
  await using folder = await temporaryFolder();
  const run = await prepared(gpu, folder.path);
  const { signal } = new AbortController();
  const dense = { ...SETTINGS, targetReward: null, steps: 2 };
  await assertRejects(
    () => reinforce({ ...dense, group: 5 }, run, SILENT, signal),
    RangeError,
    "groups of 5 in micro-batches of 32 rows",
  );
  const summary = await reinforce(dense, run, SILENT, signal);
  assertEquals([summary!.constraint, summary!.test.open_fraction], [null, 1]);
  assertEquals((await readModelConfig(run.folder.model)).gate, undefined);
  const rows = await rowsOf(run);
  assertEquals(rows.map(({ phase, lambda, constraint }) => [phase, lambda, constraint]), [
    ["control", null, null],
    ["control", null, null],
  ]);
  run.metrics.close();
  run.folder.release();
});

gpuTest("the step with the fewest open edges of those at the reward is the result", async (gpu) => {
  await using folder = await temporaryFolder();
  const run = await prepared(gpu, folder.path);
  const { signal } = new AbortController();
  // What it begins with has nearly twice the reward.
  const settings = { ...SETTINGS, targetReward: 0.02, steps: 4, evalEvery: 1, lr: 1e-3 };
  const summary = await reinforce(settings, run, SILENT, signal);
  const rows = await rowsOf(run);
  const fewest = Math.min(...rows.map(({ open_fraction }) => open_fraction!));
  const { step, feasible } = summary!.constraint!;
  assertEquals([feasible, rows[step - 1].open_fraction], [true, fewest]);
  assert(summary!.validation.reward >= 0.02, `reward ${summary!.validation.reward}`);
  run.metrics.close();
  run.folder.release();
});

gpuTest("micro-batches of a step draw by numbers of their own, and so do its steps", async (gpu) => {
  await using folder = await temporaryFolder();
  const run = await prepared(gpu, folder.path);
  const { signal } = new AbortController();
  const { write, submit } = gpu;
  let targets: Uint32Array | undefined;
  const trained: (string | undefined)[] = [];
  gpu.write = (tensor, data, start) => {
    if (tensor.label === "targets") targets = data.slice() as Uint32Array;
    return write.call(gpu, tensor, data, start);
  };
  gpu.submit = (operation, record, timestampWrites) => {
    if (operation.startsWith("step")) trained.push(targets?.join());
    return submit.call(gpu, operation, record, timestampWrites);
  };
  try {
    // One prompt over and over, through no gates and with weights that stay: the numbers alone are others.
    const tokens = { ...run.tokens, train: examples("train", 1, 1) };
    const settings = { ...SETTINGS, targetReward: null, steps: 2, lr: 1e-12 };
    await reinforce(settings, { ...run, tokens }, SILENT, signal);
  } finally {
    Object.assign(gpu, { write, submit });
  }
  assertEquals([trained.length, new Set(trained).size], [4, 4]);
  run.metrics.close();
  run.folder.release();
});

gpuTest(
  "through hard gates other completions are drawn than through those of the training pass",
  async (gpu) => {
    const { signal } = new AbortController();
    const likelihoods = [];
    // Far beyond what noise can do all gates are open either way.
    for (const gateBias of [0.3, 60]) {
      for (const drawThrough of ["noise", "hard"] as const) {
        await using folder = await temporaryFolder();
        const run = await prepared(gpu, folder.path);
        await reinforce({ ...SETTINGS, gateBias, drawThrough, lr: 1e-9, steps: 1 }, run, SILENT, signal);
        // Of what was drawn, by the training pass.
        likelihoods.push((await rowsOf(run)).map(({ ce }) => ce));
        run.metrics.close();
        run.folder.release();
      }
    }
    const [noise, hard, openInNoise, open] = likelihoods;
    assertNotEquals(noise, hard);
    assertEquals(openInNoise, open);
  },
);

Deno.test("a prompt's rows stand one behind the other", () => {
  const inputs = Uint32Array.of(1, 2, 3, 4);
  const targets = Uint32Array.of(IGNORED, 7, IGNORED, 8);
  assertEquals(repeatRows({ inputs, targets, rows: 2 }, 3, 2), {
    inputs: Uint32Array.of(1, 2, 1, 2, 1, 2, 3, 4, 3, 4, 3, 4),
    targets: Uint32Array.of(IGNORED, 7, IGNORED, 7, IGNORED, 7, IGNORED, 8, IGNORED, 8, IGNORED, 8),
  });
});
