/**
 * A whole run of four steps against float64: its weights are read from a checkpoint of every step, and every row and
 * every figure is computed anew from them. So what each number is measured with, and on, is held as well as its value.
 */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { adamwReference } from "../../../kernels/adamw/reference.ts";
import { Gpu } from "../../../kernels/core/gpu.ts";
import { createBatches } from "../../../pipeline/text/batches.ts";
import { openWeights } from "../../../pipeline/model/load_weights.ts";
import { type MetricRow, readMetrics } from "../../../pipeline/runs/metrics.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { SPARSIFY, type SparsifySettings } from "../../../pipeline/settings.ts";
import { defaultsOf } from "../../../pipeline/settings/resolve.ts";
import { sparsify } from "../../../pipeline/training/sparsify.ts";
import { assertClose } from "../../support/compare.ts";
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
  headTotal,
  joinRows,
  randomWeights,
  referenceLosses,
  referenceStep,
  type Rows,
  type Weights,
} from "../../support/reference_training.ts";

const SETTINGS: SparsifySettings = {
  ...(defaultsOf(SPARSIFY) as SparsifySettings),
  ...RUN_SHAPE,
  steps: 4,
  accumulate: 2,
  lr: 0.01,
  embeddingRate: 0.8,
  attentionRate: 1.1,
  warmup: 2,
  decay: 0.5,
  weightDecay: 0.3,
  clip: 0.5,
  seed: 10,
  slack: 0.072,
  targetLoss: "auto",
  distill: 0.6,
  evalEvery: 1,
  checkpointEvery: 1,
  keepCheckpoints: 10,
  constraintEvery: 1,
  validationTokens: 1000,
  evalTokens: 1000,
  gateBias: 0.3,
  temperature: 0.9,
  saturationWeight: 0.05,
  saturationBound: 1,
  distancePower: 0.6,
  lambdaStart: 0.8,
  constraintScale: 0.5,
  average: 0.6,
  lambdaRate: 0.7,
  lambdaGain: 1.2,
  lambdaMin: 0.3,
  lambdaMax: 2,
  saveType: "F32",
};
const { steps, accumulate, seed, gateBias: bias } = SETTINGS;
const { layers, heads } = RUN_CONFIG;
const { context, batch } = RUN_SHAPE;
const DENSE = randomWeights(RUN_CONFIG, 6);
const HEADS = layers * heads;
/** Causal pairs of a row. */
const PAIRS = 28;
const STEPS = Array.from({ length: steps }, (_, n) => n + 1);
/** Slack from the third step on. */
const LATER_SLACK = 0.08;

/** Everything that a run left. */
async function run() {
  const gpu = await Gpu.open();
  const runs = await Deno.makeTempDir();
  try {
    const prepared = await prepareTestRun(gpu, {
      runs,
      weights: DENSE,
      slackAt: (phase, step) => phase === "sparse" && step >= 2 ? LATER_SLACK : undefined,
    });
    const seen = watchSplits(gpu);
    const summary = await sparsify(SETTINGS, prepared, SILENT, new AbortController().signal);
    const rows = await readMetrics(prepared.folder.metrics);
    const after = async (
      phase: string,
    ): Promise<Weights[]> => [
      DENSE,
      ...await Promise.all(STEPS.map((step) => checkpointWeights(prepared, { phase, step }))),
    ];
    const saved = await openWeights(prepared.folder.model, await readModelConfig(prepared.folder.model));
    const model = new Map<string, Float32Array>();
    for (const { name } of saved.parameters) model.set(name, await saved.read(name));
    prepared.metrics.close();
    prepared.folder.release();
    return {
      seen,
      summary: summary!,
      sparse: rows.filter(({ phase }) => phase === "sparse"),
      control: rows.filter(({ phase }) => phase === "control"),
      /** Weights after so many steps. */
      sparseWeights: await after("sparse"),
      controlWeights: await after("control"),
      model,
    };
  } finally {
    gpu.close();
    await Deno.remove(runs, { recursive: true });
  }
}

