/**
 * What every kind of training run shares: the optimiser's constants, a phase that can be killed and resumed to the same
 * bits, and the choice of the best step.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Batch, TokenSource } from "../text/batches.ts";
import { createBatches, sequentialBatches } from "../text/batches.ts";
import {
  checkpointPath,
  listCheckpoints,
  pruneCheckpoints,
  readCheckpoint,
  saveCheckpoint,
} from "../runs/checkpoint.ts";
import type { RunControl } from "../runs/control.ts";
import { atFirst, type Exchange, isFirst, sharersOf } from "../parallel/exchange.ts";
import { shareOfStep, type StepShape } from "../parallel/share_of_step.ts";
import { withHelp } from "../parallel/with_help.ts";
import { chooseStep, meeting } from "./choose_step.ts";
import type { Evaluation } from "./evaluate.ts";
import { type MetricRow, type MetricsFile, readMetrics } from "../runs/metrics.ts";
import type { ModelConfig } from "../model/config.ts";
import type { Network } from "../model/network.ts";
import { inFlightOf, type StageShape } from "../model/stage.ts";
import { createPace, type Parameters, type ParameterShape, readableParameters } from "../model/parameters.ts";
import type { WritableTensor } from "../model/safetensors.ts";
import {
  type Best,
  bestOf,
  bestStepsOf,
  frontOf,
  type ResumePoint,
  rowState,
  unevaluatedOf,
} from "../runs/resume.ts";
import type { RunFolder } from "../runs/run_folder.ts";
import type { RunStateFile } from "../runs/run_state.ts";
import type { HealthBounds } from "./signatures.ts";
import type { Moment } from "./moments.ts";
import { readAtFirst } from "./pipeline.ts";
import {
  createTrainer,
  type GateObjective,
  type MicroBatch,
  type Trainer,
  type TrainerOptions,
} from "./trainer.ts";
import type { Adaptation } from "./adaptation.ts";
import type { Work } from "./time_left.ts";
import { type PhaseOptions, runPhase } from "./train_loop.ts";

/** AdamW's constants (recipe: β 0.9 and 0.99). */
const BETAS = { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 };

/** Where the weights come from that a run begins with: a model folder, or a seed. */
export interface InitialWeights {
  readonly parameters: readonly ParameterShape[];
  read(name: string): Promise<Float32Array>;
  /** As `read`, by rank 0 alone, where several ranks read together. */
  readAlone?(name: string): Promise<Float32Array>;
}

/** A model as others call it: its folder, or its name and commit on the hub. */
export interface BaseModel {
  model: string;
  revision: string | undefined;
  /** Digest of its weights. */
  hash: string;
}

/** A run with its inputs open. */
export interface PreparedRun {
  /** The run's id. */
  id: string;
  gpu: Gpu;
  /**
   * The other ranks; rank 0 alone has data, and writes to the folder. Weights are then read at rank 0, for all. Left out:
   * there are none.
   */
  exchange?: Exchange;
  /** Rows of a micro-batch, chosen where the setting was `auto`. */
  batch: number;
  folder: RunFolder;
  config: ModelConfig;
  weights: InitialWeights;
  /** What of the model is trained; left out: all. */
  adaptation?: Adaptation;
  /** The model that adapters are trained beside. */
  base?: BaseModel;
  tokens: Record<"train" | "validation" | "test", TokenSource>;
  /** Path of the tokenizer.json that a saved model gets. */
  tokenizerPath: string;
  metrics: MetricsFile;
  /** Where to go on. */
  resume: ResumePoint;
  /** Wishes from outside. */
  control: RunControl;
  /** What others are told. */
  state: RunStateFile;
  /** Told what the run can go on from since it was saved. */
  onSaved?(what: string): void;
  /** Of a new run: removes what it has written, where it turns out before the first step that it cannot begin. */
  abandon?(): Promise<void>;
}

