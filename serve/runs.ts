/**
 * The runs of a folder, as another process left them or is writing them. Everything is read; nothing here writes but
 * the wishes of {@link requestControl}. A file that is torn, half-written or foreign is shown as such, and costs the
 * other runs nothing.
 *
 * @module
 */
import { join } from "node:path";
import { type ControlRequest, requestControl } from "../pipeline/runs/control.ts";
import { EXIT, UserError } from "../pipeline/errors.ts";
import { reasonOf } from "../pipeline/files.ts";
import { isRunName } from "../pipeline/runs/run_folder.ts";
import { type CheckpointsAnswer, LIVE, type RunDetail, type RunOverview } from "./api.ts";
import { ownCheckpoints } from "./checkpoints.ts";
import { isOwn, ownInfo } from "./own_files.ts";
import { problem } from "./problem.ts";
import { openReport, type Report } from "./report_file.ts";
import { oneLine, runControl, runSlackChanges, runSummary } from "./run_files.ts";
import {
  createRunMemory,
  isAtWork,
  readRun,
  type RunMemory,
  type RunView,
  stampOf,
  unreadable,
  within,
} from "./run_reader.ts";

export type { RunView };

/** Runs whose rows are held in memory at once, and how many rows they may have together. */
const RUNS_IN_MEMORY = 16;
const ROWS_IN_MEMORY = 500_000;
/** Milliseconds for which what was read of a run is taken as fresh. */
const FRESH_MS = 250;
/** Milliseconds for which a run, or the list of all, is waited for: then what is known is shown. */
const PATIENCE_MS = 3000;
/** A list that takes longer than so many milliseconds is shown again for as long as it took. */
const SLOW_LIST_MS = 500;
/** Runs that are listed: of a folder with more, those begun last. */
export const MOST_RUNS = 1000;
const READ_AT_ONCE = 4;
const LOOKED_AT_ONCE = 64;
const NO_WISHES: ControlRequest = { paused: false, stop: false, slack: null };
const MOST_REPORTS = 100;
const MOST_ENTRIES = 10_000;
const REPORT = /^[A-Za-z0-9][A-Za-z0-9._-]*\.html$/;
/** Files that a run's overview is made of. */
const OF_OVERVIEW = ["config.json", "metrics.arrows", "state.json", "summary.json"];

/** The runs of a folder. */
export interface Runs {
  readonly folder: string;
  list(): Promise<RunOverview[]>;
  /** The run as of now or a quarter of a second ago; undefined when there is none of this name. */
  view(name: string): Promise<RunView | undefined>;
  detail(view: RunView): Promise<RunDetail>;
  checkpoints(view: RunView): Promise<CheckpointsAnswer>;
  /**
   * A report, or undefined when the run has none of this name.
   *
   * @throws {HTTPException} when it is too large
   */
  report(view: RunView, file: string): Promise<Report | undefined>;
  /**
   * Changes what is wanted of a run.
   *
   * @throws {HTTPException} when its control.json is damaged or cannot be written
   */
  control(view: RunView, change: Partial<ControlRequest>): Promise<ControlRequest>;
}

interface Entry {
  memory: RunMemory;
  view: RunView | undefined;
  readAt: number;
  reading: Promise<void> | undefined;
}

/**
 * Opens a folder of runs; it need not be there yet.
 *
 * @param now milliseconds, for tests
 */
