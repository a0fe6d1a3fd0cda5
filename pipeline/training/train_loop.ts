/**
 * One phase of a run, step by step: batches in, metric rows out, with measurements of the constraint, evaluations and
 * checkpoints on their schedules. Sparse training, its dense control and pre-training are all this loop.
 *
 * @module
 */
import { HEAD_SUMS } from "../../kernels/gated_attention/op.ts";
import type { RunControl } from "../runs/control.ts";
import { DivergedError } from "../errors.ts";
import { atFirst, type Exchange, isFirst } from "../parallel/exchange.ts";
import type { Evaluation } from "./evaluate.ts";
import { HEAD_SNAPSHOTS, type MetricRow } from "../runs/metrics.ts";
import { learningRate, type LearningRateSchedule } from "./learning_rate.ts";
import {
  AGAINST_DIVERGENCE,
  createHealthWatch,
  type HealthBounds,
  healthSample,
  type Signature,
  tellsDivergence,
} from "./signatures.ts";
import type { MicroBatch, StepLog, Trainer } from "./trainer.ts";
import { turn } from "../turn.ts";

/** Steps with a non-finite gradient, in a row, after which a run stops. */
const SKIPPED_STEPS_ALLOWED = 5;

/**
 * What the constraint is measured by: a batch whose cross-entropy is held against a target, or what was measured elsewhere
 * and the target that it is held against.
 */
export type Probe =
  | { batch: MicroBatch; targetLoss: number }
  | { measured: number; target: number };

/** What one phase is made of. */
export interface PhaseOptions {
  phase: MetricRow["phase"];
  trainer: Trainer;
  /** Steps done before, by an earlier process. */
  startStep: number;
  schedule: LearningRateSchedule;
  /**
   * The other ranks: rank 0 gives batches and measurements of the constraint out, and alone is told rows and follows wishes. `signal` is then the exchange's.
   */
  exchange?: Exchange;
  /** Micro-batches of each step, those of all ranks, in order of position. */
  accumulate: number;
  /** Tokens of one micro-batch. */
  microBatchTokens: number;
  batchAt(position: number): MicroBatch | Promise<MicroBatch>;
  /** Layers × heads × causal pairs × batch rows of one step: what head sums are divided by. */
  edges: number;
  /** The step, counted from 0, with which gates begin to be trained; left out: never. */
  gatedFrom?: number;
  /**
   * The constraint's measurements: `probeAt(n, step)` is the n-th probe, before step `step` counted from 0 and after its
   * batches were made, with its own target. There is none before gates are trained.
   */
  constraint?: { every: number; probeAt(n: number, step: number): Probe };
  /** τ on all validation tokens, before step `step` counted from 0; undefined where there is none yet. */
  targetAt?(step: number): number | undefined;
  /** Wishes from outside. */
  control?: RunControl;
  /** Evaluates on validation tokens every so many steps and after the last; `done` are the steps before it. */
  evaluation: { every: number; run(done: number): Promise<Evaluation> };
  /**
   * Saves the step that is done, as a call of all ranks; `unevaluated` is its row where it was stopped before it could be
   * evaluated, which then has not been given to `onRows`.
   */
  checkpoint: { every: number; save(step: number, unevaluated?: MetricRow): Promise<void> };
  /** The row of step `startStep` where an earlier process was stopped before it had evaluated it. */
  unevaluated?: MetricRow;
  /** Called before the first step and after each with the steps done. */
  onStep?(done: number): void;
  health: HealthBounds;
  /** Rows of this phase that an earlier process wrote. */
  earlierRows: readonly MetricRow[];
  /** Called with the rows of finished steps, in order. */
  onRows(rows: MetricRow[]): void | Promise<void>;
  /** A call of all ranks. */
  onEvaluation(step: number, evaluation: Evaluation): void | Promise<void>;
  onSignature(signature: Signature): void;
  /**
   * Aborted to end the phase after the step under way, with a checkpoint; `evaluation.run` must then throw its reason. Before
   * the first step nothing is saved.
   */
  signal: AbortSignal;
}

type LoggedSteps = Awaited<ReturnType<StepLog["poll"]>>;

