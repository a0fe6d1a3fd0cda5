/**
 * The runs of a sweep as processes of `deno task`, each with its progress in a log beside it, and what is told of them all.
 *
 * @module
 */
import { PROJECT, storing, writeAll } from "../files.ts";
import { flagsOf } from "../flags.ts";
import { LAUNCH_VARIABLES } from "../parallel/mpi.ts";
import { formatDuration, formatShare } from "../report/progress.ts";
import { logOf, rowOf, type SweepRow } from "./results.ts";
import { type Launched, runSweep } from "./run_sweep.ts";
import type { SweepRun } from "./sweep_file.ts";

/** Milliseconds between two lines of progress. */
const PROGRESS_MS = 2_400;

/** Starts a run, or goes on with it; `onLine` is told what it says. */
export type Launch = (run: SweepRun, mode: "begin" | "resume", onLine: (line: string) => void) => Launched;

/**
 * The variables of a run's process: this one's, but for what tells it that it is one of several, which no run of a sweep is,
 * and what says where libraries are, such as Open MPI's, which Deno hands on only to whoever may start anything.
 */
function variablesOfRun(): Record<string, string> {
  const all = Object.entries(Deno.env.toObject());
  const own = all.filter(([name]) => !LAUNCH_VARIABLES.includes(name) && !/^(LD|DYLD)_/.test(name));
  // Where `deno task` was called is not where its paths are from: they are absolute.
  return { ...Object.fromEntries(own), INIT_CWD: PROJECT };
}

/** How runs are run. */
export interface ProcessOptions {
  /** Folder of the runs. */
  runs: string;
  /** Runs at a time. */
  jobs: number;
  /** Stops all with checkpoints. */
  signal: AbortSignal;
  /** Tells a line of progress. */
  say(text: string): void;
  /** The command that goes on after a stop. */
  goOn: string;
  /** Starts one; left out: here. */
  launch?: Launch;
}

/**
 * Runs what has not finished, telling what begins, ends and goes on.
 *
 * @returns exit codes of the processes that ended, by the run's name
 */
export async function runProcesses(
  chosen: readonly SweepRun[],
  { runs, jobs, signal, say, goOn, launch = launchIn(runs) }: ProcessOptions,
): Promise<Map<string, number>> {
  const exitCodes = new Map<string, number>();
  const started = performance.now();
  /** The last line that each run under way has said. */
  const last = new Map<string, string>();
  let ended = 0;
  const before = await Promise.all(chosen.map((each) => rowOf(runs, each)));
  const finished = before.filter(({ status }) => status === "finished").length;
  const diverged = before.filter(({ status, diverged }) => status === "failed" && diverged);
  const open = chosen.length - finished - diverged.length;
  if (finished > 0) say(`${finished} of ${chosen.length} runs are finished already`);
  for (const { run, error } of diverged) {
    say(`${run.name}: not run again, as the same settings would diverge again (${error})`);
  }
  /** Runs of ours that go on; of those that are waited for nothing is stopped. */
  let ours = 0;
  const stopping = (): void =>
    say(
      `stopping ${
        ours === 1 ? "the run that goes on, with a checkpoint" : `${ours} runs, each with a checkpoint`
      }; go on by ${goOn}`,
    );
  signal.addEventListener("abort", stopping);
  const progress = setInterval(() => {
    if (last.size === 0) return;
    const seconds = (performance.now() - started) / 1000;
    const left = ended > 0 ? `  ${formatDuration(seconds / ended * (open - ended))} left` : "";
    say(`${finished + ended} of ${chosen.length} runs done${left}  ${[...last.values()].join("  |  ")}`);
  }, PROGRESS_MS);
  try {
    await runSweep(chosen, {
      runs,
      jobs,
      signal,
      launch: (each, mode) => launch(each, mode, (line) => last.set(each.name, line)),
      onRun({ row, kind, exitCode }) {
        const { name } = row.run;
        if (kind === "wait") return say(`${name}: another process is still at it; it comes last`);
        if (kind !== "end") {
          ours++;
          last.set(name, name);
          return say(`${name}: ${kind === "begin" ? "begins" : "goes on"}`);
        }
        last.delete(name);
        ours--;
        exitCodes.set(name, exitCode!);
        if (signal.aborted) return;
        ended++;
        say(`${name}: ${outcomeOf(row, exitCode)}`);
      },
    });
  } finally {
    clearInterval(progress);
    signal.removeEventListener("abort", stopping);
  }
  return exitCodes;
}

function outcomeOf({ run, status, summary, error }: SweepRow, exitCode?: number): string {
  if (!summary) return error ?? `${status}, ended with ${exitCode}`;
  // Of another command the sweep knows no more than that.
  if (run.command !== undefined) return "finished";
  const { sparse, dense } = summary;
  return `${formatShare(sparse.open_fraction)} open, loss ${sparse.ce.toFixed(4)} (dense ${
    dense.ce.toFixed(4)
  }), target ${sparse.feasible ? "met" : "missed"}`;
}

/** Starts `deno task` with a command of the project, which says nothing but what it says to its standard error. */
export function startTask(args: readonly string[]): { child: Deno.ChildProcess; stop(): void } {
  const child = new Deno.Command("deno", {
    args: ["task", "--quiet", ...args],
    cwd: PROJECT,
    clearEnv: true,
    env: variablesOfRun(),
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  return {
    child,
    stop() {
      try {
        child.kill("SIGTERM");
      } catch {
        // It has ended by itself.
      }
    },
  };
}

/** Starts runs as processes of their commands, whose progress goes to their logs in a folder. */
export function launchIn(runs: string): Launch {
  return (each, mode, onLine) => {
    const what = mode === "resume"
      ? ["--resume", each.name]
      : ["--name", each.name, ...flagsOf(each.settings)];
    const { child, stop } = startTask([each.command ?? "sparsify", "--runs", runs, ...what]);
    const logged = follow(child.stderr, logOf(runs, each), onLine);
    return {
      ended: Promise.all([child.status, logged]).then(([{ code }]) => code),
      stop,
    };
  };
}

/** Writes what a process says to its log, and tells each line. */
async function follow(
  stream: ReadableStream<Uint8Array>,
  path: string,
  onLine: (line: string) => void,
): Promise<void> {
  using log = await storing(path, () => Deno.open(path, { create: true, write: true, truncate: true }));
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of stream) {
    await storing(path, () => writeAll(log, bytes));
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop()!;
    const line = lines.findLast((each) => each.trim() !== "");
    if (line !== undefined) onLine(line);
  }
}