export function openRuns(folder: string, now: () => number = () => performance.now()): Runs {
  const entries = new Map<string, Entry>();
  /** Overviews of runs that ended, with the stamps of the files that they were made of. */
  const ended = new Map<string, { stamp: string; overview: RunOverview }>();
  let steering: Promise<unknown> = Promise.resolve();
  let listing: Promise<RunOverview[]> | undefined;
  let listed: { overviews: RunOverview[]; until: number } | undefined;

  /** A run's folder, unless the name is none of a run, or the folder is elsewhere by a symbolic link. */
  async function pathOf(name: string): Promise<string | undefined> {
    if (!isRunName(name)) return undefined;
    const path = join(folder, name);
    return await isOwn(path, "isDirectory") ? path : undefined;
  }

  /** A run that is a link: it is shown, and nothing of it is read. */
  const linked = (name: string): RunView => unreadable(name, join(folder, name), "left out: a symbolic link");

  function entryOf(name: string, path: string): Entry {
    const entry = entries.get(name) ??
      { memory: createRunMemory(path), view: undefined, readAt: -Infinity, reading: undefined };
    // The one used last goes to the end; the first is the one not used for longest.
    entries.delete(name);
    entries.set(name, entry);
    let rows = 0;
    for (const { memory } of entries.values()) rows += memory.rows.length;
    for (const [oldest, { memory }] of entries) {
      if (oldest === name || (entries.size <= RUNS_IN_MEMORY && rows <= ROWS_IN_MEMORY)) break;
      entries.delete(oldest);
      rows -= memory.rows.length;
    }
    return entry;
  }

  async function view(name: string, patience = PATIENCE_MS): Promise<RunView | undefined> {
    const path = await pathOf(name);
    if (path === undefined) {
      entries.delete(name);
      const isLink = isRunName(name) && await isOwn(join(folder, name), "isSymlink");
      return isLink ? linked(name) : undefined;
    }
    const entry = entryOf(name, path);
    if (entry.view && now() - entry.readAt < FRESH_MS) return entry.view;
    entry.reading ??= readRun(name, path, entry.memory, patience).then((read) => {
      entry.view = read;
      entry.readAt = now();
    }).finally(() => entry.reading = undefined);
    // The metrics have their own patience, and a disk that does not answer at all gets as much again.
    if (await within(entry.reading, 2 * PATIENCE_MS) === "done") return entry.view;
    return entry.view ?? unreadable(name, path, "it cannot be read now: the disk does not answer");
  }

  async function stampOfRun(path: string): Promise<string> {
    const infos = await Promise.all(
      OF_OVERVIEW.map((file) => ownInfo(join(path, file)).catch(() => undefined)),
    );
    return infos.map(stampOf).join();
  }

  async function overview(name: string, patience: number): Promise<RunOverview | undefined> {
    const path = join(folder, name);
    const stamp = await stampOfRun(path);
    const known = ended.get(name);
    if (known?.stamp === stamp && !await isAtWork(path).catch(() => true)) return known.overview;
    const found = await view(name, patience);
    if (found?.settled && !LIVE.includes(found.overview.status)) {
      ended.set(name, { stamp, overview: found.overview });
    } else ended.delete(name);
    return found?.overview;
  }

  async function readList(): Promise<RunOverview[]> {
    const begun = performance.now();
    const { names, links } = await namesIn(folder);
    const deadline = performance.now() + PATIENCE_MS;
    const overviews = links.map((name) => linked(name).overview);
    await inTurn(names, READ_AT_ONCE, async (name) => {
      const found = await overview(name, Math.max(0, deadline - performance.now()));
      if (found) overviews.push(found);
    });
    const here = new Set(names);
    for (const name of ended.keys()) if (!here.has(name)) ended.delete(name);
    overviews.sort((a, b) => (b.updated ?? "").localeCompare(a.updated ?? "") || (a.name < b.name ? -1 : 1));
    const took = performance.now() - begun;
    listed = took > SLOW_LIST_MS ? { overviews, until: performance.now() + took } : undefined;
    return overviews;
  }

  return {
    folder,
    view: (name) => view(name),

    async list() {
      if (listed && performance.now() < listed.until) return listed.overviews;
      listing ??= readList().finally(() => listing = undefined);
      return await listing;
    },

    async detail({ path, config, overview }) {
      const { layers = 0, heads = 0, contextLength = 0 } = config?.model.config ?? {};
      const isOurs = await isOwn(path, "isDirectory");
      return {
        ...overview,
        settings: config?.settings ?? {},
        adapter: config?.adapter ?? null,
        versions: config?.versions ?? {},
        layers,
        heads,
        context: contextLength,
        summary: isOurs ? await runSummary(path) : null,
        control: isOurs ? await runControl(path).catch(() => NO_WISHES) : NO_WISHES,
        slack_changes: isOurs ? await runSlackChanges(path) : [],
        reports: isOurs ? await listReports(path) : [],
      };
    },

    async checkpoints({ path }) {
      if (!await isOwn(path, "isDirectory")) return { checkpoints: [], torn: [] };
      const { checkpoints, torn } = await ownCheckpoints(join(path, "checkpoints"));
      return { checkpoints: checkpoints.map(({ path: _, ...checkpoint }) => checkpoint), torn };
    },

    async report({ path }, file) {
      if (!REPORT.test(file) || !await isOwn(path, "isDirectory")) return undefined;
      if (!await isOwn(join(path, file), "isFile")) return undefined;
      return await openReport(join(path, file));
    },

    async control({ name, path }, change) {
      if (!await isOwn(path, "isDirectory")) {
        throw problem(409, `Cannot steer ${name} as it is no folder of its own`);
      }
      try {
        // Nothing but a file is opened.
        await runControl(path);
        // One after the other: two wishes at once would each be added to what was wanted before both.
        const wanted = steering.then(() => requestControl(path, change));
        steering = wanted.catch(() => {});
        return await wanted;
      } catch (error) {
        if (!(error instanceof UserError)) throw error;
        const isFull = error.exitCode === EXIT.device;
        throw problem(
          isFull ? 503 : 409,
          `Cannot steer ${name} as its control.json ${isFull ? "cannot be written" : "is damaged"}`,
        );
      }
    },
  };
}