/**
 * Runs the phase from `startStep` to the schedule's end.
 *
 * @returns whether it came to the end rather than being stopped
 * @throws {DivergedError} after several steps in a row whose gradient was not finite, or an evaluation whose loss is not
 */
export async function runPhase(options: PhaseOptions): Promise<{ finished: boolean }> {
  const { trainer, schedule, accumulate, constraint, evaluation, checkpoint, control, signal } = options;
  const { exchange } = options;
  const { log } = trainer;
  const watch = createHealthWatch(options.health);
  let ranAway = false;
  function signaturesOf(row: MetricRow): Signature[] {
    const found = watch(healthSample(row));
    ranAway ||= found.some(({ message }) => tellsDivergence(message));
    return found;
  }
  for (const row of options.earlierRows) signaturesOf(row);
  const evaluations = new Map<number, Evaluation>();
  const started = performance.now();
  const elapsed = (): number => (performance.now() - started) / 1000;
  /** When the steps began whose rows come next. */
  let since = 0;
  /** When each step had been submitted, of those whose rows have not come. */
  const submitted = new Map<number, number>();
  let skippedInARow = 0;

  /**
   * Rows that were read at once: each has an even share of the time since the ones before, evaluations and saving apart.
   *
   * @param ended when the last of them had been computed; where it is not known, as rows come later, when it was submitted
   */
  const rowsOf = (
    logged: LoggedSteps,
    ended = submitted.get(logged.at(-1)?.step ?? -1) ?? since,
  ): MetricRow[] => {
    const of = logged.length;
    const rows = logged.map((entry, n) => {
      submitted.delete(entry.step);
      const seconds = since + (n + 1) / of * (ended - since);
      return metricRow(options, entry, evaluations.get(entry.step + 1), seconds);
    });
    if (of > 0) since = ended;
    return rows;
  };

  const diverged = (step: number, why: string): DivergedError =>
    new DivergedError(
      `Cannot go on at step ${step} of the ${options.phase} phase as ${why}${
        ranAway
          ? `, and the loss had run away before. ${AGAINST_DIVERGENCE}`
          : ": give --resume a lower --lr or --clip, which hold from the last checkpoint on"
      }`,
      { isLost: ranAway },
    );

  async function take(rows: MetricRow[]): Promise<void> {
    if (rows.length === 0 || !isFirst(exchange)) return;
    await options.onRows(rows);
    for (const row of rows) {
      skippedInARow = row.skipped ? skippedInARow + 1 : 0;
      if (skippedInARow >= SKIPPED_STEPS_ALLOWED) {
        throw diverged(row.step, `the last ${skippedInARow} gradients were not finite`);
      }
      if (row.validation_ce !== null && !Number.isFinite(row.validation_ce)) {
        throw diverged(row.step, "its loss on validation tokens is not finite");
      }
      for (const signature of signaturesOf(row)) options.onSignature(signature);
    }
  }

  /** An evaluation; undefined when it was stopped. */
  async function evaluate(done: number): Promise<Evaluation | undefined> {
    try {
      return await evaluation.run(done);
    } catch (error) {
      if (!signal.aborted || error !== signal.reason) throw error;
      return undefined;
    }
  }

  if (options.unevaluated) {
    const result = await evaluate(options.startStep);
    if (!result) return { finished: false };
    const gated = isGated(options, options.startStep - 1);
    await take([{ ...options.unevaluated, ...measured(result, gated) }]);
    await options.onEvaluation(options.startStep, result);
    await checkpoint.save(options.startStep);
    since = elapsed();
  }
  options.onStep?.(options.startStep);
  await turn();
  await exchange?.agree();
  if (signal.aborted && options.startStep < schedule.steps) return { finished: false };
  for (let step = options.startStep; step < schedule.steps; step++) {
    const ahead = { phase: options.phase, step, constrained: constraint !== undefined };
    const { stopWanted, probe, microBatches } = await atFirst(exchange, async () => {
      const stopWanted = control !== undefined && (await control.beforeStep(ahead, signal)).stop;
      const microBatches: MicroBatch[] = [];
      for (let n = 0; n < accumulate; n++) microBatches.push(await options.batchAt(step * accumulate + n));
      const probe = constraint && isGated(options, step) && step % constraint.every === 0
        ? constraint.probeAt(step / constraint.every, step)
        : undefined;
      return { stopWanted, probe, microBatches };
    });
    if (probe && "batch" in probe) await trainer.measureConstraint(probe.batch, probe.targetLoss);
    else if (probe) trainer.takeConstraint(probe.measured, probe.target);
    await trainer.step(step, learningRate(schedule, step), microBatches);
    const done = step + 1;
    const last = done === schedule.steps;
    options.onStep?.(done);
    await turn();
    submitted.set(step, elapsed());
    await exchange?.agree();
    const stopping = (stopWanted || signal.aborted) && !last;
    const evaluating = last || done % evaluation.every === 0;
    if (evaluating) {
      const [logged, ended] = [await log.drain(), elapsed()];
      const result = await evaluate(done);
      if (!result) {
        const rows = rowsOf(logged, ended);
        const unevaluated = rows.pop();
        await take(rows);
        await checkpoint.save(done, unevaluated);
        return { finished: false };
      }
      evaluations.set(done, result);
      await take(rowsOf(logged, ended));
      await options.onEvaluation(done, result);
      since = elapsed();
    } else if (log.waiting === log.capacity) {
      await take(rowsOf(await log.poll()));
    }
    if (last || stopping || done % checkpoint.every === 0) {
      const logged = await log.drain();
      await take(rowsOf(logged, elapsed()));
      await checkpoint.save(done);
      since = elapsed();
    }
    if (stopping) return { finished: false };
  }
  return { finished: true };
}

