/**
 * A run's metrics: an Arrow IPC stream to which record batches are appended. Any Arrow reader takes it, also while the
 * run goes on, and after a crash it is whole up to its last whole batch.
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
import { inputError } from "./errors.ts";
import { exists, readAt, syncFolder, writeAll, writeAtomically } from "./files.ts";
import { dirname } from "node:path";

/** The phases of a run in the order in which they come. */
export const PHASES = ["pretrain", "sparse", "control"] as const;

/** Steps of a phase, at most, at which every head's open probability is kept. */
export const HEAD_SNAPSHOTS = 500;

/** One step of one phase. Losses in nats; null where a value was not measured. */
export interface MetricRow {
  phase: typeof PHASES[number];
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
  /** λ. */
  lambda: number | null;
  /** E, mean open probability. */
  expected_open: number | null;
  /** Open edges over causal pairs with hard gates on the validation tokens, at evaluations. */
  open_fraction: number | null;
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

function recordBatchOf(rows: readonly MetricRow[]): RecordBatch {
  const children = COLUMN_NAMES.map((name) =>
    vectorFromArray(rows.map((row) => row[name]), COLUMNS[name]).data[0]
  );
  const data = makeData({ type: new Struct(SCHEMA.fields), length: rows.length, children });
  return new RecordBatch(SCHEMA, data);
}

function batchBytes(rows: readonly MetricRow[]): Uint8Array {
  return streamOf([recordBatchOf(rows)]).slice(HEADER.length, -END_OF_STREAM_BYTES);
}

/** An open metrics file. */
export interface MetricsFile {
  /** Appends the rows as one record batch. */
  append(rows: readonly MetricRow[]): Promise<void>;
  close(): void;
}

/**
 * Opens a metrics file for appending, or creates it. What is torn at its end is cut off, and with `upTo` also every row
 * of a later phase or step, so that a resumed run writes what the killed one would have.
 *
 * @throws {UserError} when the file is there but is no metrics file
 */
export async function openMetrics(
  path: string,
  upTo?: { phase: MetricRow["phase"]; step: number },
): Promise<MetricsFile> {
  let end = 0;
  if (await exists(path)) {
    const content = await Deno.readFile(path);
    const headed = content.length >= HEADER.length;
    if (headed) checkHeader(content.subarray(0, HEADER.length), path);
    const bytes = content.subarray(HEADER.length);
    const { starts, end: whole } = wholeBatches(bytes);
    end = headed ? HEADER.length + whole : 0;
    if (upTo) {
      const late = (row: MetricRow): boolean => isAfter(row, upTo);
      const rowsAt = (n: number): MetricRow[] => rowsOf(bytes.subarray(starts[n], starts[n + 1] ?? whole));
      const first = starts.findIndex((_, n) => rowsAt(n).some(late));
      if (first >= 0) {
        const before = content.subarray(0, HEADER.length + starts[first]);
        const kept = rowsAt(first).filter((row) => !late(row));
        end = before.length;
        if (kept.length > 0) {
          const batch = batchBytes(kept);
          end += batch.length;
          // By a rename: a crash between cutting the batch and writing it anew would lose the rows to be kept.
          await writeAtomically(path, async (file) => {
            await writeAll(file, before);
            await writeAll(file, batch);
          });
        }
      }
    }
  }
  const file = await Deno.open(path, { read: true, write: true, create: true });
  if (end === 0) {
    await file.truncate(0);
    await writeAll(file, HEADER);
    await syncFolder(dirname(path));
  } else {
    await file.truncate(end);
    await file.seek(end, Deno.SeekMode.Start);
  }
  return {
    async append(rows) {
      if (rows.length > 0) await writeAll(file, batchBytes(rows));
    },
    close: () => file.close(),
  };
}

/** Reads a metrics file that another process may be writing. */
export interface MetricsReader {
  /**
   * The rows of whole batches that were appended since the last call. Each step of each phase comes once, also where a
   * run that was killed and resumed has written it again.
   *
   * @throws {UserError} when the file is no metrics file
   */
  read(): Promise<MetricRow[]>;
}

/** Bytes by which a reader knows the place where it stopped. */
const ANCHOR_BYTES = 64;

/** Opens a reader at the file's beginning; the file is held open only while it reads. */
export function createMetricsReader(path: string): MetricsReader {
  let at = 0;
  let anchor: Uint8Array = new Uint8Array();
  let last: Pick<MetricRow, "phase" | "step"> | undefined;
  return {
    async read() {
      using file = await Deno.open(path);
      const { size } = await file.stat();
      // A resumed run cuts off what it will repeat: then the place is another, or beyond the end.
      if (at > 0 && !(size >= at && equal(await readAt(file, at - anchor.length, anchor.length), anchor))) {
        at = 0;
      }
      if (at === 0) {
        if (size < HEADER.length) return [];
        checkHeader((await readAt(file, 0, HEADER.length))!, path);
        at = HEADER.length;
        anchor = HEADER.slice(-ANCHOR_BYTES);
      }
      const bytes = await readAt(file, at, size - at);
      if (!bytes) return [];
      const { starts, end } = wholeBatches(bytes);
      if (end === 0) return [];
      const rows = starts.flatMap((start, n) => rowsOf(bytes.subarray(start, starts[n + 1] ?? end)));
      anchor = bytes.slice(Math.max(0, end - ANCHOR_BYTES), end);
      at += end;
      const fresh = rows.filter((row) => last === undefined || isAfter(row, last));
      last = fresh.at(-1) ?? last;
      return fresh;
    },
  };
}

/** Whether a row belongs behind another in a run. */
export function isAfter(
  row: Pick<MetricRow, "phase" | "step">,
  other: Pick<MetricRow, "phase" | "step">,
): boolean {
  const later = PHASES.indexOf(row.phase) - PHASES.indexOf(other.phase);
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

function checkHeader(bytes: Uint8Array, path: string): void {
  if (!equal(bytes, HEADER)) throw inputError(`Cannot use ${path} as it is no metrics file of this version`);
}

function equal(a: Uint8Array | undefined, b: Uint8Array): boolean {
  return a !== undefined && a.length === b.length && a.every((byte, n) => byte === b[n]);
}

/** Where each whole batch starts, and where the last one ends. `bytes` begin behind the schema. */
function wholeBatches(bytes: Uint8Array): { starts: number[]; end: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const starts: number[] = [];
  let at = 0;
  while (at + 8 <= bytes.length && view.getUint32(at, true) === 0xffffffff) {
    const metadata = view.getInt32(at + 4, true);
    if (metadata <= 0 || at + 8 + metadata > bytes.length) break;
    const message = Message.decode(bytes.subarray(at + 8, at + 8 + metadata));
    const next = at + 8 + metadata + Number(message.bodyLength);
    if (next > bytes.length) break;
    starts.push(at);
    at = next;
  }
  return { starts, end: at };
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
