/**
 * Sparse post-training from end to end: load the weights, measure the dense model, train it under the constraint,
 * choose the sparsest model that meets it, train the dense control, measure all three on tokens that were used for
 * nothing else, and save.
 *
 * The data is cut in three by document: the model learns from `train`; the constraint is measured and the best step is
 * chosen on `validation`; what is reported comes from `test`.
 *
 * The constraint is measured batch by batch against the dense model's loss on the same batch, so that what one batch
 * is harder than another by (ten times the slack) does not drown it.
 *
 * @module
 */
import { evaluate, type Evaluation, type EvaluationBatch } from "./evaluate.ts";
import { readMetrics } from "../runs/metrics.ts";
import { prepareNetwork } from "../model/network.ts";
import {
  createParameters,
  destroyParameters,
  type Parameters,
  readableParameters,
  uploadParameters,
} from "../model/parameters.ts";
import { saveModel } from "../model/save_weights.ts";
import { atFirst, isFirst } from "../parallel/exchange.ts";
import type { SparsifySettings } from "../settings.ts";
import type { Work } from "./time_left.ts";
import { signaturesOf } from "./signatures.ts";
import {
  collect,
  evaluationsAhead,
  gateObjective,
  healthBounds,
  type PreparedRun,
  type Reporter,
  runTrainedPhase,
  stepShapeOf,
} from "./training_run.ts";

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
  /** Wall time of this process, seconds. */
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

/** Until it is measured, what a step costs beside batches of an evaluation: each forward and twice as much backward. */
const stepShare = ({ accumulate }: SparsifySettings): number => 3 * accumulate + 2;
/**
 * Until it is measured, what a step of the control costs beside one with gates, noise and the constraint. Of the embedded
 * model on llvmpipe 200 of either take 91 seconds.
 */
const CONTROL_SHARE = 1;

