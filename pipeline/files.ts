/**
 * Files, read within bounds and written so that a crash leaves the old one or the new one, never half of either.
 *
 * What is read is a regular file of at most so many bytes: a pipe would wait for its writer for ever, and a device has no
 * end. No message quotes what a file holds, since a path may lead to a file that is none of the user's input.
 *
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import { fstatSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { inputError, OF_THE_SYSTEM, storageError, usageError, UserError } from "./errors.ts";

/** The project's folder, in which `deno task` starts whatever it is told. */
export const PROJECT: string = fileURLToPath(new URL("..", import.meta.url)).replace(/[/\\]$/, "");

/** Ending of files that are being written. */
export const TEMPORARY = ".partial";

/** What says how a tokenizer.json beside it is used; a copy of that takes them along. */
export const TOKENIZER_SETTINGS = ["tokenizer_config.json", "generation_config.json"] as const;

/** Bytes of the largest file of JSON that is read: a tokenizer.json of 260,000 entries has 33 MB. */
export const MAX_JSON_BYTES = 128 << 20;

/** Bytes of a stream's pieces. */
const PIECE_BYTES = 1 << 18;

/** Bytes of the JSON files that a run writes, and of the configurations that it reads, at most. */
export const MAX_SMALL_JSON_BYTES = 8 << 20;

/** Why the system refused something, in a few words. */
export function reasonOf(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "no such file or folder";
  if (error instanceof Deno.errors.PermissionDenied) return "permission denied";
  if (error instanceof Deno.errors.FilesystemLoop) return "a loop of links";
  if (error instanceof Deno.errors.NotCapable) return OF_THE_SYSTEM;
  const message = error instanceof Error ? error.message : String(error);
  return message.split("\n")[0].replace(/ \(os error \d+\)/, "");
}

/** What stands at a path that is no regular file. */
export function kindOf(info: Deno.FileInfo): string {
  if (info.isFile) return "a file";
  if (info.isDirectory) return "a folder";
  if (info.isSymlink) return "a link";
  if (info.isFifo) return "a pipe";
  return info.isSocket ? "a socket" : "a device";
}

/** Whether an open file, given by its number, is the null device, which is empty. */
export function isNullDevice(descriptor: number): boolean {
  try {
    const info = fstatSync(descriptor);
    return info.isCharacterDevice() && info.rdev === Deno.statSync("/dev/null").rdev;
  } catch {
    return false;
  }
}

/**
 * Opens a regular file for reading.
 *
 * @throws {UserError} when there is none, or something else stands there, which is not opened
 */
export async function openRegular(path: string): Promise<{ file: Deno.FsFile; size: number }> {
  try {
    // Before it is opened, which would wait at a pipe for a writer.
    const info = await Deno.stat(path);
    if (!info.isFile) throw inputError(`Cannot read ${path} as it must be a file: it is ${kindOf(info)}`);
    const file = await Deno.open(path);
    return { file, size: (await file.stat()).size };
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw inputError(`Cannot read ${path}: ${reasonOf(error)}`, { cause: error });
  }
}

/**
 * A regular file's bytes as a stream, as many as it has now: some files of the system never end, and one that grows is
 * taken as it is.
 *
 * @throws {UserError} when it is none, or cannot be read
 */
export async function streamRegular(path: string): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
  const { file, size } = await openRegular(path);
  let at = 0;
  return new ReadableStream({
    async pull(controller) {
      const bytes = new Uint8Array(Math.min(PIECE_BYTES, size - at));
      try {
        const count = bytes.length === 0 ? null : await file.read(bytes);
        if (count !== null) {
          at += count;
          return controller.enqueue(bytes.subarray(0, count));
        }
      } catch (error) {
        file.close();
        throw inputError(`Cannot read ${path}: ${reasonOf(error)}`, { cause: error });
      }
      file.close();
      controller.close();
    },
    cancel: () => file.close(),
  });
}

/**
 * A regular file's bytes.
 *
 * @throws {UserError} when it is none, cannot be read, or has more than `maxBytes`
 */
