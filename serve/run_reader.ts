/**
 * One run as it lies in its folder: read as far as it can be, and whatever is wrong with it told on one line.
 *
 * @module
 */
import { join } from "node:path";
import { inputError, UserError } from "../pipeline/errors.ts";
import { reasonOf } from "../pipeline/files.ts";
import {
  COLUMN_NAMES,
  createMetricsReader,
  type MetricRow,
  type MetricsReader,
} from "../pipeline/runs/metrics.ts";
import { controlIsFirst } from "../pipeline/runs/phases.ts";
import type { RunConfig } from "../pipeline/runs/run_config.ts";
import { runIsLocked, START_MARK } from "../pipeline/runs/run_folder.ts";
import type { RunState } from "../pipeline/runs/run_state.ts";
import { CIRCUITS, PRETRAIN, SPARSIFY } from "../pipeline/settings.ts";
import { defaultsOf } from "../pipeline/settings/resolve.ts";
import { chooseStep } from "../pipeline/training/choose_step.ts";
import { createHealthWatch, healthBoundsOf, healthSample } from "../pipeline/training/signatures.ts";
import type {
  Measured,
  NamedSignature,
  PhaseProgress,
  RunDetail,
  RunOverview,
  RunResult,
  RunStatus,
} from "./api.ts";
import { logFault } from "./fault_log.ts";
import { isOwn, ownFile, ownInfo, UnfitFileError } from "./own_files.ts";
import { isoTime, isRow, oneLine, resultOf, runConfig, runState, runSummary } from "./run_files.ts";
import { sweepIn } from "./sweeps.ts";
import { BESIDE_THE_POINT } from "./page/settings.js";

/** Rows over which speed is taken. */
const SPEED_WINDOW = 50;
/** A row alone in its batch takes 1.7 KB: so many bytes hold 150,000 steps at least. */
export const MAX_METRICS_BYTES = 256 << 20;

/** What was read of one run. */
export interface RunView {
  readonly name: string;
  readonly path: string;
  readonly config: RunConfig | undefined;
  readonly rows: readonly MetricRow[];
  readonly overview: RunOverview;
  /** Whether it was read to its end: then it stays as it is until its files or its lock change. */
  readonly settled: boolean;
}

/** A file as it was last read: it is read again once its stamp is another. */
interface Read<Content> {
  stamp: string;
  content: Content;
}

/** What is kept of a run between looks. */
export interface RunMemory {
  /** Tells the run from another of its name. */
  stamp: string;
  config: RunConfig | undefined;
  reader: MetricsReader;
  rows: MetricRow[];
  /** Numbers in the rows and their lists, by which they take room. */
  numbers: number;
  state: Read<RunState | undefined> | undefined;
  summary: Read<RunDetail["summary"]> | undefined;
  /** Metrics that were read to their end. */
  metrics: string | undefined;
  /** The evaluation whose weights would be the result, over the rows so far. */
  chosen: RunOverview["chosen"];
  /** One watch a phase, which has seen all rows. */
  watches: Map<MetricRow["phase"], ReturnType<typeof createHealthWatch>>;
  signatures: NamedSignature[];
  reading: Promise<void> | undefined;
  /** Metrics that cannot be used, by their size and time: they are not read again before they change. */
  bad: { stamp: string; error: unknown } | undefined;
  /** Of a sweep's folder, runs that were seen to have finished. */
  finished: Set<string>;
}

/** Begins to remember the run in this folder. */
export function createRunMemory(path: string): RunMemory {
  return {
    stamp: "",
    config: undefined,
    reader: createMetricsReader(join(path, "metrics.arrows"), { maxBytes: MAX_METRICS_BYTES }),
    rows: [],
    numbers: 0,
    state: undefined,
    summary: undefined,
    metrics: undefined,
    chosen: null,
    watches: new Map(),
    signatures: [],
    reading: undefined,
    bad: undefined,
    finished: new Set(),
  };
}

/** A file as it is now: another time, size or place on the disk is another one. */
export function stampOf(info: Deno.FileInfo | undefined): string {
  return info ? `${info.ino} ${info.size} ${info.mtime?.getTime()} ${info.ctime?.getTime()}` : "none";
}

