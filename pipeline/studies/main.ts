/**
 * `deno task study NAME`: runs a study, or goes on with it, and writes what came of it.
 *
 *     runs/<study>/<stage>/<run>/   each run, as of its command
 *     runs/<study>/<stage>/         sweep.arrow and sweep.html of a stage
 *     runs/<study>/study.html       the page
 *     runs/<study>/study.md         the same as Markdown, as docs/studies has it
 *
 * @module
 */
import { join, resolve } from "node:path";
import { runCommand, STOPPED, stopSignal, userFolder, writeError } from "../command_line.ts";
import { inputError, usageError } from "../errors.ts";
import { exists, readJson, writeAll, writeAtomically } from "../files.ts";
import { shellWord } from "../flags.ts";
import { nearest } from "../nearest.ts";
import { isRunName } from "../runs/run_folder.ts";
import { STUDY, type StudySettings } from "../settings.ts";
import { printedInstead } from "../settings/help.ts";
import { parseCommand } from "../settings/parse.ts";
import { resolveSettings } from "../settings/resolve.ts";
import { writeSweepPage } from "../sweep/page.ts";
import { PROJECT, runProcesses } from "../sweep/processes.ts";
import { rowOf, type SweepRow, writeSweepTable } from "../sweep/results.ts";
import { holdSweep, openSweepFolder } from "../sweep/sweep_folder.ts";
import { type StudyData, studyHtml, studyMarkdown } from "./document.ts";
import { requireOneProcess } from "../parallel/one_process.ts";
import { STUDIES } from "./studies.ts";
import type { CircuitSizes, PartResult, Study, StudyPart, StudyTools } from "./study.ts";

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

/** The parts that were asked for. */
function partsOf(study: Study, { part, quick }: Pick<StudySettings, "part" | "quick">): readonly StudyPart[] {
  const all = quick ? study.parts.filter(({ inQuick }) => inQuick) : study.parts;
  if (part === undefined) return all;
  const chosen = all.filter(({ name }) => name === part);
  if (chosen.length > 0) return chosen;
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
  const parts = partsOf(study, settings);
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
  await openSweepFolder(folder, mark, { make: !settings.table, kind: "study" });
  const signal = stopSignal(() => {});
  const command = ["deno", "task", "study", study.name, ...(settings.quick ? ["--quick"] : [])];
  const here = [
    ...command,
    ...(settings.part === undefined ? [] : ["--part", settings.part]),
    ...["--runs", resolve(settings.runs), "--name", folderName],
    ...(settings.jobs === 1 ? [] : ["--jobs", String(settings.jobs)]),
  ];
  const context = { settings, folder, mark, signal, goOn: here.map(shellWord).join(" ") };
  const failed: SweepRow[] = [];
  const results: PartResult[] = [];
  using _held = settings.table ? undefined : await holdSweep(folder, { shared: false });
  try {
    for (const part of parts) results.push(await part.perform(toolsOf(context, failed)));
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
  for (const [file, text] of Object.entries(written)) {
    await writeAtomically(join(folder, file), (open) => writeAll(open, new TextEncoder().encode(text)));
  }
  if (settings.json) {
    console.log(JSON.stringify({ study: study.name, quick: settings.quick, parts: results }));
  } else {
    for (const { title, done, of, findings } of results) {
      console.log(
        `${title} (${done} of ${of} runs)\n${findings.map((finding) => `  ${finding}`).join("\n")}\n`,
      );
    }
    console.log(`Page: ${join(folder, "study.html")}   Markdown: ${join(folder, "study.md")}`);
  }
  if (failed.length > 0 && !settings.table) {
    throw inputError(
      `${failed.length} runs failed; the rest stands: ${
        failed.map(({ run, status, error }) => `${run.name} (${error ?? status})`).join("; ")
      }`,
    );
  }
}

/** What a part works with, in the study's folder. */
function toolsOf(
  { settings, folder, mark, signal, goOn }: {
    settings: StudySettings;
    folder: string;
    mark: string;
    signal: AbortSignal;
    goOn: string;
  },
  failed: SweepRow[],
): StudyTools {
  const say = (text: string): void => settings.quiet ? undefined : writeError(text + "\n");
  return {
    quick: settings.quick,
    onlyTable: settings.table,
    folder,
    signal,
    say,
    project: PROJECT,
    folderOf: (stage, run) => join(folder, stage, run.name),
    async circuits(stage, run, args) {
      const name = `circuits-${run.name}`;
      const stageFolder = join(folder, stage);
      const summary = join(stageFolder, name, "summary.json");
      if (!await exists(summary)) {
        if (settings.table) return null;
        say(`${run.name}: looking for its circuit`);
        const model = join(stageFolder, run.name, "model");
        await findCircuit([...args, "--model", model, "--runs", stageFolder, "--name", name], signal);
      }
      return circuitSizes(await readJson(summary));
    },
    async runs(stage, runs) {
      const stageFolder = join(folder, stage);
      await openSweepFolder(stageFolder, `study ${mark}, ${stage}`, { make: true });
      if (!settings.table) {
        say(`${stage}: ${runs.length} runs`);
        await runProcesses(runs, { runs: stageFolder, jobs: settings.jobs, signal, say, goOn });
        signal.throwIfAborted();
      }
      const rows = await Promise.all(runs.map((run) => rowOf(stageFolder, run)));
      failed.push(...rows.filter(({ status }) => status !== "finished"));
      // Of other commands the runs' summaries have no open edges beside a dense model's.
      if (runs.every(({ command }) => command === undefined)) {
        await writeSweepTable(join(stageFolder, "sweep.arrow"), rows);
        await writeSweepPage(join(stageFolder, "sweep.html"), `${mark}, ${stage}`, rows);
      }
      return rows;
    },
  };
}

/** Runs `deno task circuits` to its end. */
async function findCircuit(args: readonly string[], signal: AbortSignal): Promise<void> {
  const child = new Deno.Command("deno", {
    args: ["task", "--quiet", "circuits", "--quiet", ...args],
    cwd: PROJECT,
    env: { INIT_CWD: PROJECT },
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const stop = (): void => {
    try {
      child.kill("SIGTERM");
    } catch {
      // It has ended by itself.
    }
  };
  signal.addEventListener("abort", stop);
  const [{ code }, told] = await Promise.all([child.status, new Response(child.stderr).text()]);
  signal.removeEventListener("abort", stop);
  signal.throwIfAborted();
  if (code !== 0) throw inputError(`Cannot find a circuit: ${told.trim().split("\n").at(-1)}`);
}

/** What a summary of circuits says of its one model. */
function circuitSizes(summary: unknown): CircuitSizes {
  const { dense, sparse } = summary as Record<"dense" | "sparse", Record<string, number | null> | null>;
  const of = dense ?? sparse;
  return { edges: of?.n90_edges ?? null, heads: of?.n90_heads ?? null };
}

if (import.meta.main) {
  const args = [...Deno.args];
  await runCommand(() => studyCommand(args), { debug: args.includes("--debug") });
}