let ran: ReturnType<typeof run> | undefined;
/** A test on the run, which is made once. */
const runTest = (name: string, body: (of: Awaited<ReturnType<typeof run>>) => Promise<void>): void =>
  gpuTest(name, async () => await body(await (ran ??= run())));

const HARD = { bias };

/** Loss and edges in float64. */
function losses(weights: Weights, rows: Rows, gate?: { bias: number }) {
  const found = referenceLosses({ config: RUN_CONFIG, weights, context, gate }, rows);
  assert(found.margin > 1e-4, `a gate stands ${found.margin} from its threshold`);
  return found;
}

/** What is reported of a model on a split, in float64. */
async function figures(weights: Weights, split: "validation" | "test", gate?: { bias: number }) {
  const rows = joinRows(await heldOut(split));
  const { ce, correct, counted, exact, heads: sums } = losses(weights, rows, gate);
  const queries = rows.inputs.length;
  const pairs = PAIRS * queries / context;
  return {
    ce,
    perplexity: Math.exp(ce),
    accuracy: correct / counted,
    exact_rows: exact.reduce((sum, value) => sum + value, 0) / exact.length,
    open_fraction: headTotal(sums, "open") / (HEADS * pairs),
    edges_per_query: headTotal(sums, "open") / (HEADS * queries),
    dead_queries: headTotal(sums, "dead") / (HEADS * queries),
    open_by_head: sums.map(({ open }) => open / pairs),
    counted,
  };
}

function trainBatches() {
  const batches = createBatches({ tokens: splitTokens().train, batch, context, seed });
  return (step: number) =>
    Promise.all(Array.from({ length: accumulate }, (_, n) => batches.at(step * accumulate + n)));
}

const denseCe = async (): Promise<number> => (await figures(DENSE, "validation")).ce;
const slackOf = (step: number): number => step >= 3 ? LATER_SLACK : SETTINGS.slack;

/** Compares what a name stands for in float64 with what was found under it. */
function assertFigures(found: object, expected: Record<string, number>, where: string): void {
  const names = Object.keys(expected);
  const values = names.map((name) => (found as Record<string, number>)[name]);
  assert(values.every((value) => typeof value === "number"), `${names} ${where}: ${values}`);
  names.forEach((name, n) => {
    // Measured: 4.4e-7 (lambda_acting).
    assertClose([values[n]], [expected[name]], { tolerance: 5e-6, name: `${name} ${where}` });
  });
}

runTest(
  "the model learns from train, is measured and chosen on validation, and is reported on test",
  ({ seen }) => {
    const of = (what: string, count: number): string[] => new Array<string>(count).fill(what);
    const [validation, test] = [of("evaluation of validation", 3), of("evaluation of test", 2)];
    const trained = of("step of train", accumulate);
    assertEquals(seen, [
      // The dense model, the sparse phase, the sparse model and the dense one, the control phase, the control.
      ...validation,
      ...STEPS.flatMap(() => ["measuring of validation", ...trained, ...validation]),
      ...[...test, ...test],
      ...STEPS.flatMap(() => [...trained, ...validation]),
      ...test,
    ]);
    return Promise.resolve();
  },
);

runTest(
  "each row of the sparse phase is that of float64's step on the weights before it",
  async ({ sparse, sparseWeights }) => {
    const batches = trainBatches();
    let acting = SETTINGS.lambdaStart;
    assertEquals(sparse.length, steps);
    for (const row of sparse) {
      const step = row.step - 1;
      const weights = sparseWeights[step];
      const expected = referenceStep({
        config: RUN_CONFIG,
        weights,
        context,
        gate: { ...SETTINGS, bias, noise: { seed, step } },
        lambda: acting,
        distill: { teacher: DENSE, weight: SETTINGS.distill },
      }, joinRows(await batches(step)));
      assert(expected.margin > 1e-4, `a gate stands ${expected.margin} from its threshold`);
      const pairs = PAIRS * batch * accumulate;
      const squares = [...expected.gradients.values()].map((of) =>
        of.reduce((sum, value) => sum + value ** 2, 0)
      );
      assertFigures(row, {
        ce: expected.ce,
        kl: expected.kl,
        expected_open: headTotal(expected.heads, "openProbability") / (HEADS * pairs),
        saturation: headTotal(expected.heads, "saturation") / (HEADS * pairs),
        grad_norm: Math.sqrt(squares.reduce((sum, of) => sum + of, 0)),
        tokens: row.step * accumulate * batch * context,
      }, `of step ${row.step}`);
      assertClose(
        row.expected_open_by_head!,
        expected.heads.map(({ openProbability }) => openProbability / pairs),
        { tolerance: 1e-5, name: `expected_open_by_head of step ${row.step}` },
      );
      acting = row.lambda_acting!;
    }
  },
);

