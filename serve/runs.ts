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
import { folderInside } from "./sweeps.ts";
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

/** Runs whose rows are held in memory at once, and how many numbers these may have together: 80 MB. */
const RUNS_IN_MEMORY = 256;
const NUMBERS_IN_MEMORY = 10_000_000;
/** Milliseconds for which what was read of a run is taken as fresh. */
const FRESH_MS = 250;
/** How patient the store is, in milliseconds. */
export interface Patience {
  /** For which a run, or the list of all, is waited for: then what is known is shown. */
  wait: number;
  /** A list that takes longer is shown again for as long as it took. */
  slowList: number;
}

const PATIENCE: Patience = { wait: 3000, slowList: 500 };
/** Runs that are listed: of a folder with more, those begun last. */
export const MOST_RUNS = 1000;
const READ_AT_ONCE = 4;
const LOOKED_AT_ONCE = 64;
/**
 * Ended runs whose files a list looks at though nothing says that they changed: those looked at longest ago. Fewer where
 * it looks at every run's folder.
 */
const LOOKED_AGAIN = 50;
const LOOKED_AGAIN_BESIDE = 10;
/**
 * Folders of ended runs that a list looks at where a run has come or gone: what else may have begun meanwhile is seen
 * within a few lists. Each look is a call to another thread, and a thousand of them take longer than all else.
 */
const LOOKED_BESIDE = 250;
/** A folder's time that is younger than so many milliseconds may be that of another change too: clocks have ticks. */
const TICK_MS = 100;
const NO_WISHES: ControlRequest = { paused: false, stop: false, slack: null };
const MOST_REPORTS = 100;
const MOST_ENTRIES = 10_000;
const REPORT = /^[A-Za-z0-9][A-Za-z0-9._-]*\.html$/;
/** Files that a run's overview is made of. */
const OF_OVERVIEW = ["config.json", "metrics.arrows", "state.json", "summary.json"];

/** The runs of a folder. */
export interface Runs {
  readonly folder: string;
  /**
   * All runs, the one that wrote last first. What ended is read once: it is looked at again when its folder's time has
   * changed, as at a start or a resumption, which changes the time of the runs folder too: then that of every run's folder
   * is asked for, over a few lists where runs have come or gone. Of the others some are read at each list, so that what
   * another program writes is noticed.
   */
  list(): Promise<RunOverview[]>;
  /** The run as of now or a quarter of a second ago; undefined when there is none of this name. */
  view(name: string): Promise<RunView | undefined>;
  detail(view: RunView): Promise<RunDetail>;
  checkpoints(view: RunView): Promise<CheckpointsAnswer>;
  /**
   * A report, or undefined when the run has none of this name.
   *
   * @param inside of a sweep, the run whose report it is; of a study, the stage, or the stage and the run
   * @throws {HTTPException} when it is too large
   */
  report(view: RunView, file: string, inside?: readonly string[]): Promise<Report | undefined>;
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
  /** When the reading of the view began. */
  begunAt: number;
  reading: Promise<void> | undefined;
  /** Whether somebody looks at the run itself: then its rows are kept, also of one that ended. */
  watched: boolean;
}

/** What is known of a run that ended. */
interface Ended {
  /** Stamp of its folder, which changes when a file comes, goes or is replaced. */
  folder: string;
  /** Stamps of the files that its overview was made of. */
  files: string;
  overview: RunOverview;
}

/**
 * Opens a folder of runs; it need not be there yet.
 *
 * @param now milliseconds, for tests
 * @param patience for tests, which may run on a busy machine
 */