/** What is being done, and how far it is. */
export interface Activity {
  /** What is being done, such as `measuring the dense model`, or the name of a phase. */
  name: string;
  /** How much of it is done; left out where it cannot be counted. */
  done?: number;
  /** How much there is. */
  of?: number;
  /** Whether bytes are counted. */
  bytes?: boolean;
  /** The kind of planned work that is counted, for the time left. */
  work?: string;
  /** Whether it is worth waiting for: ending at once would lose what a checkpoint can keep. */
  keep?: boolean;
}

/** Evaluations of a phase from a step on. */
export function evaluationsAhead({ steps, evalEvery }: TrainingSettings, from: number): number {
  const at = (step: number): number =>
    Math.floor(step / evalEvery) + (step === steps && steps % evalEvery ? 1 : 0);
  return at(steps) - at(from);
}

/** Where a run says what it is doing. */
export interface Reporter {
  /** The work that lies ahead of the run, for the time left. */
  plan(work: readonly Work[]): void;
  /** What is being done, told again and again as it goes on. */
  activity(activity: Activity): void;
  /** What is being done. */
  message(text: string): void;
  /** A failure signature or another thing to look at. */
  warning(text: string): void;
  /** A step's metrics. */
  row(row: MetricRow, of: { steps: number }): void;
}

/** The settings that every training command has. */
export interface TrainingSettings {
  steps: number;
  accumulate: number;
  context: number;
  lr: number;
  embeddingRate: number;
  attentionRate: number;
  warmup: number;
  decay: number;
  weightDecay: number;
  clip: number;
  seed: number;
  evalEvery: number;
  checkpointEvery: number;
  keepCheckpoints: number;
  /** Whether each rank keeps AdamW's moments of its share alone. */
  shardOptimizer: boolean;
}

/** The settings of gates and of the constraint, as flags give them. */
export interface ConstraintSettings {
  gateBias: number;
  temperature: number;
  saturationWeight: number;
  saturationBound: number;
  lambdaStart: number;
  constraintScale: number;
  average: number;
  lambdaRate: number;
  lambdaGain: number;
  lambdaMin: number;
  lambdaMax: number;
}

/** The objective that the settings describe. */
export function gateObjective(settings: ConstraintSettings): GateObjective {
  return {
    bias: settings.gateBias,
    temperature: settings.temperature,
    saturationWeight: settings.saturationWeight,
    saturationBound: settings.saturationBound,
    lambdaStart: settings.lambdaStart,
    geco: {
      scale: settings.constraintScale,
      alpha: settings.average,
      rate: settings.lambdaRate,
      gain: settings.lambdaGain,
      lowest: settings.lambdaMin,
      highest: settings.lambdaMax,
    },
  };
}

/**
 * What a phase's failure signatures are told by.
 *
 * @param vocabularySize left out: its loss is no cross-entropy that guessing bounds
 */
export function healthBounds(
  { steps, warmup, decay }: Pick<TrainingSettings, "steps" | "warmup" | "decay">,
  gates: GateObjective | undefined,
  vocabularySize?: number,
): HealthBounds {
  const { lowest: lambdaMin = 0, highest: lambdaMax = Infinity } = gates?.geco ?? {};
  const guessing = vocabularySize === undefined ? undefined : Math.log(vocabularySize);
  return { steps, warmup, decay, lambdaMin, lambdaMax, guessing };
}

/** One phase of a run. */
export interface TrainedPhase {
  run: PreparedRun;
  settings: TrainingSettings;
  phase: MetricRow["phase"];
  network: Network;
  /** The weights to start from; holds the chosen weights afterwards. */
  parameters: Parameters;
  reporter: Reporter;
  signal: AbortSignal;
  /** On validation tokens, after so many steps. */
  evaluate(done: number): Promise<Evaluation>;
  gates?: GateObjective;
  distill?: TrainerOptions["distill"];
  constraint?: PhaseOptions["constraint"];
  /** Makes the micro-batch of a position with the weights as they are then; left out: from the training tokens. */
  batchAt?(position: number, trainer: Trainer): Promise<MicroBatch>;
  /** What of an evaluation is held against the target, of which less is better; left out: its cross-entropy. */
  held?(evaluation: Evaluation): number;
  /**
   * τ before step `step`, counted from 0: with it, the step with the fewest open edges among those at or below τ is
   * chosen, else the last. Undefined for steps that are not to be chosen, as they have no gates yet.
   */
  targetAt?(step: number): number | undefined;
  /**
   * Of a front, how far above `targetAt` the targets of its levels lie, ascending from 0, that of `targetAt` itself: the best
   * step of each is kept. `levelAt` is the level that is trained for in step `step`, counted from 0.
   */
  front?: { levels: readonly number[]; levelAt(step: number): number };
}

