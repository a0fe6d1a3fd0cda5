/**
 * `deno task study NAME`: runs a study, or goes on with it, and writes what came of it.
 *
 *     runs/<study>/<stage>/<run>/   each run, as of its command
 *     runs/<study>/<stage>/         sweep.arrow and sweep.html of a stage
 *     runs/<study>/study.html       the page
 *     runs/<study>/study.md         the same as Markdown, as docs/studies has it
 *     runs/<study>/study.json       which study it is, and the project that it was begun from, by whose paths its runs are known
 *
 * @module
 */
import { join, resolve } from "node:path";
import { runCommand, STOPPED, stopSignal, userFolder, writeError } from "../command_line.ts";
import { inputError, usageError, UserError } from "../errors.ts";
import { exists, readJson, writeAll, writeAtomically } from "../files.ts";
import { shellWord } from "../flags.ts";
import { nearest } from "../nearest.ts";
import { isRunName, runIsLocked } from "../runs/run_folder.ts";
import { STUDY, type StudySettings } from "../settings.ts";
import { printedInstead } from "../settings/help.ts";
import { parseCommand } from "../settings/parse.ts";
import { resolveSettings } from "../settings/resolve.ts";
import { checkBegun } from "../sweep/check_runs.ts";
import { writeSweepPage } from "../sweep/page.ts";
import { runProcesses, startTask } from "../sweep/processes.ts";
import { rowOf, type SweepRow, writeSweepTable } from "../sweep/results.ts";
import type { SweepRun } from "../sweep/sweep_file.ts";
import { holdSweep, openSweepFolder } from "../sweep/sweep_folder.ts";
import { circuitSizes } from "./circuit_sizes.ts";
import { type StudyData, studyHtml, studyMarkdown } from "./document.ts";
import { requireOneProcess } from "../parallel/one_process.ts";
import { STUDIES } from "./studies.ts";
import { openStudyFolder } from "./study_folder.ts";
import type { PartResult, Study, StudyPart, StudyTools } from "./study.ts";

const PURPOSE = "Runs a study of the method, many runs in all, and writes its results with intervals.";
const USAGE = "Usage: deno task study NAME [flags]";

/** The study of a name. */
function studyOf(name: string | undefined): Study {
  const all = [...STUDIES.keys()];
  if (name === undefined) throw usageError(`Cannot run a study without its name: ${all.join(", ")}`);
  const study = STUDIES.get(name);
  if (study) return study;
  const near = nearest(name, all);
  throw usageError(
    `Cannot run ${name} as there is no such study${
      near === undefined ? `: ${all.join(", ")}` : ` (did you mean ${near}?)`
    }`,
  );
}

/** The parts of the document, and of those the ones that are to be run. */
function partsOf(
  study: Study,
  { part, quick }: Pick<StudySettings, "part" | "quick">,
): { all: readonly StudyPart[]; chosen: readonly StudyPart[] } {
  const all = quick ? study.parts.filter(({ inQuick }) => inQuick) : study.parts;
  if (part === undefined) return { all, chosen: all };
  const chosen = all.filter(({ name }) => name === part);
  if (chosen.length > 0) return { all, chosen };
  throw usageError(
    `Cannot run the part ${part} of ${study.name} as its parts are ${
      all.map(({ name }) => name).join(", ")
    }: give one of these`,
  );
}

