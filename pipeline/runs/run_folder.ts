/**
 * The folder of one run, and the lock that keeps two processes from writing it at once.
 *
 * A run begins only in a folder that it makes, that is empty, or that carries the mark of a start that was broken off;
 * and of a start that fails nothing is removed but what it wrote.
 *
 *     runs/<name>/
 *       config.json      every setting, the adapter, versions, hashes of model and data
 *       tokenizer.json   a copy of the tokenizer, and of the two files that say how it is used
 *       dense/           the model that a sparsified run began with: links to its files where the disk allows them
 *       metrics.arrows   one row a step, an Arrow IPC stream
 *       checkpoints/     to resume from
 *       tokens/          the tokenised data
 *       model/           the sparse model, a Hugging Face folder; of a run with --lora its adapter, as peft stores it
 *       adapter/         with --merge the adapter that model/ has merged into it
 *       summary.json     the results
 *       report.html      the results as a page
 *       state.json       what the run is doing, for whoever watches
 *       control.json     what others want of it
 *       slack.json       changes of slack that took effect
 *
 * @module
 */
import { dirname, join } from "node:path";
import { EXIT, inputError, storageError, usageError, UserError } from "../errors.ts";
import { exists, kindOf, type OwnNames, readText, reasonOf, removeOwn, storing } from "../files.ts";
import { readRunConfig, type RunConfig, writeRunConfig } from "./run_config.ts";

/** Paths of a run. */
export interface RunFolder {
  readonly name: string;
  readonly path: string;
  readonly config: string;
  readonly metrics: string;
  readonly checkpoints: string;
  readonly tokens: string;
  readonly model: string;
  readonly adapter: string;
  readonly summary: string;
  readonly report: string;
  readonly state: string;
  readonly tokenizer: string;
  readonly dense: string;
  /**
   * Checks that the folder is still there, before something is written that would make another of its name.
   *
   * @throws {UserError} where it was moved or removed
   */
  check(): Promise<void>;
  /** Lets other processes write the run again; more than once is once. */
  release(): void;
}

/** The folder of a run that has not begun. */
export interface NewRunFolder extends RunFolder {
  /** Writes config.json: from here on it is a run, which can be resumed. */
  begin(config: RunConfig): Promise<void>;
  /** Removes what the start wrote, and the folder if it made it. */
  abandon(): Promise<void>;
}

const LOCK = ".lock";
/** Says of a folder that a run was about to begin in it. */
export const START_MARK = ".start";
/** What the mark says of the folder itself. */
const MADE = "A run was about to begin in this folder, which was made for it.\n";
const FOUND = "A run was about to begin in this folder, which was found empty.\n";
/** All that a folder holds in which a start was broken off before its config.json stood. */
const BEFORE_CONFIG = [START_MARK, LOCK, "config.json.partial"];
/** The token files of a run. */
const TOKENS = {
  folder: "tokens",
  names: [
    /^(train|validation|test)(-\d+)?\.arrow(\.partial)?$/,
    /^(tokens|train-\d+)\.(json|partial|json\.partial)$/,
  ],
} as const;
/** How often an abandoned start's folder is looked at, a hundredth of a second between, if it is still there. */
const LOOKS = 20;
/** What a start writes into a folder that held nothing; config.json goes last, since a run is told by it. */
const OF_A_START: OwnNames = [
  /^(tokenizer|tokenizer_config|generation_config|state|control|slack)\.json(\.partial)?$/,
  /^metrics\.arrows(\.partial)?$/,
  /^rank-\d+\.log$/,
  /^(circuits\.(json|html)|summary\.json|(edges|curve)\.arrow)(\.partial)?$/,
  TOKENS,
  {
    folder: "dense",
    names: [/^config\.json(\.partial)?$/, /\.safetensors$/, "model.safetensors.index.json"],
  },
  { folder: "checkpoints", names: [] },
];
/** Where runs are kept unless --runs says otherwise. */
export const DEFAULT_RUNS = "runs";
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

/** A name for a run without one: `<command>-<date>-<time>`, which sorts by time, and a number where that is taken. */
function timedName(command: string, attempt: number): string {
  const time = new Date().toISOString().slice(0, 19).replace(/[-:]/g, "").replace("T", "-");
  return `${command}-${time}${attempt === 1 ? "" : `-${attempt}`}`;
}

/** Makes a folder, unless something stands there. */
async function makeFolder(path: string): Promise<boolean> {
  try {
    await Deno.mkdir(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) return false;
    throw error;
  }
}

/**
 * Whether a run could begin in the folder of this name, as far as can be told without touching anything.
 *
 * @param command that would begin it; a run of its own that has no end yet it may go on with
 * @throws {UserError} when the name is not allowed or taken
 */