/** What a phase came to. */
export interface PhaseOutcome {
  /** The step that was chosen. */
  step: number;
  /** Whether it meets the target. */
  feasible: boolean;
  /** Of a front, the best step of each level behind the first. */
  front: readonly (Best | null)[];
}

/** The evaluation batches of a split, held in memory. */
export async function collect(
  { tokens, batch, exchange }: Pick<PreparedRun, "tokens" | "batch" | "exchange">,
  split: "validation" | "test",
  options: { context: number; limit: number },
): Promise<Batch[]> {
  return await atFirst(
    exchange,
    () => Array.fromAsync(sequentialBatches({ tokens: tokens[split], batch, ...options })),
  );
}

/** The micro-batches of a run's steps, which its ranks share. */
export function stepShapeOf(
  { batch, exchange }: Pick<PreparedRun, "batch" | "exchange">,
  { accumulate }: Pick<TrainingSettings, "accumulate">,
): StepShape {
  return shareOfStep({ batch, accumulate }, sharersOf(exchange).size);
}

/** This rank's stage of the model in training; undefined where it has all layers. */
export function stageShapeOf(
  run: Pick<PreparedRun, "batch" | "exchange">,
  settings: Pick<TrainingSettings, "accumulate">,
): StageShape | undefined {
  const stages = run.exchange?.stages;
  if (!stages) return undefined;
  const { index, count, pipelines } = stages;
  const microBatches = stepShapeOf(run, settings).accumulate / pipelines;
  return { index, count, inFlight: inFlightOf({ index, count }, microBatches) };
}

/**
 * Trains from the phase's last checkpoint, or from the beginning.
 *
 * @returns what it came to, or undefined when the run was stopped
 */
