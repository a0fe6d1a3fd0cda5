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

/** What is in the folder of a sweep or a study; undefined where it is none. */
export async function sweepIn(path: string): Promise<Extract<RunResult, { kind: "sweep" }> | undefined> {
  if (await isMarked(path, STUDY_MARK)) return { kind: "sweep", of: "study", runs: [] };
  if (!await isMarked(path, SWEEP_MARK)) return undefined;
  const runs: { name: string; finished: boolean }[] = [];
  for await (const { name, isDirectory } of Deno.readDir(path)) {
    if (!isDirectory || !isRunName(name) || !await isOwn(join(path, name, "config.json"), "isFile")) continue;
    runs.push({ name, finished: await isOwn(join(path, name, "summary.json"), "isFile") });
    if (runs.length === MOST_RUNS) break;
  }
  return { kind: "sweep", of: "sweep", runs: runs.sort((a, b) => a.name < b.name ? -1 : 1) };
}

async function isMarked(path: string, name: string): Promise<boolean> {
  const mark = await readOwnJson(join(path, name)).catch(() => undefined);
  return isObject(mark) && typeof mark.file === "string";
}
