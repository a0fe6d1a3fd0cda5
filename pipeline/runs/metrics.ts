/**
 * A run's metrics: an Arrow IPC stream to which record batches are appended. Any Arrow reader takes it, also while the
 * run goes on, and after a crash it is whole up to its last whole batch.
 *
 * Every batch carries the SHA-256 of its message, with zeros in that place, as `sha256` in its own metadata, beside that
 * of the batch before it, so that one that is damaged, missing, moved or another run's is told from a whole one.
 *
 * @module
 */
import {
  type DataType,
  Field,
  Float32,
  Float64,
  List,
  makeData,
  Message,
  RecordBatch,
  RecordBatchReader,
  RecordBatchStreamWriter,
  Schema,
  Struct,
  Uint32,
  Uint8,
  Utf8,
  vectorFromArray,
} from "apache-arrow";
import { inputError } from "../errors.ts";
import {
  digestOf,
  exists,
  openRegular,
  readAt,
  storing,
  syncFolder,
  writeAll,
  writeAtomically,
} from "../files.ts";
import { Buffer } from "node:buffer";
import { dirname } from "node:path";

/** The phases of a run in the order in which they come, but where the control comes first. */
export const PHASES: readonly ["pretrain", "sparse", "control"] = ["pretrain", "sparse", "control"];
const CONTROL_FIRST: readonly Phase[] = ["control", "sparse"];

/** A phase of a run. */
export type Phase = "pretrain" | "sparse" | "control";

/** The phases of a run in the order in which they come, by the first of them; undefined where none has begun. */
export function phasesFrom(first: Phase | undefined): readonly Phase[] {
  return first === "control" ? CONTROL_FIRST : PHASES;
}

/** Steps of a phase, at most, at which every head's open probability is kept. */
export const HEAD_SNAPSHOTS = 500;

/** One step of one phase. Losses in nats; null where a value was not measured. */
export interface MetricRow {
  /** Which phase the step is of. */
  phase: Phase;
  /** Steps done, from 1. */
  step: number;
  /** Training tokens seen so far in this phase. */
  tokens: number;
  /** Training loss of the step, with the gates as sampled. */
  ce: number;
  /** τ on all validation tokens; null without a target. */
  target: number | null;
  /** CE − τ as last measured on a validation batch with deterministic gates. */
  constraint: number | null;
  /** C̄, the moving average of the scaled and clipped constraint. */
  constraint_average: number | null;
  /** λ, the integral of the constraint: what is bounded, and what winds up. */
  lambda: number | null;
  /** What weighs the loss in this step: λ exp(κ C̄), within λ's bounds. */
  lambda_acting: number | null;
  /** E, mean open probability. */
  expected_open: number | null;
  /** Open edges over causal pairs with hard gates on the validation tokens, at evaluations. */
  open_fraction: number | null;
  /** Of the step, from the schedule. */
  learning_rate: number;
  /** Global gradient norm before clipping. */
  grad_norm: number;
  /** R, mean of relu(|g| − bound)². */
  saturation: number | null;
  /** Mean KL(teacher ‖ student) where there is distillation. */
  kl: number | null;
  /** Loss on the validation tokens with hard gates, at evaluations. */
  validation_ce: number | null;
  /** Share of validation queries with no open edge, at evaluations. */
  dead_queries: number | null;
  /** 1 where the gradient was not finite and the step changed nothing. */
  skipped: number;
  /** Open fraction of each head (layer · heads + head) with hard gates, at evaluations. */
  open_by_head: number[] | null;
  /** Mean open probability of each head, at {@link HEAD_SNAPSHOTS} of the phase's steps. */
  expected_open_by_head: number[] | null;
  /** Wall time of the process in this phase; alone not the same in a resumed run. */
  seconds: number;
}

