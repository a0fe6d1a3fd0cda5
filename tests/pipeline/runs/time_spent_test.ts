import { assert, assertEquals } from "@std/assert";
import { Gpu } from "../../../kernels/core/gpu.ts";
import { timeSpent } from "../../../pipeline/runs/time_spent.ts";
import {
  PRETRAIN,
  type PretrainSettings,
  SPARSIFY,
  type SparsifySettings,
} from "../../../pipeline/settings.ts";
import { defaultsOf } from "../../../pipeline/settings/resolve.ts";
import { pretrain } from "../../../pipeline/training/pretrain.ts";
import { sparsify } from "../../../pipeline/training/sparsify.ts";
import { gpuTest } from "../../support/gpu.ts";
import { metricRow } from "../../support/metric_row.ts";
import { prepareTestRun, RUN_CONFIG, RUN_SHAPE, SILENT } from "../../support/prepared_run.ts";
import { randomWeights } from "../../support/reference_training.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

Deno.test("the time of a run is that of its phases, in each process of which the clock starts again", () => {
  const rows = [3, 5, 2, 4].map((seconds, n) => metricRow(n + 1, { seconds }));
  const control = [6, 7].map((seconds, n) => metricRow(n + 1, { phase: "control", seconds }));
  assertEquals(timeSpent([...rows, ...control]), 5 + 4 + 7);
  assertEquals(timeSpent([]), 0);
});

gpuTest("a summary's seconds are those of earlier processes too", async () => {
  const gpu = await Gpu.open();
  await using folder = await temporaryFolder();
  const short = { ...RUN_SHAPE, steps: 1, warmup: 0, validationTokens: 100, evalTokens: 100 };
  const { signal } = new AbortController();
  try {
    for (const command of ["sparsify", "pretrain"] as const) {
      const runs = `${folder.path}/${command}`;
      const run = await prepareTestRun(gpu, { runs, weights: randomWeights(RUN_CONFIG, 2) });
      // A day, as an earlier process left it.
      const phase = command === "sparsify" ? "control" : "pretrain";
      await run.metrics.append([metricRow(1, { phase, seconds: 86_400 })]);
      const summary = command === "sparsify"
        ? await sparsify(
          { ...defaultsOf(SPARSIFY) as SparsifySettings, ...short, control: false },
          run,
          SILENT,
          signal,
        )
        : await pretrain({ ...defaultsOf(PRETRAIN) as PretrainSettings, ...short }, run, SILENT, signal);
      assert(summary!.seconds > 86_400, `${command}: ${summary!.seconds}`);
      run.metrics.close();
      run.folder.release();
    }
  } finally {
    gpu.close();
  }
});