export async function readBytes(path: string, maxBytes: number): Promise<Uint8Array<ArrayBuffer>> {
  const { file, size } = await openRegular(path);
  using _ = file;
  if (size > maxBytes) {
    throw inputError(`Cannot read ${path} as it must have at most ${maxBytes} bytes: ${size}`);
  }
  const bytes = await readAt(file, 0, size);
  if (!bytes) throw inputError(`Cannot read ${path} as it became shorter meanwhile`);
  return bytes;
}

/**
 * A regular file's text, without the mark of byte order that some editors begin it with.
 *
 * @throws {UserError} as {@link readBytes}, and when it is no UTF-8
 */
export async function readText(path: string, maxBytes: number): Promise<string> {
  const bytes = await readBytes(path, maxBytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw inputError(`Cannot read ${path} as it must be UTF-8 text`);
  }
}

/**
 * The value in a file of JSON.
 *
 * @throws {UserError} as {@link readText}, and when it is no JSON, saying where but not what stands there
 */
export async function readJson(path: string, maxBytes: number = MAX_SMALL_JSON_BYTES): Promise<unknown> {
  return parseJson(await readText(path, maxBytes), path);
}

/**
 * Parses JSON that a file holds.
 *
 * @param where file, and line where there are lines, for the message
 * @throws {UserError} saying where it ends to be JSON, but not what stands there
 */
export function parseJson(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const [place] = /\(line \d+ column \d+\)/.exec((error as Error).message) ?? [];
    throw inputError(`Cannot read ${where} as it is no JSON${place ? ` ${place}` : ""}`);
  }
}

/** Whether a value of JSON is an object. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value of JSON for an error message: on one line, and cut where it is long. */
export function shown(value: unknown): string {
  const text = textOf(value);
  return text.length <= 80 ? text : `${text.slice(0, 77)}...`;
}

/** A value as JSON; it can be read deeper than it can be written. */
function textOf(value: unknown): string {
  try {
    return JSON.stringify(value) ?? "undefined";
  } catch (error) {
    if (error instanceof RangeError) return "something too deep to show";
    throw error;
  }
}

/** Makes a folder's entries durable, where the system can. */
export async function syncFolder(folder: string): Promise<void> {
  // Windows cannot open folders; there a rename is durable with the file.
  if (Deno.build.os === "windows") return;
  using handle = await Deno.open(folder);
  await handle.sync().catch((error) => {
    // Some network file systems cannot do it for folders.
    if (!/\(os error (22|95)\)/.test((error as Error).message)) throw error;
  });
}

/**
 * Does what writes to `path`.
 *
 * @throws {UserError} naming the path, when the disk is full or the system refuses, exit code 5
 */
export async function storing<Result>(path: string, write: () => Promise<Result>): Promise<Result> {
  try {
    return await write();
  } catch (error) {
    throw storageError(path, error);
  }
}

/**
 * Writes a file under a temporary name, flushes it to the disk and renames it.
 *
 * @param write receives the open file; if it throws, nothing is left behind
 * @throws {UserError} naming the path, when the disk is full or the system refuses
 */
export async function writeAtomically(
  path: string,
  write: (file: Deno.FsFile) => Promise<void>,
): Promise<void> {
  const temporary = path + TEMPORARY;
  await storing(temporary, async () => {
    // What a killed process left is ours to replace. A link is not followed, and nothing else is overwritten.
    const left = await Deno.lstat(temporary).catch(() => undefined);
    if (left?.isFile || left?.isSymlink) await Deno.remove(temporary);
    try {
      using file = await Deno.open(temporary, { read: true, write: true, createNew: true });
      await write(file);
      await file.sync();
    } catch (error) {
      if (!(error instanceof Deno.errors.AlreadyExists)) await Deno.remove(temporary).catch(() => {});
      throw error;
    }
    await Deno.rename(temporary, path);
    await syncFolder(dirname(path));
  });
}

/**
 * Writes a file that is not there yet.
 *
 * @throws {UserError} when something is there, which is left as it is, or the system refuses
 */
