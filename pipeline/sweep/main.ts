/**
 * `deno task sweep FILE.json`: many runs of `deno task sparsify`, one after the other or some at a time, and what came of
 * them as a table and a page. Begun again, it goes on.
 *
 *     runs/<sweep>/<run>/       each run, as of sparsify
 *     runs/<sweep>/<run>.log    its progress
 *     runs/<sweep>/sweep.arrow  a row for each run
 *     runs/<sweep>/sweep.html   the page
 *
 * @module
 */
import { basename, isAbsolute, join, resolve } from "node:path";
import { runCommand, STOPPED, stopSignal, userFolder, writeError } from "../command_line.ts";
import { inputError, usageError } from "../errors.ts";
import { PROJECT, readJson, shown, storing } from "../files.ts";
import { shellWord } from "../flags.ts";
import { formatShare } from "../report/progress.ts";
import { formatTable } from "../report/table.ts";
import { isRunName } from "../runs/run_folder.ts";
import { SWEEP, type SweepSettings } from "../settings.ts";
import { printedInstead } from "../settings/help.ts";
import { parseCommand, type ParsedCommand } from "../settings/parse.ts";
import { resolveSettings } from "../settings/resolve.ts";
import { checkBegun, checkRuns } from "./check_runs.ts";
import { writeSweepPage } from "./page.ts";
import { launchIn, type ProcessOptions, runProcesses } from "./processes.ts";
import { groupsOf, type Interval, rowOf, type SweepRow, variedNames, writeSweepTable } from "./results.ts";
import { slurmScript } from "./slurm.ts";
import { holdSweep, openSweepFolder } from "./sweep_folder.ts";
import { type SweepRun, sweepRuns } from "./sweep_file.ts";
import { hearFirst, joinRanks, type Ranks, type StartSettings } from "../ranks.ts";
import { shareProcesses } from "./shared_processes.ts";

const PURPOSE =
  "Runs the settings and seeds of a JSON file by sparsify, and lays their results beside each other.";
const USAGE = "Usage: deno task sweep FILE.json [flags]";

/** What stands in place of `Usage: …` where a file comes first. */
function withFile(help: string): string {
  return help.replace(/^Usage: .*$/m, USAGE);
}

/** Which rank this process is, and what ends the others, as long as it is one of several. */
let asRank: { rank: number; endOthers(exitCode: number): void } | undefined;
let wish: AbortSignal | undefined;
/** Aborted where this process is asked to stop; the sweep tells what is stopped. */
const stopWish = (): AbortSignal => wish ??= stopSignal(() => {});

/** Joins the other ranks, if there are any. */
async function joinOthers(
  { quiet, ...flags }: { mpi?: string; rankLimit?: number; quiet?: boolean },
  args: readonly string[],
): Promise<Ranks | undefined> {
  return await joinRanks(flags, args, {
    get signal() {
      return stopWish();
    },
    reporter: { message: (text) => quiet ? undefined : writeError(text + "\n") },
    beRank(rank, endOthers) {
      asRank = { rank, endOthers };
      return { leave: () => asRank = undefined };
    },
  });
}

/** Runs what has not finished by the processes of all ranks, of which this is the first. */
async function runByRanks(
  ranks: Ranks,
  chosen: readonly SweepRun[],
  options: Omit<ProcessOptions, "signal">,
  { rankLimit }: SweepSettings,
): Promise<{ exitCodes: Map<string, number>; isStopped: boolean }> {
  const { exchange } = ranks;
  const { runs, jobs } = options;
  await ranks.begin({ gpu: undefined, autotune: false, shareAdapter: false, rankLimit });
  await exchange.share(() => runs);
  const stop = new AbortController();
  const exitCodes = await shareProcesses(exchange, { start: launchIn(runs), signal: stopWish() }, {
    work: (launch) =>
      runProcesses(chosen, { ...options, jobs: jobs * exchange.size, signal: stop.signal, launch }),
    onStop: () => stop.abort(),
  });
  const isStopped = await exchange.share(() => stop.signal.aborted);
  await ranks.close();
  return { exitCodes: exitCodes!, isStopped };
}

