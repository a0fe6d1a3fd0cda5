/** What every kind of training run shares: settings as the controller gets them, and the step that a phase ends with. */
import { assertEquals, assertNotEquals, assertRejects, assertStringIncludes } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { DivergedError } from "../../../pipeline/errors.ts";
import type { Evaluation } from "../../../pipeline/training/evaluate.ts";
import { openMetrics, readMetrics } from "../../../pipeline/runs/metrics.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import { createParameters, uploadParameters } from "../../../pipeline/model/parameters.ts";
import { chooseStep } from "../../../pipeline/training/choose_step.ts";
import { findResumePoint } from "../../../pipeline/runs/resume.ts";
import { SPARSIFY, type SparsifySettings } from "../../../pipeline/settings.ts";
import { defaultsOf } from "../../../pipeline/settings/resolve.ts";
import {
  evaluationsAhead,
  gateObjective,
  healthBounds,
  runTrainedPhase,
  type TrainedPhase,
} from "../../../pipeline/training/training_run.ts";
import { gpuTest } from "../../support/gpu.ts";
import {
  checkpointWeights,
  heldOut,
  prepareTestRun,
  RUN_CONFIG,
  RUN_SHAPE,
  SILENT,
} from "../../support/prepared_run.ts";
import { randomWeights } from "../../support/reference_training.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

const GATES = {
  gateBias: 1,
  temperature: 2,
  saturationWeight: 3,
  saturationBound: 4,
  lambdaStart: 5,
  constraintScale: 6,
  average: 7,
  lambdaRate: 8,
  lambdaGain: 9,
  lambdaMin: 10,
  lambdaMax: 11,
};

Deno.test("every setting of the gates comes where it belongs, and λ's bounds tell the signatures too", () => {
  const objective = gateObjective(GATES);
  assertEquals(objective, {
    bias: 1,
    temperature: 2,
    saturationWeight: 3,
    saturationBound: 4,
    lambdaStart: 5,
    geco: { scale: 6, alpha: 7, rate: 8, gain: 9, lowest: 10, highest: 11 },
  });
  assertEquals(healthBounds({ steps: 100, warmup: 7, decay: 0.5 }, objective, 13), {
    steps: 100,
    warmup: 7,
    decay: 0.5,
    lambdaMin: 10,
    lambdaMax: 11,
    guessing: Math.log(13),
  });
  assertEquals(healthBounds({ steps: 100, warmup: 7, decay: 0.5 }, undefined), {
    steps: 100,
    warmup: 7,
    decay: 0.5,
    lambdaMin: 0,
    lambdaMax: Infinity,
    // Where the loss is no cross-entropy.
    guessing: undefined,
  });
});

/** A run with random weights, on the device and as files. */
async function beginRun(gpu: Gpu, runs: string) {
  const run = await prepareTestRun(gpu, { runs, weights: randomWeights(RUN_CONFIG, 1) });
  const parameters = createParameters(gpu, run.weights.parameters);
  await uploadParameters(gpu, parameters, run.weights.read);
  return { run, parameters };
}

/** CE, open fraction and τ of one evaluation after another, and the step that is chosen after all of them. */
const SCRIPTS: [string, [ce: number, open: number, target: number][], number | undefined][] = [
  ["the fewest open edges", [[1, 0.5, 2], [1.5, 0.2, 2], [1, 0.3, 2]], 2],
  ["not the lowest loss", [[0.1, 0.5, 2], [1.9, 0.4, 2]], 2],
  ["none above the target", [[1, 0.5, 2], [2.1, 0.1, 2], [1, 0.6, 2]], 1],
  ["at the target is within", [[2, 0.5, 2]], 1],
  ["of equals the earlier", [[1, 0.5, 2], [1, 0.3, 2], [0.5, 0.3, 2]], 2],
  ["none, where none is within", [[3, 0.5, 2], [2.5, 0.1, 2]], undefined],
  ["none any more, where the target was lowered", [[1.5, 0.2, 2], [1.2, 0.4, 1]], undefined],
  ["one with more edges, where the target was lowered", [[1.5, 0.2, 2], [0.9, 0.4, 1]], 2],
  ["one that is within what was lowered", [[0.9, 0.4, 2], [0.9, 0.5, 1]], 1],
  ["none whose loss is no number", [[NaN, 0, 2]], undefined],
  ["the one before, where a loss is no number", [[1, 0.5, 2], [NaN, 0, 2]], 1],
];

