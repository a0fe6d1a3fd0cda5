/**
 * `deno task export`: a step that a run has kept as a model's folder, or which there are.
 *
 * @module
 */
import { prepareMesa, userFolder } from "../command_line.ts";
import { type CommandThread, inCommandThread, performCommand, superviseCommand } from "../command_thread.ts";
import { inputError, usageError } from "../errors.ts";
import { locateHere } from "../fetch_named.ts";
import { checkIsFree } from "../files.ts";
import { requireOneProcess } from "../parallel/one_process.ts";
import { formatShare } from "../report/progress.ts";
import { formatTable } from "../report/table.ts";
import { phaseInName } from "../runs/checkpoint.ts";
import { EXPORT, type ExportSettings } from "../settings.ts";
import { printedInstead } from "../settings/help.ts";
import { parseCommand } from "../settings/parse.ts";
import { resolveSettings } from "../settings/resolve.ts";
import { exportStep } from "./export_step.ts";
import { type KeptStep, type KeptSteps, keptSteps, openStoredRun, type StoredRun } from "./kept_steps.ts";

const PURPOSE = "Makes a model's folder of a step that a run has kept, or lists these steps.";

/** What a step is beside a step. */
function rolesOf({ step, paths }: KeptStep, { levels }: KeptSteps, { phase }: StoredRun): string {
  const named = levels.length > 1
    ? levels.flatMap((of, level) => of === step ? [`--front ${level}`] : [])
    : levels[0] === step
    ? ["chosen"]
    : [];
  const goesOn = paths.some((path) => phaseInName(path) === phase);
  return [...named, ...goesOn ? ["a run goes on from it"] : []].join(", ");
}

/** Everything that there is, for people. */
function listText(run: StoredRun, kept: KeptSteps): string {
  if (kept.steps.length === 0) return `run ${run.path} has kept no step`;
  const rows = kept.steps.map((of) => [
    String(of.step),
    of.ce === undefined ? "" : of.ce.toFixed(4),
    of.openFraction === undefined ? "" : formatShare(of.openFraction),
    rolesOf(of, kept, run),
  ]);
  return `${
    formatTable([["step", "loss", "open edges", ""], ...rows])
  }\nloss and open edges on validation tokens`;
}

/**
 * The step that is meant.
 *
 * @throws {UserError} when there is none such, which is told with those that there are, or its file is torn
 */
function chosen(
  { name }: StoredRun,
  { steps, levels, torn }: KeptSteps,
  { step, front }: Pick<ExportSettings, "step" | "front">,
): KeptStep {
  const there = `there are ${steps.map(({ step }) => step).join(", ") || "none"}`;
  if (front !== "auto" && (levels.length < 2 || front >= levels.length)) {
    throw usageError(
      levels.length < 2
        ? `Cannot export a level of ${name} as it has no front: give --step, of which ${there}`
        : `Cannot export level ${front} of ${name} as they go from 0 to ${levels.length - 1}`,
    );
  }
  const wanted = front === "auto" ? step : levels[front];
  if (wanted === null) {
    throw usageError(`Cannot export level ${front} of ${name} as no step is at or below its target`);
  }
  const found = steps.find((each) => each.step === wanted);
  if (found) return found;
  const damaged = torn.find(({ path }) => Number(/-(\d+)\.safetensors$/.exec(path)?.[1]) === wanted);
  if (damaged) throw inputError(damaged.reason);
  throw usageError(`Cannot export step ${wanted} of ${name} as it was not kept: ${there}`);
}

async function exportCommand(args: string[], thread: CommandThread): Promise<boolean> {
  await requireOneProcess("export");
  const parsed = parseCommand(EXPORT, args, userFolder());
  const printed = await printedInstead("export", PURPOSE, EXPORT, parsed);
  if (printed !== undefined) {
    thread.print(printed);
    return true;
  }
  const settings = await resolveSettings(EXPORT, parsed);
  const { run: name, runs, step, front, output, json, quiet } = settings;
  if (quiet) thread.beQuiet();
  if (name === undefined) throw usageError("Cannot export without a run: give --run NAME");
  const isNamed = step !== "auto" || front !== "auto";
  if (step !== "auto" && front !== "auto") {
    throw usageError("Cannot export by --step and by --front: give one of the two");
  }
  if (isNamed && output === undefined) throw usageError("Cannot export without a folder: give --output DIR");
  if (output !== undefined) await checkIsFree(output);
  const run = await openStoredRun(runs, name);
  const kept = await keptSteps(run);
  for (const { reason } of kept.torn) thread.reporter.warning(reason);
  if (!isNamed) {
    if (output !== undefined) {
      const there = kept.steps.map(({ step }) => step).join(", ") || "none";
      throw usageError(
        `Cannot tell which step of ${name} is to be exported: give --step, of which there are ${there}`,
      );
    }
    thread.print(
      json
        ? JSON.stringify({
          run: name,
          phase: run.phase,
          steps: kept.steps.map(({ step, ce = null, openFraction = null }) => ({
            step,
            validation_ce: ce,
            open_fraction: openFraction,
          })),
          front: kept.levels,
        })
        : listText(run, kept),
    );
    return true;
  }
  const of = chosen(run, kept, settings);
  thread.reporter.activity({ name: `exporting step ${of.step}` });
  await exportStep(run, of, output!, locateHere);
  thread.print(
    json
      ? JSON.stringify({ run: name, phase: run.phase, step: of.step, output })
      : `step ${of.step} of ${run.path}: ${output}`,
  );
  return true;
}

if (inCommandThread()) {
  const args = [...Deno.args];
  performCommand((thread) => exportCommand(args, thread), { debug: args.includes("--debug") });
} else if (import.meta.main) {
  prepareMesa();
  await superviseCommand(import.meta.url);
}