/** Runs what has not finished by processes of this one. */
async function runAlone(
  chosen: readonly SweepRun[],
  options: Omit<ProcessOptions, "signal">,
): Promise<{ exitCodes: Map<string, number>; isStopped: boolean }> {
  const signal = stopWish();
  const exitCodes = await runProcesses(chosen, { ...options, signal });
  return { exitCodes, isStopped: signal.aborted };
}

/** Starts what rank 0 asks for, to the end. */
async function followSweep(ranks: Ranks): Promise<void> {
  const { exchange } = ranks;
  const start = await hearFirst<StartSettings | undefined>(exchange);
  if (!start) return await ranks.close();
  exchange.waitFor(start.rankLimit);
  const runs = await hearFirst<string>(exchange);
  await shareProcesses(exchange, { start: launchIn(runs), signal: stopWish() });
  const isStopped = await hearFirst<boolean>(exchange);
  await ranks.close();
  if (isStopped) Deno.exit(STOPPED);
}

async function sweepCommand(args: readonly string[]): Promise<void> {
  const [file, flags] = args[0]?.startsWith("-") === false
    ? [args[0], args.slice(1)]
    : [undefined, [...args]];
  const parsed = parseCommand(SWEEP, flags, userFolder());
  const ranks = await joinOthers(parsed.given, args);
  if (ranks && ranks.exchange.rank > 0) return await followSweep(ranks);
  await leadSweep(file, parsed, ranks);
}

async function leadSweep(
  file: string | undefined,
  parsed: ParsedCommand<typeof SWEEP>,
  ranks: Ranks | undefined,
): Promise<void> {
  const folder = userFolder();
  const printed = await printedInstead("sweep", PURPOSE, SWEEP, parsed);
  if (printed !== undefined) {
    console.log(withFile(printed));
    return await ranks?.close();
  }
  if (file === undefined) throw usageError(`Cannot sweep without its file: ${USAGE}`);
  const settings = await resolveSettings(SWEEP, parsed);
  const here = folder ?? Deno.cwd();
  const path = isAbsolute(file) ? file : join(here, file);
  const all = sweepRuns(await readJson(path), path, here);
  const name = settings.name ?? basename(path).replace(/\.json$/, "");
  if (!isRunName(name)) {
    throw usageError(
      `Cannot name a sweep ${
        shown(name)
      } as names consist of up to 128 letters, digits, dots, dashes and underscores: ` +
        `give another by --name`,
    );
  }
  checkCombination(settings);
  const chosen = only(all, settings);
  const runs = resolve(settings.runs, name);
  if (!settings.table) await checkRuns(all, path);
  await openSweepFolder(runs, path, { make: !settings.table });
  if (!settings.table) await checkBegun(all, runs, `the sweep ${path}`);
  const command = ["deno", "task", "sweep", path, "--runs", resolve(settings.runs), "--name", name];
  const say = (text: string): void => settings.quiet ? undefined : writeError(text + "\n");

  if (settings.slurm) {
    const script = join(runs, "sweep.sbatch");
    const text = slurmScript({ name, runs, count: all.length, command, project: PROJECT });
    const before = await Deno.readTextFile(script).catch(() => text);
    if (before !== text) {
      throw usageError(
        `Cannot write ${script} as another is there, which may have been edited: move it away`,
      );
    }
    await storing(script, () => Deno.writeTextFile(script, text));
    console.log(
      `${all.length} tasks: sbatch ${shellWord(script)}\nthen, when they have ended: ${
        shellLine(command)
      } --table`,
    );
    return await ranks?.close();
  }
  let exitCodes = new Map<string, number>();
  if (!settings.table) {
    using _held = await holdSweep(runs, { shared: settings.only !== "auto" });
    const goOn = shellLine([...command, ...(settings.jobs === 1 ? [] : ["--jobs", String(settings.jobs)])]);
    const options = { runs, jobs: settings.jobs, say, goOn };
    const { isStopped, ...ran } = ranks
      ? await runByRanks(ranks, chosen, options, settings)
      : await runAlone(chosen, options);
    if (isStopped) Deno.exit(STOPPED);
    exitCodes = ran.exitCodes;
  } else await ranks?.close();
  const rows = await Promise.all(all.map((each) => rowOf(runs, each)));
  // A task of a job array leaves table and page to the one that comes behind all.
  if (settings.only === "auto") {
    await writeSweepTable(join(runs, "sweep.arrow"), rows);
    await writeSweepPage(join(runs, "sweep.html"), name, rows);
  }
  const shownRows = settings.only === "auto" ? rows : rows.filter(({ run }) => chosen.includes(run));
  if (settings.json) console.log(JSON.stringify(jsonOf(name, shownRows)));
  else {
    console.log(resultTable(shownRows));
    if (settings.only === "auto") {
      console.log(`\nPage: ${join(runs, "sweep.html")}   Table: ${join(runs, "sweep.arrow")}`);
    }
  }
  // What another process killed has said nothing.
  const failed = shownRows.filter(({ status }) =>
    status === "failed" || (!settings.table && status !== "finished")
  );
  if (failed.length > 0) {
    throw inputError(
      `${failed.length} of ${shownRows.length} runs failed; the rest stands: ` +
        failed.map(({ run, status, error }) =>
          `${run.name} (${error ?? `${status}, ended with ${exitCodes.get(run.name)}`})`
        ).join("; "),
    );
  }
}