const COLUMNS: Record<keyof MetricRow, DataType> = {
  phase: new Utf8(),
  step: new Uint32(),
  tokens: new Float64(),
  ce: new Float32(),
  target: new Float32(),
  constraint: new Float32(),
  constraint_average: new Float32(),
  lambda: new Float32(),
  lambda_acting: new Float32(),
  expected_open: new Float32(),
  open_fraction: new Float32(),
  learning_rate: new Float32(),
  grad_norm: new Float32(),
  saturation: new Float32(),
  kl: new Float32(),
  validation_ce: new Float32(),
  dead_queries: new Float32(),
  skipped: new Uint8(),
  open_by_head: new List(new Field("item", new Float32(), true)),
  expected_open_by_head: new List(new Field("item", new Float32(), true)),
  seconds: new Float64(),
};
/** The columns, in order. */
export const COLUMN_NAMES = Object.keys(COLUMNS) as (keyof MetricRow)[];
const SCHEMA = new Schema(COLUMN_NAMES.map((name) => new Field(name, COLUMNS[name], true)));
/** What closes a stream: a continuation mark and a length of 0. An open one has none. */
const END_OF_STREAM_BYTES = 8;

function streamOf(batches: RecordBatch[]): Uint8Array {
  const writer = new RecordBatchStreamWriter();
  writer.reset(undefined, SCHEMA);
  for (const batch of batches) writer.write(batch);
  writer.close();
  return writer.toUint8Array(true);
}

const HEADER = streamOf([]).slice(0, -END_OF_STREAM_BYTES);

/** Name of a batch's digest in its metadata, and what stands there while it is made. */
const DIGEST = "sha256";
const NO_DIGEST = "0".repeat(64);
/** Bytes of the largest message that is taken for a batch: a million heads' rows would have less. */
const LARGEST_MESSAGE = 64 << 20;
/** Bytes that are read at once. */
const PIECE_BYTES = 8 << 20;

function recordBatchOf(rows: readonly MetricRow[], metadata?: Map<string, string>): RecordBatch {
  const children = COLUMN_NAMES.map((name) =>
    vectorFromArray(rows.map((row) => row[name]), COLUMNS[name]).data[0]
  );
  const data = makeData({ type: new Struct(SCHEMA.fields), length: rows.length, children });
  return new RecordBatch(SCHEMA, data, metadata);
}

/** A batch's place in the file: the digest of the one before it, "" of the first, and the run that wrote it. */
interface Link {
  previous: string;
  run: string;
}

function batchBytes(
  rows: readonly MetricRow[],
  { previous, run }: Link,
): { bytes: Uint8Array; digest: string } {
  const metadata = new Map([[DIGEST, NO_DIGEST], ["previous", previous], ["run", run]]);
  const bytes = streamOf([recordBatchOf(rows, metadata)]).slice(HEADER.length, -END_OF_STREAM_BYTES);
  const digest = digestOf(bytes);
  bytes.set(new TextEncoder().encode(digest), placeOf(bytes, NO_DIGEST));
  return { bytes, digest };
}

/** Where a text stands in a message; −1 where it does not. */
function placeOf(message: Uint8Array, text: string): number {
  return Buffer.from(message.buffer, message.byteOffset, message.byteLength).indexOf(text, 0, "latin1");
}

/** What one message holds, or undefined when it is damaged or does not belong behind `previous`. */
function openMessage(
  message: Uint8Array,
  previous: string,
): { rows: MetricRow[]; digest: string; run: string } | undefined {
  try {
    const { metadata } = Message.decode(message.subarray(8));
    if (metadata.get("previous") !== previous) return undefined;
    const digest = metadata.get(DIGEST) ?? "";
    const at = /^[0-9a-f]{64}$/.test(digest) ? placeOf(message, digest) : -1;
    if (at < 0) return undefined;
    const unsealed = message.slice();
    unsealed.fill(0x30, at, at + digest.length);
    if (digestOf(unsealed) !== digest) return undefined;
    const rows = rowsOf(message);
    const whole = rows.every(({ phase, step }) => PHASES.includes(phase) && Number.isSafeInteger(step));
    return whole ? { rows, digest, run: metadata.get("run") ?? "" } : undefined;
  } catch {
    // Flatbuffers and Arrow throw many things at damaged bytes.
    return undefined;
  }
}