export function openRuns(
  folder: string,
  now: () => number = () => performance.now(),
  { wait, slowList }: Patience = PATIENCE,
): Runs {
  const entries = new Map<string, Entry>();
  /** Runs that ended by name, those looked at longest ago first. */
  const ended = new Map<string, Ended>();
  /** When runs began, by name: asked of the disk once for each, where there are more than are listed. */
  const beginnings = new Map<string, number>();
  /** The runs folder as it was last gone through; without a stamp where it may have changed since. */
  let seen: { stamp: string | undefined; found: Awaited<ReturnType<typeof namesIn>> } | undefined;
  /** Runs that ended, whose folders have not been looked at since the runs folder changed. */
  const owed = new Set<string>();
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
      {
        memory: createRunMemory(path),
        view: undefined,
        readAt: -Infinity,
        begunAt: -Infinity,
        reading: undefined,
        watched: false,
      };
    // The one used last goes to the end; the first is the one not used for longest.
    entries.delete(name);
    entries.set(name, entry);
    let numbers = 0;
    for (const { memory } of entries.values()) numbers += memory.numbers;
    for (const [oldest, { memory }] of entries) {
      if (oldest === name || (entries.size <= RUNS_IN_MEMORY && numbers <= NUMBERS_IN_MEMORY)) break;
      entries.delete(oldest);
      numbers -= memory.numbers;
    }
    return entry;
  }

  async function view(name: string, patience = wait): Promise<RunView | undefined> {
    const path = await pathOf(name);
    if (path === undefined) {
      entries.delete(name);
      const isLink = isRunName(name) && await isOwn(join(folder, name), "isSymlink");
      return isLink ? linked(name) : undefined;
    }
    const entry = entryOf(name, path);
    if (entry.view && now() - entry.readAt < FRESH_MS) return entry.view;
    if (!entry.reading) {
      const begunAt = now();
      entry.reading = readRun(name, path, entry.memory, patience).then((read) => {
        entry.view = read;
        entry.readAt = now();
        entry.begunAt = begunAt;
      }).finally(() => entry.reading = undefined);
    }
    // The metrics have their own patience, and a disk that does not answer at all gets as much again.
    if (await within(entry.reading, 2 * wait) === "done") return entry.view;
    return entry.view ?? unreadable(name, path, "it cannot be read now: the disk does not answer");
  }

  async function stampOfRun(path: string): Promise<string> {
    const infos = await Promise.all(
      OF_OVERVIEW.map((file) => ownInfo(join(path, file)).catch(() => undefined)),
    );
    return infos.map(stampOf).join();
  }

  /** @param again whether the files of a run that ended are looked at in any case */
  async function overview(
    name: string,
    { again, patience }: { again: boolean; patience: number },
  ): Promise<RunOverview | undefined> {
    const path = join(folder, name);
    const known = ended.get(name);
    const since = now();
    const ofFolder = stampOf(await ownInfo(path).catch(() => undefined));
    if (known?.folder === ofFolder && !again) return known.overview;
    const files = await stampOfRun(path);
    if (known?.files === files && !await isAtWork(path).catch(() => true)) {
      ended.delete(name);
      ended.set(name, { ...known, folder: ofFolder });
      return known.overview;
    }
    const found = await view(name, patience);
    ended.delete(name);
    const entry = entries.get(name);
    // What was read before the files were looked at may be older than their stamps.
    const isNew = entry !== undefined && entry.begunAt >= since;
    if (found?.settled && isNew && !LIVE.includes(found.overview.status)) {
      ended.set(name, { folder: ofFolder, files, overview: found.overview });
      if (!entry.watched) entries.delete(name);
    }
    return found?.overview;
  }

  /** Stamp of the runs folder; undefined where a change within the same tick would not show in it. */
  async function stampOfRuns(): Promise<string | undefined> {
    const info = await Deno.stat(folder).catch(() => undefined);
    return Math.abs(Date.now() - (info?.mtime?.getTime() ?? 0)) > TICK_MS ? stampOf(info) : undefined;
  }

  async function readList(): Promise<RunOverview[]> {
    const begun = performance.now();
    const stamp = await stampOfRuns();
    const isSame = stamp !== undefined && stamp === seen?.stamp;
    const found = isSame ? seen!.found : await namesIn(folder, beginnings);
    const { names, links } = found;
    const here = new Set(names);
    const before = seen?.found.names ?? [];
    // A folder that changed though the same runs are in it has one that goes on.
    const goesOn = !isSame && before.length === names.length && before.every((name) => here.has(name));
    seen = { stamp, found };
    if (!isSame) { for (const name of ended.keys()) owed.add(name); }
    const looked = new Set(goesOn ? owed : [...owed].slice(0, LOOKED_BESIDE));
    for (const name of looked) owed.delete(name);
    const again = new Set([...ended.keys()].slice(0, isSame ? LOOKED_AGAIN : LOOKED_AGAIN_BESIDE));
    const deadline = performance.now() + wait;
    const overviews = links.map((name) => linked(name).overview);
    const rest: string[] = [];
    // Of what ended the folder alone is looked at, many at once, which is a third cheaper than a few.
    await inTurn(names, LOOKED_AT_ONCE, async (name) => {
      const known = ended.get(name);
      if (!known || again.has(name)) rest.push(name);
      else if (
        !looked.has(name) ||
        stampOf(await ownInfo(join(folder, name)).catch(() => undefined)) === known.folder
      ) overviews.push(known.overview);
      else {
        beginnings.delete(name);
        rest.push(name);
      }
    });
    await inTurn(rest, READ_AT_ONCE, async (name) => {
      const patience = Math.max(0, deadline - performance.now());
      const found = await overview(name, { again: again.has(name), patience });
      if (found) overviews.push(found);
    });
    for (const name of ended.keys()) if (!here.has(name)) ended.delete(name);
    for (const name of owed) if (!here.has(name)) owed.delete(name);
    overviews.sort(byTime);
    const took = performance.now() - begun;
    listed = took > slowList ? { overviews, until: performance.now() + took } : undefined;
    return overviews;
  }

  return {
    folder,
    async view(name) {
      const found = await view(name);
      const entry = entries.get(name);
      if (entry) entry.watched = true;
      return found;
    },

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
        summary: isOurs && config ? await runSummary(path, config.command) : null,
        control: isOurs ? await runControl(path).catch(() => NO_WISHES) : NO_WISHES,
        slack_changes: isOurs ? await runSlackChanges(path) : [],
        changes: config?.changes ?? [],
        reports: isOurs ? await listReports(path) : [],
      };
    },

    async checkpoints({ path }) {
      if (!await isOwn(path, "isDirectory")) return { checkpoints: [], torn: [] };
      const { checkpoints, torn } = await ownCheckpoints(join(path, "checkpoints"));
      return { checkpoints: checkpoints.map(({ path: _, ...checkpoint }) => checkpoint), torn };
    },

    async report({ path, overview: { result } }, file, inside = []) {
      if (!REPORT.test(file) || !await isOwn(path, "isDirectory")) return undefined;
      const isWithin = inside.length > 0;
      if (isWithin && result?.kind !== "sweep") return undefined;
      const folder = isWithin && result?.kind === "sweep"
        ? await folderInside(path, result.of, inside)
        : path;
      if (folder === undefined) return undefined;
      const report = join(folder, file);
      return await isOwn(report, "isFile") ? await openReport(report) : undefined;
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

/** The one that wrote last first, those of which no time is known at the end. */
function byTime(a: RunOverview, b: RunOverview): number {
  const [at, other] = [a.updated ?? "", b.updated ?? ""];
  return at === other ? (a.name < b.name ? -1 : 1) : at < other ? 1 : -1;
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

/**
 * Names of the runs in a folder, and of links that are named as runs; those begun last where there are many.
 *
 * @param begun when runs began, as far as it is known; the others' times are added, and those that are gone taken out
 */
async function namesIn(
  folder: string,
  begun: Map<string, number>,
): Promise<{ names: string[]; links: string[] }> {
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
  const here = new Set(names);
  for (const name of begun.keys()) if (!here.has(name)) begun.delete(name);
  await inTurn(names.filter((name) => !begun.has(name)), LOOKED_AT_ONCE, async (name) => {
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