export async function checkRunIsNew(runs: string, command: string, name: string): Promise<void> {
  checkName(name);
  const path = join(runs, name);
  const info = await Deno.lstat(path).catch(() => undefined);
  if (!info) return;
  if (info.isDirectory) {
    const entries = await Array.fromAsync(Deno.readDir(path)).catch((error) => {
      throw usageError(`Cannot create run ${name} as ${path} cannot be read: ${reasonOf(error)}`);
    });
    // Nothing of these is lost when a run begins there.
    const rest = entries.filter((entry) => !(entry.isFile && BEFORE_CONFIG.includes(entry.name)));
    if (rest.length === 0 || await areTokensOfStart(path, rest)) return;
    const config = await readRunConfig(join(path, "config.json")).catch(() => undefined);
    if (config) {
      const elsewhere = runs === DEFAULT_RUNS ? "" : ` --runs ${runs}`;
      // Analyses begin anew.
      const goesOn = config.command === command && command !== "circuits" &&
        !await exists(join(path, "summary.json"));
      const goOn = goesOn ? `go on with it by --resume ${name}${elsewhere}, or ` : "";
      throw usageError(`Cannot create run ${name} as ${path} is there: ${goOn}use another --name`);
    }
  }
  throw usageError(
    `Cannot create run ${name} as ${path} is there and holds no run: nothing in it was touched; use another --name`,
  );
}

/** Whether what a folder holds beside the mark of a start are that start's token files, which are written first. */
async function areTokensOfStart(path: string, entries: readonly Deno.DirEntry[]): Promise<boolean> {
  if (!await exists(join(path, START_MARK))) return false;
  const [only, ...more] = entries;
  if (more.length > 0 || !only.isDirectory || only.name !== TOKENS.folder) return false;
  const files = await Array.fromAsync(Deno.readDir(join(path, only.name))).catch(() => undefined);
  return files?.every(({ name, isFile }) => isFile && TOKENS.names.some((own) => own.test(name))) ?? false;
}

/**
 * Creates the folder of a new run.
 *
 * @param name left out: made of the command and the time (UTC)
 * @throws {UserError} when the name is not allowed or taken, or nothing can be written to `runs`: exit code 5 where that is
 * its disk's fault
 */
export async function createRun(runs: string, command: string, name?: string): Promise<NewRunFolder> {
  if (name !== undefined) await checkRunIsNew(runs, command, name);
  try {
    await Deno.mkdir(runs, { recursive: true });
    if (name !== undefined) return await startIn(runs, command, name, await makeFolder(join(runs, name)));
    for (let attempt = 1;; attempt++) {
      const free = timedName(command, attempt);
      if (await makeFolder(join(runs, free))) return await startIn(runs, command, free, true);
    }
  } catch (error) {
    const refused = storageError(runs, error);
    if (error instanceof UserError || (refused instanceof UserError && refused.exitCode === EXIT.device)) {
      throw refused;
    }
    throw usageError(
      `Cannot create a run in ${runs} as it must be a folder that can be written: ${reasonOf(error)}`,
      { cause: error },
    );
  }
}

