/**
 * Documents from files of text, JSON Lines, JSON or Parquet, folders of these, or standard input, in pieces, so that a
 * file may be larger than memory. Where a name does not say what a file holds its beginning does, and compression is
 * always told by the content.
 *
 * @module
 */
import { fstatSync } from "node:fs";
import { Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { oneAtATime } from "../../kernels/core/one_at_a_time.ts";
import { parquetMetadataAsync, parquetReadObjects, parquetSchema } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { findDataFiles, HEAD_BYTES, jsonFormatOf, STANDARD_INPUT } from "./data_files.ts";
import { inputError } from "../errors.ts";
import {
  isNullDevice,
  isObject,
  openRegular,
  parseJson,
  readAt,
  reasonOf,
  shown,
  streamRegular,
} from "../files.ts";

/** A piece of a document of running text. */
export interface TextPiece {
  /** Tells it from an {@link Example}. */
  kind: "text";
  /** What it says. */
  text: string;
  /** Whether the document ends with this piece. */
  last: boolean;
  /** File, and line, row or element, for messages. */
  where: string;
  /** Of a file that is one text, the line that the piece begins in. */
  line?: number;
}

/** A prompt with the completion that is to be learnt. */
export interface Example {
  /** Tells it from a {@link TextPiece}. */
  kind: "example";
  /** What the model reads; it does not count in the loss. */
  prompt: string;
  /** What it is to learn. */
  completion: string;
  /** Turns that follow, each of a further prompt and completion, in which again the completion alone counts. */
  further?: readonly { prompt: string; completion: string }[];
  /** File and line, for error messages. */
  where: string;
}

const PIECE_CHARACTERS = 1 << 20;
/** Characters of the longest line of JSONL: a text of this length is a book shelf, and V8's strings end soon after. */
const LINE_CHARACTERS = 1 << 28;
/** Characters of the largest file that is one array of JSON, which is read whole. */
const ARRAY_CHARACTERS = 1 << 28;

type Format = "text" | "lines" | "array" | "parquet";

/**
 * Every document of the sources in order. A folder stands for the data files below it, sorted by path.
 *
 * @param sources paths, or `-` for standard input
 * @param options `textColumn`: where records of JSON or Parquet have their text; `onBytes`: told of bytes that have been read,
 * as they lie in the files
 * @throws {UserError} naming the file, and the line where there are lines, for anything unreadable
 */
export async function* readDocuments(
  sources: readonly string[],
  { textColumn = TEXT_COLUMN, onBytes = () => {} }: {
    textColumn?: string;
    onBytes?: (count: number) => void;
  } = {},
): AsyncGenerator<TextPiece | Example> {
  const fields = textColumn === TEXT_COLUMN ? DOCUMENT_FIELDS : [textColumn];
  for (const source of (await findDataFiles(sources)).files) {
    const { format, bytes } = await openData(source, onBytes);
    if (format === "text") yield* readPlainText(source, bytes);
    // Of a wide table only what a document is made of.
    else {for await (const record of recordsOf(format, source, bytes, onBytes, fields)) {
        yield documentOf(record, textColumn);
      }}
  }
}

/** Where records have their text if nothing else is said. */
export const TEXT_COLUMN = "text";
/** Columns that a message names at most. */
const MOST_NAMED = 10;
/** What a document is made of. */
const DOCUMENT_FIELDS = [TEXT_COLUMN, "prompt", "completion", "turns"];

/** A value of a file of values: an object, where the file is as it should be. */
export interface DataRecord {
  /** As JSON or Parquet has it. */
  value: unknown;
  /** File and line, row or element, for messages. */
  where: string;
}

/**
 * Every value of files of JSON Lines, arrays of JSON or Parquet, in order.
 *
 * @param sources as {@link readDocuments}'
 * @param options `plain`: a file of text is one value too, with the whole of it as its `text`; left out: it is refused
 * @throws {UserError} naming the file, and the line where there are lines, for anything unreadable
 */
export async function* readRecords(
  sources: readonly string[],
  { plain = false }: { plain?: boolean } = {},
): AsyncGenerator<DataRecord> {
  for (const source of (await findDataFiles(sources)).files) {
    const { format, bytes } = await openData(source, () => {});
    if (format === "text" && plain) {
      yield { value: { text: await wholeText(source, bytes) }, where: source };
      continue;
    }
    if (format === "text") {
      await bytes.cancel();
      throw inputError(
        `Cannot read ${source} as it must be JSON Lines, an array of JSON or Parquet: it is text`,
      );
    }
    yield* recordsOf(format, source, bytes, () => {});
  }
}

/** The text of a file. */
async function wholeText(source: string, bytes: Bytes): Promise<string> {
  let text = "";
  for await (const piece of textOf(source, bytes)) {
    text += piece;
    if (text.length > LINE_CHARACTERS) {
      throw inputError(
        `Cannot read ${source} as a text may have ${
          LINE_CHARACTERS.toLocaleString("en-US")
        } characters: it has more`,
      );
    }
  }
  if (text === "") throw inputError(`Cannot read ${source} as it is empty`);
  return text;
}

/** The values of one file; `fields` are those that are wanted of a table, all where left out. */
async function* recordsOf(
  format: Exclude<Format, "text">,
  source: string,
  bytes: Bytes,
  onBytes: (count: number) => void,
  fields?: readonly string[],
): AsyncGenerator<DataRecord> {
  if (format === "parquet") {
    await bytes.cancel();
    yield* readParquet(source, onBytes, fields);
  } else if (format === "lines") yield* readJsonLines(source, bytes);
  else yield* readJsonArray(source, bytes);
}

type Bytes = ReadableStream<Uint8Array<ArrayBuffer>>;

/** Opens a source, takes its compression off, and tells what it holds. */
async function openData(
  source: string,
  onBytes: (count: number) => void,
): Promise<{ format: Format; bytes: Bytes }> {
  const unread = source === STANDARD_INPUT ? standardInput() : await streamRegular(source);
  const raw: Bytes = unread.pipeThrough(
    new TransformStream({
      transform(chunk, controller) {
        onBytes(chunk.length);
        controller.enqueue(chunk);
      },
    }),
  );
  try {
    let opened = await peek(raw, 4);
    const zipped = opened.head[0] === 0x1f && opened.head[1] === 0x8b;
    if (!zipped && /\.gz$/i.test(source)) throw inputError(`Cannot read ${source} as it is no gzip file`);
    if (zipped) opened = await peek(gunzip(opened.bytes), HEAD_BYTES);
    else opened = await peek(opened.bytes, HEAD_BYTES);
    const format = formatOf(source, opened.head);
    if (format !== "parquet" && isWide(opened.head)) {
      throw inputError(
        `Cannot read ${source} as it must be UTF-8 text: it has characters of 16 or 32 bits, or is no text`,
      );
    }
    if (format === "parquet" && (zipped || source === STANDARD_INPUT)) {
      throw inputError(`Cannot read ${source} as Parquet must be a file that is not compressed itself`);
    }
    return { format, bytes: opened.bytes };
  } catch (error) {
    await raw.cancel().catch(() => {});
    throw readingError(source, error);
  }
}

/** Share of zero bytes from which on a file is no UTF-8 text; in UTF-16 Latin letters have one each. */
const MOST_ZEROS = 0.1;

/** Whether a file's beginning has more zero bytes than text has. */
function isWide(head: Uint8Array): boolean {
  return head.reduce((zeros, byte) => zeros + (byte === 0 ? 1 : 0), 0) > MOST_ZEROS * head.length;
}

/** What a source holds, by its name where that says it, else by its beginning. */
function formatOf(source: string, head: Uint8Array): Format {
  const [, ending] = /\.(\w+?)(\.gz)?$/i.exec(source) ?? [];
  const name = ending?.toLowerCase();
  if (name === "jsonl" || name === "ndjson") return "lines";
  if (name === "txt" || name === "md" || name === "text") return "text";
  const text = new TextDecoder().decode(head);
  if (name === "parquet" || text.startsWith("PAR1")) return "parquet";
  const json = jsonFormatOf(text);
  if (!json && name === "json") {
    throw inputError(`Cannot read ${source} as it must be JSON Lines, or an array, of objects`);
  }
  return json ?? "text";
}

/** Reads the first bytes of a stream, at least `count` where it has so many, and gives back a stream with all of it. */
async function peek(stream: Bytes, count: number): Promise<{ head: Uint8Array; bytes: Bytes }> {
  const reader = stream.getReader();
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  for (let length = 0; length < count;) {
    const { value, done } = await reader.read();
    if (done) break;
    pieces.push(value);
    length += value.length;
  }
  const head = new Uint8Array(await new Blob(pieces).arrayBuffer());
  const bytes: Bytes = new ReadableStream({
    start(controller) {
      if (head.length > 0) controller.enqueue(head);
    },
    async pull(controller) {
      const { value, done } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  });
  return { head, bytes };
}

/** Takes gzip off, of any number of members one behind the other, as log rotation and parallel tools write them. */
function gunzip(bytes: Bytes): Bytes {
  const zipped = Readable.fromWeb(bytes as never);
  const plain = zipped.pipe(createGunzip());
  zipped.on("error", (error) => plain.destroy(error));
  return ReadableStream.from(plain as AsyncIterable<Uint8Array<ArrayBuffer>>);
}

function readingError(source: string, error: unknown): unknown {
  if ((error as Error).name === "UserError") return error;
  return inputError(`Cannot read ${source} as it must be UTF-8 text, or gzip of it: ${reasonOf(error)}`);
}

/** Standard input's bytes; a device other than a terminal is refused, as most have no end. */
function standardInput(): Bytes {
  const info = fstatSync(0);
  const device = info.isCharacterDevice() || info.isBlockDevice();
  if (device && !Deno.stdin.isTerminal() && !isNullDevice(0)) {
    throw inputError(`Cannot read standard input as it must be a pipe, a file or a terminal: it is a device`);
  }
  return Deno.stdin.readable;
}

/** A source's text, decoded strictly, in pieces as they come. */
async function* textOf(source: string, bytes: Bytes): AsyncGenerator<string> {
  try {
    for await (const piece of bytes.pipeThrough(new TextDecoderStream("utf-8", { fatal: true }))) yield piece;
  } catch (error) {
    throw readingError(source, error);
  }
}

/** One document, cut at white space into pieces that a tokenizer sees whole words in. */
async function* readPlainText(source: string, bytes: Bytes): AsyncGenerator<TextPiece> {
  let pending = "";
  let seen = false;
  let line = 1;
  for await (const piece of textOf(source, bytes)) {
    pending += piece;
    seen ||= pending.length > 0;
    while (pending.length >= PIECE_CHARACTERS) {
      const cut = cutOf(pending);
      const text = pending.slice(0, cut);
      yield { kind: "text", text, last: false, where: source, line };
      line += lineEnds(text);
      pending = pending.slice(cut);
    }
  }
  if (!seen) throw inputError(`Cannot read ${source} as it is empty`);
  yield { kind: "text", text: pending, last: true, where: source, line };
}

/**
 * Where a text is cut: behind a letter or digit and before white space, since tokenizers join a space with the word behind
 * it and line ends with the full stop before them; for want of that before white space, or anywhere but in a character.
 */
function cutOf(text: string): number {
  for (const before of [/[\p{L}\p{N}]/u, /\S/]) {
    for (let cut = PIECE_CHARACTERS; cut > 1; cut--) {
      if (/\s/.test(text[cut]) && before.test(text[cut - 1])) return cut;
    }
  }
  return /[\udc00-\udfff]/.test(text[PIECE_CHARACTERS]) ? PIECE_CHARACTERS - 1 : PIECE_CHARACTERS;
}

/** Number of line ends in a text. */
export function lineEnds(text: string): number {
  let count = 0;
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) count++;
  return count;
}

async function* readLines(source: string, bytes: Bytes): AsyncGenerator<{ line: string; number: number }> {
  // Joined when its end is found, so that a long line costs no more than its length.
  let pending: string[] = [];
  let length = 0;
  let number = 0;
  for await (const piece of textOf(source, bytes)) {
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

async function* readJsonLines(source: string, bytes: Bytes): AsyncGenerator<DataRecord> {
  let any = false;
  for await (const { line, number } of readLines(source, bytes)) {
    if (!line.trim()) continue;
    any = true;
    const where = `${source}, line ${number}`;
    yield { value: parseJson(line, where), where };
  }
  if (!any) throw inputError(`Cannot read ${source} as it holds no document`);
}

async function* readJsonArray(source: string, bytes: Bytes): AsyncGenerator<DataRecord> {
  const pieces: string[] = [];
  let length = 0;
  for await (const piece of textOf(source, bytes)) {
    pieces.push(piece);
    length += piece.length;
    if (length > ARRAY_CHARACTERS) {
      throw inputError(
        `Cannot read ${source} as an array of JSON is read whole and must have at most ${ARRAY_CHARACTERS} ` +
          `characters; as JSON Lines, one object a line, it may have any length`,
      );
    }
  }
  const values = parseJson(pieces.join(""), source);
  if (!Array.isArray(values) || values.length === 0) {
    throw inputError(`Cannot read ${source} as it holds no document`);
  }
  for (const [n, value] of values.entries()) yield { value, where: `${source}, element ${n + 1}` };
}

function documentOf({ value, where }: DataRecord, textColumn: string): TextPiece | Example {
  const record = isObject(value) ? value : {};
  const text = Object.hasOwn(record, textColumn) ? record[textColumn] : undefined;
  if (typeof text === "string") return { kind: "text", text, last: true, where };
  if (textColumn !== TEXT_COLUMN) {
    throw inputError(
      `Cannot read ${where} as it needs a "${textColumn}" that is a string: ${
        stringsOf(record) ?? "none is one"
      }`,
    );
  }
  const { prompt, completion, turns } = record;
  if (typeof prompt === "string" && typeof completion === "string") {
    return { kind: "example", prompt, completion, where };
  }
  if (Array.isArray(turns) && turns.length > 0 && turns.every(isTurn)) {
    const [first, ...further] = turns;
    return { kind: "example", prompt: first.prompt, completion: first.completion, further, where };
  }
  const isExample = ["prompt", "completion", "turns"].some((name) => Object.hasOwn(record, name));
  const others = isExample ? undefined : stringsOf(record);
  throw inputError(
    `Cannot read ${where} as it needs a "text", a "prompt" and a "completion", that are strings, or "turns" of these` +
      (others === undefined ? "" : `; ${others}: --text-column NAME takes the text from one`),
  );
}

/** Which fields of a record are strings; undefined where none is. */
function stringsOf(record: Record<string, unknown>): string | undefined {
  const names = Object.keys(record).filter((name) => typeof record[name] === "string");
  if (names.length === 0) return undefined;
  const more = names.length > MOST_NAMED ? `, and ${names.length - MOST_NAMED} more` : "";
  return `strings are ${names.slice(0, MOST_NAMED).map((name) => shown(name)).join(", ")}${more}`;
}

function isTurn(value: unknown): value is { prompt: string; completion: string } {
  const { prompt, completion } = (value ?? {}) as Record<string, unknown>;
  return typeof prompt === "string" && typeof completion === "string";
}

/** Whether a column of Parquet is of strings. */
const isString = (
  { converted_type, logical_type }: { converted_type?: string; logical_type?: { type: string } },
): boolean => converted_type === "UTF8" || logical_type?.type === "STRING";

/** Strings of Parquet, decoded strictly; bytes that are none stay as they are where nobody has named the columns. */
const parserOf = (source: string, areNamed: boolean) => ({
  stringFromBytes(bytes: Uint8Array | undefined): string | Uint8Array | undefined {
    try {
      return bytes && new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch {
      if (!areNamed) return bytes;
      throw inputError(`Cannot read ${source} as its strings must be UTF-8 text`);
    }
  },
});

async function* readParquet(
  source: string,
  onBytes: (count: number) => void,
  fields?: readonly string[],
): AsyncGenerator<DataRecord> {
  const { file: opened, size } = await openRegular(source);
  using file = opened;
  // The reader asks for several parts at once, and a file has one place where it is read.
  const inTurn = oneAtATime();
  let ended = false;
  const buffer = {
    byteLength: size,
    slice(start: number, end = size): Promise<ArrayBuffer> {
      return inTurn(async () => {
        const inside = !ended && start <= end && end <= size;
        const bytes = inside ? await readAt(file, start, end - start) : undefined;
        if (!bytes) throw new Error("the file is cut short");
        return bytes.buffer;
      });
    },
  };
  try {
    const metadata = await parquetMetadataAsync(buffer);
    const present = parquetSchema(metadata).children.map(({ element }) => element);
    const wanted = fields && present.filter(({ name }) => fields.includes(name));
    // Of a table without any, whoever reads it tells which strings there are.
    const columns = (wanted?.length === 0 ? present.filter(isString) : wanted)?.map(({ name }) => name);
    let rowStart = 0;
    for (const group of metadata.row_groups) {
      const rowEnd = rowStart + Number(group.num_rows);
      const rows = await parquetReadObjects({
        file: buffer,
        metadata,
        rowStart,
        rowEnd,
        compressors,
        columns,
        parsers: parserOf(source, fields !== undefined),
      });
      for (let n = 0; n < rows.length; n++) {
        yield { value: rows[n], where: `${source}, row ${rowStart + n + 1}` };
      }
      onBytes(size * (rowEnd - rowStart) / Number(metadata.num_rows));
      rowStart = rowEnd;
    }
  } catch (error) {
    if ((error as Error).name === "UserError") throw error;
    throw inputError(`Cannot read ${source} as a Parquet file: ${reasonOf(error)}`);
  } finally {
    // Parts may still be on their way, and the file is closed behind them.
    ended = true;
    await inTurn(() => Promise.resolve());
  }
}
