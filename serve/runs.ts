/**
 * The runs of a folder, as another process left them or is writing them. Everything is read; nothing here writes but
 * the wishes of {@link requestControl}. A file that is torn, half-written or foreign is shown as such.
 *
 * @module
 */
import { join } from "node:path";
import { type CheckpointEntry, listCheckpoints } from "../pipeline/checkpoint.ts";
import { type ControlRequest, readControl, readSlackChanges, requestControl } from "../pipeline/control.ts";
import { UserError } from "../pipeline/errors.ts";
import { createMetricsReader, type MetricRow, type MetricsReader } from "../pipeline/metrics.ts";
import { readRunConfig, type RunConfig } from "../pipeline/run_config.ts";
import { isRunName, runIsLocked } from "../pipeline/run_folder.ts";
import type { RunState } from "../pipeline/run_state.ts";
import { createHealthWatch, healthSample } from "../pipeline/signatures.ts";
import type {
  CheckpointsAnswer,
  NamedSignature,
  PhaseProgress,
  RunDetail,
  RunOverview,
  RunStatus,
} from "./api.ts";

/** Rows over which speed is taken. */
const SPEED_WINDOW = 50;
/** Runs whose rows are held in memory at once. */
const RUNS_IN_MEMORY = 16;
/** Milliseconds for which what was read of a run is taken as fresh. */
const FRESH_MS = 250;
const REPORT = /^[A-Za-z0-9][A-Za-z0-9._-]*\.html$/;

/** What was read of one run. */
export interface RunView {
  readonly name: string;
  readonly path: string;
  readonly config: RunConfig | undefined;
  readonly rows: readonly MetricRow[];
  readonly overview: RunOverview;
}

/** The runs of a folder. */
export interface Runs {
  readonly folder: string;
  list(): Promise<RunOverview[]>;
  /** The run as of now or a quarter of a second ago; undefined when there is none of this name. */
  view(name: string): Promise<RunView | undefined>;
  detail(view: RunView): Promise<RunDetail>;
  checkpoints(view: RunView): Promise<CheckpointsAnswer>;
  /** A report's text, or undefined when the run has none of this name. */
  report(view: RunView, file: string): Promise<string | undefined>;
  control(view: RunView, change: Partial<ControlRequest>): Promise<ControlRequest>;
}

interface Entry {
  reader: MetricsReader;
  rows: MetricRow[];
  /** One watch a phase, which has seen all rows. */
  watches: Map<MetricRow["phase"], ReturnType<typeof createHealthWatch>>;
  signatures: NamedSignature[];
  config: RunConfig | undefined;
  view: RunView | undefined;
  readAt: number;
  reading: Promise<RunView> | undefined;
}

/**
 * Opens a folder of runs; it need not be there yet.
 *
 * @param now milliseconds, for tests
 */
