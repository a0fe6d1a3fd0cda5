/**
 * The folder of a benchmark's results, which one process at a time writes.
 *
 * @module
 */
import { join } from "node:path";
import { inputError } from "../errors.ts";
import { checkIsFree, exists, removeOwn, storing } from "../files.ts";

/** A row for each choice of each item and model. */
export const ITEMS = "items.arrow";
/** Every task's scores. */
export const RESULTS = "results.json";
const LOCK = ".lock";

/**
 * Checks that results can be written to a folder without losing others.
 *
 * @throws {UserError} when there are some
 */
export async function checkOutputFolder(output: string): Promise<void> {
  for (const name of [ITEMS, RESULTS]) await checkIsFree(join(output, name));
}

/**
 * Makes the folder and keeps it from other processes until it is disposed of; where nothing was written, one that was made
 * is removed, also when the command is stopped.
 *
 * @param removeIfStopped is told what a command that is stopped leaves, in the order in which it can be removed
 * @throws {UserError} as {@link checkOutputFolder}, when another process is writing it, and when it cannot be written
 */
export async function holdOutputFolder(
  output: string,
  removeIfStopped: (path: string) => void,
): Promise<AsyncDisposable> {
  const isNew = !await exists(output);
  const path = join(output, LOCK);
  let lock: Deno.FsFile | undefined;
  try {
    // The system drops it when the process ends, however it ends.
    lock = await storing(output, async () => {
      await Deno.mkdir(output, { recursive: true });
      return await Deno.open(path, { create: true, write: true });
    });
    await checkIsHeld(output, path, lock);
    // Another may have written it since it was looked at.
    await checkOutputFolder(output);
  } catch (error) {
    lock?.close();
    // Not recursive: it fails where another's process is writing.
    if (isNew) await Deno.remove(output).catch(() => {});
    throw error;
  }
  const held = lock;
  removeIfStopped(path);
  if (isNew) removeIfStopped(output);
  return {
    async [Symbol.asyncDispose]() {
      // Windows removes no open file.
      if (Deno.build.os === "windows") held.close();
      await removeOwn(output, [LOCK], { keepFolder: !isNew });
      if (Deno.build.os !== "windows") held.close();
    },
  };
}

async function checkIsHeld(output: string, path: string, lock: Deno.FsFile): Promise<void> {
  if (lock.tryLockSync(true)) {
    // Whoever had it before may have removed it, and another process made it anew.
    const [own, there] = [await lock.stat(), await Deno.stat(path).catch(() => undefined)];
    if (there?.ino === own.ino && there?.dev === own.dev) return;
  }
  throw inputError(`Cannot write ${output} as another process is writing it`);
}