export async function runTrainedPhase(options: TrainedPhase): Promise<PhaseOutcome | undefined> {
  const { run, settings, phase, network, parameters, reporter, targetAt } = options;
  const { levels = [0], levelAt = () => 0 } = options.front ?? {};
  const { gpu, folder, metrics, exchange } = run;
  const { context, steps } = settings;
  const { batch, accumulate } = stepShapeOf(run, settings);
  await run.state.set({ state: "training", phase });
  const trainer = await createTrainer(gpu, {
    network,
    parameters,
    seed: settings.seed,
    accumulate,
    exchange,
    shardOptimizer: settings.shardOptimizer,
    gates: options.gates,
    distill: options.distill,
    optimiser: { ...BETAS, weightDecay: settings.weightDecay, clip: settings.clip },
    rates: { embedding: settings.embeddingRate, attention: settings.attentionRate },
  });
  try {
    /** The best step of each level; the first is that of the target. */
    let best: readonly (Best | undefined)[] = [];
    let startStep = 0;
    const checkpoint = run.resume.checkpoints.get(phase);
    const latest = await atFirst(exchange, () =>
      checkpoint && {
        step: checkpoint.step,
        best: [bestOf(checkpoint), ...frontOf(checkpoint).map((level) => level ?? undefined)],
        unevaluated: unevaluatedOf(checkpoint),
      });
    if (latest) {
      await restore(
        gpu,
        trainer,
        (name, shape) => atFirst(exchange, () => checkpoint!.read(name, shape)),
      );
      startStep = latest.step;
      best = latest.best;
      reporter.message(`resuming the ${phase} phase after step ${startStep}`);
    }
    const batches = isFirst(exchange) && !options.batchAt
      ? createBatches({
        tokens: run.tokens.train,
        batch,
        context,
        seed: settings.seed,
        rows: steps * accumulate * batch,
      })
      : undefined;
    const { layers, heads } = network.config;
    const { finished } = await runPhase({
      phase,
      trainer,
      exchange,
      startStep,
      schedule: { peak: settings.lr, warmup: settings.warmup, decay: settings.decay, steps },
      accumulate,
      microBatchTokens: batch * context,
      batchAt: (position) => options.batchAt ? options.batchAt(position, trainer) : batches!.at(position),
      edges: layers * heads * accumulate * batch * context * (context + 1) / 2,
      gatedFrom: options.gates && (options.gates.from ?? 0),
      constraint: options.constraint,
      targetAt: targetAt && ((step) => {
        const target = targetAt(step);
        return target === undefined ? undefined : target + levels[levelAt(step)];
      }),
      control: run.control,
      health: healthBounds(
        settings,
        options.gates,
        options.held ? undefined : network.config.vocabularySize,
      ),
      earlierRows: isFirst(exchange)
        ? (await readMetrics(folder.metrics)).filter((row) => row.phase === phase)
        : [],
      signal: options.signal,
      unevaluated: latest?.unevaluated,
      onStep(done) {
        // Of the first step nothing is lost, and it may take as long as compiling does.
        reporter.activity({ name: phase, done, of: steps, work: phase, keep: done > startStep });
      },
      async onRows(rows) {
        await metrics.append(rows);
        for (const row of rows) reporter.row(row, { steps });
      },
      onSignature(signature) {
        reporter.warning(signature.message);
      },
      evaluation: { every: settings.evalEvery, run: options.evaluate },
      onEvaluation(step, evaluation) {
        return withTensors(exchange, trainer, async (tensorsOf) => {
          const target = targetAt?.(step - 1);
          if (target === undefined) return;
          const { ce, openFraction } = evaluation;
          const evaluated = { step, ce: options.held?.(evaluation) ?? ce, openFraction };
          best = levels.map((above, level) => chooseStep(best[level], evaluated, target + above));
          if (best.some((chosen) => chosen?.step === step)) {
            await folder.check();
            await saveCheckpoint(
              folder.checkpoints,
              { run: run.id, step, phase: `${phase}-best`, state: {} },
              tensorsOf("weight"),
            );
          }
        });
      },
      checkpoint: {
        every: settings.checkpointEvery,
        save(step, unevaluated) {
          return withTensors(exchange, trainer, async (tensorsOf) => {
            reporter.activity({ name: `saving step ${step}`, keep: true });
            await folder.check();
            // After a power cut no checkpoint is ahead of the rows.
            await metrics.sync();
            await saveCheckpoint(folder.checkpoints, {
              run: run.id,
              step,
              phase,
              state: {
                best: best[0] ?? null,
                ...(levels.length > 1 ? { front: levels.slice(1).map((_, n) => best[n + 1] ?? null) } : {}),
                ...(unevaluated ? { unevaluated: rowState(unevaluated) } : {}),
              },
            }, [
              ...tensorsOf("weight"),
              ...tensorsOf("first"),
              ...tensorsOf("second"),
              ...readableParameters(gpu, trainer.controller, "controller."),
            ]);
            await prune(folder.checkpoints, phase, settings.keepCheckpoints);
            run.onSaved?.(`step ${step} of the ${phase} phase`);
            reporter.activity({ name: phase, done: step, of: steps, work: phase, keep: true });
          });
        },
      },
    });
    if (!finished) return undefined;
    const { chosenStep, front } = await atFirst(exchange, () => {
      // A target that was lowered once the phase was at its end was held against no evaluation.
      const target = targetAt?.(steps - 1) ?? Infinity;
      const met = levels.map((above, level) => meeting(best[level], target + above));
      return { chosenStep: met[0]?.step, front: met.slice(1).map((level) => level ?? null) };
    });
    if (chosenStep === undefined) return { step: steps, feasible: targetAt === undefined, front };
    await loadStep(run, network, parameters, { phase: `${phase}-best`, step: chosenStep });
    return { step: chosenStep, feasible: true, front };
  } finally {
    trainer.destroy();
  }
}

