/**
 * Runs a sweep: each run as a process of its own, some at a time. What finished stays, what was stopped goes on from its
 * checkpoint, and a run that fails costs the others nothing.
 *
 * @module
 */
import { join } from "node:path";
import { exists } from "../files.ts";
import { rowOf, type SweepRow } from "./results.ts";
import type { SweepRun } from "./sweep_file.ts";

/** A process under way. */
export interface Launched {
  /** Its exit code. */
  readonly ended: Promise<number>;
  /** Asks it to stop with a checkpoint. */
  stop(): void;
}

/** What a sweep needs from outside. */
export interface SweepOptions {
  /** Folder of the sweep's runs. */
  runs: string;
  /** Runs at a time. */
  jobs: number;
  /** Starts one anew, or goes on with it. */
  launch(run: SweepRun, mode: "begin" | "resume"): Launched;
  /** Stops all with checkpoints. */
  signal: AbortSignal;
  /** Told of each run that begins, goes on or has ended. */
  onRun?(event: { row: SweepRow; kind: "begin" | "resume" | "wait" | "end"; exitCode?: number }): void;
}

/** Between two looks at a run that another process has: one that outlived a killed sweep. */
const LOOK_MS = 500;

/**
 * Runs what has not finished, in order. A run that another process has is passed over and looked at again when no other is
 * left; one that diverged is left as it is, since its settings and its seed would take it there again.
 *
 * @returns a row for each run, as they are now
 */
export async function runSweep(
  all: readonly SweepRun[],
  { runs, jobs, launch, signal, onRun }: SweepOptions,
): Promise<SweepRow[]> {
  const open = [...all];
  const under = new Set<Launched>();
  const stop = (): void => under.forEach((process) => process.stop());
  signal.addEventListener("abort", stop);

  /** Passed over, as another process has them. */
  const held: SweepRun[] = [];
  const told = new Set<SweepRun>();
  /** Whether one could not even be watched, as on a full disk: then no other begins. */
  let broken = false;
  const isOver = (): boolean => signal.aborted || broken;

  async function one(run: SweepRun): Promise<void> {
    const row = await rowOf(runs, run);
    if (row.status === "running") {
      held.push(run);
      if (!told.has(run)) onRun?.({ row, kind: "wait" });
      told.add(run);
      return;
    }
    if (row.status === "finished" || row.diverged || isOver()) return;
    // A start that was broken off before it was a run is begun anew.
    const kind = await exists(join(runs, run.name, "config.json")) ? "resume" : "begin";
    onRun?.({ row, kind });
    const process = launch(run, kind);
    under.add(process);
    if (isOver()) process.stop();
    const exitCode = await process.ended;
    under.delete(process);
    onRun?.({ row: await rowOf(runs, run), kind: "end", exitCode });
  }

  async function work(): Promise<void> {
    while (!isOver()) {
      const run = open.shift();
      if (run) await one(run);
      else if (held.length === 0) return;
      else {
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
        open.push(...held.splice(0));
      }
    }
  }

  try {
    await Promise.all(Array.from({ length: jobs }, work));
  } finally {
    // Those under way do not go on unwatched.
    broken = true;
    stop();
    signal.removeEventListener("abort", stop);
  }
  return await Promise.all(all.map((run) => rowOf(runs, run)));
}