runTest("each step moves the weights as AdamW does, by the settings", async ({ sparse, sparseWeights }) => {
  const batches = trainBatches();
  // Rising over two steps, and falling over the last two.
  const rates = [0.005, 0.01, 0.01, 0.005];
  const zeros = () =>
    new Map<string, Float64Array>([...DENSE].map(([name, { length }]) => [name, new Float64Array(length)]));
  const moments = { first: zeros(), second: zeros() };
  let lambda = SETTINGS.lambdaStart;
  for (const { step, lambda_acting, learning_rate } of sparse) {
    assertAlmostEquals(learning_rate, rates[step - 1], 1e-9);
    const weights = sparseWeights[step - 1];
    const gate = { ...SETTINGS, bias, noise: { seed, step: step - 1 } };
    const distill = { teacher: DENSE, weight: SETTINGS.distill };
    const objective = { config: RUN_CONFIG, weights, context, gate, lambda, distill };
    const { gradients } = referenceStep(objective, joinRows(await batches(step - 1)));
    const norm = Math.hypot(...[...gradients.values()].flatMap((values) => [...values]));
    assert(norm > 0.5, `the gradient of step ${step} is clipped: ${norm}`);
    for (const { name, shape: [, columns = 1] } of parametersOf(RUN_CONFIG)) {
      const before = weights.get(name)!;
      const after = adamwReference({
        weight: before,
        gradient: gradients.get(name)!,
        first: moments.first.get(name)!,
        second: moments.second.get(name)!,
        columns,
        decayFrom: name.endsWith("c_attn.weight") ? 2 * columns / 3 : columns > 1 ? 0 : Infinity,
        learningRate: rates[step - 1] *
          (/^w[tp]e/.test(name) ? 0.8 : name.endsWith("c_attn.weight") ? 1.1 : 1),
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        weightDecay: 0.3,
        step,
        clipFactor: 0.5 / norm,
      });
      moments.first.set(name, after.first);
      moments.second.set(name, after.second);
      const found = sparseWeights[step].get(name)!;
      const moved = (values: ArrayLike<number>) => Float64Array.from(before, (value, n) => values[n] - value);
      // Measured: 7.4e-6.
      assertClose(moved(found), moved(after.weight), { tolerance: 1e-4, name: `${name} in step ${step}` });
    }
    lambda = lambda_acting!;
  }
});

runTest(
  "the constraint is measured with hard gates, batch by batch, against the dense loss of the same batch",
  async ({ sparse, sparseWeights }) => {
    const probes = await heldOut("validation");
    const dense = await denseCe();
    let [lambda, average] = [SETTINGS.lambdaStart, 0];
    for (const row of sparse) {
      const probe = probes[(row.step - 1) % probes.length];
      const allowed = losses(DENSE, probe).ce + slackOf(row.step);
      const violation = losses(sparseWeights[row.step - 1], probe, HARD).ce - allowed;
      // docs/method.md, with the numbers of the settings above.
      average = 0.6 * average + 0.4 * Math.min(1, Math.max(-1, violation / 0.5));
      const bounded = (value: number): number => Math.min(2, Math.max(0.3, value));
      lambda = bounded(lambda * Math.exp(0.7 * average));
      // Small differences of losses near 3, whose rounding they keep whole. Measured: 4.6e-7.
      assertAlmostEquals(row.constraint!, violation, 3e-6, `constraint of step ${row.step}`);
      assertAlmostEquals(row.constraint_average!, average, 3e-6, `constraint_average of step ${row.step}`);
      assertFigures(row, {
        lambda,
        lambda_acting: bounded(lambda * Math.exp(1.2 * average)),
        target: dense + slackOf(row.step),
      }, `of step ${row.step}`);
    }
  },
);

