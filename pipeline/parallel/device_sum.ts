/**
 * Tensors of the device summed over ranks: read, added, and written back, some megabytes at a time, while the device goes
 * on with what is submitted behind them. Where each rank needs the sums of its own tensors alone, half as much is moved,
 * and what it makes of them is gathered later.
 *
 * @module
 */
import { DeviceError } from "../../kernels/core/device.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import type { Tensor } from "../../kernels/core/tensor.ts";
import type { Exchange } from "./exchange.ts";

/** Float32 values that are read, summed and written at once, at most. */
const CHUNK = 8 << 20;
/** Bytes of chunks that are on their way at once, at most, on the host as well as for the device to copy to. */
const ON_THE_WAY = 256 << 20;
/** The same where nothing else is under way beside. */
const GATHERED_ON_THE_WAY = 64 << 20;

/** A part of a tensor in a chunk. */
interface Part {
  tensor: Tensor;
  /** Its first element in the tensor, and in the chunk. */
  start: number;
  at: number;
  length: number;
}

/** What is moved at once. */
interface Chunk {
  parts: readonly Part[];
  /** Values, a multiple of the ranks; what no part covers means nothing. */
  length: number;
  /** Whether each rank's block is of what it alone needs. */
  byOwner: boolean;
}

/** A tensor whose sums one rank needs, or whose values one rank has. */
export interface OwnedTensor {
  tensor: Tensor;
  /** The rank. */
  owner: number;
}

const lengthOf = (tensors: readonly Tensor[]): number => tensors.reduce((sum, { length }) => sum + length, 0);

/** The elements `from` to `to` of all tensors one behind the other. */
function partsBetween(tensors: readonly Tensor[], from: number, to: number): Part[] {
  const parts: Part[] = [];
  let begin = 0;
  for (const tensor of tensors) {
    const [first, end] = [Math.max(from, begin), Math.min(to, begin + tensor.length)];
    if (first < end) parts.push({ tensor, start: first - begin, at: first - from, length: end - first });
    begin += tensor.length;
  }
  return parts;
}

/** The elements of all tensors one behind the other. */
function cut(tensors: readonly Tensor[], chunk: number, ranks: number): Chunk[] {
  const [chunks, total]: [Chunk[], number] = [[], lengthOf(tensors)];
  for (let from = 0; from < total; from += chunk) {
    const count = Math.min(chunk, total - from);
    chunks.push({
      parts: partsBetween(tensors, from, from + count),
      length: Math.ceil(count / ranks) * ranks,
      byOwner: false,
    });
  }
  return chunks;
}

/** The elements of each rank's tensors one behind the other, a block of a chunk to each rank. */
function cutByOwner(owned: readonly OwnedTensor[], chunk: number, ranks: number): Chunk[] {
  const ofRanks = Array.from(
    { length: ranks },
    (_, rank) => owned.filter(({ owner }) => owner === rank).map(({ tensor }) => tensor),
  );
  const longest = Math.max(...ofRanks.map(lengthOf));
  const chunks: Chunk[] = [];
  const most = Math.max(1, Math.floor(chunk / ranks));
  for (let from = 0; from < longest; from += most) {
    const block = Math.min(most, longest - from);
    const parts = ofRanks.flatMap((tensors, rank) =>
      partsBetween(tensors, from, from + block).map((part) => ({ ...part, at: part.at + rank * block }))
    );
    chunks.push({ parts, length: ranks * block, byOwner: true });
  }
  return chunks;
}

/** Where a chunk is on its way. */
interface Slot {
  staging: GPUBuffer;
  values: Float32Array<ArrayBuffer>;
}

/** What else is submitted with copies, before them. */
export interface Work {
  /** What it is called in errors. */
  operation: string;
  record(recorder: Recorder): void;
}

/** A sum that has begun. */
export interface BegunSum {
  /** Resolves when all copies out of its tensors are submitted: the device may be given more. */
  copied: Promise<void>;
  /** Resolves when all are done, which is behind all that was submitted before. */
  read: Promise<void>;
}

