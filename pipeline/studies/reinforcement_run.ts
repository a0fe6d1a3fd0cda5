/**
 * A run of reinforcement learning in a study's folder, in this process: begun, or gone on with from its checkpoint.
 *
 * @module
 */
import { join } from "node:path";
import { DivergedError, UserError } from "../errors.ts";
import { exists, writeJson } from "../files.ts";
import { formatShare } from "../report/progress.ts";
import { openRun } from "../runs/run_folder.ts";
import type { SweepRun } from "../sweep/sweep_file.ts";
import { openRunModel, prepareRun } from "../training/prepare_run.ts";
import { reinforce, type ReinforceSettings } from "../training/reinforce.ts";
import type { Reporter } from "../training/training_run.ts";
import type { StudyTools } from "./study.ts";

/** What the run's config.json calls it. */
const COMMAND = "reinforce";
/** GB that a run may take of the device. */
const MEMORY = 4;

/** Which run, and where. */
export interface ReinforcementRun {
  run: Pick<SweepRun, "name">;
  /** Folder of the runs. */
  runs: string;
  /** Folder of the model that it begins with. */
  model: string;
  data: readonly string[];
  /** Rows of a micro-batch. */
  batch: number;
}

/**
 * Runs it to its end.
 *
 * @throws {UserError} on bad input, or where it diverged; the signal's reason where it was stopped with a checkpoint
 */
export async function performReinforcement(
  settings: ReinforceSettings,
  { run: { name }, runs, model, data, batch }: ReinforcementRun,
  { say, signal }: Pick<StudyTools, "say" | "signal">,
): Promise<void> {
  const goesOn = await exists(join(runs, name, "config.json"));
  say(`${name}: ${goesOn ? "goes on" : "begins"}`);
  const reporter: Reporter = {
    plan() {},
    activity() {},
    message() {},
    warning() {},
    row({ step, expected_open, validation_ce }, { steps }) {
      if (validation_ce === null) return;
      const open = expected_open === null ? "" : `, ${formatShare(expected_open)} of the edges expected open`;
      say(`${name}: step ${step} of ${steps}${open}`);
    },
  };
  const run = await prepareRun(
    COMMAND,
    {
      ...settings,
      ...{ data: [...data], batch, runs, name },
      ...{ recompute: false, stages: 1, dtype: "f32", memory: MEMORY, autotune: false, gpu: undefined },
    },
    await openRunModel(model),
    reporter,
    {
      weighted: true,
      ...(goesOn ? { resumed: { ...await openRun(runs, name, COMMAND), dataGiven: false } } : {}),
    },
  );
  const { folder, state, metrics, gpu } = run;
  try {
    const summary = await reinforce(settings, run, reporter, signal);
    if (!summary) {
      await state.set({ state: "stopped" });
      throw signal.reason;
    }
    await writeJson(folder.summary, summary);
    await state.set({ state: "finished" });
  } catch (error) {
    if (error instanceof UserError) {
      await state.set({
        state: "failed",
        error: error.message.split("\n")[0],
        ...(error instanceof DivergedError ? { diverged: true } : {}),
      });
    }
    throw error;
  } finally {
    metrics.close();
    folder.release();
    await gpu.end();
  }
}
