/**
 * What can be told of a sweep's runs before the first begins: settings that contradict each other.
 *
 * @module
 */
import { usageError, UserError } from "../errors.ts";
import { SPARSIFY, type SparsifySettings } from "../settings.ts";
import { resolveSettings } from "../settings/resolve.ts";
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
      const settings = await resolveSettings(SPARSIFY, {
        given: given as Partial<SparsifySettings>,
        config: undefined,
      });
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
