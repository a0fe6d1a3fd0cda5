/**
 * A command in a thread of its own, so that the main thread can speak and be interrupted whatever the command does: on a
 * CPU driver a submission holds its thread until the one before it is done, for minutes where kernels are compiled in it.
 *
 * A command's module is its thread's too: `if (inCommandThread()) performCommand(…); else await superviseCommand(…)`.
 *
 * @module
 */
import { tmpdir } from "node:os";
import {
  BROKEN_PIPE,
  describeError,
  isInteractive,
  onStopSignal,
  STOPPED,
  surviveFileLimit,
  terminalColumns,
  writeError,
} from "./command_line.ts";
import { storing } from "./files.ts";
import { createProgress, type Progress } from "./report/progress.ts";
import type { Activity, Reporter } from "./training/training_run.ts";

/** What the command's thread tells the main one. */
type Told =
  | { [Name in keyof Reporter]: { report: Name; values: Parameters<Reporter[Name]> } }[keyof Reporter]
  | { print: string }
  | { write: string }
  | { quiet: boolean }
  | { goOn: string }
  | { temporary: string }
  | { unlessEnded: string; recursive: boolean }
  | { rank: number }
  | { log: string }
  | { saved: string }
  | { ended: number; message?: string; endsOthers?: boolean };

/** What the main thread tells the command's. */
type Wish = "stop" | "said";

/** Milliseconds that a command has to stop by itself where nothing would be lost. */
const GRACE_MS = 1500;
/** Milliseconds in which another signal is the same: `deno task` passes on what the terminal has sent already. */
const ONE_WISH_MS = 1000;
const TICK_MS = 500;
/** Milliseconds in which a failed rank is ended with all others, else by itself. */
const END_OTHERS_MS = 3000;

/** What a command has of the process it works in. */
export interface CommandThread {
  /** Shown by the main thread. */
  reporter: Reporter;
  /** Aborted when the user wants the command to stop; only turns of the event loop tell it. */
  signal: AbortSignal;
  /** Nothing but warnings is shown from now on. */
  beQuiet(): void;
  /** Writes a line to standard output, behind all that was shown. */
  print(text: string): void;
  /** Writes to standard output what is no whole line yet; no activity is shown on the terminal until the next begins. */
  write(text: string): void;
  /** Gives up the process's right to reach the net, for good; a port that is open still answers. */
  leaveNet(): void;
  /** How to go on with what has been begun, for whoever stops it. */
  goOnBy(command: string): void;
  /**
   * This process is one of several, all of which end where it fails or is stopped before it has left them.
   *
   * @returns what is called when it has left the others
   */
  beRank(rank: number, endOthers: (code: number) => void): { leave(): void };
  /** Writes what is shown to a file from now on, but for errors; for a rank that is not the first. */
  logTo(path: string): void;
  /** What has been saved last, for whoever ends the process. */
  savedAs(what: string): void;
  /** Where the command is stopped, what is at `path` is removed, if it is there; of a folder all of it if `recursive`. */
  removeIfStopped(path: string, options?: { recursive?: boolean }): void;
  /** A folder for the time of the command. It is removed with what was put there, also when the command is stopped. */
  temporaryFolder(): Promise<AsyncDisposable & { path: string }>;
}

/** Whether this module is a command's thread rather than the main one. */
export function inCommandThread(): boolean {
  return "DedicatedWorkerGlobalScope" in globalThis;
}

/**
 * Performs a command in its thread.
 *
 * @param command resolves to whether it came to its end rather than being stopped
 */