/** Does something to each, so many at once. */
async function inTurn<Item>(
  items: readonly Item[],
  count: number,
  act: (item: Item) => Promise<void>,
): Promise<void> {
  const rest = items.values();
  await Promise.all(Array.from({ length: count }, async () => {
    for (const item of rest) await act(item);
  }));
}

/** Names of the runs in a folder, and of links that are named as runs; those begun last where there are many. */
async function namesIn(folder: string): Promise<{ names: string[]; links: string[] }> {
  const names: string[] = [];
  const links: string[] = [];
  try {
    for await (const { name, isDirectory, isSymlink } of Deno.readDir(folder)) {
      if (!isRunName(name)) continue;
      if (isDirectory) names.push(name);
      else if (isSymlink && links.length < MOST_RUNS) links.push(name);
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return { names, links };
    throw problem(503, `Cannot list the runs in ${folder}: ${oneLine(reasonOf(error))}`);
  }
  if (names.length <= MOST_RUNS) return { names, links };
  const begun = new Map<string, number>();
  await inTurn(names, LOOKED_AT_ONCE, async (name) => {
    const info = await ownInfo(join(folder, name, "config.json")).catch(() => undefined);
    begun.set(name, info?.mtime?.getTime() ?? -Infinity);
  });
  names.sort((a, b) => begun.get(a) === begun.get(b) ? 0 : begun.get(b)! > begun.get(a)! ? 1 : -1);
  return { names: names.slice(0, MOST_RUNS), links };
}

async function listReports(path: string): Promise<RunDetail["reports"]> {
  const reports: RunDetail["reports"] = [];
  let entries = 0;
  try {
    for await (const { name, isFile } of Deno.readDir(path)) {
      if (++entries > MOST_ENTRIES || reports.length >= MOST_REPORTS) break;
      if (!isFile || !REPORT.test(name)) continue;
      const info = await ownInfo(join(path, name));
      if (info?.isFile) reports.push({ file: name, bytes: info.size });
    }
  } catch {
    // The run was deleted meanwhile.
  }
  return reports.sort((a, b) => a.file < b.file ? -1 : 1);
}
