/**
 * What can be told of a sweep's runs before any goes on: settings that contradict each other, and those that have become
 * others since some runs began.
 *
 * @module
 */
import { join } from "node:path";
import { usageError, UserError } from "../errors.ts";
import { exists } from "../files.ts";
import { flagName } from "../flags.ts";
import { readRunConfig } from "../runs/run_config.ts";
import { SPARSIFY, type SparsifySettings } from "../settings.ts";
import { resolveSettings } from "../settings/resolve.ts";
import { FREE_ON_RESUME } from "../settings/resume.ts";
import { checkAdaptation } from "../training/adaptation.ts";
import { checkControl } from "../training/sparsify.ts";
import type { SweepRun } from "./sweep_file.ts";

/** Runs that are named with their fault, at most. */
const NAMED = 10;

/**
 * Checks the settings of every run, with what its model recommends where that lies on this machine.
 *
 * @param path what messages call the sweep
 * @throws {UserError} naming all runs whose settings contradict each other, each with its fault
 */
export async function checkRuns(runs: readonly SweepRun[], path: string): Promise<void> {
  const faults: string[] = [];
  for (const { name, settings: given } of runs) {
    try {
      const settings = await settingsNow(given);
      checkControl(settings);
      checkAdaptation(settings);
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      faults.push(`${name}: ${error.message}`);
    }
  }
  if (faults.length === 0) return;
  const more = faults.length > NAMED ? `; and ${faults.length - NAMED} more` : "";
  throw usageError(
    `Cannot run the sweep ${path} as the settings of ${faults.length} of its ${runs.length} runs contradict ` +
      `themselves: ${faults.slice(0, NAMED).join("; ")}${more}`,
  );
}

/**
 * Refuses to go on where runs that began have other settings than they would have now: the file leaves them open, and what
 * the model recommends, or the program's defaults, have become others since. The rest of the runs would not be comparable.
 *
 * @param folder that the runs are in
 * @param what what messages call it, as "the sweep tries.json"
 * @throws {UserError} naming those settings, as they were and as they would be
 */
export async function checkBegun(runs: readonly SweepRun[], folder: string, what: string): Promise<void> {
  const changed = new Set<string>();
  let others = 0;
  for (const { name, settings: given } of runs) {
    // One that never began has none, and of one that is damaged it is said where it goes on.
    const begun = await readRunConfig(join(folder, name, "config.json")).catch(() => undefined);
    if (!begun) continue;
    const now = await settingsNow(given);
    // What a model of the hub recommends is known once it is fetched.
    if (!await exists(now.model)) continue;
    const before = { ...begun.settings };
    // As it began, before the user changed anything on the way.
    for (const change of begun.changes?.toReversed() ?? []) before[change.setting] = change.before;
    const differing = COMPARED.filter((key) =>
      // A setting that there was not yet is the program's business, and a batch that was chosen stays the run's own.
      key in before && JSON.stringify(before[key]) !== JSON.stringify(now[key]) &&
      !(key === "batch" && now.batch === "auto")
    );
    if (differing.length > 0) others++;
    for (const key of differing) changed.add(`${flagName(key)} ${before[key]} (now ${now[key]})`);
  }
  if (others === 0) return;
  throw usageError(
    `Cannot go on with ${what} as ${others} of its ${runs.length} runs began with settings that are others now, ` +
      `where it leaves them to the model or the defaults: ${[...changed].slice(0, NAMED).join(", ")}; ` +
      "--table tells what there is, and with another --name it begins anew",
  );
}

/** Settings that decide a result; paths are told by their contents. */
const COMPARED = (Object.keys(SPARSIFY) as (keyof SparsifySettings)[]).filter((key) =>
  !["path", "paths"].includes(SPARSIFY[key].kind) && key !== "name" && !FREE_ON_RESUME.includes(key)
);

/** What a run would begin with now. */
function settingsNow(given: SweepRun["settings"]): Promise<SparsifySettings> {
  return resolveSettings(SPARSIFY, { given: given as Partial<SparsifySettings>, config: undefined });
}