for (const [name, evaluations, chosen] of SCRIPTS) {
  Deno.test(`the step that is chosen: ${name}`, () => {
    let best: ReturnType<typeof chooseStep>;
    evaluations.forEach(([ce, openFraction, target], n) => {
      best = chooseStep(best, { step: n + 1, ce, openFraction }, target);
    });
    assertEquals(best?.step, chosen);
    if (chosen === undefined) return;
    const [ce, openFraction] = evaluations[chosen - 1];
    assertEquals(best, { step: chosen, ce, openFraction });
  });
}

for (
  const [name, ces, targets, expected] of [
    ["the last step where none is within the target", [3, 3, 3, 3], [2, 2, 2, 2], {
      step: 4,
      feasible: false,
    }],
    ["the best step within a target that moved", [1, 1, 1, 1], [2, 0.5, 2, 2], { step: 3, feasible: true }],
    ["a step that its own target allows", [1, 1, 1, 1], [2, 2, 0.5, 2], { step: 4, feasible: true }],
  ] as const
) {
  gpuTest(`a phase ends with the weights of ${name}`, async (gpu) => {
    await using folder = await temporaryFolder();
    const { run, parameters } = await beginRun(gpu, folder.path);
    const network = await prepareNetwork(gpu, RUN_CONFIG, { ...RUN_SHAPE, training: true });
    const settings = {
      ...(defaultsOf(SPARSIFY) as SparsifySettings),
      ...RUN_SHAPE,
      steps: 4,
      evalEvery: 1,
      checkpointEvery: 4,
    };
    const open = [0.5, 0.2, 0.1, 0.3];
    const evaluated: Map<string, Float32Array>[] = [];
    const shared: Omit<TrainedPhase, "run"> = {
      settings,
      phase: "sparse",
      network,
      parameters,
      reporter: SILENT,
      signal: new AbortController().signal,
      gates: gateObjective(settings),
      targetAt: (step) => targets[step],
      async evaluate() {
        const step = evaluated.length;
        const weights = new Map<string, Float32Array>();
        for (const [name, tensor] of parameters) weights.set(name, await gpu.read(tensor));
        evaluated.push(weights);
        const script = { ce: ces[step], openFraction: open[step], openByHead: [], deadQueries: 0 };
        return script as unknown as Evaluation;
      },
    };
    const outcome = await runTrainedPhase({ ...shared, run });
    assertEquals([outcome, evaluated.length], [{ ...expected, front: [] }, 4]);
    for (const [name, tensor] of parameters) {
      const found = await gpu.read(tensor);
      assertEquals(found, evaluated[expected.step - 1].get(name)!, name);
      if (expected.step < 4) assertNotEquals(found, evaluated[3].get(name)!, name);
    }

    // A run that goes on behind the phase may be held to a lower target, which none of its evaluations has met.
    const resume = await findResumePoint(run.folder.checkpoints, settings.steps, run.id);
    assertEquals(await runTrainedPhase({ ...shared, run: { ...run, resume } }), outcome);
    const lowered = await runTrainedPhase({ ...shared, run: { ...run, resume }, targetAt: () => 0.9 });
    assertEquals([lowered, evaluated.length], [{ step: 4, feasible: false, front: [] }, 4]);
    for (const [name, tensor] of parameters) {
      assertEquals(await gpu.read(tensor), evaluated[3].get(name)!, name);
    }
    network.destroy();
    run.metrics.close();
    run.folder.release();
  });
}

