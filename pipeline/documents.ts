/**
 * Documents from files of text, JSONL, Parquet, folders of these, or standard input, in pieces, so that a file may be
 * larger than memory.
 *
 * @module
 */
import { join } from "node:path";
import { parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import { inputError } from "./errors.ts";
import { kindOf, openRegular, parseJson, reasonOf } from "./files.ts";

/** A piece of a document of running text. */
export interface TextPiece {
  kind: "text";
  text: string;
  /** Whether the document ends with this piece. */
  last: boolean;
}

/** A prompt with the completion that is to be learnt. */
export interface Example {
  kind: "example";
  prompt: string;
  completion: string;
  /** File and line, for error messages. */
  where: string;
}

/** Standard input, among sources. */
export const STANDARD_INPUT = "-";

const PIECE_CHARACTERS = 1 << 20;
/** Characters of the longest line of JSONL: a text of this length is a book shelf, and V8's strings end soon after. */
const LINE_CHARACTERS = 1 << 28;
const DATA_FILE = /\.(txt|md|text|jsonl|ndjson|parquet)(\.gz)?$/;

/**
 * Every document of the sources in order. A folder stands for the data files below it, sorted by path.
 *
 * @param sources paths, or `-` for standard input
 * @throws {UserError} naming the file, and the line where there are lines, for anything unreadable
 */
export async function* readDocuments(sources: readonly string[]): AsyncGenerator<TextPiece | Example> {
  for (const source of await expandSources(sources)) {
    if (source.endsWith(".parquet")) yield* readParquet(source);
    else if (/\.(jsonl|ndjson)(\.gz)?$/.test(source)) yield* readJsonl(source);
    else yield* readPlainText(source);
  }
}

/**
 * The files that the sources stand for.
 *
 * @throws {UserError} when a source is not there, or a folder holds no data file
 */
export async function expandSources(sources: readonly string[]): Promise<string[]> {
  const files: string[] = [];
  for (const source of sources) {
    if (source === STANDARD_INPUT) {
      files.push(source);
      continue;
    }
    let info: Deno.FileInfo;
    try {
      info = await Deno.stat(source);
    } catch (error) {
      const what = error instanceof Deno.errors.NotFound ? "no such file or folder" : reasonOf(error);
      throw inputError(`Cannot read data ${source}: ${what}`);
    }
    if (info.isFile) {
      files.push(source);
      continue;
    }
    if (!info.isDirectory) {
      // It is read twice, for its hash and its text, and a device has no end.
      throw inputError(
        `Cannot read data ${source} as it must be a file or a folder: it is ${
          kindOf(info)
        }; a pipe can be given as ` +
          `standard input, with --data -`,
      );
    }
    const found = await Array.fromAsync(walk(source));
    if (found.length === 0) {
      throw inputError(
        `Cannot read data ${source} as a folder must hold .txt, .md, .jsonl or .parquet files: none found`,
      );
    }
    files.push(...found.sort());
  }
  return files;
}

async function* walk(folder: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(folder)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory) yield* walk(path);
    else if (entry.isFile && DATA_FILE.test(entry.name)) yield path;
  }
}

/** Standard input's bytes; a device other than a terminal is refused, as most have no end. */
async function standardInput(): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
  const info = Deno.build.os === "windows" ? undefined : await Deno.stat("/dev/stdin").catch(() => undefined);
  const device = info && (info.isCharDevice || info.isBlockDevice);
  if (device && !Deno.stdin.isTerminal() && !await isNull(info)) {
    throw inputError(`Cannot read standard input as it must be a pipe, a file or a terminal: it is a device`);
  }
  return Deno.stdin.readable;
}

/** Whether it is the null device, which is empty. */
async function isNull({ rdev }: Deno.FileInfo): Promise<boolean> {
  return rdev !== null && rdev === (await Deno.stat("/dev/null")).rdev;
}

