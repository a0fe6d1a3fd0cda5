/**
 * Which settings may be new where a run goes on.
 *
 * @module
 */
import { usageError } from "../errors.ts";
import { flagName } from "../flags.ts";
import type { SettingsOf, SettingsTable } from "./table.ts";

/**
 * What a run that goes on may be given anew and that changes its course from there on; which, and from which step, is
 * written into its config.json, of the slack into its slack.json.
 */
export const CHANGEABLE = ["lr", "clip", "slack", "targetLoss", "lambdaMin", "lambdaMax"] as const;

/**
 * What a run reads, which may lie anywhere else: its contents are compared by themselves. The data may become another, which
 * is told.
 */
export const READ_ON_RESUME = ["data", "model", "tokenizer", "adapter"] as const;

/** What changes no bit of the result, what is read, and the device's adapter, which is told. */
export const FREE_ON_RESUME: readonly string[] = [
  ...READ_ON_RESUME,
  "json",
  "quiet",
  "debug",
  "serve",
  "port",
  "runs",
  "checkpointEvery",
  "keepCheckpoints",
  "recompute",
  "memory",
  "autotune",
  "gpu",
  "mpi",
  "rankLimit",
  "shareAdapter",
  "shardOptimizer",
  "stages",
  "merge",
];

/**
 * The settings of a run that is resumed: the run's own, with those taken from flags that may be new.
 *
 * @throws {UserError} when another flag differs from the run's setting
 */
export function resumedSettings<const Table extends SettingsTable>(
  own: SettingsOf<Table>,
  given: Partial<SettingsOf<Table>>,
  name: string,
): SettingsOf<Table> {
  const allowed: readonly string[] = [...FREE_ON_RESUME, ...CHANGEABLE];
  for (const [key, value] of Object.entries(given)) {
    const before = (own as Record<string, unknown>)[key];
    if (key === "targetLoss" && (before === "control") !== (value === "control")) {
      throw usageError(
        `Cannot resume ${name} with --target-loss ${value}, as the run began with ${before}: where the control ` +
          `sets the target, it comes first`,
      );
    }
    if (!allowed.includes(key) && JSON.stringify(before) !== JSON.stringify(value)) {
      throw usageError(
        `Cannot resume ${name} with --${
          flagName(key)
        } ${value}, as the run began with ${before}: leave it out, or ` +
          `begin another run with it; ${
            ["data", ...CHANGEABLE].filter((each) => each in own).map((each) => `--${flagName(each)}`).join(
              ", ",
            )
          } may be new`,
      );
    }
  }
  return { ...own, ...given };
}