/** Whether gates are trained in a step, counted from 0. */
function isGated({ gatedFrom }: Pick<PhaseOptions, "gatedFrom">, step: number): boolean {
  return gatedFrom !== undefined && step >= gatedFrom;
}

/** What an evaluation adds to the row of its step. */
function measured(
  evaluation: Evaluation | undefined,
  gated: boolean,
): Pick<MetricRow, "open_fraction" | "validation_ce" | "dead_queries" | "open_by_head"> {
  return {
    open_fraction: evaluation?.openFraction ?? null,
    validation_ce: evaluation?.ce ?? null,
    dead_queries: evaluation?.deadQueries ?? null,
    open_by_head: evaluation && gated ? evaluation.openByHead.flat() : null,
  };
}

function metricRow(
  options: PhaseOptions,
  entry: LoggedSteps[number],
  evaluation: Evaluation | undefined,
  seconds: number,
): MetricRow {
  const { schedule, accumulate, microBatchTokens, edges } = options;
  const gated = isGated(options, entry.step);
  const done = entry.step + 1;
  const { totals, distillationTotals, headSums, update, multiplier, lossScale, edgeScale } = entry;
  const heads = headSums.length / HEAD_SUMS.length;
  const byHead = (name: typeof HEAD_SUMS[number]): number[] =>
    Array.from({ length: heads }, (_, head) => headSums[head * HEAD_SUMS.length + HEAD_SUMS.indexOf(name)]);
  const headTotal = (name: typeof HEAD_SUMS[number]): number => byHead(name).reduce((sum, of) => sum + of, 0);
  const snapshot = gated &&
    (done % Math.ceil(schedule.steps / HEAD_SNAPSHOTS) === 0 || done === schedule.steps);
  return {
    phase: options.phase,
    step: done,
    tokens: done * accumulate * microBatchTokens,
    ce: totals[0] / totals[3],
    target: options.targetAt?.(entry.step) ?? null,
    constraint: gated && multiplier[3] === 1 ? multiplier[2] : null,
    constraint_average: gated ? multiplier[1] : null,
    lambda: gated ? multiplier[0] : null,
    // The objective is (E + λ CE) / (1 + λ): the two factors' ratio is the λ in it.
    lambda_acting: gated ? lossScale[0] / edgeScale[0] : null,
    expected_open: gated ? headTotal("openProbability") / edges : null,
    learning_rate: learningRate(schedule, entry.step),
    grad_norm: update[0],
    saturation: gated ? headTotal("saturation") / edges : null,
    kl: distillationTotals[3] > 0 ? distillationTotals[0] / distillationTotals[3] : null,
    skipped: update[2],
    ...measured(evaluation, gated),
    expected_open_by_head: snapshot ? byHead("openProbability").map((sum) => sum * heads / edges) : null,
    seconds,
  };
}
