/** A run with a front: its target rises in levels, and the sparsest step of each is kept and measured. */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { Gpu } from "../../../kernels/core/gpu.ts";
import { readMetrics } from "../../../pipeline/runs/metrics.ts";
import { bestStepsOf, findResumePoint, frontOf } from "../../../pipeline/runs/resume.ts";
import { openSafetensors } from "../../../pipeline/model/safetensors.ts";
import { SPARSIFY, type SparsifySettings } from "../../../pipeline/settings.ts";
import { defaultsOf } from "../../../pipeline/settings/resolve.ts";
import { FRONT_LEVELS, frontLevelAt, frontLevels } from "../../../pipeline/training/front.ts";
import { sparsify } from "../../../pipeline/training/sparsify.ts";
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
} from "../../support/prepared_run.ts";
import { joinRows, randomWeights, referenceLosses } from "../../support/reference_training.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

const STEPS = 8;
const SETTINGS: SparsifySettings = {
  ...(defaultsOf(SPARSIFY) as SparsifySettings),
  ...RUN_SHAPE,
  steps: STEPS,
  lr: 0.03,
  attentionRate: 1,
  embeddingRate: 1,
  warmup: 0,
  decay: 0,
  slack: 0.3,
  front: true,
  frontSlack: 0.8,
  control: false,
  lambdaStart: 0.1,
  evalEvery: 1,
  checkpointEvery: 1,
  keepCheckpoints: 2,
  constraintEvery: 1,
  gateBias: 0.3,
};
const DENSE = randomWeights(RUN_CONFIG, 6);
const never = new AbortController().signal;

Deno.test("the first half of the steps is for the run's own target, and the rest is shared by four that lie above it", () => {
  assertEquals(frontLevels({ front: false, frontSlack: 0.2 }), [0]);
  assertEquals(frontLevels({ front: true, frontSlack: 0.16 }), [0, 0.01, 0.04, 0.09, 0.16]);
  const of = (steps: number): number[] =>
    Array.from({ length: steps }, (_, step) => frontLevelAt(step, steps, FRONT_LEVELS));
  assertEquals(of(8), [0, 0, 0, 0, 1, 2, 3, 4]);
  assertEquals(of(13), [0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 3, 4]);
  assertEquals(of(1), [0]);
  assertEquals(frontLevelAt(7, 8, 1), 0);
});

/** A run to its end, or stopped before a step and gone on with. */
async function run(stopAt?: number, { front = true }: { front?: boolean } = {}) {
  const settings = { ...SETTINGS, front };
  const gpu = await Gpu.open();
  await using runs = await temporaryFolder();
  try {
    const prepared = await prepareTestRun(gpu, { runs: runs.path, weights: DENSE });
    let step = 0;
    const own: PreparedRun = {
      ...prepared,
      control: {
        slackAt: () => undefined,
        beforeStep: () => Promise.resolve({ stop: step++ === stopAt }),
      },
    };
    let summary = await sparsify(settings, own, SILENT, never).catch(({ message }) => assert(false, message));
    assertEquals(summary === undefined, stopAt !== undefined);
    if (!summary) {
      const resume = await findResumePoint(own.folder.checkpoints, STEPS, own.id);
      const kept = [...resume.checkpoints.values()].map((checkpoint) => frontOf(checkpoint));
      assertEquals(kept.map(({ length }) => length), [FRONT_LEVELS - 1]);
      summary = await sparsify(settings, { ...own, resume }, SILENT, never);
    }
    const rows = await readMetrics(own.folder.metrics);
    const steps = [...new Set((summary!.front ?? []).flatMap(({ step }) => step === null ? [] : [step]))];
    const weights = new Map(
      await Promise.all(
        steps.map(async (step) =>
          [step, await checkpointWeights(own, { phase: "sparse-best", step })] as const
        ),
      ),
    );
    const saved = await openSafetensors(`${own.folder.model}/model.safetensors`);
    const name = "h.0.attn.c_attn.weight";
    const stored = [...saved.entries.keys()].find((key) => key.endsWith(name))!;
    const model = await saved.read(stored);
    own.metrics.close();
    own.folder.release();
    const { seconds: _, ...result } = summary!;
    return { result, rows: rows.map(({ seconds: _, ...row }) => row), weights, model, name };
  } finally {
    gpu.close();
  }
}

gpuTest(
  "each level has the sparsest step at or below its target, measured on test tokens, also of a run that was stopped",
  async () => {
    const whole = await run();
    const { result: { front, sparse, dense_validation_ce }, rows, weights, model, name } = whole;
    const levels = frontLevels(SETTINGS);
    const target = dense_validation_ce + SETTINGS.slack;
    rows.forEach((row, n) =>
      assertAlmostEquals(row.target!, target + levels[frontLevelAt(n, STEPS, FRONT_LEVELS)], 1e-6)
    );
    const test = joinRows(await heldOut("test"));
    const chosen = levels.map((above, level) => {
      const point = front![level];
      assertAlmostEquals(point.above, above, 1e-12);
      assertAlmostEquals(point.target, target + above, 1e-6);
      const met = rows.filter(({ validation_ce }) => validation_ce! <= target + above);
      const least = Math.min(...met.map(({ open_fraction }) => open_fraction!));
      const expected = met.find(({ open_fraction }) => open_fraction === least)?.step ?? null;
      assertEquals(point.step, expected, `step of level ${level}`);
      if (expected === null) {
        assertEquals([point.ce, point.open_fraction], [null, null]);
        return null;
      }
      const { ce } = referenceLosses({
        config: RUN_CONFIG,
        weights: weights.get(expected)!,
        context: RUN_SHAPE.context,
        gate: { bias: SETTINGS.gateBias },
      }, test);
      assertAlmostEquals(point.ce!, ce, 3e-6);
      return expected;
    });
    assert(
      new Set(chosen.filter((step) => step !== null)).size > 1,
      `more than one step is chosen: ${chosen}`,
    );
    assertEquals([front![0].ce, front![0].open_fraction], [sparse.ce, sparse.open_fraction]);
    // What is saved is the model of the run's own target, whatever was measured after it.
    const own = weights.get(sparse.step)!;
    const [, values] = [...own].find(([key]) => key.endsWith(name))!;
    assertEquals([...model], Array.from(values));
    // Up to the levels it is the run that it would be without; from there the constraint is measured against a level's target.
    const plain = await run(undefined, { front: false });
    assertEquals(rows.slice(0, 4), plain.rows.slice(0, 4));
    assertAlmostEquals(plain.rows[4].constraint! - rows[4].constraint!, levels[1], 1e-6);
    assertEquals(await run(2), whole, "stopped at its own target");
    assertEquals(await run(6), whole, "stopped at a level");
  },
);

Deno.test("the plan counts a front's measurements, and a checkpoint's steps are each once", () => {
  const resume = { resume: { checkpoints: new Map() } } as unknown as PreparedRun;
  const evaluations = (front: boolean): number =>
    workAhead({ ...SETTINGS, front }, resume, { validation: 3, test: 2 })[0].units;
  assertEquals(evaluations(true) - evaluations(false), 2 * (FRONT_LEVELS - 1));
  const best = (step: number) => ({ step, ce: 1, openFraction: 0.5 });
  const state = { best: best(3), front: [best(3), null, best(5)] };
  assertEquals(bestStepsOf({ state, path: "a checkpoint" }), [3, 5]);
  assertEquals(frontOf({ state: {}, path: "a checkpoint" }), []);
});