/** How a phase is stopped in its n-th evaluation, and how many evaluations were finished by then. */
const STOPS: [how: string, at: number, interrupted: boolean, evaluated: number][] = [
  ["behind an evaluation", 1, false, 3],
  ["in an evaluation", 1, true, 1],
  ["in the last evaluation", 4, true, 4],
];

for (const [how, stopAt, interrupted, expected] of STOPS) {
  gpuTest(
    `a phase stopped and resumed ${how} has the rows, choice and weights of one that was not`,
    async (gpu) => {
      const network = await prepareNetwork(gpu, RUN_CONFIG, { ...RUN_SHAPE, training: true });
      const settings = {
        ...(defaultsOf(SPARSIFY) as SparsifySettings),
        ...RUN_SHAPE,
        steps: 5,
        accumulate: 2,
        evalEvery: 1,
        checkpointEvery: 100,
      };
      const probes = await heldOut("validation");
      // The second step is chosen, which only the checkpoint of the third tells the process that resumes.
      const open = [0.5, 0.2, 0.3, 0.4, 0.3];

      /** Trains in a new run, stopped in the second step's evaluation and resumed, or not. */
      async function train(stopped: boolean) {
        await using folder = await temporaryFolder();
        const weights = randomWeights(RUN_CONFIG, 1);
        const parameters = createParameters(gpu, parametersOf(RUN_CONFIG));
        let run = await prepareTestRun(gpu, { runs: folder.path, weights });
        const signals = [new AbortController(), new AbortController()];
        let evaluated = 0;
        let outcome: Awaited<ReturnType<typeof runTrainedPhase>>;
        for (const { signal } of stopped ? signals : signals.slice(1)) {
          await uploadParameters(gpu, parameters, run.weights.read);
          outcome = await runTrainedPhase({
            run,
            settings,
            phase: "sparse",
            network,
            parameters,
            reporter: SILENT,
            signal,
            gates: gateObjective(settings),
            constraint: { every: 1, probeAt: (n) => ({ batch: probes[n % 2], targetLoss: 2 }) },
            targetAt: () => 2,
            evaluate() {
              if (evaluated === stopAt) {
                signals[0].abort();
                if (interrupted) signal.throwIfAborted();
              }
              const script = { ce: 1, openFraction: open[evaluated++], openByHead: [], deadQueries: 0 };
              return Promise.resolve(script as unknown as Evaluation);
            },
          });
          if (outcome) break;
          assertEquals(evaluated, expected);
          run.metrics.close();
          const resume = await findResumePoint(run.folder.checkpoints, settings.steps, run.id);
          run = { ...run, resume, metrics: await openMetrics(run.folder.metrics, resume.lastRow) };
        }
        const rows = (await readMetrics(run.folder.metrics)).map(({ seconds: _, ...row }) => row);
        const found = new Map<string, Float32Array>();
        for (const [name, tensor] of parameters) found.set(name, await gpu.read(tensor));
        const last = await checkpointWeights(run, { phase: "sparse", step: settings.steps });
        run.metrics.close();
        run.folder.release();
        return { outcome, evaluated, rows, found, last };
      }

      const [whole, parts] = [await train(false), await train(true)];
      assertEquals(whole.outcome, { step: 2, feasible: true, front: [] });
      assertEquals(whole.rows.map(({ step }) => step), [1, 2, 3, 4, 5]);
      assertEquals(parts, whole);
      network.destroy();
    },
  );
}

const NO_NUMBER: [ces: number[], message: string, isLost: boolean][] = [
  [
    [1, NaN],
    "Cannot go on at step 2 of the sparse phase as its loss on validation tokens is not finite: give --resume a lower --lr",
    false,
  ],
  [
    [50, 50, 50, 50, 50, NaN],
    "at step 6 of the sparse phase as its loss on validation tokens is not finite, and the loss had run away before. " +
    "Begin another run with a lower --lr",
    true,
  ],
];

gpuTest("an evaluation whose loss is no number ends the phase, and its weights are not kept", async (gpu) => {
  for (const [ces, message, isLost] of NO_NUMBER) await endsWithout(gpu, [...ces], message, isLost);
});