/** The file's text, decoded strictly, in pieces as they come. */
async function* readText(source: string): AsyncGenerator<string> {
  let bytes: ReadableStream<Uint8Array<ArrayBuffer>>;
  if (source === STANDARD_INPUT) bytes = await standardInput();
  else bytes = (await openRegular(source)).file.readable;
  if (source.endsWith(".gz")) bytes = bytes.pipeThrough(new DecompressionStream("gzip"));
  try {
    for await (const piece of bytes.pipeThrough(new TextDecoderStream("utf-8", { fatal: true }))) yield piece;
  } catch (error) {
    throw inputError(`Cannot read ${source} as it must be UTF-8 text: ${reasonOf(error)}`);
  }
}

/** One document, cut at white space into pieces that a tokenizer sees whole words in. */
async function* readPlainText(source: string): AsyncGenerator<TextPiece> {
  let pending = "";
  let seen = false;
  for await (const piece of readText(source)) {
    pending += piece;
    seen ||= pending.length > 0;
    while (pending.length >= PIECE_CHARACTERS) {
      // The cut goes before white space, since the tokenizer joins a space with the word behind it.
      let cut = PIECE_CHARACTERS;
      while (cut > 1 && !(/\s/.test(pending[cut]) && !/\s/.test(pending[cut - 1]))) cut--;
      if (cut === 1) cut = PIECE_CHARACTERS;
      yield { kind: "text", text: pending.slice(0, cut), last: false };
      pending = pending.slice(cut);
    }
  }
  if (!seen) throw inputError(`Cannot read ${source} as it is empty`);
  yield { kind: "text", text: pending, last: true };
}

async function* readLines(source: string): AsyncGenerator<{ line: string; number: number }> {
  // Joined when its end is found, so that a long line costs no more than its length.
  let pending: string[] = [];
  let length = 0;
  let number = 0;
  for await (const piece of readText(source)) {
    const lines = piece.split("\n");
    for (const [n, part] of lines.entries()) {
      length += part.length;
      if (length > LINE_CHARACTERS) {
        throw inputError(
          `Cannot read ${source}, line ${
            number + 1
          } as a line must have at most ${LINE_CHARACTERS} characters`,
        );
      }
      pending.push(part);
      if (n === lines.length - 1) break;
      yield { line: pending.join(""), number: ++number };
      pending = [];
      length = 0;
    }
  }
  if (length > 0) yield { line: pending.join(""), number: ++number };
}

async function* readJsonl(source: string): AsyncGenerator<TextPiece | Example> {
  let any = false;
  for await (const { line, number } of readLines(source)) {
    if (!line.trim()) continue;
    any = true;
    const where = `${source}, line ${number}`;
    const value = parseJson(line, where);
    yield documentOf(value as Record<string, unknown> | null, where);
  }
  if (!any) throw inputError(`Cannot read ${source} as it holds no document`);
}

function documentOf(value: Record<string, unknown> | null, where: string): TextPiece | Example {
  const { text, prompt, completion } = value ?? {};
  if (typeof text === "string") return { kind: "text", text, last: true };
  if (typeof prompt === "string" && typeof completion === "string") {
    return { kind: "example", prompt, completion, where };
  }
  throw inputError(
    `Cannot read ${where} as it needs a "text", or a "prompt" and a "completion", that are strings`,
  );
}

async function* readParquet(source: string): AsyncGenerator<TextPiece | Example> {
  const { file: opened, size } = await openRegular(source);
  using file = opened;
  const buffer = {
    byteLength: size,
    async slice(start: number, end = size): Promise<ArrayBuffer> {
      await file.seek(start, Deno.SeekMode.Start);
      const bytes = new Uint8Array(end - start);
      for (let at = 0; at < bytes.length;) {
        const count = await file.read(bytes.subarray(at));
        if (count === null) throw new Error("the file is cut short");
        at += count;
      }
      return bytes.buffer;
    },
  };
  try {
    const metadata = await parquetMetadataAsync(buffer);
    let rowStart = 0;
    for (const group of metadata.row_groups) {
      const rowEnd = rowStart + Number(group.num_rows);
      const rows = await parquetReadObjects({ file: buffer, metadata, rowStart, rowEnd });
      for (let n = 0; n < rows.length; n++) yield documentOf(rows[n], `${source}, row ${rowStart + n + 1}`);
      rowStart = rowEnd;
    }
  } catch (error) {
    if ((error as Error).name === "UserError") throw error;
    throw inputError(`Cannot read ${source} as a Parquet file: ${reasonOf(error)}`);
  }
}
