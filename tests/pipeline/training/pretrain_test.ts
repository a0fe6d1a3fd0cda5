/** Pre-training under the constraint, of three steps, against float64. */
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { Gpu } from "../../../kernels/core/gpu.ts";
import { UserError } from "../../../pipeline/errors.ts";
import { exists } from "../../../pipeline/files.ts";
import { readMetrics } from "../../../pipeline/runs/metrics.ts";
import { findResumePoint } from "../../../pipeline/runs/resume.ts";
import { pretrain, sparseTarget } from "../../../pipeline/training/pretrain.ts";
import { PRETRAIN, type PretrainSettings } from "../../../pipeline/settings.ts";
import { defaultsOf } from "../../../pipeline/settings/resolve.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest } from "../../support/gpu.ts";
import {
  checkpointWeights,
  heldOut,
  prepareTestRun,
  RUN_CONFIG,
  RUN_SHAPE,
  SILENT,
  watchSplits,
} from "../../support/prepared_run.ts";
import { headTotal, joinRows, randomWeights, referenceLosses } from "../../support/reference_training.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

const SETTINGS: PretrainSettings = {
  ...(defaultsOf(PRETRAIN) as PretrainSettings),
  ...RUN_SHAPE,
  sparse: true,
  targetLoss: 2.5,
  gateBias: 0.3,
  steps: 3,
  accumulate: 1,
  evalEvery: 3,
  checkpointEvery: 1,
  keepCheckpoints: 10,
  constraintEvery: 2,
  saveType: "F32",
};

gpuTest(
  "sparse pre-training learns from train, is held to its loss on validation, and is reported on test",
  async (gpu) => {
    await using folder = await temporaryFolder();
    const weights = randomWeights(RUN_CONFIG, 2);
    const run = await prepareTestRun(gpu, { runs: folder.path, weights });
    const seen = watchSplits(gpu);
    const { context } = RUN_SHAPE;
    const gate = { bias: SETTINGS.gateBias };
    const summary = await pretrain(SETTINGS, run, SILENT, new AbortController().signal);
    const validation = new Array<string>(3).fill("evaluation of validation");
    assertEquals(seen, [
      ...[
        "measuring of validation",
        "step of train",
        "step of train",
        "measuring of validation",
        "step of train",
      ],
      ...[...validation, ...validation, "evaluation of test", "evaluation of test"],
    ]);
    const after = await Promise.all(
      [1, 2, 3].map((step) => checkpointWeights(run, { phase: "pretrain", step })),
    );
    const rows = await readMetrics(run.folder.metrics);
    const [first, second] = await heldOut("validation");
    for (const [row, of, probe] of [[rows[0], weights, first], [rows[2], after[1], second]] as const) {
      const { ce } = referenceLosses({ config: RUN_CONFIG, weights: of, context, gate }, probe);
      // Measured: 9.3e-8.
      assertAlmostEquals(row.constraint!, ce - 2.5, 3e-6, `constraint of step ${row.step}`);
      assertEquals(row.target, 2.5);
    }
    for (const split of ["validation", "test"] as const) {
      const of = { config: RUN_CONFIG, weights: after[2], context, gate };
      const expected = referenceLosses(of, joinRows(await heldOut(split)));
      // Measured: 2.7e-8.
      assertClose([summary![split].ce], [expected.ce], { tolerance: 1e-6, name: `loss on ${split}` });
      assertEquals(summary![split].tokens, expected.counted);
      if (split === "validation") continue;
      const edges = RUN_CONFIG.layers * RUN_CONFIG.heads * 3 * 28;
      assertEquals(summary!.test.open_fraction, headTotal(expected.heads, "open") / edges);
    }
    run.metrics.close();
    run.folder.release();
  },
);

