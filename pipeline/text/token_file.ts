/**
 * Tokens on disk: one Arrow IPC file a split, in record batches of a fixed number of tokens, so that a window is found
 * without reading what lies before it, even where the file is larger than memory. Other tools read the same files.
 *
 * @module
 */
import { type FileHandle, open } from "node:fs/promises";
import {
  type AsyncRecordBatchFileReader,
  type DataType,
  Field,
  makeData,
  RecordBatch,
  RecordBatchFileWriter,
  RecordBatchReader,
  Schema,
  Struct,
  Uint16,
  Uint32,
  Uint8,
} from "apache-arrow";
import type { TokenSource } from "./batches.ts";
import { inputError } from "../errors.ts";
import { sha256, writeAll, writeAtomically } from "../files.ts";

/** Tokens as stored: two bytes where the vocabulary fits. */
export type TokenArray = Uint16Array | Uint32Array;

/** A run of tokens, and which of them count in the loss where not all do. */
export interface TokenChunk {
  tokens: TokenArray;
  counted?: Uint8Array;
}

/** Tokens of a record batch; every batch but the last is full. */
const BATCH_TOKENS = 1 << 18;
/** Bytes of record batches that are kept in memory. */
const CACHE_BYTES = 2 ** 30;

/**
 * Writes a token file, one record batch in memory at a time.
 *
 * @param columns `wide` for uint32 tokens, `counted` for the uint8 column beside them
 * @param metadata goes into the schema
 * @returns SHA-256 of the file
 */
export async function writeTokenFile(
  path: string,
  columns: { wide: boolean; counted: boolean },
  metadata: Record<string, string>,
  chunks: AsyncIterable<TokenChunk>,
): Promise<string> {
  const digest = sha256();
  const type = columns.wide ? new Uint32() : new Uint16();
  const fields: Field<DataType>[] = [new Field("token", type, false)];
  if (columns.counted) fields.push(new Field("counted", new Uint8(), false));
  const schema = new Schema(fields, new Map(Object.entries(metadata)));

  function recordBatch({ tokens, counted }: TokenChunk): RecordBatch {
    const children = [makeData({ type: type as Uint16, data: tokens as Uint16Array, length: tokens.length })];
    if (columns.counted) children.push(makeData({ type: new Uint8(), data: counted! }) as never);
    return new RecordBatch(schema, makeData({ type: new Struct(fields), length: tokens.length, children }));
  }

  async function* batches(): AsyncGenerator<RecordBatch> {
    const empty = (): Required<TokenChunk> => ({
      tokens: columns.wide ? new Uint32Array(BATCH_TOKENS) : new Uint16Array(BATCH_TOKENS),
      counted: new Uint8Array(BATCH_TOKENS),
    });
    let batch = empty();
    let filled = 0;
    for await (const { tokens, counted } of chunks) {
      for (let at = 0; at < tokens.length;) {
        const count = Math.min(tokens.length - at, BATCH_TOKENS - filled);
        batch.tokens.set(tokens.subarray(at, at + count), filled);
        if (counted) batch.counted.set(counted.subarray(at, at + count), filled);
        at += count;
        filled += count;
        if (filled === BATCH_TOKENS) {
          yield recordBatch(batch);
          batch = empty();
          filled = 0;
        }
      }
    }
    if (filled > 0) {
      yield recordBatch({
        tokens: batch.tokens.subarray(0, filled),
        counted: batch.counted.subarray(0, filled),
      });
    }
  }

  await writeAtomically(path, async (file) => {
    const writer = new RecordBatchFileWriter();
    let failure: unknown;
    const written = (async () => {
      for await (const bytes of writer) {
        digest.update(bytes);
        await writeAll(file, bytes);
      }
    })().catch((error) => failure = error);
    writer.reset(undefined, schema);
    try {
      for await (const batch of batches()) {
        if (failure !== undefined) break;
        writer.write(batch);
      }
      if (failure === undefined) writer.close();
    } catch (error) {
      // A writer whose bytes could not be taken is closed already, and says only that: why comes first.
      try {
        writer.close();
      } catch { /* it is */ }
      await written;
      throw failure ?? error;
    }
    await written;
    if (failure !== undefined) throw failure;
  });
  return digest.digest("hex");
}

