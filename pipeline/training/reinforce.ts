/**
 * Reinforcement learning by the loop of all training: completions of a batch of prompts are drawn through the gates of the
 * step, rewarded where they are the right ones, and weighed in the loss by their advantages; the multiplier follows the
 * reward in place of the loss.
 *
 *     objective = [E + ρ R − λ mean A log π] / (1 + λ)     subject to   mean reward ≥ τ
 *
 * @module
 */
import { randomStream } from "../../kernels/core/random.ts";
import { type Network, prepareNetwork } from "../model/network.ts";
import {
  createParameters,
  destroyParameters,
  type Parameters,
  readableParameters,
  uploadParameters,
} from "../model/parameters.ts";
import { saveModel } from "../model/save_weights.ts";
import { type Batch, createBatches } from "../text/batches.ts";
import { advantagesOf, type Algorithm } from "./advantages.ts";
import { evaluate, type Evaluation } from "./evaluate.ts";
import { measurePolicy, type Policy } from "./policy.ts";
import { rollOut } from "./roll_out.ts";
import type { MicroBatch, Trainer } from "./trainer.ts";
import {
  collect,
  type ConstraintSettings,
  gateObjective,
  type PreparedRun,
  type Reporter,
  runTrainedPhase,
  type TrainingSettings,
} from "./training_run.ts";

/** How a policy is trained. */
export interface ReinforceSettings extends TrainingSettings, ConstraintSettings {
  algorithm: Algorithm;
  /** Samples of a prompt; divides the rows of a micro-batch. */
  group: number;
  /** How gates are used while completions are drawn: with the noise of the training pass, or open or closed, without. */
  drawThrough: "noise" | "hard";
  /** τ that the mean reward is held to; null: dense, with no gates and no constraint. */
  targetReward: number | null;
  validationTokens: number;
  evalTokens: number;
}

/** The result of a run, as it stands in summary.json. */
export interface ReinforceSummary {
  /** On test rows, with gates open or closed. */
  test: {
    /** Share of rows answered rightly, always taking the likeliest token. */
    exact_rows: number;
    /** Expected reward at temperature 1. */
    reward: number;
    /** Nats a token. */
    entropy: number;
    /** KL to the policy that the run began with, nats a token. */
    kl_start: number;
    open_fraction: number;
    edges_per_query: number;
    live_heads: number;
  };
  /** On validation rows. */
  validation: { exact_rows: number; reward: number };
  /** The same of the policy that it began with. */
  start: { exact_rows: number; reward: number };
  /** The step that was chosen, and whether its expected reward on validation rows is τ or more; null of a dense run. */
  constraint: { step: number; feasible: boolean; target_reward: number } | null;
  heads: number;
  steps: number;
  /** Completions that were drawn. */
  samples: number;
  adapter: string;
  seed: number;
}

/** Keys the numbers that tokens are drawn by, beside the seed. */
const DRAWS = 0x5a3d;

/**
 * Runs, or goes on with, reinforcement learning from the run's weights. The model is saved in the run's folder.
 *
 * @returns the summary, or undefined when the run was stopped with a checkpoint
 * @throws {RangeError} where the rows of a micro-batch are no multiple of the group
 */
export async function reinforce(
  settings: ReinforceSettings,
  run: PreparedRun,
  reporter: Reporter,
  signal: AbortSignal,
): Promise<ReinforceSummary | undefined> {
  try {
    return await reinforceUnlessStopped(settings, run, reporter, signal);
  } catch (error) {
    if (signal.aborted && error === signal.reason) return undefined;
    throw error;
  }
}