gpuTest("steps whose rows are read at once share the time since the ones before", async (gpu) => {
  await using folder = await temporaryFolder();
  const run = await prepareTestRun(gpu, { runs: folder.path, weights: randomWeights(RUN_CONFIG, 2) });
  const settings = { ...SETTINGS, steps: 6, evalEvery: 3, checkpointEvery: 6 };
  await pretrain(settings, run, SILENT, new AbortController().signal);
  const seconds = (await readMetrics(run.folder.metrics)).map((row) => row.seconds);
  const [first, second, third, fourth, fifth, last] = seconds.map((at, n) => at - (seconds[n - 1] ?? 0));
  assertAlmostEquals(first, second, 1e-9);
  assertAlmostEquals(second, third, 1e-9);
  assert(fourth > fifth + 1e-6, "the evaluation stands between the third and the fourth");
  assertAlmostEquals(fifth, last, 1e-9);
  assert(first > 0 && last > 0);
  run.metrics.close();
  run.folder.release();
});

gpuTest("rows that come behind later steps do not take in their time", async (gpu) => {
  await using folder = await temporaryFolder();
  const run = await prepareTestRun(gpu, { runs: folder.path, weights: randomWeights(RUN_CONFIG, 2) });
  const settings = { ...SETTINGS, steps: 40, evalEvery: 40, checkpointEvery: 40 };
  // A clock that goes on by a second whenever it is looked at, so that every step takes as long.
  const now = performance.now;
  let looks = 0;
  performance.now = () => 1000 * ++looks;
  try {
    await pretrain(settings, run, SILENT, new AbortController().signal);
  } finally {
    performance.now = now;
  }
  const seconds = (await readMetrics(run.folder.metrics)).map((row) => row.seconds);
  const waits = seconds.map((at, n) => at - (seconds[n - 1] ?? 0));
  assert(Math.min(...waits) > 0 && Math.max(...waits) < 2 * Math.min(...waits), waits.join());
  run.metrics.close();
  run.folder.release();
});

gpuTest(
  "a run whose folder is moved ends at its next checkpoint, and makes no other of its name",
  async (gpu) => {
    await using folder = await temporaryFolder();
    const prepared = await prepareTestRun(gpu, { runs: folder.path, weights: randomWeights(RUN_CONFIG, 2) });
    const { path } = prepared.folder;
    let trained = 0;
    const run = {
      ...prepared,
      control: {
        slackAt: () => undefined,
        async beforeStep() {
          if (++trained === 2) await Deno.rename(path, `${path} elsewhere`);
          return { stop: false };
        },
      },
    };
    const ended = () => pretrain(SETTINGS, run, SILENT, new AbortController().signal);
    await assertRejects(
      ended,
      UserError,
      `Cannot save run ${run.folder.name} as ${path} was moved or removed`,
    );
    assertEquals([trained, await exists(path)], [2, false]);
    run.metrics.close();
    run.folder.release();
  },
);

const FROM_SCRATCH: PretrainSettings = {
  ...SETTINGS,
  steps: 6,
  sparseFrom: 0.5,
  evalEvery: 1,
  constraintEvery: 1,
  keepCheckpoints: 10,
  // So high that the first evaluation with gates meets it.
  targetLoss: 20,
};

/** Six steps, stopped before one where that is said, then on from its checkpoint. */
async function train(settings: PretrainSettings, stopAt?: number) {
  const gpu = await Gpu.open();
  await using folder = await temporaryFolder();
  try {
    const prepared = await prepareTestRun(gpu, { runs: folder.path, weights: randomWeights(RUN_CONFIG, 2) });
    let step = 0;
    const run = {
      ...prepared,
      control: {
        slackAt: () => undefined,
        beforeStep: () => Promise.resolve({ stop: step++ === stopAt }),
      },
    };
    const { signal } = new AbortController();
    let summary = await pretrain(settings, run, SILENT, signal);
    assertEquals(summary === undefined, stopAt !== undefined);
    if (!summary) {
      const resume = await findResumePoint(run.folder.checkpoints, settings.steps, run.id);
      summary = await pretrain(settings, { ...run, resume }, SILENT, signal);
    }
    const rows = (await readMetrics(run.folder.metrics)).map(({ seconds: _, ...row }) => row);
    const third = await checkpointWeights(run, { phase: "pretrain", step: 3 });
    run.metrics.close();
    run.folder.release();
    const { seconds: _, ...result } = summary!;
    return { result, rows, third };
  } finally {
    gpu.close();
  }
}

