/**
 * Files of a run, looked at as what they are: a link is not followed, a pipe is not waited for, and what is too large is
 * not read.
 *
 * @module
 */
import { basename } from "node:path";
import { EXIT, UserError } from "../pipeline/errors.ts";
import { kindOf, MAX_SMALL_JSON_BYTES, openRegular, readAt, readJson, reasonOf } from "../pipeline/files.ts";

/** A file of a run that is not as it must be. */
export class UnfitFileError extends UserError {
  /** The file by its name, and what is wrong with it: "its state.json must be a file: it is a pipe". */
  readonly complaint: string;

  constructor(path: string, why: string, options?: ErrorOptions) {
    super(EXIT.input, `Cannot use ${path} as it ${why}`, options);
    this.complaint = `its ${basename(path)} ${why}`;
  }
}

/**
 * What stands at the path itself; undefined when nothing does.
 *
 * @throws {UnfitFileError} when it cannot be looked at
 */
export async function ownInfo(path: string): Promise<Deno.FileInfo | undefined> {
  try {
    return await Deno.lstat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw new UnfitFileError(path, `cannot be looked at: ${reasonOf(error)}`, { cause: error });
  }
}

/** Whether a file, a folder or a link stands at the path itself. */
export async function isOwn(path: string, kind: "isFile" | "isDirectory" | "isSymlink"): Promise<boolean> {
  return (await ownInfo(path).catch(() => undefined))?.[kind] ?? false;
}

/**
 * A regular file of at most so many bytes; undefined when nothing stands there.
 *
 * @throws {UnfitFileError} when something else does, or it is larger
 */
export async function ownFile(path: string, maxBytes: number): Promise<Deno.FileInfo | undefined> {
  const info = await ownInfo(path);
  if (info && !info.isFile) throw new UnfitFileError(path, `must be a file: it is ${kindOf(info)}`);
  if (info && info.size > maxBytes) {
    throw new UnfitFileError(path, `must have at most ${maxBytes} bytes: ${info.size}`);
  }
  return info;
}

/** GPT-2 XL's checkpoint, with its moments, has 300 KB of names and places. */
const MOST_HEADER_BYTES = 8 << 20;

/**
 * Asserts that the header of a safetensors file is one that can be parsed while clients wait.
 *
 * @throws {UserError} when it is longer, or there is no such file
 */
export async function checkHeaderLength(path: string): Promise<void> {
  const { file } = await openRegular(path);
  using _ = file;
  const prefix = await readAt(file, 0, 8);
  const length = prefix ? Number(new DataView(prefix.buffer).getBigUint64(0, true)) : 0;
  if (length > MOST_HEADER_BYTES) {
    throw new UnfitFileError(path, `must have a header of at most ${MOST_HEADER_BYTES} bytes`);
  }
}

/**
 * The value in a run's own file of JSON; undefined when there is none.
 *
 * @throws {UserError} when it cannot be read, or is no JSON
 */
export async function readOwnJson(path: string, maxBytes: number = MAX_SMALL_JSON_BYTES): Promise<unknown> {
  return await ownFile(path, maxBytes) && await readJson(path, maxBytes);
}