/** A batch that was gone through. */
interface ScannedBatch {
  at: number;
  bytes: Uint8Array;
  rows: MetricRow[];
  digest: string;
}

/**
 * Goes through the messages from `at` on, as long as they are whole, undamaged, and one behind the other.
 *
 * @param previous digest of the batch before
 * @param run whose batches they must be; left out: anyone's
 * @returns where the last of them ends, and whether what follows is damaged rather than not written yet
 */
async function scan(
  file: Deno.FsFile,
  { at, size, previous, run }: { at: number; size: number; previous: string; run?: string },
  onBatch: (batch: ScannedBatch) => void,
): Promise<{ end: number; damaged: boolean }> {
  let piece: Uint8Array = new Uint8Array();
  let start = at;
  /** Bytes from `from` on, read ahead; undefined where the file ends before. */
  const bytesAt = async (from: number, length: number): Promise<Uint8Array | undefined> => {
    if (from + length > size) return undefined;
    if (from < start || from + length > start + piece.length) {
      start = from;
      const read = await readAt(file, from, Math.min(size - from, Math.max(length, PIECE_BYTES)));
      if (!read) return undefined;
      piece = read;
    }
    return piece.subarray(from - start, from - start + length);
  };
  let before = previous;
  for (let end = at;;) {
    const prefix = await bytesAt(end, 8);
    if (!prefix) return { end, damaged: false };
    const view = new DataView(prefix.buffer, prefix.byteOffset, 8);
    const metadata = view.getInt32(4, true);
    if (view.getUint32(0, true) !== 0xffffffff || metadata <= 0 || metadata > LARGEST_MESSAGE) {
      return { end, damaged: true };
    }
    const head = await bytesAt(end, 8 + metadata);
    if (!head) return { end, damaged: false };
    const body = bodyLength(head.subarray(8));
    if (body === undefined) return { end, damaged: true };
    const bytes = await bytesAt(end, 8 + metadata + body);
    if (!bytes) return { end, damaged: false };
    const opened = openMessage(bytes, before);
    if (!opened || (run !== undefined && opened.run !== run)) return { end, damaged: true };
    onBatch({ at: end, bytes, rows: opened.rows, digest: opened.digest });
    before = opened.digest;
    end += bytes.length;
  }
}

/** Bytes of the message's body, or undefined when they cannot be so many. */
function bodyLength(metadata: Uint8Array): number | undefined {
  try {
    const message = Message.decode(metadata);
    const body = Number(message.bodyLength);
    const { length } = message.header() as { length?: number };
    // No row without a byte: rows that are only counted would be gone through for ever.
    return body >= 0 && body <= LARGEST_MESSAGE && Number(length) <= body ? body : undefined;
  } catch {
    return undefined;
  }
}

/** An open metrics file. */
export interface MetricsFile {
  /** What was damaged or missing when it was opened, as a sentence. */
  readonly problem: string | undefined;
  /** The last row that stood there, before anything was cut off. */
  readonly found: MetricRow | undefined;
  /**
   * Appends the rows as one record batch.
   *
   * @throws {UserError} when the disk is full
   */
  append(rows: readonly MetricRow[]): Promise<void>;
  /** Flushes what was appended to the disk. */
  sync(): Promise<void>;
  /** Closes the file. */
  close(): void;
}

/**
 * Opens a metrics file for appending, or creates it. What is torn or damaged is cut off with all behind it, and with
 * `upTo` also every row of a later phase or step, so that a resumed run writes what the killed one would have.
 *
 * @param run that writes it; what another wrote is taken for damage
 * @throws {UserError} when the file is there but is no metrics file
 */
