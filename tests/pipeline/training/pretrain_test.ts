/** Pre-training under the constraint, of three steps, against float64. */
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { readMetrics } from "../../../pipeline/runs/metrics.ts";
import { pretrain } from "../../../pipeline/training/pretrain.ts";
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