async function endsWithout(gpu: Gpu, ces: number[], expected: string, isLost: boolean): Promise<void> {
  const told = [...ces];
  await using folder = await temporaryFolder();
  const { run, parameters } = await beginRun(gpu, folder.path);
  const network = await prepareNetwork(gpu, RUN_CONFIG, { ...RUN_SHAPE, training: true });
  const settings = { ...(defaultsOf(SPARSIFY) as SparsifySettings), ...RUN_SHAPE, steps: 8 };
  const training = runTrainedPhase({
    run,
    settings: { ...settings, evalEvery: 1, checkpointEvery: 1 },
    phase: "sparse",
    network,
    parameters,
    reporter: SILENT,
    signal: new AbortController().signal,
    gates: gateObjective(settings),
    targetAt: () => 2,
    evaluate() {
      const script = { ce: ces.shift(), openFraction: 0, openByHead: [], deadQueries: 0 };
      return Promise.resolve(script as unknown as Evaluation);
    },
  });
  const error = await assertRejects(() => training, DivergedError);
  assertStringIncludes(error.message, expected);
  assertEquals(error.isLost, isLost);
  const { last } = await findResumePoint(run.folder.checkpoints, settings.steps, run.id);
  assertEquals(last, { phase: "sparse", step: told.length - 1 });
  const rows = await readMetrics(run.folder.metrics);
  assertEquals(rows.map(({ validation_ce }) => validation_ce), told);
  network.destroy();
  run.metrics.close();
  run.folder.release();
}

gpuTest(
  "a phase that is to stop ends after the step under way, and before its first step at once",
  async (gpu) => {
    const network = await prepareNetwork(gpu, RUN_CONFIG, { ...RUN_SHAPE, training: true });
    const settings = {
      ...(defaultsOf(SPARSIFY) as SparsifySettings),
      ...RUN_SHAPE,
      steps: 50,
      evalEvery: 100,
      checkpointEvery: 100,
    };
    for (const stopAt of [0, 3]) {
      await using folder = await temporaryFolder();
      const { run, parameters } = await beginRun(gpu, folder.path);
      const stop = new AbortController();
      const told: string[] = [];
      const outcome = await runTrainedPhase({
        run,
        settings,
        phase: "control",
        network,
        parameters,
        reporter: {
          ...SILENT,
          activity({ name, done, of, keep }) {
            told.push(`${name} ${done} of ${of}${keep ? ", kept" : ""}`);
            // By a task of the event loop, as a signal of the system comes.
            if (done === stopAt) setTimeout(() => stop.abort());
          },
        },
        signal: stop.signal,
        evaluate: () => Promise.reject(new Error("not at this step")),
      });
      assertEquals(outcome, undefined);
      const { last } = await findResumePoint(run.folder.checkpoints, settings.steps, run.id);
      assertEquals(last.step, stopAt);
      assertEquals(
        (await readMetrics(run.folder.metrics)).map(({ step }) => step),
        [1, 2, 3].slice(0, stopAt),
      );
      const steps = [
        "control 0 of 50",
        "control 1 of 50, kept",
        "control 2 of 50, kept",
        "control 3 of 50, kept",
      ];
      assertEquals(told.slice(0, stopAt + 1), steps.slice(0, stopAt + 1));
      assertEquals(
        told.slice(stopAt + 1).map((text) => text.split(" of ")[0]),
        stopAt ? ["saving step 3 undefined", "control 3"] : [],
      );
      run.metrics.close();
      run.folder.release();
    }
    network.destroy();
  },
);

Deno.test("evaluations ahead are those at multiples and the last", () => {
  const settings = { ...(defaultsOf(SPARSIFY) as SparsifySettings), steps: 10, evalEvery: 4 };
  assertEquals([0, 3, 4, 8, 9, 10].map((from) => evaluationsAhead(settings, from)), [3, 3, 2, 1, 1, 0]);
  assertEquals(evaluationsAhead({ ...settings, steps: 8 }, 4), 1);
});
