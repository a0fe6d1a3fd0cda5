/**
 * Writing files so that a crash leaves the old one or the new one, never half of either.
 *
 * @module
 */
import { dirname } from "node:path";

/** Ending of files that are being written; whatever has it after a crash may be deleted. */
export const TEMPORARY = ".partial";

/** Makes a folder's entries durable, where the system can. */
export async function syncFolder(folder: string): Promise<void> {
  try {
    using handle = await Deno.open(folder);
    await handle.sync();
  } catch {
    // Windows cannot open folders; there a rename is durable with the file.
  }
}

/**
 * Writes a file under a temporary name, flushes it to the disk and renames it.
 *
 * @param write receives the open file; if it throws, nothing is left behind
 */
export async function writeAtomically(
  path: string,
  write: (file: Deno.FsFile) => Promise<void>,
): Promise<void> {
  const temporary = path + TEMPORARY;
  try {
    using file = await Deno.open(temporary, { write: true, create: true, truncate: true });
    await write(file);
    await file.sync();
  } catch (error) {
    await Deno.remove(temporary).catch(() => {});
    throw error;
  }
  await Deno.rename(temporary, path);
  await syncFolder(dirname(path));
}

/** Writes all of `bytes`. */
export async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
}

/** Reads exactly `length` bytes from `position`; undefined when the file ends before. */
export async function readAt(
  file: Deno.FsFile,
  position: number,
  length: number,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  await file.seek(position, Deno.SeekMode.Start);
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length;) {
    const count = await file.read(bytes.subarray(at));
    if (count === null) return undefined;
    at += count;
  }
  return bytes;
}

/** SHA-256 of a file as hexadecimal digits, without holding the file in memory. */
export async function hashFile(path: string): Promise<string> {
  const { createHash } = await import("node:crypto");
  const hash = createHash("sha256");
  using file = await Deno.open(path);
  for await (const chunk of file.readable) hash.update(chunk);
  return hash.digest("hex");
}

/** Writes a value as indented JSON, atomically. */
export async function writeJson(path: string, value: unknown): Promise<void> {
  const bytes = new TextEncoder().encode(JSON.stringify(value, null, 2) + "\n");
  await writeAtomically(path, (file) => writeAll(file, bytes));
}

/** Whether something stands at `path`. */
export async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}