/**
 * What rank 0 does with all that is trained, which it may not have alone; a call of all ranks.
 *
 * @param work is given what can be written to a file, of the weights or a moment
 */
function withTensors(
  exchange: Exchange | undefined,
  trainer: Trainer,
  work: (tensorsOf: (of: "weight" | Moment) => WritableTensor[]) => Promise<void>,
): Promise<void> {
  type Asked = { of: "weight" | Moment; name: string };
  const help = ({ of, name }: Asked): Promise<Float32Array> => trainer.read(of, name);
  return withHelp(exchange, help, async (ask) => {
    const read = trainer.isSpread ? ask : help;
    await work((of) =>
      trainer.trained.map(({ name, shape }) => ({
        name: `${of}.${name}`,
        shape: [...shape],
        read: () => read({ of, name }),
      }))
    );
  });
}

/**
 * What rank 0 does with a model's weights, which it may not have alone; a call of all ranks.
 *
 * @param work is given what reads those that are trained
 */
export function withWeights(
  { gpu, exchange }: Pick<PreparedRun, "gpu" | "exchange">,
  { model }: Pick<Network, "model">,
  parameters: Parameters,
  work: (read: (name: string) => Promise<Float32Array>) => Promise<void>,
): Promise<void> {
  const stages = exchange?.stages;
  const help = (name: string): Promise<Float32Array> =>
    readAtFirst(model, stages, name, () => gpu.read(parameters.get(name)!));
  return withHelp(exchange, help, (ask) => work(stages ? ask : help));
}

/** Takes what is trained to what a checkpoint of the run holds, at every rank. */
export async function loadStep(
  { gpu, folder, exchange }: Pick<PreparedRun, "gpu" | "folder" | "exchange">,
  { model }: Pick<Network, "model">,
  parameters: Parameters,
  of: { phase: string; step: number },
): Promise<void> {
  const chosen = isFirst(exchange) ? await readCheckpoint(checkpointPath(folder.checkpoints, of)) : undefined;
  const pace = createPace(gpu);
  for (const { name, shape } of model.parameters.filter(({ trainable }) => trainable)) {
    const values = await atFirst(exchange, () => chosen!.read(`weight.${name}`, shape));
    const tensor = parameters.get(name);
    if (tensor) gpu.write(tensor, values);
    await pace(values.byteLength);
  }
}

async function restore(
  gpu: Gpu,
  trainer: Trainer,
  read: (name: string, shape: readonly number[]) => Float32Array | Promise<Float32Array>,
): Promise<void> {
  const pace = createPace(gpu);
  for (const kind of ["weight", "first", "second"] as const) {
    for (const { name, shape } of trainer.trained) {
      const values = await read(`${kind}.${name}`, shape);
      trainer.write(kind, name, values);
      await pace(values.byteLength);
    }
  }
  for (const [name, tensor] of trainer.controller) {
    gpu.write(tensor, await read(`controller.${name}`, tensor.shape));
  }
}

/**
 * Keeps the phase's last checkpoints, the best steps that they name, and other phases' last ones.
 */
async function prune(folder: string, phase: string, keepLast: number): Promise<void> {
  const { checkpoints } = await listCheckpoints(folder);
  const kept = checkpoints.filter((entry) => entry.phase === phase).slice(-keepLast);
  const keep = new Set(kept.map((entry) => entry.path));
  const bestSteps = new Set<number>();
  for (const { path } of kept) {
    for (const step of bestStepsOf(await readCheckpoint(path))) bestSteps.add(step);
  }
  for (const entry of checkpoints) {
    const ofThisPhase = entry.phase === phase || entry.phase === `${phase}-best`;
    if (!ofThisPhase || (entry.phase === `${phase}-best` && bestSteps.has(entry.step))) keep.add(entry.path);
  }
  await pruneCheckpoints(folder, keep);
}