/** An open token file. */
export interface TokenFile extends TokenSource {
  /** What stands in its schema, such as `all_tokens`. */
  readonly metadata: ReadonlyMap<string, string>;
  /** Tokens from `start` on: a view of the stored bytes where they lie in one record batch. */
  window(start: number, length: number): Promise<TokenArray>;
  /** 1 where the token counts in the loss. */
  countedWindow(start: number, length: number): Promise<Uint8Array>;
  /** Closes the file. */
  close(): Promise<void>;
}

/**
 * Opens a token file that {@link writeTokenFile} wrote.
 *
 * @throws {UserError} when it is none
 */
export async function openTokenFile(path: string): Promise<TokenFile> {
  let handle: FileHandle;
  try {
    handle = await open(path);
  } catch (error) {
    throw inputError(`Cannot open ${path}: ${(error as Error).message}`);
  }
  let reader: AsyncRecordBatchFileReader;
  try {
    reader = await RecordBatchReader.from(handle as never) as unknown as AsyncRecordBatchFileReader;
    await reader.open();
  } catch (error) {
    await handle.close();
    throw inputError(`Cannot read ${path} as an Arrow file: ${(error as Error).message}`);
  }
  const { metadata } = reader.schema;
  const length = Number(metadata.get("tokens"));
  const numberIn = (name: string): number | undefined =>
    metadata.has(name) ? Number(metadata.get(name)) : undefined;
  const cache = new Map<number, Promise<Required<TokenChunk>>>();

  /** One record batch, from the cache where the most recently used stand last. */
  function batchAt(index: number): Promise<Required<TokenChunk>> {
    const known = cache.get(index);
    if (known) {
      cache.delete(index);
      cache.set(index, known);
      return known;
    }
    const read = (async () => {
      const batch = (await reader.readRecordBatch(index))!;
      const counted = batch.getChild("counted")?.data[0].values ?? new Uint8Array(batch.numRows).fill(1);
      return { tokens: batch.getChild("token")!.data[0].values as TokenArray, counted };
    })();
    cache.set(index, read);
    if (cache.size * BATCH_TOKENS * 5 > CACHE_BYTES) cache.delete(cache.keys().next().value!);
    return read;
  }

  async function slice<Column extends keyof TokenChunk>(
    column: Column,
    start: number,
    count: number,
  ): Promise<Required<TokenChunk>[Column]> {
    if (start < 0 || start + count > length) {
      throw new RangeError(`Cannot read ${path} as it holds ${length} tokens: ${start} to ${start + count}`);
    }
    const first = Math.floor(start / BATCH_TOKENS);
    const offset = start - first * BATCH_TOKENS;
    const values = (await batchAt(first))[column];
    if (offset + count <= values.length) {
      return values.subarray(offset, offset + count) as Required<TokenChunk>[Column];
    }
    const joined = values.slice(0, 0).constructor as new (length: number) => TokenArray;
    const result = new joined(count);
    result.set(values.subarray(offset));
    for (let at = values.length - offset, index = first + 1; at < count; index++) {
      const next = (await batchAt(index))[column];
      result.set(next.subarray(0, count - at), at);
      at += next.length;
    }
    return result as Required<TokenChunk>[Column];
  }

  return {
    name: path,
    length,
    exampleTokens: numberIn("example_tokens"),
    startOfText: numberIn("start_of_text"),
    metadata,
    window: (start, count) => slice("tokens", start, count),
    countedWindow: (start, count) => slice("counted", start, count),
    close: () => handle.close(),
  };
}