gpuTest(
  "the constraint can be switched on after a share of the steps, before which training is dense to the bit",
  async () => {
    const whole = await train(FROM_SCRATCH);
    const dense = await train({ ...FROM_SCRATCH, sparse: false, sparseFrom: 0 });
    assertEquals(whole.third, dense.third);
    assertEquals(whole.rows.slice(0, 3), dense.rows.slice(0, 3));
    const [fourth] = whole.rows.slice(3);
    assert(fourth.ce !== dense.rows[3].ce, "from there on gates act");
    // With the first gates the objective weighs edges against the loss by λ as it starts.
    const other = await train({ ...FROM_SCRATCH, lambdaStart: 3 });
    assertEquals(other.rows.slice(0, 3), whole.rows.slice(0, 3));
    assert(other.rows[3].grad_norm !== fourth.grad_norm, "another λ is another gradient");
    // Nor have edges weighed by their distance before, which changes what is descended and nothing that is measured.
    const weighed = await train({ ...FROM_SCRATCH, distancePower: 2 });
    assertEquals(weighed.rows.slice(0, 3), whole.rows.slice(0, 3));
    assertEquals(weighed.rows[3].expected_open, fourth.expected_open);
    assert(weighed.rows[3].grad_norm !== fourth.grad_norm, "other weights are another gradient");
    // λ has moved by one step, as the loss is far below the target.
    const { lambdaStart, lambdaRate } = FROM_SCRATCH;
    assert(fourth.lambda! < lambdaStart && fourth.lambda! > lambdaStart * Math.exp(-1.01 * lambdaRate));
    for (const row of whole.rows.slice(3)) {
      assert(row.expected_open! > 0 && row.expected_open! < 1, `${row.expected_open}`);
      assert(row.open_fraction! < 1 && row.constraint !== null && row.target === 20);
    }
    // The probe before the fourth step is the fourth batch of the validation tokens, of which there are three.
    const [probe] = await heldOut("validation");
    const { ce } = referenceLosses({
      config: RUN_CONFIG,
      weights: whole.third,
      context: RUN_SHAPE.context,
      gate: { bias: FROM_SCRATCH.gateBias },
    }, probe);
    assertAlmostEquals(fourth.constraint!, ce - 20, 3e-6);
    // However late, the last step is sparse.
    const late = await train({ ...FROM_SCRATCH, sparseFrom: 0.99 });
    assertEquals(late.rows.map(({ expected_open }) => expected_open === null).lastIndexOf(true), 4);
    const { step, feasible, target_loss } = whole.result.constraint!;
    assert(step > 3 && feasible && target_loss === 20, "no dense step is chosen");
    for (const stopAt of [1, 2, 4]) {
      assertEquals(await train(FROM_SCRATCH, stopAt), whole, `before ${stopAt}`);
    }
  },
);

Deno.test("a share of dense steps without a constraint behind it is refused", () => {
  const of = { sparse: true, sparseFrom: 0.5, targetLoss: 2 as number | "auto" };
  assertEquals(sparseTarget(of), 2);
  assertEquals(sparseTarget({ ...of, sparse: false, sparseFrom: 0 }), undefined);
  assertThrows(
    () => sparseTarget({ ...of, sparse: false }),
    Error,
    "Cannot use --sparse-from without --sparse",
  );
  assertThrows(() => sparseTarget({ ...of, targetLoss: "auto" }), Error, "give --target-loss");
});
