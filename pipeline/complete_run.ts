/**
 * A prepared run taken to its end: what others are told of it, its summary and its report, and everything it holds given
 * back.
 *
 * @module
 */
import { describeError } from "./command_line.ts";
import { DivergedError, UnmeasurableError } from "./errors.ts";
import { writeJson } from "./files.ts";
import { writeReport } from "./report/report.ts";
import type { PreparedRun } from "./training/training_run.ts";

/** Whether a new run has failed by a model with which it cannot begin, so that there is nothing to go on with. */
export function cannotBegin(run: Pick<PreparedRun, "abandon">, error: unknown): boolean {
  return run.abandon !== undefined && error instanceof UnmeasurableError;
}

/**
 * Trains, then writes the summary and the report. The run's files, lock and device are given back in any case. Of a new run
 * that cannot begin nothing is left behind.
 *
 * @param train gives undefined when it was stopped with a checkpoint
 * @returns what `train` gives
 */
export async function completeRun<Summary extends object>(
  run: PreparedRun,
  train: () => Promise<Summary | undefined>,
): Promise<Summary | undefined> {
  const { folder, state, metrics, gpu } = run;
  let isVain = false;
  try {
    const summary = await train();
    if (summary) {
      await writeJson(folder.summary, summary);
      await writeReport(folder);
      await state.set({ state: "finished" });
    } else await state.set({ state: "stopped" });
    return summary;
  } catch (error) {
    isVain = cannotBegin(run, error);
    // On a full disk this may fail as well; what matters is why.
    await state.set({
      state: "failed",
      error: describeError(error).message.split("\n")[0],
      ...(error instanceof DivergedError ? { diverged: true } : {}),
    }).catch(() => {});
    throw error;
  } finally {
    metrics.close();
    // Windows removes no open file. What cannot be removed stays as a run that failed.
    if (isVain) await run.abandon?.().catch(() => {});
    folder.release();
    await gpu.end();
  }
}
