/**
 * How a run is steered from outside while it trains: other processes write what they want into the run's
 * `control.json`, and the training loop looks there before each step. What was granted of the slack stands in
 * `slack.json` with its step, so that a killed run that is resumed changes course at the same steps and ends with the
 * same bits. Both are sealed by a digest; a control.json that was written by hand needs none.
 *
 * @module
 */
import { join } from "node:path";
import { inputError, UserError } from "../errors.ts";
import { exists, isObject, readJson, readSealedJson, shown, writeSealedJson } from "../files.ts";

/** What is wanted of a run. */
export interface ControlRequest {
  /** To wait before the next step until it is false again. */
  paused: boolean;
  /** To stop after the next step, with a checkpoint. */
  stop: boolean;
  /** Nats above the dense loss; null: as it is. */
  slack: number | null;
}

const NOTHING: ControlRequest = { paused: false, stop: false, slack: null };
/** Slack beyond this many nats is a slip of the pen. */
export const SLACK_BOUND = 100;
const PAUSE_POLL_MS = 200;

const controlPath = (run: string): string => join(run, "control.json");

/**
 * What is wanted of the run in this folder.
 *
 * @throws {UserError} when its control.json is none
 */
export async function readControl(run: string): Promise<ControlRequest> {
  const path = controlPath(run);
  if (!await exists(path)) return NOTHING;
  const json = await readJson(path);
  if (!isObject(json)) throw inputError(`Cannot use ${path} as it must be a JSON object`);
  const unknown = Object.keys(json).find((key) => !["paused", "stop", "slack", "sha256"].includes(key));
  if (unknown !== undefined) {
    throw inputError(`Cannot use ${path} as it has an unknown key: ${shown(unknown)}`);
  }
  const { paused = false, stop = false, slack = null } = "sha256" in json ? await readSealedJson(path) : json;
  const slackHolds = slack === null || (isFinite(slack) && Math.abs(slack) <= SLACK_BOUND);
  if (typeof paused !== "boolean" || typeof stop !== "boolean" || !slackHolds) {
    throw inputError(
      `Cannot use ${path} as paused and stop must be true or false and slack a number or null`,
    );
  }
  return { paused, stop, slack };
}

function isFinite(value: unknown): value is number {
  return Number.isFinite(value);
}

/** Changes what is wanted of the run and returns all that is wanted now. The file is replaced whole. */
export async function requestControl(run: string, change: Partial<ControlRequest>): Promise<ControlRequest> {
  const wanted = { ...await readControl(run), ...change };
  await writeSealedJson(controlPath(run), wanted);
  return wanted;
}

/** A change of slack that took effect. */
export interface SlackChange {
  phase: string;
  /** The first step, counted from 0, that is held to it. */
  step: number;
  slack: number;
}

const slackPath = (run: string): string => join(run, "slack.json");

/**
 * The changes of slack that took effect in a run, in order.
 *
 * @param id of the run, which they must carry; left out: anyone's
 * @throws {UserError} when its slack.json is none, or damaged
 */
export async function readSlackChanges(run: string, id?: string): Promise<SlackChange[]> {
  const path = slackPath(run);
  if (!await exists(path)) return [];
  const { changes, run: owner } = await readSealedJson(path);
  if (id !== undefined && owner !== id) throw inputError(`Cannot use ${path} as it is another run's`);
  const whole = Array.isArray(changes) &&
    changes.every((change) =>
      isObject(change) && typeof change.phase === "string" && Number.isSafeInteger(change.step) &&
      isFinite(change.slack)
    );
  if (!whole) throw inputError(`Cannot use ${path} as it must hold changes of slack`);
  return changes as SlackChange[];
}

/**
 * Whether another slack than the one that the run began with holds in it, or will: one that took effect, or is asked for.
 *
 * @throws {UserError} when its slack.json is another run's, or damaged
 */
export async function slackIsSteered(run: string, id: string): Promise<boolean> {
  if ((await readSlackChanges(run, id)).length > 0) return true;
  const { slack } = await readControl(run).catch((error) => {
    // What cannot be read is forgotten where the run goes on.
    if (error instanceof UserError) return NOTHING;
    throw error;
  });
  return slack !== null;
}

/** A step that is about to begin, counted from 0. */
export interface StepAhead {
  phase: string;
  step: number;
  /** Whether the phase is held to a loss, so that slack means something. */
  constrained: boolean;
}

/** What the training loop asks before each step. */
export interface RunControl {
  /**
   * Waits while the run is paused.
   *
   * @returns whether to stop after this step
   */
  beforeStep(ahead: StepAhead, signal: AbortSignal): Promise<{ stop: boolean }>;
  /** The slack that holds for a step of a phase, or undefined for the one that the run began with. */
  slackAt(phase: string, step: number): number | undefined;
}

/** Whose wishes to follow, and whom to tell. */
export interface ControlOptions {
  /** The run's folder. */
  run: string;
  /** The run's id. */
  id: string;
  onPause(paused: boolean): void | Promise<void>;
  onSlack(change: SlackChange): void;
  /** Something is wrong with control.json; what was wanted before goes on. */
  onProblem(message: string): void;
}

/**
 * Opens the control of a run that begins or is resumed: earlier wishes to pause or stop are forgotten.
 *
 * @throws {UserError} when its slack.json is damaged: without it the run would take another course
 */
export async function openControl(options: ControlOptions): Promise<RunControl> {
  const { run } = options;
  const changes = await readSlackChanges(run, options.id);
  if (await exists(controlPath(run))) {
    await requestControl(run, { paused: false, stop: false }).catch(async (error) => {
      if (!(error instanceof UserError)) throw error;
      options.onProblem(`${error.message}; what it asked for is forgotten`);
      await writeSealedJson(controlPath(run), NOTHING);
    });
  }
  let seen: string | undefined;
  let wanted: ControlRequest = NOTHING;

  async function poll(): Promise<void> {
    let changed: string;
    try {
      const { mtime, ino } = await Deno.stat(controlPath(run));
      // A file that was replaced within a millisecond is another one all the same.
      changed = `${mtime?.getTime()} ${ino}`;
    } catch {
      return;
    }
    if (changed === seen) return;
    seen = changed;
    try {
      wanted = await readControl(run);
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      options.onProblem(error.message);
    }
  }

  const slackAt = (phase: string, step: number): number | undefined =>
    changes.findLast((change) => change.phase === phase && change.step <= step)?.slack;

  return {
    slackAt,

    async beforeStep({ phase, step, constrained }, signal) {
      await poll();
      if (wanted.paused && !wanted.stop && !signal.aborted) {
        await options.onPause(true);
        while (wanted.paused && !wanted.stop && !signal.aborted) {
          await new Promise((resolve) => setTimeout(resolve, PAUSE_POLL_MS));
          await poll();
        }
        await options.onPause(false);
      }
      // A resumed run repeats steps whose slack is written down already.
      const decided = changes.some((change) => change.phase === phase && change.step > step);
      if (constrained && wanted.slack !== null && !decided && wanted.slack !== slackAt(phase, step)) {
        const change = { phase, step, slack: wanted.slack };
        await writeSealedJson(slackPath(run), { run: options.id, changes: [...changes, change] });
        changes.push(change);
        options.onSlack(change);
      }
      return { stop: wanted.stop };
    },
  };
}
