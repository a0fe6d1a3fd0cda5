/**
 * Where a run that is resumed goes on: at the newest checkpoint of each phase that is whole to the last byte, with the
 * best step that it names.
 *
 * @module
 */
import {
  type Checkpoint,
  checkpointPath,
  listCheckpoints,
  phaseInName,
  readCheckpoint,
} from "./checkpoint.ts";
import { inputError, UserError } from "../errors.ts";
import { isObject } from "../files.ts";
import { type MetricRow, type Phase, PHASES } from "./metrics.ts";

/** The step that a run would end with, as far as it has come. */
export interface Best {
  step: number;
  /** What is held against the target: the cross-entropy, nats, where the run has no other measure. */
  ce: number;
  openFraction: number;
}

/** A row as a checkpoint's state holds it: JSON has no number that is not finite. */
export function rowState(row: MetricRow): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(row).map((
      [name, value],
    ) => [name, typeof value === "number" && !Number.isFinite(value) ? String(value) : value]),
  );
}

/**
 * The row of a checkpoint's step that was saved before it was evaluated, if it was.
 *
 * @throws {UserError} when what the state holds is none
 */
export function unevaluatedOf(
  { state, path, phase, step }: Pick<Checkpoint, "state" | "path" | "phase" | "step">,
): MetricRow | undefined {
  const { unevaluated: row } = state;
  if (row === null || row === undefined) return undefined;
  const whole = isObject(row) && row.phase === phase && row.step === step;
  if (!whole) throw inputError(`Cannot resume from ${path} as the row in its state is none of its step`);
  return Object.fromEntries(
    Object.entries(row).map((
      [name, value],
    ) => [name, typeof value === "string" && name !== "phase" ? Number(value) : value]),
  ) as unknown as MetricRow;
}

/** Where a run goes on. */
export interface ResumePoint {
  /** The checkpoint of each phase to go on from. */
  readonly checkpoints: ReadonlyMap<MetricRow["phase"], Checkpoint>;
  /** The last step that they hold. */
  readonly last: Pick<MetricRow, "phase" | "step">;
  /** The last step whose row is kept: the one before, where a run was stopped before it had evaluated the last. */
  readonly lastRow: Pick<MetricRow, "phase" | "step">;
  /** What was damaged, each a sentence. */
  readonly problems: readonly string[];
}

/**
 * The best step that a checkpoint names, if it names one.
 *
 * @throws {UserError} when what it names is none
 */
export function bestOf({ state, path }: Pick<Checkpoint, "state" | "path">): Best | undefined {
  const { best } = state;
  if (best === null || best === undefined) return undefined;
  const whole = isObject(best) && Number.isSafeInteger(best.step) &&
    ["ce", "openFraction"].every((name) => typeof best[name] === "number");
  if (!whole) throw inputError(`Cannot resume from ${path} as the best step in its state is none`);
  return best as unknown as Best;
}

/**
 * The best steps of a front's further levels that a checkpoint names, null where a level has none; none without a front.
 *
 * @throws {UserError} when what it names is none
 */
export function frontOf({ state, path }: Pick<Checkpoint, "state" | "path">): (Best | null)[] {
  const { front = [] } = state;
  if (!Array.isArray(front)) throw inputError(`Cannot resume from ${path} as the front in its state is none`);
  return front.map((best) => bestOf({ state: { best }, path }) ?? null);
}

/**
 * Opens and verifies the newest whole checkpoint of each phase. Where an earlier phase has to be done again, checkpoints
 * of later ones are removed, since they will come again.
 *
 * @param steps of a phase
 * @param run id of the run, which every checkpoint must carry
 * @param phases of the run, in order
 * @throws {UserError} when a phase has checkpoints and none of them is whole
 */
export async function findResumePoint(
  folder: string,
  steps: number,
  run = "",
  phases: readonly Phase[] = PHASES,
): Promise<ResumePoint> {
  const { checkpoints: listed, torn } = await listCheckpoints(folder);
  const checkpoints = new Map<MetricRow["phase"], Checkpoint>();
  const problems = torn.map(({ reason }) => reason);
  let last: ResumePoint["last"] = { phase: phases[0], step: 0 };
  let unfinished = false;
  for (const phase of phases) {
    const ofPhase = listed.filter((entry) => entry.phase === phase);
    if (unfinished) {
      for (const entry of listed.filter((entry) => entry.phase.split("-")[0] === phase)) {
        problems.push(`${entry.path} is of a phase that comes again: it was removed`);
        await Deno.remove(entry.path);
      }
      continue;
    }
    for (const entry of ofPhase.toReversed()) {
      try {
        checkpoints.set(phase, await openVerified(folder, entry.path, run));
        last = { phase, step: entry.step };
        break;
      } catch (error) {
        if (!(error instanceof UserError)) throw error;
        problems.push(error.message);
      }
    }
    const found = checkpoints.get(phase);
    const wasThere = ofPhase.length > 0 || torn.some(({ path }) => phaseInName(path) === phase);
    if (!found && wasThere) {
      throw inputError(
        `Cannot go on as no checkpoint of the ${phase} phase is whole: ${
          problems[0]
        }; to begin again at step 1, delete the ` +
          `files in ${folder}`,
      );
    }
    unfinished = found !== undefined && found.step < steps;
  }
  const latest = checkpoints.get(last.phase);
  const lastRow = latest && unevaluatedOf(latest) ? { ...last, step: last.step - 1 } : last;
  return { checkpoints, last, lastRow, problems };
}

/** The steps that a checkpoint names as best, of its target and of a front's levels, each once. */
export function bestStepsOf(checkpoint: Pick<Checkpoint, "state" | "path">): number[] {
  const all = [bestOf(checkpoint), ...frontOf(checkpoint)];
  return [...new Set(all.flatMap((best) => best ? [best.step] : []))];
}

/** A checkpoint that is whole, as are those of the best steps that it names. */
async function openVerified(folder: string, path: string, run: string): Promise<Checkpoint> {
  const checkpoint = await readOwn(path, run);
  await checkpoint.verify();
  unevaluatedOf(checkpoint);
  for (const step of bestStepsOf(checkpoint)) {
    const of = { phase: `${checkpoint.phase}-best`, step };
    await (await readOwn(checkpointPath(folder, of), run)).verify();
  }
  return checkpoint;
}

async function readOwn(path: string, run: string): Promise<Checkpoint> {
  const checkpoint = await readCheckpoint(path);
  if (checkpoint.run !== run) throw inputError(`Cannot resume from ${path} as it is another run's`);
  return checkpoint;
}