/** As {@link reinforce}; a measurement that is stopped throws the signal's reason. */
async function reinforceUnlessStopped(
  settings: ReinforceSettings,
  run: PreparedRun,
  reporter: Reporter,
  signal: AbortSignal,
): Promise<ReinforceSummary | undefined> {
  const { gpu, config, weights, batch } = run;
  const { context, group, steps, accumulate, seed, targetReward } = settings;
  if (batch % group !== 0) {
    throw new RangeError(
      `Cannot draw groups of ${group} in micro-batches of ${batch} rows as these must be a multiple`,
    );
  }
  const gates = targetReward === null ? undefined : gateObjective(settings);
  const network = await prepareNetwork(gpu, config, { batch, context, training: true, weighted: true });
  const parameters = createParameters(gpu, weights.parameters);
  await uploadParameters(gpu, parameters, (name) => weights.read(name));
  const validation = await collect(run, "validation", { context, limit: settings.validationTokens });
  const test = await collect(run, "test", { context, limit: settings.evalTokens });
  const mode = gates ? "deterministic" : "dense";
  const measure = (batches: Batch[], as: Policy["mode"]): Promise<Evaluation> =>
    evaluate(gpu, network, parameters, { mode: as, gateBias: settings.gateBias, batches, signal });
  const start = await measure(validation, "dense");
  const { batchAt, reward } = createRollOuts(settings, run, { network, parameters });
  const outcome = await runTrainedPhase({
    run,
    settings,
    phase: gates ? "sparse" : "control",
    network,
    parameters,
    reporter,
    signal,
    gates,
    batchAt,
    ...(targetReward === null ? {} : {
      // The share of wrong answers takes the place of the loss.
      constraint: { every: 1, probeAt: () => ({ measured: 1 - reward(), target: 1 - targetReward }) },
      targetAt: () => 1 - targetReward,
      held: ({ expectedExact }) => 1 - expectedExact,
    }),
    evaluate: () => measure(validation, mode),
  });
  if (!outcome) return undefined;
  const held = await measure(validation, mode);
  const tested = await measure(test, mode);
  const began = createParameters(gpu, weights.parameters, "first ");
  await uploadParameters(gpu, began, (name) => weights.read(name));
  // The gates are those that the evaluation configured.
  const policy = await measurePolicy(gpu, network, test, { parameters, mode }, {
    parameters: began,
    mode: "dense",
  });
  destroyParameters(gpu, began);
  await saveModel(run.folder.model, {
    config: gates ? { ...config, gate: { bias: gates.bias, temperature: gates.temperature } } : config,
    tensors: readableParameters(gpu, parameters),
    type: "F32",
    tokenizer: run.tokenizerPath,
  });
  return {
    test: {
      exact_rows: tested.exactRows,
      reward: tested.expectedExact,
      entropy: policy.entropy,
      kl_start: policy.divergence,
      open_fraction: tested.openFraction,
      edges_per_query: tested.edgesPerQuery,
      live_heads: tested.liveHeads,
    },
    validation: { exact_rows: held.exactRows, reward: held.expectedExact },
    start: { exact_rows: start.exactRows, reward: start.expectedExact },
    constraint: targetReward === null
      ? null
      : { step: outcome.step, feasible: outcome.feasible, target_reward: targetReward },
    heads: config.layers * config.heads,
    steps,
    samples: steps * accumulate * batch,
    adapter: gpu.adapter.name,
    seed,
  };
}

/** Rows of prompts, each as often as a group has samples, one behind the other. */
export function repeatRows({ inputs, targets }: Batch, group: number, context: number): MicroBatch {
  const repeat = (values: Uint32Array): Uint32Array =>
    Uint32Array.from(
      { length: group * values.length },
      (_, at) => values[Math.floor(at / (group * context)) * context + at % context],
    );
  return { inputs: repeat(inputs), targets: repeat(targets) };
}

/**
 * The micro-batches of a run: what is drawn for its prompts, weighed by advantages. `reward` is the mean of those of the step
 * that was drawn for last.
 */
function createRollOuts(
  settings: ReinforceSettings,
  { gpu, batch, tokens }: PreparedRun,
  { network, parameters }: { network: Network; parameters: Parameters },
): { batchAt(position: number, trainer: Trainer): Promise<MicroBatch>; reward(): number } {
  const { group, context, steps, accumulate, seed, targetReward, drawThrough } = settings;
  const prompts = createBatches({
    tokens: tokens.train,
    batch: batch / group,
    context,
    seed,
    rows: steps * accumulate * batch / group,
  });
  const mode = targetReward === null ? "dense" : drawThrough === "hard" ? "deterministic" : "sampled";
  let rewards: number[] = [];
  return {
    reward: () => rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length,
    async batchAt(position, trainer) {
      const [step, microBatch] = [Math.floor(position / accumulate), position % accumulate];
      if (microBatch === 0) rewards = [];
      const rows = repeatRows(await prompts.at(position), group, context);
      trainer.configureGates(step, microBatch);
      const drawn = await rollOut(gpu, network, parameters, rows, {
        mode,
        random: (row) => randomStream(seed, DRAWS, step, microBatch * batch + row),
      });
      rewards.push(...drawn.rewards);
      const advantages = advantagesOf(drawn.rewards, settings);
      const { inputs, targets } = drawn;
      const weights = Float32Array.from(targets, (_, at) => advantages[Math.floor(at / context)]);
      return { inputs, targets, weights };
    },
  };
}
