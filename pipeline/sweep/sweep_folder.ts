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
const LOCK = ".sweep.lock";

/**
 * Opens the folder of a sweep, or makes it.
 *
 * @param file the sweep's, whole path
 * @param options `make`: whether it may be new
 * @throws {UserError} where it holds something else, or another file's sweep, or is not there and may not be made
 */
export async function openSweepFolder(
  folder: string,
  file: string,
  { make }: { make: boolean },
): Promise<void> {
  const names = await Array.fromAsync(Deno.readDir(folder)).catch(() => undefined);
  if (!names && !make) throw usageError(`Cannot show the sweep in ${folder} as nothing has been run there`);
  if (names && names.length > 0) {
    const mark = await readJson(join(folder, SWEEP_MARK)).catch(() => undefined);
    const of = isObject(mark) && typeof mark.file === "string" ? mark.file : undefined;
    if (of === file) return;
    throw usageError(
      `Cannot use ${folder} for the sweep ${file} as it ${
        of === undefined ? "holds no sweep" : `is that of ${shown(of)}`
      }: give another --name`,
    );
  }
  await storing(folder, () => Deno.mkdir(folder, { recursive: true }));
  await writeJson(join(folder, SWEEP_MARK), { file });
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