export async function openMetrics(
  path: string,
  upTo?: { phase: MetricRow["phase"]; step: number },
  run = "",
): Promise<MetricsFile> {
  let end = 0;
  let first: Phase | undefined;
  let last: MetricRow | undefined;
  let found: MetricRow | undefined;
  let previous = "";
  let damaged = false;
  if (await exists(path)) {
    const { file: opened, size } = await openRegular(path);
    using file = opened;
    if (size >= HEADER.length) {
      checkHeader((await readAt(file, 0, HEADER.length))!, path);
      const late = (row: MetricRow): boolean => upTo !== undefined && isAfter(row, upTo, first);
      /** The first batch that has rows to be cut off, and those of it that stay. */
      let cut: { at: number; kept: MetricRow[] } | undefined;
      const scanned = await scan(file, { at: HEADER.length, size, previous, run }, ({ at, rows, digest }) => {
        first ??= rows[0]?.phase;
        found = rows.at(-1);
        if (cut) return;
        const kept = rows.filter((row) => !late(row));
        last = kept.at(-1) ?? last;
        if (kept.length < rows.length) cut = { at, kept };
        else previous = digest;
      });
      damaged = scanned.damaged;
      end = cut?.at ?? scanned.end;
      // A file that has another name too, as in a copy by links, stays as it is under that.
      const shared = ((await file.stat()).nlink ?? 1) > 1;
      if (shared || (cut && cut.kept.length > 0)) {
        const before = await readAt(file, 0, end);
        const batch = cut && cut.kept.length > 0 ? batchBytes(cut.kept, { previous, run }) : undefined;
        // By a rename: a crash between cutting the batch and writing it anew would lose the rows to be kept.
        await writeAtomically(path, async (file) => {
          await writeAll(file, before!);
          if (batch) await writeAll(file, batch.bytes);
        });
        end += batch?.bytes.length ?? 0;
        previous = batch?.digest ?? previous;
      }
    } else {
      damaged = size > 0;
      // What is none of ours is not written over.
      if (!equal(await readAt(file, 0, size), HEADER.subarray(0, size))) throw noMetricsFile(path);
    }
  }
  const file = await storing(path, async () => {
    const file = await Deno.open(path, { read: true, write: true, create: true });
    if (end === 0) {
      await file.truncate(0);
      await writeAll(file, HEADER);
      await syncFolder(dirname(path));
    } else {
      await file.truncate(end);
      await file.seek(end, Deno.SeekMode.Start);
    }
    return file;
  });
  return {
    problem: problemOf(path, { damaged, first, last, upTo }),
    found,
    async append(rows) {
      if (rows.length === 0) return;
      const { bytes, digest } = batchBytes(rows, { previous, run });
      await storing(path, () => writeAll(file, bytes));
      previous = digest;
    },
    sync: () => storing(path, () => file.sync()),
    close: () => file.close(),
  };
}

/** What is to be said of a file that was cut: what it lacks of the run that goes on. */
function problemOf(
  path: string,
  { damaged, first, last, upTo }: {
    damaged: boolean;
    first: Phase | undefined;
    last: MetricRow | undefined;
    upTo?: Pick<MetricRow, "phase" | "step">;
  },
): string | undefined {
  const lacking = upTo !== undefined && upTo.step > 0 && (!last || isAfter(upTo, last, first));
  if (!lacking) {
    return damaged ? `${path} was damaged at its end, and was cut to its last whole batch` : undefined;
  }
  const kept = last ? `the ${last.phase} phase's step ${last.step}` : "its beginning";
  return `${path} was damaged: it was cut to ${kept}, and the rows from there to the ${upTo.phase} phase's step ` +
    `${upTo.step} are lost`;
}

/** Reads a metrics file that another process may be writing. */
export interface MetricsReader {
  /**
   * The rows of whole batches that were appended since the last call. Each step of each phase comes once, also where a
   * run that was killed and resumed has written it again.
   *
   * @throws {UserError} when the file is no metrics file, or too large
   */
  read(): Promise<MetricRow[]>;
  /** Whether what follows the rows read so far is damaged. */
  readonly damaged: boolean;
}

