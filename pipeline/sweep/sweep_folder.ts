/**
 * The folder of a sweep: made by it, marked as its own, and held while its runs go on.
 *
 * @module
 */
import { join } from "node:path";
import { inputError, usageError } from "../errors.ts";
import { isObject, readJson, shown, storing, writeJson } from "../files.ts";

/** Says whose folder it is. */
export const SWEEP_MARK = "sweep.json";
/** The same of a study. */
export const STUDY_MARK = "study.json";
const LOCK = ".sweep.lock";

/**
 * Opens the folder of a sweep, or makes it.
 *
 * @param file the sweep's, whole path; of a study what it is of
 * @param options `make`: whether it may be new; `kind`: what the folder is of, a sweep where left out, of which `sweep.json`
 * or `study.json` in it tells
 * @throws {UserError} where it holds something else, or another file's sweep, or is not there and may not be made
 */
export async function openSweepFolder(
  folder: string,
  file: string,
  { make, kind = "sweep" }: { make: boolean; kind?: "sweep" | "study" },
): Promise<void> {
  const markPath = join(folder, kind === "study" ? STUDY_MARK : SWEEP_MARK);
  const names = await Array.fromAsync(Deno.readDir(folder)).catch(() => undefined);
  if (!names && !make) throw usageError(`Cannot show the ${kind} in ${folder} as nothing has been run there`);
  if (names && names.length > 0) {
    const mark = await readJson(markPath).catch(() => undefined);
    const of = isObject(mark) && typeof mark.file === "string" ? mark.file : undefined;
    if (of === file) return;
    throw usageError(
      `Cannot use ${folder} for the ${kind} ${file} as it ${
        of === undefined ? `holds no ${kind}` : `is that of ${shown(of)}`
      }: give another --name`,
    );
  }
  await storing(folder, () => Deno.mkdir(folder, { recursive: true }));
  try {
    await writeJson(markPath, { file });
  } catch (error) {
    // Not recursive: it fails where another process has begun there.
    if (!names) await Deno.remove(folder).catch(() => {});
    throw error;
  }
}

/**
 * Keeps other processes from running the same sweep until the process ends, but for the tasks of a job array, which each
 * run another run of it.
 *
 * @throws {UserError} where another process is at it
 */
export async function holdSweep(folder: string, { shared }: { shared: boolean }): Promise<Deno.FsFile> {
  const path = join(folder, LOCK);
  const file = await storing(path, () => Deno.open(path, { create: true, write: true, read: true }));
  if (file.tryLockSync(!shared)) return file;
  file.close();
  throw inputError(`Cannot run the sweep in ${folder} as another process is at it`);
}
