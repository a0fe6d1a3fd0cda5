/**
 * The folder of one run, and the lock that keeps two processes from writing it at once.
 *
 *     runs/<name>/
 *       config.json      every setting, the adapter, versions, hashes of model and data
 *       metrics.arrows   one row a step, an Arrow IPC stream
 *       checkpoints/     to resume from
 *       tokens/          the tokenised data
 *       model/           the sparse model, a Hugging Face folder
 *       summary.json     the results
 *       report.html      the results as a page
 *       state.json       what the run is doing, for whoever watches
 *       control.json     what others want of it
 *       slack.json       changes of slack that took effect
 *
 * @module
 */
import { join } from "node:path";
import { inputError, usageError, UserError } from "./errors.ts";
import { exists } from "./files.ts";

/** Paths of a run. */
export interface RunFolder {
  readonly name: string;
  readonly path: string;
  readonly config: string;
  readonly metrics: string;
  readonly checkpoints: string;
  readonly tokens: string;
  readonly model: string;
  readonly summary: string;
  readonly report: string;
  readonly state: string;
  /** Lets other processes write the run again. */
  release(): void;
}

const LOCK = ".lock";
const LOCK_ATTEMPTS = 5;
const LOCK_RETRY_MS = 20;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

/** Whether a name may be a run's: no separators, nothing hidden, at most 128 characters. */
export function isRunName(name: string): boolean {
  return NAME.test(name) && name.length <= 128;
}

function checkName(name: string): void {
  if (!isRunName(name)) {
    throw usageError(
      `Cannot name a run ${name} as names consist of up to 128 letters, digits, dots, dashes and underscores`,
    );
  }
}

/**
 * Makes a folder for a run without a name and returns its name: `<command>-<date>-<time>`, which sorts by time, with a
 * number where another run began in the same second.
 */
async function makeUnnamed(runs: string, command: string): Promise<string> {
  const time = new Date().toISOString().slice(0, 19).replace(/[-:]/g, "").replace("T", "-");
  for (let n = 1;; n++) {
    const name = `${command}-${time}${n === 1 ? "" : `-${n}`}`;
    try {
      await Deno.mkdir(join(runs, name));
      return name;
    } catch (error) {
      if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    }
  }
}

/**
 * Creates the folder of a new run.
 *
 * @param name left out: made of the command and the time (UTC)
 * @throws {UserError} when the name is not allowed or taken, or nothing can be written to `runs`
 */
export async function createRun(runs: string, command: string, name?: string): Promise<RunFolder> {
  if (name !== undefined) checkName(name);
  try {
    await Deno.mkdir(runs, { recursive: true });
    return await makeRun(runs, name ?? await makeUnnamed(runs, command));
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw usageError(
      `Cannot create a run in ${runs} as it must be a folder that can be written: ${
        (error as Error).message
      }`,
      { cause: error },
    );
  }
}

async function makeRun(runs: string, name: string): Promise<RunFolder> {
  const path = join(runs, name);
  // A folder without config.json is what a process killed at its very start leaves behind.
  if (await exists(join(path, "config.json"))) {
    throw usageError(
      `Cannot create run ${name} as ${path} is there: go on with it by --resume ${name}, or use another --name`,
    );
  }
  await Deno.mkdir(join(path, "checkpoints"), { recursive: true });
  return await lock(name, path);
}

/**
 * Opens a run to go on with it.
 *
 * @throws {UserError} when there is none, or another process is writing it
 */
export async function openRun(runs: string, name: string): Promise<RunFolder> {
  checkName(name);
  const path = join(runs, name);
  if (!await exists(join(path, "config.json"))) {
    throw usageError(`Cannot resume ${name} as ${path} is no run`);
  }
  await Deno.mkdir(join(path, "checkpoints"), { recursive: true });
  return await lock(name, path);
}

/**
 * An advisory lock that the operating system drops when the process ends, however it ends, so that a killed run can be
 * resumed at once.
 */
async function lock(name: string, path: string): Promise<RunFolder> {
  const file = Deno.openSync(join(path, LOCK), { create: true, write: true });
  for (let attempt = 1; !file.tryLockSync(true); attempt++) {
    // Whoever asks whether a process is at it holds the lock for an instant.
    if (attempt === LOCK_ATTEMPTS) {
      file.close();
      throw inputError(`Cannot write run ${name} as another process is writing it`);
    }
    await new Promise((resolve) => setTimeout(resolve, LOCK_RETRY_MS));
  }
  return {
    name,
    path,
    config: join(path, "config.json"),
    metrics: join(path, "metrics.arrows"),
    checkpoints: join(path, "checkpoints"),
    tokens: join(path, "tokens"),
    model: join(path, "model"),
    summary: join(path, "summary.json"),
    report: join(path, "report.html"),
    state: join(path, "state.json"),
    release() {
      file.unlockSync();
      file.close();
    },
  };
}

/** Whether a process is writing the run in this folder. */
export async function runIsLocked(path: string): Promise<boolean> {
  try {
    using file = await Deno.open(join(path, LOCK));
    if (!file.tryLockSync(false)) return true;
    file.unlockSync();
    return false;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