/** Marks and locks a folder in which a run is about to begin. */
async function startIn(runs: string, command: string, name: string, made: boolean): Promise<NewRunFolder> {
  const path = join(runs, name);
  const mark = join(path, START_MARK);
  let ours = made;
  try {
    await Deno.writeTextFile(mark, made ? MADE : FOUND, { createNew: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) {
      if (made) await removeOwn(path, [START_MARK]);
      throw error;
    }
    ours = await readText(mark, 1024) === MADE;
  }
  const folder = await lock(name, path);
  // Another process may have begun it since it was looked at.
  await checkRunIsNew(runs, command, name).catch((error) => {
    folder.release();
    throw error;
  });
  return {
    ...folder,
    async begin(config) {
      await writeRunConfig(folder.config, config);
      await Deno.remove(mark).catch(() => {});
    },
    async abandon() {
      await removeOwn(path, OF_A_START, { keepFolder: true });
      await removeOwn(path, [/^config\.json(\.partial)?$/], { keepFolder: true });
      // While it is locked, so that nobody else begins in what is being removed; Windows removes no open file.
      if (Deno.build.os === "windows") folder.release();
      await removeOwn(path, [LOCK, START_MARK], { keepFolder: !ours });
      folder.release();
      // What is being stopped may have put something there in the meantime.
      for (let look = 0; look < LOOKS && ours && await isLeftOver(path); look++) {
        await new Promise((resolve) => setTimeout(resolve, 10));
        if (await isLeftOver(path)) await removeOwn(path, OF_A_START);
      }
    },
  };
}

/** Whether a folder holds something and nobody has begun there: a start has its mark and its lock, a run its config.json. */
async function isLeftOver(path: string): Promise<boolean> {
  const entries = await Array.fromAsync(Deno.readDir(path)).catch(() => []);
  return entries.length > 0 && !entries.some(({ name }) => [LOCK, START_MARK, "config.json"].includes(name));
}

/**
 * Opens a run to go on with it. Nothing is written before it is known to be one.
 *
 * @param command that it must be a run of
 * @throws {UserError} when there is none, it is damaged, it is another command's, or another process is writing it
 */
export async function openRun(
  runs: string,
  name: string,
  command: string,
): Promise<{ folder: RunFolder; config: RunConfig }> {
  checkName(name);
  const path = join(runs, name);
  const configPath = join(path, "config.json");
  if (!await exists(configPath)) throw usageError(`Cannot resume ${name} as ${path} is no run`);
  await checkIsOf(command, configPath, name);
  const folder = await lock(name, path);
  try {
    // Again, since another process may have had it until now.
    return { folder, config: await checkIsOf(command, configPath, name) };
  } catch (error) {
    folder.release();
    throw error;
  }
}

async function checkIsOf(command: string, path: string, name: string): Promise<RunConfig> {
  const config = await readRunConfig(path);
  if (config.command !== command) {
    throw inputError(`Cannot resume ${name} by ${command} as it is a run of ${config.command}`);
  }
  return config;
}

/**
 * An advisory lock that the operating system drops when the process ends, however it ends, so that a killed run can be
 * resumed at once.
 */
async function lock(name: string, path: string): Promise<RunFolder> {
  const lockPath = join(path, LOCK);
  // A pipe would be waited at, and a link leads elsewhere.
  const found = await Deno.lstat(lockPath).catch(() => undefined);
  if (found && !found.isFile) {
    throw inputError(`Cannot write run ${name} as ${lockPath} must be a file: it is ${kindOf(found)}`);
  }
  for (const own of ["checkpoints", "tokens", "model", "adapter", "dense", "metrics.arrows"]) {
    // What is written there would go elsewhere.
    const info = await Deno.lstat(join(path, own)).catch(() => undefined);
    if (info?.isSymlink) {
      throw inputError(`Cannot write run ${name} as ${join(path, own)} is a link, which is not followed`);
    }
  }
  const file = await storing(lockPath, () => Deno.open(lockPath, { create: true, write: true }));
  for (let attempt = 1; !file.tryLockSync(true); attempt++) {
    // Whoever asks whether a process is at it holds the lock for an instant.
    if (attempt === LOCK_ATTEMPTS) {
      file.close();
      throw inputError(`Cannot write run ${name} as another process is writing it`);
    }
    await new Promise((resolve) => setTimeout(resolve, LOCK_RETRY_MS));
  }
  // The process that had it before may have removed the folder meanwhile, and the lock with it.
  const [locked, there] = [await file.stat(), await Deno.stat(lockPath).catch(() => undefined)];
  if (there?.ino !== locked.ino || there?.dev !== locked.dev) {
    file.close();
    throw inputError(`Cannot write run ${name} as another process has just removed it: try again`);
  }
  // Whoever watches the runs need not ask for every lock: a folder's time says that something began in it.
  for (const folder of [path, dirname(path)]) {
    await Deno.utime(folder, new Date(), new Date()).catch(() => {});
  }
  const began = await Deno.stat(path);
  let held = true;
  return {
    name,
    path,
    config: join(path, "config.json"),
    metrics: join(path, "metrics.arrows"),
    checkpoints: join(path, "checkpoints"),
    tokens: join(path, "tokens"),
    model: join(path, "model"),
    adapter: join(path, "adapter"),
    summary: join(path, "summary.json"),
    report: join(path, "report.html"),
    state: join(path, "state.json"),
    tokenizer: join(path, "tokenizer.json"),
    dense: join(path, "dense"),
    async check() {
      const now = await Deno.stat(path).catch(() => undefined);
      if (now?.ino === began.ino && now?.dev === began.dev) return;
      throw inputError(
        `Cannot save run ${name} as ${path} was moved or removed while it was written: put it back to go on from its last ` +
          `checkpoint`,
      );
    },
    release() {
      if (!held) return;
      held = false;
      file.unlockSync();
      file.close();
    },
  };
}

/** Whether a process is writing the run in this folder. */
export async function runIsLocked(path: string): Promise<boolean> {
  const lockPath = join(path, LOCK);
  try {
    if (!(await Deno.lstat(lockPath)).isFile) return false;
    using file = await Deno.open(lockPath);
    if (!file.tryLockSync(false)) return true;
    file.unlockSync();
    return false;
  } catch {
    return false;
  }
}