/** Reads chunks of so many values at most, in order, and as many at once as there is room for. */
function createReader(gpu: Gpu, size: number, what: string, onTheWay = ON_THE_WAY) {
  const most = Math.max(1, Math.floor(onTheWay / (4 * size)));
  const free: Slot[] = [];
  const waiting: ((slot: Slot) => void)[] = [];
  const all: Slot[] = [];
  /** Chunks that wait for room, and the turn of the next. */
  let queued = 0;
  let turnOf: Promise<unknown> = Promise.resolve();

  /** A slot, where there is one at once. */
  function take(): Slot | undefined {
    const slot = free.pop();
    if (slot || all.length === most) return slot;
    const made = {
      staging: gpu.device.createBuffer({
        label: `staging for ${what}`,
        size: 4 * size,
        usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
      }),
      values: new Float32Array(size),
    };
    all.push(made);
    return made;
  }

  function copy(recorder: Recorder, parts: readonly Part[], { staging }: Slot): void {
    for (const { tensor, start, at, length } of parts) {
      const offset = tensor.offset + 4 * start;
      recorder.copyToBuffer({ ...tensor, length, byteLength: 4 * length, offset }, staging, 4 * at);
    }
  }

  /** Copies by itself when there is room, which what is before makes; where that fails, so does this. */
  function copyLater(parts: readonly Part[], before: Promise<void>): Promise<Slot> {
    queued++;
    const copied = turnOf.then(async () => {
      const room = new Promise<Slot>((resolve, reject) => {
        const slot = take();
        if (slot) return resolve(slot);
        waiting.push(resolve);
        before.catch(reject);
      });
      const slot = await room;
      queued--;
      gpu.submit(`reading ${what}`, (recorder) => copy(recorder, parts, slot));
      return slot;
    });
    turnOf = copied.catch(() => {});
    return copied;
  }

  async function map(parts: readonly Part[], copied: Promise<Slot>, first: Promise<void>): Promise<Slot> {
    const slot = await copied;
    // Whoever waits for a CPU driver holds the thread, with all that is under way on it, until the driver is done.
    if (gpu.adapter.software) await first;
    const bytes = 4 * Math.max(0, ...parts.map(({ at, length }) => at + length));
    if (bytes === 0) return slot;
    try {
      await slot.staging.mapAsync(GPUMapMode.READ, 0, bytes);
      slot.values.set(new Float32Array(slot.staging.getMappedRange(0, bytes)));
      slot.staging.unmap();
    } catch (error) {
      // Why it failed, such as a lost device, is told by promises that settle after this one.
      await new Promise((resolve) => setTimeout(resolve));
      gpu.check();
      throw new DeviceError(`Cannot read ${what}: ${(error as Error).message}`);
    }
    return slot;
  }

  function release(slot: Slot): void {
    const next = waiting.shift();
    if (next) next(slot);
    else free.push(slot);
  }

  /** When all that was read is finished. */
  let finished: Promise<void> = Promise.resolve();

  return {
    /**
     * Reads chunks, each to `at` in some values, behind what else is submitted with them.
     *
     * @param finish what is done with a chunk's values when they are there, in the order of all chunks that are read
     */
    read(
      chunks: readonly (readonly Part[])[],
      finish: (values: Float32Array<ArrayBuffer>, n: number) => Promise<void>,
      work?: Work,
    ): BegunSum {
      const slots = chunks.map(() => queued === 0 ? take() : undefined);
      if (work || slots.some((slot) => slot)) {
        gpu.submit(work?.operation ?? `reading ${what}`, (recorder) => {
          work?.record(recorder);
          chunks.forEach((parts, n) => slots[n] && copy(recorder, parts, slots[n]));
        });
      }
      const begun = chunks.map((parts, n) => {
        const before = finished;
        const copied = slots[n] ? Promise.resolve(slots[n]) : copyLater(parts, before);
        const read = map(parts, copied, before);
        finished = (async () => {
          await before;
          const slot = await read;
          await finish(slot.values, n);
          release(slot);
        })();
        // What fails is told by end().
        for (const promise of [read, finished]) promise.catch(() => {});
        return { copied, read };
      });
      const [copied, read] = (["copied", "read"] as const).map((of) =>
        Promise.all(begun.map((one) => one[of])).then(() => {})
      );
      // Who waits for one of them need not wait for the other.
      for (const promise of [copied, read]) promise.catch(() => {});
      return { copied, read };
    },
    end: () => finished,
    destroy(): void {
      for (const { staging } of all) staging.destroy();
    },
  };
}

/** Tensors of float32 that are summed together, in the same order at every rank. */
export interface Bucket {
  /** Those whose sums every rank gets. */
  all?: readonly Tensor[];
  /** Those whose sums one rank gets; the others' keep what they hold. */
  owned?: readonly OwnedTensor[];
}

