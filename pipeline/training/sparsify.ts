/**
 * Sparse post-training from end to end: load the weights, measure the dense model, train it under the constraint,
 * choose the sparsest model that meets it, train the dense control, measure all three on tokens that were used for
 * nothing else, and save.
 *
 * The data is cut in three by document: the model learns from `train`; the constraint is measured and the best step is
 * chosen on `validation`; what is reported comes from `test`.
 *
 * The constraint is measured batch by batch against the dense model's loss on the same batch, so that what one batch
 * is harder than another by (ten times the slack) does not drown it. Where the control is the yardstick or the teacher, it
 * comes first; as the yardstick, the loss is its loss.
 *
 * @module
 */
import { usageError } from "../errors.ts";
import { teacherIsAdapted } from "./adaptation.ts";
import { checkLoss, evaluate, type Evaluation } from "./evaluate.ts";
import { readMetrics } from "../runs/metrics.ts";
import { controlIsFirst, teacherOf } from "../runs/phases.ts";
import { timeSpent } from "../runs/time_spent.ts";
import { prepareNetwork } from "../model/network.ts";
import type { Parameter } from "../model/op.ts";
import {
  copyParameters,
  createParameters,
  destroyParameters,
  type Parameters,
  uploadParameters,
} from "../model/parameters.ts";
import { ofTeacherAlone } from "../model/needs.ts";
import { createRoundingError } from "../model/rounding_error.ts";
import { isFirst } from "../parallel/exchange.ts";
import type { SparsifySettings } from "../settings.ts";
import { frontLevelAt, frontLevels, type FrontPoint, measureFront } from "./front.ts";
import { signaturesOf } from "./signatures.ts";
import { beginningOf, saveTrained } from "./trained_weights.ts";
import {
  collect,
  gateObjective,
  healthBounds,
  loadStep,
  type PhaseOutcome,
  type PreparedRun,
  type Reporter,
  runTrainedPhase,
  stageShapeOf,
  stepShapeOf,
  withWeights,
} from "./training_run.ts";
import { workAhead } from "./work_ahead.ts";
import type { Batch } from "../text/batches.ts";

/** The result of a run, as it stands in summary.json. */
export interface SparsifySummary {
  /** The dense model, test tokens. */
  dense: { ce: number; perplexity: number; accuracy: number; exact_rows: number };
  /** The dense control, test tokens; null without one. */
  control: { ce: number; perplexity: number; accuracy: number; exact_rows: number } | null;
  /** The sparse model, test tokens, hard gates. */
  sparse: {
    ce: number;
    perplexity: number;
    accuracy: number;
    exact_rows: number;
    open_fraction: number;
    edges_per_query: number;
    dead_queries: number;
    live_heads: number;
    open_by_head: number[][];
    /** Step whose weights were chosen. */
    step: number;
    /** Whether the constraint held on the validation tokens at that step. */
    feasible: boolean;
  };
  /** With `front`, the trade-off: its levels in order, the first of which is the sparse model. */
  front?: FrontPoint[];
  /** Heads of all layers. */
  heads: number;
  /** τ on the validation tokens, nats. */
  target_loss: number;
  /** The dense model's loss on the validation tokens, nats. */
  dense_validation_ce: number;
  /** Validation tokens that were counted. */
  validation_tokens: number;
  /** Test tokens that were counted. */
  test_tokens: number;
  /** Optimiser steps of the sparse phase. */
  steps: number;
  /** Training tokens of the sparse phase. */
  tokens: number;
  /** Wall time, seconds: of the process that ended it, and of earlier ones that of their steps but for what a kill lost. */
  seconds: number;
  /** Name of the adapter. */
  adapter: string;
  /** Keys the order of batches and the noise. */
  seed: number;
  /** Folder that it began with. */
  model: string;
  /** Failure signatures that were named. */
  signatures: string[];
}