export function performCommand(
  command: (thread: CommandThread) => Promise<boolean>,
  { debug }: { debug: boolean },
): void {
  // The compiler takes every module for one of the main thread.
  const main = self as unknown as Worker;
  const tell = (told: Told): void => main.postMessage(told);
  const stop = new AbortController();
  let endOthers: ((code: number) => void) | undefined;
  let endedAs = 0;
  main.addEventListener("message", ({ data }: MessageEvent<Wish>) => {
    if (data === "stop") stop.abort();
    else endOthers?.(endedAs);
  });
  const end = (ended: number, message?: string): void => {
    endedAs = ended;
    tell({ ended, message, endsOthers: endOthers !== undefined });
  };
  const reporter = Object.fromEntries(
    (["plan", "activity", "message", "warning", "row"] as const).map((report) => [
      report,
      (...values: unknown[]) => tell({ report, values } as Told),
    ]),
  ) as unknown as Reporter;
  command({
    reporter,
    signal: stop.signal,
    beQuiet: () => tell({ quiet: true }),
    print: (text) => tell({ print: text }),
    write: (text) => tell({ write: text }),
    leaveNet,
    goOnBy: (goOn) => tell({ goOn }),
    beRank(rank, end) {
      tell({ rank });
      endOthers = end;
      return { leave: () => endOthers = undefined };
    },
    logTo: (log) => tell({ log }),
    savedAs: (saved) => tell({ saved }),
    removeIfStopped: (path, { recursive = false } = {}) => tell({ unlessEnded: path, recursive }),
    async temporaryFolder() {
      const path = await storing(tmpdir(), () => Deno.makeTempDir({ prefix: "sparse-attention-" }));
      tell({ temporary: path });
      return {
        path,
        async [Symbol.asyncDispose]() {
          await Deno.remove(path, { recursive: true });
        },
      };
    },
  }).then((finished) => end(finished ? 0 : STOPPED), (error) => {
    // What was stopped may say so by the signal's reason.
    if (stop.signal.aborted && error === stop.signal.reason) return end(STOPPED);
    if (error instanceof Deno.errors.BrokenPipe) return end(BROKEN_PIPE);
    const { exitCode, message } = describeError(error);
    const shown = debug ? `${message}\n${Deno.inspect(error)}` : message.replace(/\s*\n\s*/g, " ");
    end(exitCode, shown);
  });
}

/** Gives up the right to reach the net, of all threads: they share what Deno permits. */
function leaveNet(): void {
  Deno.permissions.revokeSync({ name: "net" });
}

/** What is said when the user wants to stop; `hasWritten`: there is a part of the result on standard output already. */
export function stoppingText(activity: Activity | undefined, hasWritten = false): string {
  if (!activity) return hasWritten ? "stopping" : "stopping at the start";
  const { name, done, of, keep } = activity;
  const what = of === undefined || activity.bytes ? name : `${name} at ${done ?? 0} of ${of}`;
  return keep
    ? `stopping ${what}: what is under way is saved first; once more to stop at once`
    : `stopping: ${what}`;
}

/**
 * Starts a command's thread, shows what it reports, and leaves the process with its exit code. Ctrl-C, a termination or a
 * hang-up asks the thread to stop; where it would lose nothing it is not waited for longer than {@link GRACE_MS}.
 *
 * @param module of the command, by its address
 */