/** @throws {UserError} on flags that say two things */
function checkCombination({ only, table, slurm, jobs }: SweepSettings): void {
  const alone = [
    ...(only === "auto" ? [] : ["--only"]),
    ...(table ? ["--table"] : []),
    ...(slurm ? ["--slurm"] : []),
  ];
  const given = [...alone, ...(jobs === 1 || alone.length === 0 ? [] : ["--jobs"])];
  if (given.length > 1) throw usageError(`Cannot use ${given.join(" and ")} together: give one of them`);
}

/** Words as a shell reads them. */
const shellLine = (words: readonly string[]): string => words.map(shellWord).join(" ");

/** The run that `--only` names, or all. */
function only(all: readonly SweepRun[], { only: index }: SweepSettings): readonly SweepRun[] {
  if (index === "auto") return all;
  if (index >= all.length) {
    throw usageError(`Cannot use --only as it must be below the ${all.length} runs of the sweep: ${index}`);
  }
  return [all[index]];
}

const MISSING = "–";
const interval = (of: Interval | null, text: (value: number) => string): string =>
  of ? text(of.mean) + (of.half === null ? "" : ` ± ${text(of.half)}`) : MISSING;

/** A line for each setting. */
function resultTable(rows: readonly SweepRow[]): string {
  const names = variedNames(rows);
  const groups = groupsOf(rows);
  return formatTable([
    [...names, "finished", "open edges", "loss less dense", "target met", ""],
    ...groups.map((group) => [
      ...names.map((name) => String([group.varied[name] ?? MISSING].flat().join(" "))),
      `${group.finished} of ${group.rows.length}`,
      interval(group.open, formatShare),
      interval(group.above, (value) => value.toFixed(4)),
      `${group.feasible} of ${group.finished}`,
      group.front ? "front" : "",
    ]),
  ]);
}

/** What `--json` ends with. */
function jsonOf(name: string, rows: readonly SweepRow[]): unknown {
  return {
    sweep: name,
    settings: groupsOf(rows).map(({ rows: ofGroup, ...group }) => ({
      ...group,
      runs: ofGroup.map(({ run, status, error, summary }) => ({
        run: run.name,
        seed: run.seed ?? summary?.seed ?? null,
        status,
        error,
        open_fraction: summary?.sparse.open_fraction ?? null,
        sparse_ce: summary?.sparse.ce ?? null,
        dense_ce: summary?.dense.ce ?? null,
        control_ce: summary?.control?.ce ?? null,
        feasible: summary?.sparse.feasible ?? null,
      })),
    })),
  };
}

if (import.meta.main) {
  const args = [...Deno.args];
  const command = async (): Promise<void> => {
    try {
      await sweepCommand(args);
    } catch (error) {
      if (asRank && error instanceof Error) error.message = `rank ${asRank.rank}: ${error.message}`;
      throw error;
    }
  };
  await runCommand(command, {
    debug: args.includes("--debug"),
    onFailure: (exitCode) => asRank?.endOthers(exitCode),
  });
}
