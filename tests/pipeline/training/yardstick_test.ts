/** A run whose target is its control's loss: the control comes first, and everything is held to it. */
import { assert, assertAlmostEquals, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { Gpu } from "../../../kernels/core/gpu.ts";
import { phasesFrom, readMetrics } from "../../../pipeline/runs/metrics.ts";
import { findResumePoint } from "../../../pipeline/runs/resume.ts";
import { SPARSIFY, type SparsifySettings } from "../../../pipeline/settings.ts";
import { createBatches } from "../../../pipeline/text/batches.ts";
import { defaultsOf } from "../../../pipeline/settings/resolve.ts";
import { checkControl, sparsify } from "../../../pipeline/training/sparsify.ts";
import { workAhead } from "../../../pipeline/training/work_ahead.ts";
import type { PreparedRun } from "../../../pipeline/training/training_run.ts";
import { gpuTest } from "../../support/gpu.ts";
import {
  checkpointWeights,
  heldOut,
  prepareTestRun,
  RUN_CONFIG,
  RUN_SHAPE,
  SILENT,
  splitTokens,
  watchSplits,
} from "../../support/prepared_run.ts";
import {
  joinRows,
  randomWeights,
  referenceLosses,
  referenceStep,
  type Rows,
  type Weights,
} from "../../support/reference_training.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

const SETTINGS: SparsifySettings = {
  ...(defaultsOf(SPARSIFY) as SparsifySettings),
  ...RUN_SHAPE,
  steps: 3,
  lr: 0.02,
  attentionRate: 1,
  embeddingRate: 1,
  warmup: 0,
  decay: 0,
  slack: 0.05,
  targetLoss: "control",
  evalEvery: 1,
  checkpointEvery: 1,
  keepCheckpoints: 10,
  constraintEvery: 1,
  gateBias: 0.3,
};
/** The control teaches, and sets no target. */
const TAUGHT = { targetLoss: "auto", distill: 0.5, teacher: "control" } as const;
const DENSE = randomWeights(RUN_CONFIG, 6);
/** Slack in the last step. */
const LATER_SLACK = 0.09;
const never = new AbortController().signal;

const ceOf = (weights: Weights, rows: Rows, gate?: { bias: number }): number =>
  referenceLosses({ config: RUN_CONFIG, weights, context: RUN_SHAPE.context, gate }, rows).ce;

gpuTest("the control comes first, and the sparse phase is held to its loss, batch by batch", async () => {
  const gpu = await Gpu.open();
  await using runs = await temporaryFolder();
  try {
    const run = await prepareTestRun(gpu, {
      runs: runs.path,
      weights: DENSE,
      slackAt: (phase, step) => phase === "sparse" && step >= 2 ? LATER_SLACK : undefined,
    });
    const seen = watchSplits(gpu);
    const summary = (await sparsify(SETTINGS, run, SILENT, never))!;
    const of = (what: string, count: number): string[] => new Array<string>(count).fill(what);
    const [validation, test] = [of("evaluation of validation", 3), of("evaluation of test", 2)];
    const steps = [1, 2, 3];
    assertEquals(seen, [
      ...validation,
      ...steps.flatMap(() => ["step of train", ...validation]),
      ...test,
      // The control by which the target is set.
      ...validation,
      ...steps.flatMap(() => ["measuring of validation", "step of train", ...validation]),
      ...test,
      ...test,
    ]);

    const control = await checkpointWeights(run, { phase: "control", step: 3 });
    const [probes, all] = [await heldOut("validation"), joinRows(await heldOut("validation"))];
    const yardstick = ceOf(control, all);
    assert(Math.abs(yardstick - ceOf(DENSE, all)) > 0.01, "the control is another model");
    const rows = await readMetrics(run.folder.metrics);
    assertEquals(rows.map(({ phase }) => phase), [...of("control", 3), ...of("sparse", 3)]);
    for (const row of rows.slice(3)) {
      const slack = row.step === 3 ? LATER_SLACK : SETTINGS.slack;
      // Before the first step the sparse model is the dense one, not the control.
      const before = row.step === 1
        ? DENSE
        : await checkpointWeights(run, { phase: "sparse", step: row.step - 1 });
      const probe = probes[(row.step - 1) % probes.length];
      const violation = ceOf(before, probe, { bias: SETTINGS.gateBias }) - ceOf(control, probe) - slack;
      assertAlmostEquals(row.constraint!, violation, 3e-6, `constraint of step ${row.step}`);
      assertAlmostEquals(row.target!, yardstick + slack, 3e-6, `target of step ${row.step}`);
    }
    assertAlmostEquals(summary.target_loss, yardstick + LATER_SLACK, 3e-6);
    assertAlmostEquals(summary.control!.ce, ceOf(control, joinRows(await heldOut("test"))), 3e-6);
    assertAlmostEquals(summary.dense.ce, ceOf(DENSE, joinRows(await heldOut("test"))), 3e-6);
    run.metrics.close();
    run.folder.release();
  } finally {
    gpu.close();
  }
});

gpuTest(
  "the control comes first where it teaches, and the sparse model is compared with its weights",
  async (gpu) => {
    await using runs = await temporaryFolder();
    const run = await prepareTestRun(gpu, { runs: runs.path, weights: DENSE });
    const settings = { ...SETTINGS, ...TAUGHT };
    const summary = (await sparsify(settings, run, SILENT, never))!;
    const control = await checkpointWeights(run, { phase: "control", step: 3 });
    const rows = await readMetrics(run.folder.metrics);
    assertEquals(rows.map(({ phase }) => phase), [
      ...new Array<string>(3).fill("control"),
      ...new Array<string>(3).fill("sparse"),
    ]);
    const all = joinRows(await heldOut("validation"));
    assertAlmostEquals(summary.target_loss, ceOf(DENSE, all) + SETTINGS.slack, 3e-6);
    const { seed, gateBias: bias, distill: weight } = settings;
    const batches = createBatches({ tokens: splitTokens().train, ...RUN_SHAPE, seed });
    for (const { step, kl } of rows.slice(3)) {
      const batch = joinRows([await batches.at(step - 1)]);
      const weights = step === 1 ? DENSE : await checkpointWeights(run, { phase: "sparse", step: step - 1 });
      const objective = {
        config: RUN_CONFIG,
        weights,
        context: RUN_SHAPE.context,
        gate: { ...settings, bias, noise: { seed, step: step - 1 } },
        lambda: settings.lambdaStart,
      };
      const klOf = (teacher: Weights) =>
        referenceStep({ ...objective, distill: { teacher, weight } }, batch).kl;
      assertAlmostEquals(kl!, klOf(control), 1e-6, `KL of step ${step}`);
      assert(Math.abs(klOf(DENSE) - klOf(control)) > 1e-3, "the dense model would teach something else");
    }
    run.metrics.close();
    run.folder.release();
  },
);

/** Runs, stopped before a step of a phase where that is said, then on from its checkpoint. */
async function runStopped(
  stopAt: { phase: string; step: number } | undefined,
  settings: SparsifySettings = SETTINGS,
) {
  const gpu = await Gpu.open();
  await using runs = await temporaryFolder();
  try {
    const prepared = await prepareTestRun(gpu, { runs: runs.path, weights: DENSE });
    let phase = "";
    let step = 0;
    const run: PreparedRun = {
      ...prepared,
      state: {
        set: (change) => {
          [phase, step] = [change.phase ?? phase, 0];
          return prepared.state.set(change);
        },
      },
      control: {
        slackAt: () => undefined,
        beforeStep: () => Promise.resolve({ stop: phase === stopAt?.phase && step++ === stopAt?.step }),
      },
    };
    let summary = await sparsify(settings, run, SILENT, never);
    assertEquals(summary === undefined, stopAt !== undefined);
    if (!summary) {
      const resume = await findResumePoint(
        run.folder.checkpoints,
        settings.steps,
        run.id,
        phasesFrom("control"),
      );
      const control = { ...run.control, beforeStep: () => Promise.resolve({ stop: false }) };
      summary = await sparsify(settings, { ...run, control, resume }, SILENT, never);
    }
    const rows = await readMetrics(run.folder.metrics);
    run.metrics.close();
    run.folder.release();
    const { seconds: _, ...result } = summary!;
    return { result, rows: rows.map(({ seconds: _, ...row }) => row) };
  } finally {
    gpu.close();
  }
}

gpuTest("stopped in either phase, it goes on to the same bits", async () => {
  const whole = await runStopped(undefined);
  for (const phase of ["control", "sparse"]) {
    assertEquals(await runStopped({ phase, step: 1 }), whole, phase);
  }
  const taught = await runStopped(undefined, { ...SETTINGS, ...TAUGHT });
  assertNotEquals(taught.rows, whole.rows);
  for (const phase of ["control", "sparse"]) {
    assertEquals(
      await runStopped({ phase, step: 1 }, { ...SETTINGS, ...TAUGHT }),
      taught,
      `taught, ${phase}`,
    );
  }
});

Deno.test("without a control there is no such target, and the plan counts the measurement of it", async () => {
  checkControl({ ...SETTINGS });
  checkControl({ ...SETTINGS, targetLoss: "auto", control: false });
  await assertRejects(
    async () => await checkControl({ ...SETTINGS, control: false }),
    Error,
    "Cannot take the control's loss as the target without a control",
  );
  checkControl({ ...SETTINGS, ...TAUGHT });
  await assertRejects(
    async () => await checkControl({ ...SETTINGS, ...TAUGHT, control: false }),
    Error,
    "Cannot take the control as the teacher without a control",
  );
  await assertRejects(
    async () => await checkControl({ ...SETTINGS, ...TAUGHT, distill: 0 }),
    Error,
    "nothing is learnt from it: give --distill",
  );
  const resume = { resume: { checkpoints: new Map() } } as unknown as PreparedRun;
  const evaluations = (targetLoss: SparsifySettings["targetLoss"]): number =>
    workAhead({ ...SETTINGS, targetLoss }, resume, { validation: 3, test: 2 })[0].units;
  assertEquals(evaluations("control") - evaluations("auto"), 3);
  const likes = (settings: Partial<SparsifySettings>) =>
    workAhead({ ...SETTINGS, targetLoss: "auto", ...settings }, resume, { validation: 3, test: 2 })
      .flatMap(({ kind, like }) => like ? [`${kind} like ${like.kind}`] : []);
  assertEquals(likes({}), ["sparse like evaluation", "control like sparse"]);
  assertEquals(
    likes(TAUGHT),
    ["sparse like control", "control like evaluation"],
    "what comes first is known first",
  );
});