export function superviseCommand(module: string): Promise<never> {
  let quiet = false;
  const temporary: string[] = [];
  /** What is removed where the command is stopped. */
  const unlessEnded: { path: string; recursive: boolean }[] = [];
  let goOn: string | undefined;
  /** Of several processes: which this is, and what has been saved. */
  let rank: number | undefined;
  let saved: string | undefined;
  let log: Deno.FsFile | undefined;
  /** What a rank that is not the first says before it knows where. */
  let unlogged = "";
  let stoppedAt: number | undefined;
  /** What was written last, where it was no whole line. */
  let written: string | undefined;
  const create = (): Progress =>
    rank !== undefined && rank > 0
      ? createProgress({ interactive: false, quiet, columns: terminalColumns, write: writeLog })
      : createProgress({ interactive: isInteractive(), quiet, columns: terminalColumns, write: writeError });
  let progress = create();

  function writeLog(text: string): void {
    if (!log) {
      unlogged += text;
      return;
    }
    try {
      log.writeSync(new TextEncoder().encode(unlogged + text));
      unlogged = "";
    } catch {
      // A full disk is told by rank 0, which has more to lose.
    }
  }

  function removeTemporary(code: number): void {
    const begun = code === STOPPED ? unlessEnded : [];
    for (const { path, recursive } of [...begun, ...temporary.map((path) => ({ path, recursive: true }))]) {
      try {
        Deno.removeSync(path, { recursive });
      } catch {
        // The thread has removed it in the meantime, or others have put something there.
      }
    }
  }

  function leave(code: number): never {
    progress.finish();
    removeTemporary(code);
    Deno.exit(code);
  }

  /** Leaves with all other ranks, which would wait for this one. */
  function leaveWithOthers(code: number): void {
    progress.finish();
    removeTemporary(code);
    setTimeout(() => leave(code), END_OTHERS_MS);
    worker.postMessage("said");
  }

  /** Leaves when the reader of a pipe has seen enough. */
  function guarded(work: () => void): void {
    try {
      work();
    } catch (error) {
      if (error instanceof Deno.errors.BrokenPipe) leave(BROKEN_PIPE);
      throw error;
    }
  }

  const worker = new Worker(module, { type: "module" });
  function hear(told: Told): void {
    if ("report" in told) {
      const report = progress[told.report] as (...values: unknown[]) => void;
      report(...told.values);
    } else if ("print" in told) {
      progress.finish();
      console.log(told.print);
    } else if ("write" in told) {
      progress.finish();
      written = told.write;
      writeOut(written);
    } else if ("quiet" in told) {
      quiet = told.quiet;
      progress = create();
    } else if ("goOn" in told) goOn = told.goOn;
    else if ("temporary" in told) temporary.push(told.temporary);
    else if ("unlessEnded" in told) unlessEnded.push({ path: told.unlessEnded, recursive: told.recursive });
    else if ("saved" in told) saved = told.saved;
    else if ("rank" in told) {
      rank = told.rank;
      progress = create();
    } else if ("log" in told) openLog(told.log);
    else {
      progress.finish();
      if (told.message !== undefined) sayError(told.message);
      if (told.ended === STOPPED) sayStopped();
      if (told.endsOthers) leaveWithOthers(told.ended);
      else leave(told.ended);
    }
  }

  function openLog(path: string): void {
    try {
      log = Deno.openSync(path, { append: true, create: true });
      writeLog(`rank ${rank}, ${new Date().toISOString()}\n`);
    } catch (error) {
      console.error(`warning: rank ${rank} cannot write ${path}: ${(error as Error).message}`);
    }
  }

  function sayError(message: string): void {
    const of = rank === undefined ? "" : `rank ${rank}: `;
    console.error(`error: ${of}${message}`);
    if (rank !== undefined && rank > 0) writeLog(`error: ${message}\n`);
  }

  function writeOut(text: string): void {
    let left = new TextEncoder().encode(text);
    while (left.length > 0) left = left.subarray(Deno.stdout.writeSync(left));
  }

  function sayStopped(): void {
    progress.message(goOn === undefined ? "stopped" : `stopped; go on by: ${goOn}`);
  }

  worker.onmessage = ({ data }: MessageEvent<Told>) => guarded(() => hear(data));
  worker.onerror = (event) => {
    event.preventDefault();
    progress.finish();
    sayError(`${event.message} (this is a bug; --debug shows where)`);
    leave(1);
  };
  surviveFileLimit();
  onStopSignal(() =>
    guarded(() => {
      if (stoppedAt !== undefined) {
        if (performance.now() - stoppedAt >= ONE_WISH_MS) leave(STOPPED);
        return;
      }
      stoppedAt = performance.now();
      const activity = progress.current();
      if (written !== undefined && !written.endsWith("\n")) writeOut("\n");
      progress.message(stoppingText(activity, written !== undefined));
      // One that is asked to stop since another rank died will not come to save anything.
      if (rank !== undefined && saved !== undefined) {
        progress.message(`saved so far: ${saved}; go on by: ${goOn}`);
      }
      worker.postMessage("stop");
      if (activity?.keep) return;
      // Rank 0 decides for all.
      if (rank !== undefined && rank > 0) return;
      setTimeout(() => {
        sayStopped();
        leave(STOPPED);
      }, GRACE_MS);
    })
  );
  setInterval(() => guarded(() => progress.tick()), TICK_MS);
  return new Promise<never>(() => {});
}