/** Sums over ranks of the same tensors again and again, in buckets. */
export interface DeviceSum {
  /**
   * Begins to sum the tensors of a bucket, behind all that was submitted and `work`, which is submitted with it. Buckets are
   * summed in the order of these calls, which must be the same at every rank, and none of their tensors used until
   * {@link DeviceSum.end}.
   */
  begin(bucket: number, work?: Work): BegunSum;
  /** Resolves when all sums that were begun have been written to their tensors. */
  end(): Promise<void>;
  /** Sums all buckets. */
  run(): Promise<void>;
  /** Frees what it holds beside the tensors. */
  destroy(): void;
}

/** What a sum is called in errors, and how much is moved at once. */
export interface DeviceSumOptions {
  what: string;
  /** Values; for tests. */
  chunk?: number;
  /** Bytes that are on the way at once; for tests. */
  onTheWay?: number;
}

/** Prepares sums over ranks. */
export function prepareDeviceSum(
  gpu: Gpu,
  exchange: Exchange,
  buckets: readonly Bucket[],
  { what, chunk = CHUNK, onTheWay }: DeviceSumOptions,
): DeviceSum {
  const { rank, size } = exchange;
  const chunksOf = buckets.map(({ all = [], owned = [] }) => [
    ...cut(all, chunk, size),
    ...cutByOwner(owned, chunk, size),
  ]);
  const longest = Math.max(1, ...chunksOf.flat().map(({ length }) => length));
  const reader = createReader(gpu, longest, what, onTheWay);

  async function sum(values: Float32Array<ArrayBuffer>, { parts, length, byOwner }: Chunk): Promise<void> {
    let [sums, first] = [values, 0];
    if (byOwner) {
      sums = await exchange.sumOwn(values, what);
      first = rank * length / size;
    } else await exchange.sum(values, what);
    for (const { tensor, start, at, length } of parts) {
      if (at < first || at >= first + sums.length) continue;
      gpu.write(tensor, sums.subarray(at - first, at - first + length), start);
    }
  }

  function begin(bucket: number, work?: Work): BegunSum {
    const chunks = chunksOf[bucket];
    const finish = (values: Float32Array<ArrayBuffer>, n: number): Promise<void> =>
      sum(values.subarray(0, chunks[n].length), chunks[n]);
    return reader.read(chunks.map(({ parts }) => parts), finish, work);
  }

  return {
    begin,
    end: reader.end,
    async run() {
      for (const bucket of buckets.keys()) await begin(bucket).copied;
      await reader.end();
    },
    destroy: reader.destroy,
  };
}

/** Values that each rank has of its own tensors, given to all again and again. */
export interface DeviceGather {
  /** Writes every other rank's tensors, behind all that was submitted. */
  run(): Promise<void>;
  /** Frees what it holds beside the tensors. */
  destroy(): void;
}

/** Prepares a gathering of tensors of float32, given in the same order at every rank. */
export function prepareDeviceGather(
  gpu: Gpu,
  exchange: Exchange,
  owned: readonly OwnedTensor[],
  { what, chunk = CHUNK, onTheWay = GATHERED_ON_THE_WAY }: DeviceSumOptions,
): DeviceGather {
  const { rank, size } = exchange;
  const chunks = cutByOwner(owned, chunk, size).map(({ parts, length }) => {
    const block = length / size;
    const isOwn = ({ at }: Part): boolean => Math.floor(at / block) === rank;
    return {
      length,
      block,
      own: parts.filter(isOwn).map((part) => ({ ...part, at: part.at - rank * block })),
      others: parts.filter((part) => !isOwn(part)),
    };
  });
  const longest = Math.max(1, ...chunks.map(({ length }) => length));
  const reader = createReader(gpu, Math.ceil(longest / size), what, onTheWay);
  const all = new Float32Array(longest);
  return {
    async run() {
      reader.read(chunks.map(({ own }) => own), async (values, n) => {
        const { others, block, length } = chunks[n];
        await exchange.gatherOwn(values.subarray(0, block), all.subarray(0, length), what);
        for (const { tensor, start, at, length } of others) {
          gpu.write(tensor, all.subarray(at, at + length), start);
        }
      });
      await reader.end();
    },
    destroy: reader.destroy,
  };
}
