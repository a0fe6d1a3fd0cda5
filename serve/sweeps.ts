/**
 * The folder of a sweep or a study: no run, but one that holds runs.
 *
 * @module
 */
import { join } from "node:path";
import { isObject } from "../pipeline/files.ts";
import { isRunName } from "../pipeline/runs/run_folder.ts";
import { STUDY_MARK, SWEEP_MARK } from "../pipeline/sweep/sweep_folder.ts";
import type { RunResult } from "./api.ts";
import { isOwn, readOwnJson } from "./own_files.ts";

/** Runs of a sweep that are looked at. */
const MOST_RUNS = 1000;

/**
 * What is in the folder of a sweep or a study; undefined where it is none.
 *
 * @param finished names of runs that were seen to have finished: these are not looked at again, and others are added
 */
export async function sweepIn(
  path: string,
  finished: Set<string>,
): Promise<Extract<RunResult, { kind: "sweep" }> | undefined> {
  if (await isMarked(path, STUDY_MARK)) return { kind: "sweep", of: "study", runs: [] };
  if (!await isMarked(path, SWEEP_MARK)) return undefined;
  const runs: { name: string; finished: boolean }[] = [];
  for await (const { name, isDirectory } of Deno.readDir(path)) {
    if (!isDirectory || !isRunName(name)) continue;
    if (!finished.has(name)) {
      if (!await isOwn(join(path, name, "config.json"), "isFile")) continue;
      if (await isOwn(join(path, name, "summary.json"), "isFile")) finished.add(name);
    }
    runs.push({ name, finished: finished.has(name) });
    if (runs.length === MOST_RUNS) break;
  }
  return { kind: "sweep", of: "sweep", runs: runs.sort((a, b) => a.name < b.name ? -1 : 1) };
}

async function isMarked(path: string, name: string): Promise<boolean> {
  const mark = await readOwnJson(join(path, name)).catch(() => undefined);
  return isObject(mark) && typeof mark.file === "string";
}

/**
 * The folder that a sweep's page leads to, which is a run's, or a study's, which is a stage's or that of a run in it;
 * undefined where it leads to none.
 */
export async function folderInside(
  path: string,
  of: "sweep" | "study",
  [name, ...further]: readonly string[],
): Promise<string | undefined> {
  const inside = join(path, name);
  if (!isRunName(name) || !await isOwn(inside, "isDirectory")) return undefined;
  if (of === "sweep") {
    return further.length === 0 && await isOwn(join(inside, "config.json"), "isFile") ? inside : undefined;
  }
  if (!await isMarked(inside, SWEEP_MARK)) return undefined;
  return further.length === 0 ? inside : await folderInside(inside, "sweep", further);
}
