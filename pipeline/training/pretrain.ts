/**
 * Training from scratch by the same loop, dense or under the constraint from the start.
 *
 * @module
 */
import { elementsOf } from "../../kernels/core/tensor.ts";
import { usageError } from "../errors.ts";
import { evaluate } from "./evaluate.ts";
import { readMetrics } from "../runs/metrics.ts";
import { timeSpent } from "../runs/time_spent.ts";
import { prepareNetwork } from "../model/network.ts";
import { createParameters, uploadParameters } from "../model/parameters.ts";
import { saveModel } from "../model/save_weights.ts";
import { isFirst } from "../parallel/exchange.ts";
import type { PretrainSettings } from "../settings.ts";
import {
  collect,
  evaluationsAhead,
  gateObjective,
  type PreparedRun,
  type Reporter,
  runTrainedPhase,
  stageShapeOf,
  stepShapeOf,
  withWeights,
} from "./training_run.ts";
import type { Batch } from "../text/batches.ts";

/** The result of a run, as it stands in summary.json. */
export interface PretrainSummary {
  validation: { ce: number; tokens: number };
  test: {
    ce: number;
    perplexity: number;
    accuracy: number;
    exact_rows: number;
    open_fraction: number;
    tokens: number;
  };
  /** Of sparse pre-training, the step that was chosen, whether it meets the target, and this, nats. */
  constraint?: { step: number; feasible: boolean; target_loss: number };
  parameters: number;
  steps: number;
  /** Training tokens. */
  tokens: number;
  /** Wall time, seconds: of the process that ended it, and of earlier ones that of their steps but for what a kill lost. */
  seconds: number;
  adapter: string;
  seed: number;
}

/**
 * The loss that sparse pre-training has to stay at; undefined for dense.
 *
 * @throws {UserError} when it is to be sparse and no loss is given, or from some step on and not sparse
 */
export function sparseTarget(
  { sparse, targetLoss, sparseFrom }: Pick<PretrainSettings, "sparse" | "targetLoss" | "sparseFrom">,
): number | undefined {
  if (!sparse) {
    if (sparseFrom === 0) return undefined;
    throw usageError("Cannot use --sparse-from without --sparse");
  }
  if (targetLoss !== "auto") return targetLoss;
  throw usageError("Cannot train sparse from the start without a dense loss to stay at: give --target-loss");
}

/** Steps that are dense before the constraint is switched on. The last step at least is sparse. */
export function gatesFrom({ sparseFrom, steps }: Pick<PretrainSettings, "sparseFrom" | "steps">): number {
  return Math.min(Math.round(sparseFrom * steps), steps - 1);
}

/**
 * Runs, or goes on with, pre-training. The model is saved in the run's folder.
 *
 * @returns the summary, or undefined when the run was stopped with a checkpoint
 */
export async function pretrain(
  settings: PretrainSettings,
  run: PreparedRun,
  reporter: Reporter,
  signal: AbortSignal,
): Promise<PretrainSummary | undefined> {
  try {
    return await pretrainUnlessStopped(settings, run, reporter, signal);
  } catch (error) {
    if (signal.aborted && error === signal.reason) return undefined;
    throw error;
  }
}

/** As {@link pretrain}; a measurement that is stopped throws the signal's reason. */
async function pretrainUnlessStopped(
  settings: PretrainSettings,
  run: PreparedRun,
  reporter: Reporter,
  signal: AbortSignal,
): Promise<PretrainSummary | undefined> {
  const { gpu, config, weights, batch, exchange } = run;
  const { context, sparse } = settings;
  const started = performance.now();
  const before = isFirst(exchange) ? timeSpent(await readMetrics(run.folder.metrics)) : 0;
  const target = sparseTarget(settings);
  const from = gatesFrom(settings);
  const gates = sparse ? { ...gateObjective(settings), from } : undefined;
  reporter.activity({ name: "compiling kernels" });
  const network = await prepareNetwork(gpu, config, {
    batch: stepShapeOf(run, settings).batch,
    context,
    stage: stageShapeOf(run, settings),
    training: true,
    recompute: settings.recompute,
    half: settings.dtype === "f16",
    distancePower: settings.distancePower,
  });
  const all = network.model.parameters;
  const parameters = createParameters(gpu, network.stage.parameters);
  await uploadParameters(gpu, parameters, (name) => weights.read(name), all.map(({ name }) => name));
  const validation = await collect(run, "validation", { context, limit: settings.validationTokens });
  const test = await collect(run, "test", { context, limit: settings.evalTokens });
  const measure = (
    name: string,
    batches: Batch[],
    { keep = false, gated = sparse }: { keep?: boolean; gated?: boolean } = {},
  ) =>
    evaluate(gpu, network, parameters, {
      signal,
      exchange,
      onBatch: (done) => reporter.activity({ name, done, of: batches.length, work: "evaluation", keep }),
      mode: gated ? "deterministic" : "dense",
      gateBias: settings.gateBias,
      batches,
    });
  const done = run.resume.checkpoints.get("pretrain")?.step ?? 0;
  // An evaluation runs forward alone, which is a third of a step's work or less.
  const share = 1 / (3 * settings.accumulate);
  reporter.plan([
    { kind: "pretrain", units: settings.steps - done },
    {
      kind: "evaluation",
      units: (evaluationsAhead(settings, done) + 1) * validation.length + test.length,
      like: { kind: "pretrain", share },
    },
  ]);
  const outcome = await runTrainedPhase({
    run,
    settings,
    phase: "pretrain",
    network,
    parameters,
    reporter,
    signal,
    gates,
    constraint: target === undefined ? undefined : {
      every: settings.constraintEvery,
      probeAt: (n) => ({ batch: validation[n % validation.length], targetLoss: target }),
    },
    targetAt: target === undefined ? undefined : (step) => step < from ? undefined : target,
    evaluate: (done) =>
      measure("evaluating the model", validation, { keep: true, gated: sparse && done > from }),
  });
  if (!outcome) return undefined;
  const held = await measure("measuring the model on validation tokens", validation);
  const tested = await measure("measuring the model on test tokens", test);
  reporter.activity({ name: "saving the model" });
  await withWeights(run, network, parameters, async (read) => {
    await run.folder.check();
    await saveModel(run.folder.model, {
      config: sparse
        ? { ...config, gate: { bias: settings.gateBias, temperature: settings.temperature } }
        : config,
      tensors: all.map(({ name, shape }) => ({ name, shape, read: () => read(name) })),
      type: settings.saveType,
      tokenizer: run.tokenizerPath,
    });
  });
  return {
    validation: { ce: held.ce, tokens: held.tokens },
    test: {
      ce: tested.ce,
      perplexity: tested.perplexity,
      accuracy: tested.accuracy,
      exact_rows: tested.exactRows,
      open_fraction: tested.openFraction,
      tokens: tested.tokens,
    },
    ...(target === undefined
      ? {}
      : { constraint: { step: outcome.step, feasible: outcome.feasible, target_loss: target } }),
    parameters: all.reduce((sum, { shape }) => sum + elementsOf(shape), 0),
    steps: settings.steps,
    tokens: settings.steps * settings.accumulate * batch * context,
    seconds: before + (performance.now() - started) / 1000,
    adapter: gpu.adapter.name,
    seed: settings.seed,
  };
}
