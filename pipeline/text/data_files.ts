/**
 * Which files the sources of a command stand for.
 *
 * @module
 */
import { join } from "node:path";
import { inputError } from "../errors.ts";
import { kindOf, openRegular, readAt, reasonOf } from "../files.ts";

/** Standard input, among sources. */
export const STANDARD_INPUT = "-";

/** What a folder may hold of data; JSON only where it holds documents. */
const DATA_FILE = /\.(txt|md|text|jsonl|ndjson|parquet|json)(\.gz)?$/i;
/** What stands beside data and is no text to train on. */
const BESIDE_DATA =
  /^\.|^(readme|licen[cs]e|changelog|citation)(\.|$)|^(dataset_infos?|dataset_dict|state)\.json$/i;

/** Files of text that is not all meant to be read. */
const MARKED_UP = /\.(csv|tsv|html?|xml|tex|ipynb)(\.gz)?$/i;

/** Bytes of a beginning by which a format is told. */
export const HEAD_BYTES = 1 << 16;

/** Files that come one after the other when they are wanted, such as those of a data set of the hub. */
export interface FileSequence {
  /** What it is called; it names the same files for ever. */
  readonly name: string;
  /** Brings a file here, by its index; undefined behind the last. */
  file(index: number): Promise<string | undefined>;
}

/** Where text is: a path, `-` for standard input, or files that have to be fetched. */
export type Source = string | FileSequence;

/** What messages call a source. */
export const sourceName = (source: Source): string => typeof source === "string" ? source : source.name;

/**
 * The files of sources one after the other; those of a sequence are brought when it is their turn.
 *
 * @throws {UserError} as {@link findDataFiles}, and when one cannot be brought
 */
export async function* filesOf(sources: readonly Source[]): AsyncGenerator<string> {
  for (const source of sources) {
    if (typeof source === "string") {
      yield* (await findDataFiles([source])).files;
      continue;
    }
    for (let index = 0;; index++) {
      const file = await source.file(index);
      if (file === undefined) break;
      yield file;
    }
  }
}

/** The files of some sources. */
export interface DataFiles {
  /** In order, those of a folder sorted by path. */
  files: string[];
  /** Files of folders that are no data: hidden ones, a README, files of other kinds. */
  leftOut: string[];
}

/**
 * Finds the files that sources stand for. In a folder links are followed, each file and folder once; hidden files, a
 * data set's README and files of other kinds are left out.
 *
 * @param sources paths, or `-` for standard input
 * @throws {UserError} when a source is not there, or a folder holds no data file
 */
export async function findDataFiles(sources: readonly string[]): Promise<DataFiles> {
  const found: DataFiles = { files: [], leftOut: [] };
  for (const source of sources) {
    if (source === STANDARD_INPUT) {
      found.files.push(source);
      continue;
    }
    let info: Deno.FileInfo;
    try {
      info = await Deno.stat(source);
    } catch (error) {
      const what = error instanceof Deno.errors.NotFound ? "no such file or folder" : reasonOf(error);
      throw inputError(`Cannot read data ${source}: ${what}`);
    }
    if (info.isFile && MARKED_UP.test(source)) {
      throw inputError(
        `Cannot read data ${source} as its columns and marks would be taken for text: give plain text, JSON Lines with ` +
          `a field "text", or Parquet`,
      );
    }
    if (info.isFile) found.files.push(source);
    else if (info.isDirectory) {
      const below: DataFiles = { files: [], leftOut: [] };
      await walk(source, below, new Set());
      if (below.files.length === 0) {
        throw inputError(
          `Cannot read data ${source} as a folder must hold .txt, .md, .jsonl, .json or .parquet files: none found`,
        );
      }
      found.files.push(...below.files.sort());
      found.leftOut.push(...below.leftOut.sort());
    } else {
      // It is read twice, for its hash and its text, and a device has no end.
      throw inputError(
        `Cannot read data ${source} as it must be a file or a folder: it is ${
          kindOf(info)
        }; a pipe can be given as ` +
          `standard input, with --data -`,
      );
    }
  }
  return found;
}

async function walk(folder: string, found: DataFiles, seen: Set<string>): Promise<void> {
  const real = await Deno.realPath(folder);
  if (seen.has(real)) return;
  seen.add(real);
  const entries = await Array.fromAsync(Deno.readDir(folder)).catch((error) => {
    throw inputError(`Cannot read data ${folder}: ${reasonOf(error)}`);
  });
  // In a fixed order, since of two links to one file the first counts.
  for (const { name } of entries.sort((a, b) => a.name < b.name ? -1 : 1)) {
    const path = join(folder, name);
    const info = await Deno.stat(path).catch(() => undefined);
    if (info?.isDirectory && !BESIDE_DATA.test(name)) await walk(path, found, seen);
    else if (!info?.isFile || BESIDE_DATA.test(name) || !DATA_FILE.test(name)) found.leftOut.push(path);
    else if (/\.json$/i.test(name) && !await holdsDocuments(path)) found.leftOut.push(path);
    else {
      const file = await Deno.realPath(path);
      if (seen.has(file)) continue;
      seen.add(file);
      found.files.push(path);
    }
  }
}

/** Whether a file of JSON begins with a document, and not, say, as a configuration. */
async function holdsDocuments(path: string): Promise<boolean> {
  const { file: opened, size } = await openRegular(path);
  using file = opened;
  const head = new TextDecoder().decode(await readAt(file, 0, Math.min(size, HEAD_BYTES)));
  return jsonFormatOf(head) !== undefined && /"(text|prompt)"\s*:/.test(head);
}

/** Whether a text begins as an array of objects, or as lines of them, do. */
export function jsonFormatOf(head: string): "lines" | "array" | undefined {
  if (/^\s*\[\s*(\{|\]\s*$)/.test(head)) return "array";
  const [line] = head.trimStart().split("\n");
  // A first line longer than what was looked at cannot be parsed.
  if (line.length === head.trimStart().length && /^\{\s*"[^"]*"\s*:/.test(line)) return "lines";
  try {
    const value = JSON.parse(line);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? "lines" : undefined;
  } catch {
    return undefined;
  }
}
