/**
 * What the runs of a sweep came to: a row for each, and for each setting the mean over its seeds with its interval.
 *
 * @module
 */
import { join } from "node:path";
import { Bool, Float64, Int32, Table, tableToIPC, Utf8, type Vector, vectorFromArray } from "apache-arrow";
import { isObject, openRegular, readAt, readJson, writeAll, writeAtomically } from "../files.ts";
import { runIsLocked } from "../runs/run_folder.ts";
import type { SparsifySummary } from "../training/sparsify.ts";
import type { SweepRun } from "./sweep_file.ts";

/** How far a run is. */
export type RunStatus = "not begun" | "running" | "stopped" | "failed" | "finished";

/** One run as the table has it; null where it has no result. */
export interface SweepRow {
  run: SweepRun;
  status: RunStatus;
  /** Of a failed one. */
  error: string | null;
  /** Whether it failed as its gradients were no longer finite, as it would again. */
  diverged?: boolean;
  summary: SparsifySummary | null;
}

/** A mean over seeds; `half` is half its 95 % interval by Student's t, null with fewer than two. */
export interface Interval {
  mean: number;
  half: number | null;
}

/** The runs of one setting. */
export interface SweepGroup {
  varied: Readonly<Record<string, unknown>>;
  rows: readonly SweepRow[];
  /** Of those, the ones that finished. */
  finished: number;
  /** Of those, the ones that met their target. */
  feasible: number;
  /** Shares of edges that stay open. */
  open: Interval | null;
  /** Loss on the test tokens less the dense model's, nats. */
  above: Interval | null;
  /** Loss on the test tokens less the control's, nats; null without controls. */
  aboveControl: Interval | null;
  /** Whether every run of it met its target, and no other such setting is as good in open edges and loss, and better in one. */
  front: boolean;
}

/**
 * A run's state and result, as its folder has them.
 *
 * @param runs folder of the sweep's runs
 */
export async function rowOf(runs: string, run: SweepRun): Promise<SweepRow> {
  const folder = join(runs, run.name);
  const [state, found] = await Promise.all(
    ["state.json", "summary.json"].map((file) => readJson(join(folder, file)).catch(() => undefined)),
  );
  const word = isObject(state) ? state.state : undefined;
  const summary = word === "finished" && isObject(found) ? found as unknown as SparsifySummary : null;
  if (summary) return { run, status: "finished", error: null, summary };
  if (await runIsLocked(folder)) return { run, status: "running", error: null, summary };
  // What keeps a run from beginning leaves no state, but its word in the log.
  const told = isObject(state) && typeof state.error === "string" ? state.error : undefined;
  const error = told ?? await lastError(logOf(runs, run)) ?? null;
  const status = error !== null ? "failed" : word === undefined ? "not begun" : "stopped";
  return { run, status, error, diverged: isObject(state) && state.diverged === true, summary };
}

/** The file that a run's progress goes to. */
export function logOf(runs: string, { name }: SweepRun): string {
  return join(runs, `${name}.log`);
}

const ERROR = /^error: (.*)$/;
/** Bytes at the end of a log in which its error is looked for. */
const LOG_END = 16384;

/** The error that a log ends with. */
async function lastError(path: string): Promise<string | undefined> {
  try {
    const { file, size } = await openRegular(path);
    using log = file;
    const bytes = await readAt(log, Math.max(0, size - LOG_END), Math.min(size, LOG_END));
    const last = new TextDecoder().decode(bytes ?? new Uint8Array()).trimEnd().split("\n").at(-1) ?? "";
    return ERROR.exec(last)?.[1];
  } catch {
    return undefined;
  }
}

/** Two-sided 95 % points of Student's t for 1 to 30 degrees of freedom; beyond, the normal distribution's. */
const STUDENT = [
  12.706,
  4.303,
  3.182,
  2.776,
  2.571,
  2.447,
  2.365,
  2.306,
  2.262,
  2.228,
  2.201,
  2.179,
  2.16,
  2.145,
  2.131,
  2.12,
  2.11,
  2.101,
  2.093,
  2.086,
  2.08,
  2.074,
  2.069,
  2.064,
  2.06,
  2.056,
  2.052,
  2.048,
  2.045,
  2.042,
];