/** As {@link sparsify}; a measurement that is stopped throws the signal's reason. */
async function sparsifyUnlessStopped(
  settings: SparsifySettings,
  run: PreparedRun,
  reporter: Reporter,
  signal: AbortSignal,
): Promise<SparsifySummary | undefined> {
  const { gpu, config, weights, batch, exchange } = run;
  const started = performance.now();
  const { context } = settings;
  const gates = gateObjective(settings);
  reporter.stage({ name: "compiling kernels" });
  const network = await prepareNetwork(gpu, config, {
    batch: stepShapeOf(run, settings).batch,
    context,
    training: true,
    distill: settings.distill > 0,
    recompute: settings.recompute,
    half: settings.dtype === "f16",
  });
  const parameters = createParameters(gpu, weights.parameters);
  const loadDense = (target: Parameters): Promise<void> =>
    uploadParameters(gpu, target, (name) => weights.read(name));
  await loadDense(parameters);

  const validation = await collect(run, "validation", { context, limit: settings.validationTokens });
  const test = await collect(run, "test", { context, limit: settings.evalTokens });
  const measure = (
    name: string,
    mode: "dense" | "deterministic",
    batches: EvaluationBatch[],
    { of = parameters, keep = false }: { of?: Parameters; keep?: boolean } = {},
  ): Promise<Evaluation> =>
    evaluate(gpu, network, of, {
      mode,
      gateBias: gates.bias,
      batches,
      signal,
      exchange,
      onBatch: (done) => reporter.stage({ name, done, of: batches.length, work: "evaluation", keep }),
    });
  reporter.plan(workAhead(settings, run, { validation: validation.length, test: test.length }));
  const denseValidation = await measure("measuring the dense model", "dense", validation);
  const target = settings.targetLoss === "auto" ? denseValidation.ce + settings.slack : settings.targetLoss;
  const targetAt = (step: number): number => {
    const slack = run.control.slackAt("sparse", step);
    return slack === undefined ? target : denseValidation.ce + slack;
  };
  reporter.message(
    `dense loss ${denseValidation.ce.toFixed(4)} on ${denseValidation.tokens} validation tokens; ` +
      `target ${target.toFixed(4)}`,
  );

  const teacher = settings.distill > 0 ? createParameters(gpu, weights.parameters, "teacher's ") : undefined;
  if (teacher) await loadDense(teacher);
  const shared = { run, settings, network, parameters, reporter, signal };
  const outcome = await runTrainedPhase({
    ...shared,
    phase: "sparse",
    gates,
    distill: teacher && { teacher, weight: settings.distill },
    constraint: {
      every: settings.constraintEvery,
      probeAt: (n, step) => {
        const index = n % validation.length;
        const offset = targetAt(step) - denseValidation.ce;
        return { batch: validation[index], targetLoss: denseValidation.batchCe[index] + offset };
      },
    },
    targetAt,
    evaluate: () => measure("evaluating the sparse model", "deterministic", validation, { keep: true }),
  });
  if (teacher) destroyParameters(gpu, teacher);
  if (!outcome) return undefined;

  // The test tokens are first looked at here, after the step has been chosen.
  const sparse = await measure("measuring the sparse model on test tokens", "deterministic", test);
  // Gradients and moments have been freed: there is room for the dense weights beside the sparse ones.
  const denseWeights = createParameters(gpu, weights.parameters, "dense ");
  await loadDense(denseWeights);
  const dense = await measure("measuring the dense model on test tokens", "dense", test, {
    of: denseWeights,
  });
  destroyParameters(gpu, denseWeights);
  reporter.stage({ name: "saving the model" });
  await atFirst(exchange, () =>
    saveModel(run.folder.model, {
      config: { ...config, gate: { bias: gates.bias, temperature: gates.temperature } },
      tensors: readableParameters(gpu, parameters),
      type: settings.saveType,
      tokenizer: run.tokenizerPath,
      sparseAttention: { open_fraction: sparse.openFraction, test_ce: sparse.ce, dense_test_ce: dense.ce },
    }));

  let control: Evaluation | undefined;
  if (settings.control) {
    await loadDense(parameters);
    const finished = await runTrainedPhase({
      ...shared,
      phase: "control",
      evaluate: () => measure("evaluating the control", "dense", validation, { keep: true }),
    });
    if (!finished) return undefined;
    control = await measure("measuring the control on test tokens", "dense", test);
  }

  // Rank 0 alone has rows, and tells of the run.
  const rows = isFirst(exchange) ? await readMetrics(run.folder.metrics) : [];
  const sparseRows = rows.filter((row) => row.phase === "sparse");
  const signatures = signaturesOf(sparseRows, healthBounds(settings, gates)).map(({ message }) => message);
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
    heads: config.layers * config.heads,
    target_loss: targetAt(settings.steps - 1),
    dense_validation_ce: denseValidation.ce,
    validation_tokens: denseValidation.tokens,
    test_tokens: dense.tokens,
    steps: settings.steps,
    tokens: settings.steps * settings.accumulate * batch * context,
    seconds: (performance.now() - started) / 1000,
    adapter: gpu.adapter.name,
    seed: settings.seed,
    model: settings.model,
    signatures,
  };
}

/**
 * What a run has ahead from where it goes on: the dense model measured, the phases with their evaluations, and all models
 * on test tokens.
 *
 * @param batches of each held-out split
 */
export function workAhead(
  settings: SparsifySettings,
  { resume }: Pick<PreparedRun, "resume">,
  batches: { validation: number; test: number },
): Work[] {
  const phases = settings.control ? ["sparse", "control"] as const : ["sparse"] as const;
  const work: Work[] = [{
    kind: "evaluation",
    units: batches.validation + (1 + phases.length) * batches.test,
  }];
  for (const phase of phases) {
    const from = resume.checkpoints.get(phase)?.step ?? 0;
    const like = phase === "control"
      ? { kind: "sparse", share: CONTROL_SHARE }
      : { kind: "evaluation", share: stepShare(settings) };
    work.push({ kind: phase, units: settings.steps - from, like });
    work.push({ kind: "evaluation", units: evaluationsAhead(settings, from) * batches.validation });
  }
  return work;
}