runTest(
  "each evaluation is of the weights after its step, with hard gates, on validation",
  async ({ sparse, sparseWeights }) => {
    for (const row of sparse) {
      const { ce, open_fraction, dead_queries, open_by_head } = await figures(
        sparseWeights[row.step],
        "validation",
        HARD,
      );
      assertFigures(row, { validation_ce: ce, open_fraction, dead_queries }, `after step ${row.step}`);
      assertClose(row.open_by_head!, open_by_head, { tolerance: 1e-6, name: "open_by_head" });
      assert(open_fraction > 0.2 && open_fraction < 0.8, `share of open edges: ${open_fraction}`);
    }
  },
);

runTest(
  "the sparse model is that of the step with the fewest open edges within the target, on test",
  async ({ sparse, sparseWeights, summary, model }) => {
    const within = sparse.filter(({ validation_ce, target }) => validation_ce! <= target!);
    const [fewest] = within.toSorted((a, b) => a.open_fraction! - b.open_fraction!);
    assertEquals([summary.sparse.step, summary.sparse.feasible], [fewest.step, true]);
    assert(fewest.step < steps && within.length < steps, "neither the last step nor any step");
    const chosen = sparseWeights[fewest.step];
    const { open_by_head, counted, ...expected } = await figures(chosen, "test", HARD);
    assertFigures(summary.sparse, expected, "of the sparse model");
    assertClose(summary.sparse.open_by_head.flat(), open_by_head, { tolerance: 1e-6, name: "open_by_head" });
    for (const [name, values] of chosen) {
      assertEquals(
        model.get(name),
        values as Float32Array,
        `saved ${name}`,
      );
    }
    assertEquals([summary.test_tokens, summary.validation_tokens], [counted, 35]);
    assertFigures(summary, {
      dense_validation_ce: await denseCe(),
      target_loss: await denseCe() + LATER_SLACK,
      tokens: steps * accumulate * batch * context,
      heads: HEADS,
    }, "of the summary");
  },
);

runTest("dense is the model before training, without gates", async ({ summary }) => {
  const { ce, perplexity, accuracy, exact_rows } = await figures(DENSE, "test");
  assertFigures(summary.dense, { ce, perplexity, accuracy, exact_rows }, "of the dense model");
});

runTest(
  "the control starts from the dense weights, is trained without gates, and is measured so",
  async ({ control, controlWeights, summary }) => {
    const batches = trainBatches();
    assertEquals(control.length, steps);
    for (const row of control) {
      const step = row.step - 1;
      const rows = joinRows(await batches(step));
      const objective = { config: RUN_CONFIG, weights: controlWeights[step], context };
      const { ce, gradients } = referenceStep(objective, rows);
      const squares = [...gradients.values()].map((of) => of.reduce((sum, value) => sum + value ** 2, 0));
      const validation = await figures(controlWeights[row.step], "validation");
      assertFigures(row, {
        ce,
        grad_norm: Math.sqrt(squares.reduce((sum, of) => sum + of, 0)),
        validation_ce: validation.ce,
        open_fraction: 1,
      }, `of step ${row.step} of the control`);
      const ofGates = ["kl", "lambda", "lambda_acting", "constraint", "expected_open", "target"] as const;
      assertEquals(ofGates.map((name: keyof MetricRow) => row[name]), ofGates.map(() => null));
    }
    // AdamW's first step is the learning rate, which queries and keys have as all others do.
    const [before, after] = [DENSE, controlWeights[1]].map((of) => of.get("h.0.attn.c_attn.weight")!);
    const moved = Array.from(before, (value, n) => Math.abs(after[n] - value));
    const columns = 3 * RUN_CONFIG.width;
    const most = Math.max(...moved.filter((_, n) => n % columns < 2 * columns / 3));
    assertAlmostEquals(most, control[0].learning_rate, 1e-6);

    const { ce, perplexity, accuracy, exact_rows } = await figures(controlWeights[steps], "test");
    assertFigures(summary.control!, { ce, perplexity, accuracy, exact_rows }, "of the control");
  },
);