/** Bytes by which a reader knows the place where it stopped. */
const ANCHOR_BYTES = 64;

/**
 * Opens a reader at the file's beginning; the file is held open only while it reads.
 *
 * @param options `maxBytes` of the largest file that is read
 */
export function createMetricsReader(
  path: string,
  { maxBytes = Infinity }: { maxBytes?: number } = {},
): MetricsReader {
  let at = 0;
  let previous = "";
  let anchor: Uint8Array = new Uint8Array();
  let first: Phase | undefined;
  let last: Pick<MetricRow, "phase" | "step"> | undefined;
  let damaged = false;
  return {
    get damaged() {
      return damaged;
    },
    async read() {
      const { file: opened, size } = await openRegular(path);
      using file = opened;
      if (size > maxBytes) {
        throw inputError(`Cannot read ${path} as it must have at most ${maxBytes} bytes: ${size}`);
      }
      // A resumed run cuts off what it will repeat: then the place is another, or beyond the end.
      if (at > 0 && !(size >= at && equal(await readAt(file, at - anchor.length, anchor.length), anchor))) {
        at = 0;
      }
      if (at === 0) {
        if (size < HEADER.length) return [];
        checkHeader((await readAt(file, 0, HEADER.length))!, path);
        at = HEADER.length;
        previous = "";
        anchor = HEADER.slice(-ANCHOR_BYTES);
      }
      const fresh: MetricRow[] = [];
      const found = await scan(file, { at, size, previous }, ({ bytes, rows, digest }) => {
        previous = digest;
        anchor = bytes.slice(-ANCHOR_BYTES);
        for (const row of rows) {
          first ??= row.phase;
          if (last !== undefined && !isAfter(row, last, first)) continue;
          last = row;
          fresh.push(row);
        }
      });
      at = found.end;
      damaged = found.damaged;
      return fresh;
    },
  };
}

/**
 * Whether a row belongs behind another in a run.
 *
 * @param first phase of the run
 */
export function isAfter(
  row: Pick<MetricRow, "phase" | "step">,
  other: Pick<MetricRow, "phase" | "step">,
  first: Phase | undefined,
): boolean {
  const phases = phasesFrom(first);
  const later = phases.indexOf(row.phase) - phases.indexOf(other.phase);
  return later > 0 || (later === 0 && row.step > other.step);
}

/**
 * Every row of a metrics file up to its last whole batch.
 *
 * @throws {UserError} when it is no metrics file
 */
export async function readMetrics(path: string): Promise<MetricRow[]> {
  return await createMetricsReader(path).read();
}

function noMetricsFile(path: string): Error {
  return inputError(
    `Cannot use ${path} as it is no metrics file of this version, or its beginning is damaged: moved away, it is begun anew`,
  );
}

function checkHeader(bytes: Uint8Array, path: string): void {
  if (!equal(bytes, HEADER)) throw noMetricsFile(path);
}

function equal(a: Uint8Array | undefined, b: Uint8Array): boolean {
  return a !== undefined && a.length === b.length && a.every((byte, n) => byte === b[n]);
}

function rowsOf(batch: Uint8Array): MetricRow[] {
  const stream = new Uint8Array(HEADER.length + batch.length);
  stream.set(HEADER);
  stream.set(batch, HEADER.length);
  const rows: MetricRow[] = [];
  const list = (values: Iterable<number> | null): number[] | null => values && [...values];
  for (const recordBatch of RecordBatchReader.from(stream)) {
    for (const value of recordBatch) {
      const row = value!.toJSON() as unknown as MetricRow;
      rows.push({
        ...row,
        open_by_head: list(row.open_by_head),
        expected_open_by_head: list(row.expected_open_by_head),
      });
    }
  }
  return rows;
}

/** Rows as an Arrow IPC stream, closed. */
export function metricsStream(rows: readonly MetricRow[]): Uint8Array {
  return streamOf(rows.length > 0 ? [recordBatchOf(rows)] : []);
}