/** Waits for a promise for so many milliseconds at most. */
export async function within(promise: Promise<unknown>, milliseconds: number): Promise<"done" | "late"> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<"late">((resolve) => timer = setTimeout(() => resolve("late"), milliseconds));
  try {
    return await Promise.race([promise.then(() => "done" as const), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A folder that holds the runs of a sweep. */
function ofSweep(name: string, path: string, result: RunResult, updated: Date | null): RunView {
  const nothing = unreadable(name, path, "");
  return {
    ...nothing,
    overview: {
      ...nothing.overview,
      command: "sweep",
      status: "sweep",
      problem: null,
      result,
      updated: isoTime(updated),
    },
  };
}

/** A run of which nothing but its name can be told. */
export function unreadable(name: string, path: string, problem: string): RunView {
  return {
    name,
    path,
    config: undefined,
    rows: [],
    settled: false,
    overview: {
      name,
      command: null,
      status: "broken",
      problem,
      model: null,
      changed: {},
      phases: [],
      last: null,
      evaluation: null,
      chosen: null,
      target_met: null,
      result: null,
      tokens_per_second: null,
      seconds_left: null,
      signatures: [],
      updated: null,
    },
  };
}

/**
 * Reads a run; it does not throw.
 *
 * @param memory of the last look, which is brought up to now
 * @param patience milliseconds for which metrics are waited for; those that take longer are read on meanwhile
 */
export async function readRun(
  name: string,
  path: string,
  memory: RunMemory,
  patience: number,
): Promise<RunView> {
  let problem: string | null = null;
  /** Whether what went wrong may be right the next time, with the same files. */
  let passing = false;
  /** Does a part of it; what goes wrong first is the run's problem. */
  async function part<Result>(read: () => Promise<Result>, damaged: string): Promise<Result | undefined> {
    try {
      return await read();
    } catch (error) {
      problem ??= complaintOf(error, damaged);
      passing ||= !isOfContent(error);
      return undefined;
    }
  }
  await part(async () => {
    const stamp = stampOf(await ownInfo(join(path, "config.json")));
    if (stamp === memory.stamp) return;
    Object.assign(memory, createRunMemory(path));
    memory.config = await runConfig(path);
    memory.stamp = stamp;
  }, "its config.json is damaged");
  const { config } = memory;
  if (!config && problem === null) {
    const sweep = await part(() => sweepIn(path, memory.finished), "its runs cannot be listed");
    if (sweep) return ofSweep(name, path, sweep, (await ownInfo(path))?.mtime ?? null);
  }
  if (!config && !await isStarting(path)) problem ??= "not a run: it has no config.json";
  const state = await part(async () => {
    const stamp = stampOf(await ownInfo(join(path, "state.json")));
    if (memory.state?.stamp !== stamp) memory.state = { stamp, content: await runState(path) };
    return memory.state.content;
  }, "its state.json is damaged");
  let updated = state ? new Date(state.since) : null;
  let note: string | null = null;
  if (config) {
    await part(async () => {
      const info = await ownFile(join(path, "metrics.arrows"), MAX_METRICS_BYTES);
      if (!info) return;
      if (info.mtime && !(updated && updated > info.mtime)) updated = info.mtime;
      if (await readMetrics(memory, config, stampOf(info), patience) === "late") {
        note = "its metrics are still being read";
      } else if (memory.reader.damaged) {
        const last = memory.rows.at(-1);
        problem ??= `its metrics.arrows is damaged behind ${last ? `step ${last.step}` : "its beginning"}`;
      }
    }, "its metrics file is of another version, or damaged");
  }
  const summaryInfo = await ownInfo(join(path, "summary.json")).catch(() => undefined);
  const told = await part(
    () => statusOf(path, state, summaryInfo?.isFile ?? false),
    "its .lock cannot be looked at",
  );
  const status = problem || !told ? "broken" : told.status;
  let summary: RunDetail["summary"] = null;
  if (config && status === "finished") {
    const stamp = stampOf(summaryInfo);
    if (memory.summary?.stamp !== stamp) {
      memory.summary = { stamp, content: await runSummary(path, config.command) };
    }
    summary = memory.summary.content;
    // Circuits say in no other file when they ended.
    if (summaryInfo?.mtime && !(updated && updated > summaryInfo.mtime)) updated = summaryInfo.mtime;
  }
  // What went wrong with the run itself comes before what goes wrong with looking at it.
  const words = problem ?? state?.error ?? told?.note ?? note;
  return {
    name,
    path,
    config,
    rows: memory.rows,
    overview: overviewOf(name, memory, { status, problem: words, updated, summary }),
    settled: !passing && !note && told !== undefined && !told.note,
  };
}

/** What is wrong, on one line. Messages that may quote a file are replaced by what it is damaged for. */
function complaintOf(error: unknown, damaged: string): string {
  if (error instanceof UnfitFileError) return error.complaint;
  if (error instanceof UserError) return damaged;
  if (error instanceof Error && /\(os error \d+\)/.test(error.message)) {
    return `${damaged}: ${reasonOf(error)}`;
  }
  logFault("reading a run", error);
  return damaged;
}

/** Whether what went wrong is told by what stands in a file, and goes on for as long as that does. */
function isOfContent(error: unknown): boolean {
  if (!(error instanceof UserError)) return false;
  const { cause } = error;
  return !(cause instanceof Error && /\(os error \d+\)/.test(cause.message)) &&
    !/\(os error \d+\)/.test(error.message);
}

/** Brings the rows up to now, one reading at a time. */
async function readMetrics(
  memory: RunMemory,
  config: RunConfig,
  stamp: string,
  patience: number,
): Promise<"done" | "late"> {
  if (memory.bad?.stamp === stamp) throw memory.bad.error;
  if (memory.metrics === stamp) return "done";
  if (!memory.reading) {
    if (patience <= 0) return "late";
    const { reader, rows } = memory;
    const reading = reader.read().then((fresh) => {
      // Another run of this name is there by now.
      if (memory.rows !== rows) return;
      if (!fresh.every(isRow)) throw inputError("Cannot use rows without phase and step");
      for (const row of fresh) {
        rows.push(row);
        memory.numbers += numbersIn(row);
        memory.chosen = chosenAfter(memory.chosen, row);
      }
      watchHealth(memory, config, fresh);
      memory.metrics = stamp;
    }).catch((error) => {
      if (memory.rows === rows) memory.bad = { stamp, error };
      throw error;
    }).finally(() => {
      if (memory.reading === reading) memory.reading = undefined;
    });
    memory.reading = reading;
    // Whoever has not the patience to wait does not see it fail.
    reading.catch(() => {});
  }
  return await within(memory.reading, patience);
}

/** Whether a process is about to begin a run in this folder. */
async function isStarting(path: string): Promise<boolean> {
  return await isOwn(join(path, START_MARK), "isFile") && await isAtWork(path).catch(() => false);
}

/** Whether a process is at the run in this folder. */
export async function isAtWork(path: string): Promise<boolean> {
  return await ownFile(join(path, ".lock"), Infinity) !== undefined && await runIsLocked(path);
}

async function statusOf(
  path: string,
  state: RunState | undefined,
  hasSummary: boolean,
): Promise<{ status: RunStatus; note: string | null }> {
  let note: string | null = null;
  try {
    if (await isAtWork(path)) {
      const isTraining = state?.state === "training" || state?.state === "paused";
      return { status: isTraining ? state.state as RunStatus : "preparing", note };
    }
  } catch (error) {
    if (error instanceof UnfitFileError) throw error;
    note = `whether a process is at it cannot be told: ${reasonOf(error)}`;
  }
  if (hasSummary) return { status: "finished", note };
  const isOver = state?.state === "stopped" || state?.state === "failed";
  return { status: isOver ? state.state as RunStatus : "interrupted", note };
}

function overviewOf(
  name: string,
  { config, rows, signatures, chosen }: RunMemory,
  { status, problem, updated, summary }: {
    status: RunStatus;
    problem: string | null;
    updated: Date | null;
    summary: RunDetail["summary"];
  },
): RunOverview {
  const phases = phasesOf(config, rows);
  const last = rows.at(-1);
  const speed = config && status === "training" ? speedOf(rows) : undefined;
  const stepsLeft = phases.reduce((sum, { step, steps }) => sum + Math.max(0, steps - step), 0);
  const { open_by_head: _, expected_open_by_head: __, ...plain } = last ?? {} as MetricRow;
  return {
    name,
    command: config?.command ?? null,
    status,
    problem,
    model: modelOf(config),
    changed: config ? changedSettings(config) : {},
    phases,
    last: last ? plain : null,
    evaluation: evaluationOf(rows),
    chosen: chosenAtEnd(summary, rows) ?? chosen,
    target_met: targetMet(config, summary),
    result: config ? resultOf(config.command, summary) : null,
    tokens_per_second: speed?.tokensPerSecond ?? null,
    seconds_left: speed ? stepsLeft * speed.secondsPerStep : null,
    signatures: [...signatures],
    updated: isoTime(updated),
  };
}

/** The phases that a run consists of, by its settings. */
function phasesOf(config: RunConfig | undefined, rows: readonly MetricRow[]): PhaseProgress[] {
  if (!config || config.command === "circuits") return [];
  const { steps, control } = config.settings as { steps: number; control?: boolean };
  const names: MetricRow["phase"][] = config.command === "pretrain"
    ? ["pretrain"]
    : control
    ? controlIsFirst(config.settings) ? ["control", "sparse"] : ["sparse", "control"]
    : ["sparse"];
  return names.map((phase) => ({
    phase,
    step: rows.findLast((row) => row.phase === phase)?.step ?? 0,
    steps,
  }));
}

function evaluationOf(rows: readonly MetricRow[]): RunOverview["evaluation"] {
  const row = rows.findLast(({ phase, validation_ce }) => phase !== "control" && validation_ce !== null);
  return row ? measured(row) : null;
}

function measured({ step, validation_ce, open_fraction, target }: MetricRow): Measured {
  return { step, validation_ce: validation_ce!, open_fraction, target };
}

/** The evaluation that would be chosen, as the training process chooses it, after another row. */
function chosenAfter(before: RunOverview["chosen"], row: MetricRow): RunOverview["chosen"] {
  const { phase, step, validation_ce, open_fraction, target } = row;
  if (phase === "control" || validation_ce === null || open_fraction === null || target === null) {
    return before;
  }
  const best = before &&
    { step: before.step, ce: before.validation_ce, openFraction: before.open_fraction ?? Infinity };
  const evaluated = { step, ce: validation_ce, openFraction: open_fraction };
  const chosen = chooseStep(best ?? undefined, evaluated, target);
  if (chosen?.step === step) return measured(row);
  return chosen ? before : null;
}

/** The step whose weights a finished run says it took, as its row has it. */
function chosenAtEnd(
  summary: RunDetail["summary"],
  rows: readonly MetricRow[],
): RunOverview["chosen"] | undefined {
  const sparse = summary && "sparse" in summary ? summary.sparse as { step?: unknown } : undefined;
  if (sparse === undefined || sparse === null) return undefined;
  const row = rows.findLast(({ phase, step }) => phase !== "control" && step === sparse.step);
  return row && row.validation_ce !== null ? measured(row) : null;
}

function targetMet(config: RunConfig | undefined, summary: RunDetail["summary"]): boolean | null {
  if (config?.command !== "sparsify" || !summary || !("sparse" in summary)) return null;
  const { feasible } = summary.sparse as { feasible?: unknown };
  return typeof feasible === "boolean" ? feasible : null;
}

function modelOf(config: RunConfig | undefined): string | null {
  const model = config?.settings.model;
  return typeof model === "string" ? oneLine(model) : null;
}

const DEFAULTS: Record<string, Record<string, unknown>> = {
  sparsify: defaultsOf(SPARSIFY),
  pretrain: defaultsOf(PRETRAIN),
  circuits: defaultsOf(CIRCUITS),
};

/** Settings that are not the command's defaults, but for the model, which an overview names by itself. */
function changedSettings({ command, settings }: RunConfig): Record<string, unknown> {
  const defaults = Object.hasOwn(DEFAULTS, command) ? DEFAULTS[command] : {};
  return Object.fromEntries(
    Object.entries(settings).filter(([name, value]) =>
      value !== null && name !== "model" && !BESIDE_THE_POINT.includes(name) &&
      JSON.stringify(value) !== JSON.stringify(defaults[name])
    ),
  );
}

/** Numbers that a row takes the room of. */
function numbersIn({ open_by_head, expected_open_by_head }: MetricRow): number {
  return COLUMN_NAMES.length + (open_by_head?.length ?? 0) + (expected_open_by_head?.length ?? 0);
}

/** Speed over the last rows that one process wrote in one phase. */
function speedOf(
  rows: readonly MetricRow[],
): { tokensPerSecond: number; secondsPerStep: number } | undefined {
  const last = rows.at(-1);
  if (!last) return undefined;
  let first = last;
  for (let n = rows.length - 2; n >= Math.max(0, rows.length - SPEED_WINDOW); n--) {
    if (rows[n].phase !== last.phase || rows[n].seconds >= first.seconds) break;
    first = rows[n];
  }
  const seconds = last.seconds - first.seconds;
  if (!(seconds > 0)) return undefined;
  return {
    tokensPerSecond: (last.tokens - first.tokens) / seconds,
    secondsPerStep: seconds / (last.step - first.step),
  };
}

function watchHealth(memory: RunMemory, config: RunConfig, fresh: readonly MetricRow[]): void {
  for (const row of fresh) {
    const { phase } = row;
    let watch = memory.watches.get(phase);
    if (!watch) {
      memory.watches.set(phase, watch = createHealthWatch(healthBoundsOf(config)));
    }
    for (const { name, step, message } of watch(healthSample(row))) {
      memory.signatures.push({ name, phase, step, message });
    }
  }
}