async function studyCommand(args: readonly string[]): Promise<void> {
  await requireOneProcess("study");
  const [name, flags] = args[0]?.startsWith("-") === false
    ? [args[0], args.slice(1)]
    : [undefined, [...args]];
  const parsed = parseCommand(STUDY, flags, userFolder());
  const printed = await printedInstead("study", PURPOSE, STUDY, parsed);
  if (printed !== undefined) {
    return console.log(
      `${printed.replace(/^Usage: .*$/m, USAGE)}\nStudies: ${[...STUDIES.keys()].join(", ")}`,
    );
  }
  const study = studyOf(name);
  const settings = await resolveSettings(STUDY, parsed);
  const { all, chosen } = partsOf(study, settings);
  const folderName = settings.name ?? study.name + (settings.quick ? "-quick" : "");
  if (!isRunName(folderName)) {
    throw usageError(
      `Cannot name a study ${folderName} as names consist of up to 128 letters, digits, dots, dashes and underscores`,
    );
  }
  if (settings.table && settings.jobs !== 1) {
    throw usageError("Cannot use --table and --jobs together: give one of them");
  }
  const folder = resolve(settings.runs, folderName);
  const mark = `${study.name}${settings.quick ? " --quick" : ""}`;
  const project = await openStudyFolder(folder, mark, { make: !settings.table });
  if (!settings.table && !await exists(project)) {
    throw usageError(
      `Cannot go on with the study in ${folder} as the checkout that it was begun in is not there any more: ${project}; ` +
        "--table tells what there is, and with another --name it begins anew",
    );
  }
  const signal = stopSignal(() => {});
  const command = ["deno", "task", "study", study.name, ...(settings.quick ? ["--quick"] : [])];
  const here = [
    ...command,
    ...(settings.part === undefined ? [] : ["--part", settings.part]),
    ...["--runs", resolve(settings.runs), "--name", folderName],
    ...(settings.jobs === 1 ? [] : ["--jobs", String(settings.jobs)]),
  ];
  const context = { settings, folder, project, mark, signal, goOn: here.map(shellWord).join(" ") };
  const failed: string[] = [];
  const results: PartResult[] = [];
  using _held = settings.table ? undefined : await holdSweep(folder, { shared: false });
  try {
    for (const part of all) {
      const onlyTable = settings.table || !chosen.includes(part);
      results.push(withoutEmpty(await part.perform(toolsOf({ ...context, onlyTable }, failed))));
    }
  } catch (error) {
    if (signal.aborted && error === signal.reason) Deno.exit(STOPPED);
    throw error;
  }
  const data: StudyData = {
    study,
    quick: settings.quick,
    parts: results,
    command: command.join(" "),
    day: new Date().toISOString().slice(0, 10),
  };
  const written = { "study.html": studyHtml(data), "study.md": studyMarkdown(data) };
  const isEmpty = results.every(({ done }) => done === 0);
  for (const path of isEmpty ? Object.keys(written).map((file) => join(folder, file)) : []) {
    // What it tells of other runs is more than that there are none.
    if (!await exists(path)) continue;
    throw inputError(
      `Cannot write ${path} anew as no run that this study has now has ended there: the page of other runs stays` +
        (failed.length > 0 ? `; what failed: ${failed.join("; ")}` : ""),
    );
  }
  for (const [file, text] of Object.entries(written)) {
    await writeAtomically(join(folder, file), (open) => writeAll(open, new TextEncoder().encode(text)));
  }
  if (settings.json) {
    console.log(JSON.stringify({ study: study.name, quick: settings.quick, parts: results }));
  } else {
    for (const { title, done, of, circuits, findings } of results) {
      const found = circuits && circuits.of > 0 ? `, ${circuits.done} of ${circuits.of} circuits` : "";
      console.log(
        `${title} (${done} of ${of} runs${found})\n${findings.map((finding) => `  ${finding}`).join("\n")}\n`,
      );
    }
    console.log(`Page: ${join(folder, "study.html")}   Markdown: ${join(folder, "study.md")}`);
  }
  if (failed.length > 0) {
    throw inputError(`${failed.length} runs or circuits failed; the rest stands: ${failed.join("; ")}`);
  }
}

/**
 * Runs what has not finished, one after the other; one that fails costs the others nothing.
 *
 * @returns why those that failed did, by name
 */
async function trainEach(
  runs: readonly SweepRun[],
  folder: string,
  { train, say, signal, goOn }: {
    train(run: SweepRun, folder: string): Promise<void>;
    say(text: string): void;
    signal: AbortSignal;
    goOn: string;
  },
): Promise<Map<string, string>> {
  const reasons = new Map<string, string>();
  const stopping = (): void => say(`stopping the run that goes on, with a checkpoint; go on by ${goOn}`);
  signal.addEventListener("abort", stopping);
  try {
    for (const run of runs) {
      signal.throwIfAborted();
      const { status, diverged } = await rowOf(folder, run);
      // The same settings would diverge again.
      if (status === "finished" || diverged) continue;
      try {
        await train(run, folder);
      } catch (error) {
        if (!(error instanceof UserError)) throw error;
        say(`${run.name}: ${error.message}`);
        reasons.set(run.name, error.message);
      }
    }
  } finally {
    signal.removeEventListener("abort", stopping);
  }
  return reasons;
}

/** A part without the figures of runs that there are not. */
function withoutEmpty(result: PartResult): PartResult {
  if (result.done > 0) return result;
  return { ...result, findings: ["No run of it has ended."], tables: [], forests: [] };
}