/** The mean of values and half its 95 % interval: t s / √n, with s over n - 1. */
export function intervalOf(values: readonly number[]): Interval | null {
  const n = values.length;
  if (n === 0) return null;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  if (n === 1) return { mean, half: null };
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1);
  return { mean, half: (STUDENT[n - 2] ?? 1.96) * Math.sqrt(variance / n) };
}

/** The rows by setting, in the order of the file, those on the front marked. */
export function groupsOf(rows: readonly SweepRow[]): SweepGroup[] {
  const byKey = Map.groupBy(rows, ({ run }) => JSON.stringify(run.varied));
  const groups = [...byKey.values()].map((ofGroup): SweepGroup => {
    const results = ofGroup.flatMap(({ summary }) => summary ? [summary] : []);
    const controls = results.flatMap(({ sparse, control }) => control ? [sparse.ce - control.ce] : []);
    return {
      varied: ofGroup[0].run.varied,
      rows: ofGroup,
      finished: results.length,
      feasible: results.filter(({ sparse }) => sparse.feasible).length,
      open: intervalOf(results.map(({ sparse }) => sparse.open_fraction)),
      above: intervalOf(results.map(({ sparse, dense }) => sparse.ce - dense.ce)),
      aboveControl: intervalOf(controls),
      front: false,
    };
  });
  for (const group of groups) {
    group.front = isMet(group) && !groups.some((other) => isMet(other) && dominates(other, group));
  }
  return groups;
}

const isMet = ({ finished, feasible }: SweepGroup): boolean => finished > 0 && feasible === finished;

function dominates(a: SweepGroup, b: SweepGroup): boolean {
  if (!a.open || !b.open) return false;
  const [open, loss] = [a.open.mean - b.open.mean, a.above!.mean - b.above!.mean];
  return open <= 0 && loss <= 0 && (open < 0 || loss < 0);
}

/** Names of the settings that vary, in the order of the file. */
export function variedNames(rows: readonly { run: SweepRun }[]): string[] {
  return [...new Set(rows.flatMap(({ run }) => Object.keys(run.varied)))];
}

/** A row for each run: its name, status, seed, what varies and what came of it. */
export async function writeSweepTable(path: string, rows: readonly SweepRow[]): Promise<void> {
  const texts = (values: (string | null)[]): Vector => vectorFromArray(values, new Utf8());
  const numbers = (read: (summary: SparsifySummary) => number | null | undefined): Vector =>
    vectorFromArray(rows.map(({ summary }) => summary ? read(summary) ?? null : null), new Float64());
  const columns: Record<string, Vector> = {
    run: texts(rows.map(({ run }) => run.name)),
    status: texts(rows.map(({ status }) => status)),
    error: texts(rows.map(({ error }) => error)),
    seed: vectorFromArray(
      rows.map(({ run, summary }) => run.seed ?? summary?.seed ?? null),
      new Float64(),
    ),
  };
  for (const name of variedNames(rows)) {
    const values = rows.map(({ run }) => run.varied[name]);
    const given = values.filter((value) => value !== undefined);
    columns[name] = given.every((value) => typeof value === "number")
      ? vectorFromArray(values.map((value) => value as number ?? null), new Float64())
      : given.every((value) => typeof value === "boolean")
      ? vectorFromArray(values.map((value) => value as boolean ?? null), new Bool())
      : texts(values.map((value) => value === undefined ? null : [value].flat().join(" ")));
  }
  Object.assign(columns, {
    dense_ce: numbers(({ dense }) => dense.ce),
    control_ce: numbers(({ control }) => control?.ce),
    sparse_ce: numbers(({ sparse }) => sparse.ce),
    open_fraction: numbers(({ sparse }) => sparse.open_fraction),
    edges_per_query: numbers(({ sparse }) => sparse.edges_per_query),
    dead_queries: numbers(({ sparse }) => sparse.dead_queries),
    exact_rows: numbers(({ sparse }) => sparse.exact_rows),
    live_heads: vectorFromArray(rows.map(({ summary }) => summary?.sparse.live_heads ?? null), new Int32()),
    feasible: vectorFromArray(rows.map(({ summary }) => summary?.sparse.feasible ?? null), new Bool()),
    chosen_step: vectorFromArray(rows.map(({ summary }) => summary?.sparse.step ?? null), new Int32()),
    target_loss: numbers(({ target_loss }) => target_loss),
  });
  const bytes = tableToIPC(new Table(columns), "file");
  await writeAtomically(path, (file) => writeAll(file, bytes));
}
