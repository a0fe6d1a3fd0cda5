/**
 * What a run is doing, in its `state.json`, for whoever watches from another process. Whether a process is at work at
 * all is told by the run's lock, since a killed one leaves its last word standing.
 *
 * @module
 */
import { writeJson } from "../files.ts";
import type { MetricRow } from "./metrics.ts";

/** A run's state.json. */
export interface RunState {
  state: "preparing" | "training" | "paused" | "stopped" | "failed" | "finished";
  /** The phase under way, or the last one. */
  phase: MetricRow["phase"] | null;
  /** What a failed run died of, on one line. */
  error: string | null;
  /** Whether it died of gradients that were not finite: the same settings end so again. */
  diverged?: true;
  /** When this was written, ISO 8601. */
  since: string;
}

/** Keeps a run's state.json. */
export interface RunStateFile {
  set(change: Partial<Omit<RunState, "since">>): Promise<void>;
}

/** Begins a state file at `preparing`. */
export async function createRunState(path: string): Promise<RunStateFile> {
  let now: Omit<RunState, "since"> = { state: "preparing", phase: null, error: null };
  const set: RunStateFile["set"] = async (change) => {
    now = { ...now, ...change };
    await writeJson(path, { ...now, since: new Date().toISOString() });
  };
  await set({});
  return { set };
}