/** What a part works with, in the study's folder; what fails is added to `failed`. */
function toolsOf(
  { settings, onlyTable, folder, project, mark, signal, goOn }: {
    settings: StudySettings;
    onlyTable: boolean;
    folder: string;
    project: string;
    mark: string;
    signal: AbortSignal;
    goOn: string;
  },
  failed: string[],
): StudyTools {
  const say = (text: string): void => settings.quiet ? undefined : writeError(text + "\n");
  const fail = (text: string): void => {
    say(text);
    failed.push(text);
  };
  /** What runs of a stage have come to, once they have been run where they are to be; `run` tells why some failed, by name. */
  async function performed(
    stage: string,
    runs: readonly SweepRun[],
    run: (folder: string) => Promise<ReadonlyMap<string, string>>,
  ): Promise<SweepRow[]> {
    if (runs.length === 0) return [];
    const stageFolder = join(folder, stage);
    const rowsNow = (): Promise<SweepRow[]> => Promise.all(runs.map((run) => rowOf(stageFolder, run)));
    if (onlyTable) {
      const rows = await rowsNow();
      // Nothing is made for what has not been run.
      if (rows.every(({ status }) => status === "not begun")) return rows;
    }
    await openSweepFolder(stageFolder, `study ${mark}, ${stage}`, { make: !onlyTable });
    if (onlyTable) return await rowsNow();
    say(`${stage}: ${runs.length} runs`);
    const reasons = await run(stageFolder);
    signal.throwIfAborted();
    const rows = await rowsNow();
    const others = rows.filter(({ status }) => status !== "finished");
    failed.push(
      ...others.map(({ run, status, error }) => `${run.name} (${reasons.get(run.name) ?? error ?? status})`),
    );
    return rows;
  }
  return {
    quick: settings.quick,
    onlyTable,
    folder,
    signal,
    say,
    fail,
    project,
    folderOf: (stage, run) => join(folder, stage, run.name),
    async circuits(stage, run, args) {
      const name = `circuits-${run.name}`;
      const stageFolder = join(folder, stage);
      const summary = join(stageFolder, name, "summary.json");
      if (!await exists(summary)) {
        if (onlyTable) return null;
        say(`${run.name}: looking for its circuit`);
        await removeTorn(join(stageFolder, name));
        const model = join(stageFolder, run.name, "model");
        try {
          await findCircuit([...args, "--model", model, "--runs", stageFolder, "--name", name], signal);
        } catch (error) {
          if (!(error instanceof UserError)) throw error;
          fail(`${name} (${error.message})`);
          return null;
        }
      }
      return circuitSizes(await readJson(summary));
    },
    trained: (stage, runs, train) =>
      performed(stage, runs, (stageFolder) => trainEach(runs, stageFolder, { train, say, signal, goOn })),
    async runs(stage, runs) {
      if (runs.length === 0) return [];
      const stageFolder = join(folder, stage);
      const rows = await performed(stage, runs, async () => {
        const sparsified = runs.filter(({ command }) => command === undefined);
        await checkBegun(sparsified, stageFolder, `the study in ${folder}`);
        await runProcesses(runs, { runs: stageFolder, jobs: settings.jobs, signal, say, goOn });
        return new Map();
      });
      if (rows.every(({ status }) => status === "not begun")) return rows;
      // Of other commands the runs' summaries have no open edges beside a dense model's.
      if (runs.every(({ command }) => command === undefined)) {
        await writeSweepTable(join(stageFolder, "sweep.arrow"), rows);
        await writeSweepPage(join(stageFolder, "sweep.html"), `${mark}, ${stage}`, rows);
      }
      return rows;
    },
  };
}

/** Removes what a kill left of a circuit while it was saved: it cannot be gone on with. The study holds its folder. */
async function removeTorn(folder: string): Promise<void> {
  const info = await Deno.lstat(folder).catch(() => undefined);
  if (info?.isDirectory && !await runIsLocked(folder)) await Deno.remove(folder, { recursive: true });
}

/** Runs `deno task circuits` to its end. */
async function findCircuit(args: readonly string[], signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const { child, stop } = startTask(["circuits", "--quiet", ...args]);
  signal.addEventListener("abort", stop);
  const [{ code }, told] = await Promise.all([child.status, new Response(child.stderr).text()]);
  signal.removeEventListener("abort", stop);
  signal.throwIfAborted();
  if (code !== 0) {
    // Deno's own errors have lines behind them.
    const lines = told.trim().split("\n");
    const error = lines.find((line) => line.startsWith("error: ")) ?? lines.at(-1)!;
    throw inputError(`Cannot find a circuit: ${error.replace(/^error: /, "")}`);
  }
}

if (import.meta.main) {
  const args = [...Deno.args];
  await runCommand(() => studyCommand(args), { debug: args.includes("--debug") });
}