/**
 * Runs, or goes on with, sparse post-training.
 *
 * @returns the summary, or undefined when the run was stopped with a checkpoint
 * @throws {UnmeasurableError} when the dense model's loss is not finite, before the first step
 * @throws {UserError} on bad input or after repeated non-finite gradients
 */
export async function sparsify(
  settings: SparsifySettings,
  run: PreparedRun,
  reporter: Reporter,
  signal: AbortSignal,
): Promise<SparsifySummary | undefined> {
  try {
    return await sparsifyUnlessStopped(settings, run, reporter, signal);
  } catch (error) {
    if (signal.aborted && error === signal.reason) return undefined;
    throw error;
  }
}

/** As {@link sparsify}; a measurement that is stopped throws the signal's reason. */
async function sparsifyUnlessStopped(
  settings: SparsifySettings,
  run: PreparedRun,
  reporter: Reporter,
  signal: AbortSignal,
): Promise<SparsifySummary | undefined> {
  const { gpu, config, batch, exchange } = run;
  const { adapters, train, frozen } = run.adaptation ?? {};
  const started = performance.now();
  const before = isFirst(exchange) ? timeSpent(await readMetrics(run.folder.metrics)) : 0;
  const { context } = settings;
  const gates = gateObjective(settings);
  const teacher = teacherOf(settings);
  reporter.activity({ name: "compiling kernels" });
  const network = await prepareNetwork(gpu, config, {
    batch: stepShapeOf(run, settings).batch,
    context,
    stage: stageShapeOf(run, settings),
    training: true,
    distill: teacher !== undefined,
    recompute: settings.recompute,
    half: settings.dtype === "f16",
    adapters,
    train,
    frozen,
    teacherAdapted: teacherIsAdapted(settings, run.adaptation),
    distancePower: settings.distancePower,
  });
  const beginning = beginningOf(run, network, settings.seed);
  // Rank 0 reads for all ranks, each of which keeps what it has a part in.
  const all = network.model.parameters;
  const namesOf = (of: readonly Parameter[]): string[] => of.map(({ name }) => name);
  const parameters = createParameters(gpu, network.stage.parameters);
  const rounding = createRoundingError(parameters);
  await uploadParameters(gpu, parameters, async (name) => {
    const values = await beginning(name);
    return parameters.has(name) ? rounding.of(name, values) : values;
  }, namesOf(all));
  if (frozen !== undefined) reporter.message(`frozen weights as ${frozen}: ${rounding.text()}`);
  const trained: Parameters = new Map(
    network.stage.parameters.filter(({ trainable }) => trainable)
      .map(({ name }) => [name, parameters.get(name)!]),
  );
  /** Takes what is trained back to what it began with. */
  const begin = (): Promise<void> =>
    uploadParameters(gpu, trained, beginning, namesOf(all.filter(({ trainable }) => trainable)));
  /** Another model beside the one in training: what is frozen is the same, and adapters that began at 0 are left out. */
  async function beside<Result>(
    prefix: string,
    fill: (own: Parameters) => Promise<void>,
    use: (other: Parameters) => Promise<Result>,
  ): Promise<Result> {
    const own = createParameters(gpu, ofTeacherAlone(network.stage.parameters, network.shape), prefix);
    const frozen = network.stage.parameters.filter(({ trainable }) => !trainable);
    try {
      await fill(own);
      return await use(
        new Map([...frozen.map(({ name }) => [name, parameters.get(name)!] as const), ...own]),
      );
    } finally {
      destroyParameters(gpu, own);
    }
  }
  /** As the model was when the run began. */
  const fillDense = (own: Parameters): Promise<void> =>
    uploadParameters(gpu, own, beginning, namesOf(ofTeacherAlone(all, network.shape)));

  const validation = await collect(run, "validation", { context, limit: settings.validationTokens });
  const test = await collect(run, "test", { context, limit: settings.evalTokens });
  const measure = (
    name: string,
    mode: "dense" | "deterministic",
    batches: Batch[],
    { of = parameters, keep = false }: { of?: Parameters; keep?: boolean } = {},
  ): Promise<Evaluation> =>
    evaluate(gpu, network, of, {
      mode,
      gateBias: gates.bias,
      batches,
      signal,
      exchange,
      onBatch: (done) => reporter.activity({ name, done, of: batches.length, work: "evaluation", keep }),
    });
  reporter.plan(workAhead(settings, run, { validation: validation.length, test: test.length }));
  const denseValidation = await measure("measuring the dense model", "dense", validation);
  checkLoss(denseValidation, settings.model);
  let warnedOf: number | undefined;
  /** A target, with a warning where no step can meet it. */
  const reachable = (target: number): number => {
    if (target < 0 && target !== warnedOf) {
      reporter.warning(
        `the target ${
          target.toFixed(4)
        } is below 0, where no loss is, so that no step will meet it: raise --slack, also with ` +
          "--resume",
      );
      warnedOf = target;
    }
    return target;
  };
  reporter.message(
    `dense loss ${denseValidation.ce.toFixed(4)} on ${denseValidation.tokens} validation tokens` +
      (settings.targetLoss === "control" ? "" : `; target ${targetOf(settings, denseValidation).toFixed(4)}`),
  );

  // Before a control is trained for it.
  if (settings.targetLoss !== "control") reachable(targetOf(settings, denseValidation));
  const shared = { run, settings, network, parameters, reporter, signal };
  /** Trains the dense control, from the dense weights. */
  const trainControl = async (): Promise<{ control: Evaluation } | undefined> => {
    await begin();
    const finished = await runTrainedPhase({
      ...shared,
      // Its rate is for what decides the gates, of which a control has none (docs/method.md).
      settings: { ...settings, attentionRate: 1 },
      phase: "control",
      evaluate: () => measure("evaluating the control", "dense", validation, { keep: true }),
    });
    return finished && { control: await measure("measuring the control on test tokens", "dense", test) };
  };
  let control: Evaluation | undefined;
  let yardstick = denseValidation;
  if (controlIsFirst(settings)) {
    const ended = await trainControl();
    if (!ended) return undefined;
    ({ control } = ended);
    if (settings.targetLoss === "control") {
      yardstick = await measure("measuring the control", "dense", validation);
      reporter.message(
        `the control's loss ${yardstick.ce.toFixed(4)}; target ${targetOf(settings, yardstick).toFixed(4)}`,
      );
    }
  }
  const target = targetOf(settings, yardstick);
  const targetAt = (step: number): number => {
    const slack = run.control.slackAt("sparse", step);
    return reachable(slack === undefined ? target : yardstick.ce + slack);
  };

  const levels = frontLevels(settings);
  const levelAt = (step: number): number => frontLevelAt(step, settings.steps, levels.length);
  async function trainSparse(taughtBy?: Parameters): Promise<PhaseOutcome | undefined> {
    // A control that came first has left its weights.
    if (control) await begin();
    return await runTrainedPhase({
      ...shared,
      phase: "sparse",
      gates,
      distill: taughtBy && { teacher: taughtBy, weight: settings.distill },
      constraint: {
        every: settings.constraintEvery,
        probeAt: (n, step) => {
          const index = n % validation.length;
          const offset = targetAt(step) + levels[levelAt(step)] - yardstick.ce;
          return { batch: validation[index], targetLoss: yardstick.batchCe[index] + offset };
        },
      },
      targetAt,
      front: settings.front ? { levels, levelAt } : undefined,
      evaluate: () => measure("evaluating the sparse model", "deterministic", validation, { keep: true }),
    });
  }
  /** As the control has left what is trained, where it teaches, or as the dense model. */
  async function fillTeacher(own: Parameters): Promise<void> {
    if (teacher === "dense") return await fillDense(own);
    copyParameters(gpu, new Map([...trained].filter(([name]) => own.has(name))), own);
  }
  const outcome = await (teacher ? beside("teacher's ", fillTeacher, trainSparse) : trainSparse());
  if (!outcome) return undefined;

  // The sparse model's are looked at here first, after its step has been chosen.
  const sparse = await measure("measuring the sparse model on test tokens", "deterministic", test);
  const front = settings.front
    ? await measureFront({
      levels,
      target: targetAt(settings.steps - 1),
      outcome,
      sparse,
      load: (of) => loadStep(run, network, trained, of),
      measure: () => measure("measuring the front on test tokens", "deterministic", test),
      last: settings.steps,
    })
    : undefined;
  // Gradients and moments have been freed: there is room for the dense weights beside the sparse ones.
  const dense = await beside(
    "dense ",
    fillDense,
    (of) => measure("measuring the dense model on test tokens", "dense", test, { of }),
  );
  reporter.activity({ name: "saving the model" });
  await withWeights(
    run,
    network,
    parameters,
    (readTrained) =>
      saveTrained(settings, run, network, { parameters, readTrained }, {
        config: { ...config, gate: { bias: gates.bias, temperature: gates.temperature } },
        type: settings.saveType,
        tokenizer: run.tokenizerPath,
        sparseAttention: { open_fraction: sparse.openFraction, test_ce: sparse.ce, dense_test_ce: dense.ce },
      }),
  );

  if (settings.control && !control) {
    const ended = await trainControl();
    if (!ended) return undefined;
    ({ control } = ended);
  }

  // Rank 0 alone has rows, and tells of the run.
  const rows = isFirst(exchange) ? await readMetrics(run.folder.metrics) : [];
  const sparseRows = rows.filter((row) => row.phase === "sparse");
  const signatures = signaturesOf(sparseRows, healthBounds(settings, gates, config.vocabularySize))
    .map(({ message }) => message);
  const losses = ({ ce, perplexity, accuracy, exactRows }: Evaluation) => ({
    ce,
    perplexity,
    accuracy,
    exact_rows: exactRows,
  });
  return {
    dense: losses(dense),
    control: control ? losses(control) : null,
    sparse: {
      ...losses(sparse),
      open_fraction: sparse.openFraction,
      edges_per_query: sparse.edgesPerQuery,
      dead_queries: sparse.deadQueries,
      live_heads: sparse.liveHeads,
      open_by_head: sparse.openByHead,
      step: outcome.step,
      feasible: outcome.feasible,
    },
    ...(front ? { front } : {}),
    heads: config.layers * config.heads,
    target_loss: targetAt(settings.steps - 1),
    dense_validation_ce: denseValidation.ce,
    validation_tokens: denseValidation.tokens,
    test_tokens: dense.tokens,
    steps: settings.steps,
    tokens: settings.steps * settings.accumulate * batch * context,
    seconds: before + (performance.now() - started) / 1000,
    adapter: gpu.adapter.name,
    seed: settings.seed,
    model: settings.model,
    signatures,
  };
}

/** @throws {UserError} where the target or the teacher is a control that there will not be, or a teacher is not listened to */
export function checkControl(
  { targetLoss, control, teacher, distill }: Pick<
    SparsifySettings,
    "targetLoss" | "control" | "teacher" | "distill"
  >,
): void {
  if (targetLoss === "control" && !control) {
    throw usageError(
      "Cannot take the control's loss as the target without a control: leave out --no-control",
    );
  }
  if (teacher !== "control") return;
  if (!control) {
    throw usageError("Cannot take the control as the teacher without a control: leave out --no-control");
  }
  if (distill === 0) {
    throw usageError("Cannot use --teacher control as nothing is learnt from it: give --distill 2");
  }
}

/** τ before any change of the slack: a loss that was given, or that of the yardstick with the slack. */
function targetOf({ targetLoss, slack }: SparsifySettings, yardstick: Evaluation): number {
  return typeof targetLoss === "number" ? targetLoss : yardstick.ce + slack;
}
