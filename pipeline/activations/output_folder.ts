/**
 * A folder of activations, which appears under its name only when it is whole. Until then its files lie in another beside
 * it, which nobody takes for one, and which the next start of the same name takes over where a process was killed.
 *
 * @module
 */
import { basename, dirname, join, resolve } from "node:path";
import { inputError } from "../errors.ts";
import { checkIsFree, kindOf, type OwnNames, removeOwn, storing, syncFolder, TEMPORARY } from "../files.ts";

/** The file that says what the folder holds. */
export const MANIFEST = "activations.json";
const LOCK = ".lock";
const OWN: OwnNames = [
  LOCK,
  /^activations\.json(\.partial)?$/,
  /^(train|validation|test|documents)-\d{6,}\.safetensors(\.partial)?$/,
];
const isOwn = (name: string): boolean =>
  OWN.some((own) => own instanceof RegExp ? own.test(name) : own === name);

/**
 * Checks that a folder can be made.
 *
 * @throws {UserError} when something stands there, or where its files lie until it is whole, which is none of ours
 */
export async function checkOutputFolder(output: string): Promise<void> {
  await checkIsFree(output);
  const partial = partialOf(output);
  const info = await Deno.lstat(partial).catch(() => undefined);
  if (!info) return;
  const fail = (what: string): never => {
    throw inputError(`Cannot write ${output} as ${what} is there: it was left as it is`);
  };
  if (!info.isDirectory) fail(`${partial}, ${kindOf(info)},`);
  const other = (await Array.fromAsync(Deno.readDir(partial))).find(({ name, isFile }) =>
    !isFile || !isOwn(name)
  );
  if (other) fail(join(partial, other.name));
}

const partialOf = (output: string): string => {
  const path = resolve(output);
  return join(dirname(path), basename(path) + TEMPORARY);
};

/**
 * Makes a folder of what `fill` writes. Where that fails nothing is left.
 *
 * @param fill is given the folder to write into
 * @throws {UserError} as {@link checkOutputFolder}, when another process is writing it, and when the disk is full
 */
export async function makeOutputFolder<Result>(
  output: string,
  fill: (folder: string) => Promise<Result>,
): Promise<Result> {
  await checkOutputFolder(output);
  const partial = partialOf(output);
  await storing(partial, () => Deno.mkdir(partial, { recursive: true }));
  const lockPath = join(partial, LOCK);
  // The system drops it when the process ends, however it ends.
  using lock = await storing(lockPath, () => Deno.open(lockPath, { create: true, write: true }));
  if (!lock.tryLockSync(true)) {
    throw inputError(`Cannot write ${output} as another process is writing it`);
  }
  try {
    await removeOwn(partial, OWN.filter((own) => own !== LOCK), { keepFolder: true });
    const result = await fill(partial);
    await storing(output, async () => {
      await syncFolder(partial);
      await checkOutputFolder(output);
      await Deno.remove(lockPath);
      await Deno.rename(partial, output);
      await syncFolder(dirname(resolve(output)));
    });
    return result;
  } catch (error) {
    await removeOwn(partial, OWN);
    throw error;
  }
}
