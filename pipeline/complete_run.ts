/**
 * A prepared run taken to its end: what others are told of it, its summary and its report, and everything it holds given
 * back.
 *
 * @module
 */
import { describeError } from "./command_line.ts";
import { DivergedError } from "./errors.ts";
import { writeJson } from "./files.ts";
import { writeReport } from "./report/report.ts";
import type { PreparedRun } from "./training/training_run.ts";

/**
 * Trains, then writes the summary and the report. The run's files, lock and device are given back in any case.
 *
 * @param train gives undefined when it was stopped with a checkpoint
 * @returns what `train` gives
 */
export async function completeRun<Summary extends object>(
  run: PreparedRun,
  train: () => Promise<Summary | undefined>,
): Promise<Summary | undefined> {
  const { folder, state, metrics, gpu } = run;
  try {
    const summary = await train();
    if (summary) {
      await writeJson(folder.summary, summary);
      await writeReport(folder);
      await state.set({ state: "finished" });
    } else await state.set({ state: "stopped" });
    return summary;
  } catch (error) {
    // On a full disk this may fail as well; what matters is why.
    await state.set({
      state: "failed",
      error: describeError(error).message.split("\n")[0],
      ...(error instanceof DivergedError ? { diverged: true } : {}),
    }).catch(() => {});
    throw error;
  } finally {
    metrics.close();
    folder.release();
    await gpu.end();
  }
}