export async function writeNew(path: string, bytes: Uint8Array): Promise<void> {
  await storing(path, async () => {
    using file = await Deno.open(path, { write: true, createNew: true });
    try {
      await writeAll(file, bytes);
      await file.sync();
    } catch (error) {
      await Deno.remove(path);
      throw error;
    }
    await syncFolder(dirname(path));
  });
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

/** A SHA-256 that is fed piece by piece. */
export function sha256(): Hash {
  return createHash("sha256");
}

/** SHA-256 of bytes or text as hexadecimal digits. */
export function digestOf(content: Uint8Array | string): string {
  return sha256().update(content).digest("hex");
}

/**
 * SHA-256 of a regular file as hexadecimal digits, without holding the file in memory.
 *
 * @throws {UserError} when it is none
 */
export async function hashFile(path: string): Promise<string> {
  const hash = sha256();
  for await (const chunk of await streamRegular(path)) hash.update(chunk);
  return hash.digest("hex");
}

/** Writes a value as indented JSON, atomically. */
export async function writeJson(path: string, value: unknown): Promise<void> {
  const bytes = new TextEncoder().encode(JSON.stringify(value, null, 2) + "\n");
  await writeAtomically(path, (file) => writeAll(file, bytes));
}

/** The digest that seals an object: of its fields without the seal. */
function sealOf(fields: object): string {
  return digestOf(textOf(fields));
}

/** Writes an object as indented JSON with the SHA-256 of its fields, which {@link readSealedJson} asks for. */
export async function writeSealedJson(path: string, fields: object): Promise<void> {
  await writeJson(path, { ...fields, sha256: sealOf(fields) });
}

/**
 * An object that {@link writeSealedJson} wrote.
 *
 * @throws {UserError} when it is none, or has been changed since
 */
export async function readSealedJson(path: string): Promise<Record<string, unknown>> {
  const value = await readJson(path);
  if (!isObject(value)) throw inputError(`Cannot use ${path} as it must be a JSON object`);
  const { sha256: seal, ...fields } = value;
  if (seal !== sealOf(fields)) {
    throw inputError(`Cannot use ${path} as it is damaged, or was changed by hand: its sha256 is another`);
  }
  return fields;
}

/** Whether something stands at `path`, also what cannot be looked at. */
export async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    return !(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory);
  }
}

/**
 * Checks that nothing stands at a path that is to be written.
 *
 * @throws {UserError} when something does, or the path cannot be looked at
 */
export async function checkIsFree(path: string): Promise<void> {
  const isThere = await Deno.lstat(path).then(() => true, (error) => {
    if (error instanceof Deno.errors.NotFound) return false;
    throw storageError(path, error);
  });
  if (isThere) {
    throw usageError(`Cannot write ${path} as it is there, and would be lost: use another --output`);
  }
}

/** What a folder may hold of ours: files by name or pattern, and folders with what they hold. */
export type OwnNames = readonly (string | RegExp | { folder: string; names: OwnNames })[];

/**
 * Removes what a folder holds of ours, and, unless told otherwise, the folder itself when that leaves it empty. Nothing else is touched, and no
 * link is followed.
 */
export async function removeOwn(
  folder: string,
  names: OwnNames,
  { keepFolder = false } = {},
): Promise<void> {
  const info = await Deno.lstat(folder).catch(() => undefined);
  if (!info?.isDirectory) return;
  for (const entry of await Array.fromAsync(Deno.readDir(folder))) {
    const path = join(folder, entry.name);
    for (const own of names) {
      if (typeof own === "string" || own instanceof RegExp) {
        const named = typeof own === "string" ? own === entry.name : own.test(entry.name);
        // Whoever still writes there may have taken it away.
        if (named && (entry.isFile || entry.isSymlink)) await removeIfThere(path);
      } else if (own.folder === entry.name) await removeOwn(path, own.names);
    }
  }
  // Not recursive: it fails where something of another's is left.
  if (!keepFolder) await Deno.remove(folder).catch(() => {});
}

async function removeIfThere(path: string): Promise<void> {
  await Deno.remove(path).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
}