export function openRuns(folder: string, now: () => number = () => performance.now()): Runs {
  const entries = new Map<string, Entry>();

  /** A run's folder, unless the name is none of a run, or the folder is elsewhere by a symbolic link. */
  async function pathOf(name: string): Promise<string | undefined> {
    if (!isRunName(name)) return undefined;
    const path = join(folder, name);
    try {
      return (await Deno.lstat(path)).isDirectory ? path : undefined;
    } catch {
      return undefined;
    }
  }

  async function view(name: string): Promise<RunView | undefined> {
    const path = await pathOf(name);
    if (path === undefined) {
      entries.delete(name);
      return undefined;
    }
    let entry = entries.get(name);
    if (!entry) {
      entry = {
        reader: createMetricsReader(join(path, "metrics.arrows")),
        rows: [],
        watches: new Map(),
        signatures: [],
        config: undefined,
        view: undefined,
        readAt: -Infinity,
        reading: undefined,
      };
    }
    // The one used last goes to the end; the first is the one not used for longest.
    entries.delete(name);
    entries.set(name, entry);
    if (entries.size > RUNS_IN_MEMORY) entries.delete(entries.keys().next().value!);
    if (entry.view && now() - entry.readAt < FRESH_MS) return entry.view;
    const current = entry;
    current.reading ??= readRun(name, path, current).then((read) => {
      current.view = read;
      current.readAt = now();
      return read;
    }).finally(() => current.reading = undefined);
    return await current.reading;
  }

  return {
    folder,
    view,

    async list() {
      const names: string[] = [];
      try {
        for await (const { name, isDirectory } of Deno.readDir(folder)) {
          if (isDirectory && isRunName(name)) names.push(name);
        }
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
      const overviews: RunOverview[] = [];
      for (const name of names) {
        const found = await view(name);
        if (found) overviews.push(found.overview);
      }
      return overviews.sort((a, b) =>
        (b.updated ?? "").localeCompare(a.updated ?? "") || (a.name < b.name ? -1 : 1)
      );
    },

    async detail({ path, config, overview }) {
      const { layers = 0, heads = 0, contextLength = 0 } = config?.model.config ?? {};
      return {
        ...overview,
        settings: config?.settings ?? {},
        adapter: config?.adapter ?? null,
        versions: config?.versions ?? {},
        layers,
        heads,
        context: contextLength,
        summary: await readJson<Record<string, unknown>>(join(path, "summary.json")) ?? null,
        control: await readControl(path).catch(() => ({ paused: false, stop: false, slack: null })),
        slack_changes: await readSlackChanges(path).catch(() => []),
        reports: await listReports(path),
      };
    },

    async checkpoints({ path }) {
      const folder = join(path, "checkpoints");
      if (!await isOwn(folder, "isDirectory")) return { checkpoints: [], torn: [] };
      const { checkpoints, torn } = await listCheckpoints(folder);
      const describe = async ({ path, phase, step }: CheckpointEntry) => {
        const { size, mtime } = await Deno.stat(path);
        const written = mtime?.toISOString() ?? "";
        return { file: path.slice(folder.length + 1), phase, step, bytes: size, written };
      };
      const described = await Promise.allSettled(checkpoints.map(describe));
      return {
        // A checkpoint may be pruned between being listed and being looked at.
        checkpoints: described.filter((result) => result.status === "fulfilled").map(({ value }) => value),
        torn: torn.map(({ path }) => path.slice(folder.length + 1)),
      };
    },

    async report({ path }, file) {
      if (!REPORT.test(file) || !await isOwn(join(path, file), "isFile")) return undefined;
      return await Deno.readTextFile(join(path, file));
    },

    async control({ path }, change) {
      return await requestControl(path, change);
    },
  };
}

/** Whether something stands at the path itself, not at the end of a symbolic link. */
async function isOwn(path: string, kind: "isFile" | "isDirectory"): Promise<boolean> {
  try {
    return (await Deno.lstat(path))[kind];
  } catch {
    return false;
  }
}

async function readJson<T>(path: string): Promise<T | undefined> {
  if (!await isOwn(path, "isFile")) return undefined;
  try {
    return JSON.parse(await Deno.readTextFile(path));
  } catch {
    return undefined;
  }
}

async function listReports(path: string): Promise<RunDetail["reports"]> {
  const reports: RunDetail["reports"] = [];
  try {
    for await (const { name, isFile } of Deno.readDir(path)) {
      if (isFile && REPORT.test(name)) {
        reports.push({ file: name, bytes: (await Deno.stat(join(path, name))).size });
      }
    }
  } catch {
    // The run was deleted meanwhile.
  }
  return reports.sort((a, b) => a.file < b.file ? -1 : 1);
}

async function readRun(name: string, path: string, entry: Entry): Promise<RunView> {
  let problem: string | null = null;
  const explain = (error: unknown): void => {
    problem ??= error instanceof Error ? error.message.split("\n")[0] : String(error);
  };
  if (!entry.config) {
    const configPath = join(path, "config.json");
    if (!await isOwn(configPath, "isFile")) {
      problem = "not a run: it has no config.json";
    } else {
      try {
        entry.config = await readRunConfig(configPath);
      } catch (error) {
        explain(error instanceof UserError ? "its config.json is damaged" : error);
      }
    }
  }
  const metricsPath = join(path, "metrics.arrows");
  let updated: Date | null = null;
  if (entry.config && await isOwn(metricsPath, "isFile")) {
    try {
      const fresh = await entry.reader.read();
      for (const row of fresh) entry.rows.push(row);
      watchHealth(entry, entry.config, fresh);
      updated = (await Deno.stat(metricsPath)).mtime;
    } catch (error) {
      explain(error instanceof UserError ? "its metrics file is of another version, or damaged" : error);
    }
  }
  const state = await readJson<RunState>(join(path, "state.json"));
  const status = problem ? "broken" : await statusOf(path, state);
  const since = state?.since ? new Date(state.since) : null;
  if (since && !(updated && updated > since)) updated = since;
  const { config, rows } = entry;
  const phases = phasesOf(config, rows);
  const last = rows.at(-1);
  const speed = config && status === "training" ? speedOf(rows) : undefined;
  const stepsLeft = phases.reduce((sum, { step, steps }) => sum + Math.max(0, steps - step), 0);
  const { open_by_head: _, expected_open_by_head: __, ...plain } = last ?? {} as MetricRow;
  return {
    name,
    path,
    config,
    rows,
    overview: {
      name,
      command: config?.command ?? null,
      status,
      problem: problem ?? state?.error ?? null,
      phases,
      last: last ? plain : null,
      evaluation: evaluationOf(rows),
      tokens_per_second: speed?.tokensPerSecond ?? null,
      seconds_left: speed ? stepsLeft * speed.secondsPerStep : null,
      signatures: [...entry.signatures],
      updated: updated?.toISOString() ?? null,
    },
  };
}

async function statusOf(path: string, state: RunState | undefined): Promise<RunStatus> {
  if (await runIsLocked(path)) {
    return state?.state === "training" || state?.state === "paused" ? state.state : "preparing";
  }
  if (await isOwn(join(path, "summary.json"), "isFile")) return "finished";
  return state?.state === "stopped" || state?.state === "failed" ? state.state : "interrupted";
}

/** The phases that a run consists of, by its settings. */
function phasesOf(config: RunConfig | undefined, rows: readonly MetricRow[]): PhaseProgress[] {
  if (!config || config.command === "circuits") return [];
  const { steps, control } = config.settings as { steps: number; control?: boolean };
  const names: MetricRow["phase"][] = config.command === "pretrain"
    ? ["pretrain"]
    : control
    ? ["sparse", "control"]
    : ["sparse"];
  return names.map((phase) => ({
    phase,
    step: rows.findLast((row) => row.phase === phase)?.step ?? 0,
    steps,
  }));
}

function evaluationOf(rows: readonly MetricRow[]): RunOverview["evaluation"] {
  const row = rows.findLast(({ phase, validation_ce }) => phase !== "control" && validation_ce !== null);
  return row ? { step: row.step, validation_ce: row.validation_ce!, open_fraction: row.open_fraction } : null;
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
  if (seconds <= 0) return undefined;
  return {
    tokensPerSecond: (last.tokens - first.tokens) / seconds,
    secondsPerStep: seconds / (last.step - first.step),
  };
}

function watchHealth(entry: Entry, config: RunConfig, fresh: readonly MetricRow[]): void {
  const { steps, lambdaMin, lambdaMax } = config.settings as Record<string, number>;
  for (const row of fresh) {
    const { phase } = row;
    let watch = entry.watches.get(phase);
    if (!watch) entry.watches.set(phase, watch = createHealthWatch({ steps, lambdaMin, lambdaMax }));
    for (const { name, step, message } of watch(healthSample(row))) {
      entry.signatures.push({ name, phase, step, message });
    }
  }
}
