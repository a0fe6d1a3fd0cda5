/**
 * Tensors read from the device some megabytes at a time, in order, while it goes on with what is submitted behind them.
 *
 * @module
 */
import { DeviceError } from "../../kernels/core/device.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import type { Tensor } from "../../kernels/core/tensor.ts";

/** Float32 values that are read, summed and written at once, at most. */
export const CHUNK = 8 << 20;
/** Bytes of chunks that are on their way at once, at most, on the host as well as for the device to copy to. */
const ON_THE_WAY = 256 << 20;
/** A part of a tensor in a chunk. */
export interface Part {
  tensor: Tensor;
  /** Its first element in the tensor, and in the chunk. */
  start: number;
  at: number;
  length: number;
}

/** Elements of all of them. */
export const lengthOf = (tensors: readonly Tensor[]): number =>
  tensors.reduce((sum, { length }) => sum + length, 0);

/** The elements `from` to `to` of all tensors one behind the other. */
export function partsBetween(tensors: readonly Tensor[], from: number, to: number): Part[] {
  const parts: Part[] = [];
  let begin = 0;
  for (const tensor of tensors) {
    const [first, end] = [Math.max(from, begin), Math.min(to, begin + tensor.length)];
    if (first < end) parts.push({ tensor, start: first - begin, at: first - from, length: end - first });
    begin += tensor.length;
  }
  return parts;
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

/** A reading that has begun. */
export interface BegunReading {
  /** Resolves when all copies out of the tensors are submitted: the device may be given more. */
  copied: Promise<void>;
  /** Resolves when all are done, which is behind all that was submitted before. */
  read: Promise<void>;
}

/** How chunks are read. */
export interface ReaderOptions {
  /** What is read, for errors. */
  what: string;
  /** Values of a chunk, at most. */
  size: number;
  /** Bytes that are on their way at once, at most; left out: 256 MiB. */
  onTheWay?: number;
  /** Whether a CPU driver is waited for before earlier chunks are finished. */
  ahead?: boolean;
}

/** Reads chunks in order, and as many at once as there is room for. */
export function createReader(
  gpu: Gpu,
  { what, size, onTheWay = ON_THE_WAY, ahead = false }: ReaderOptions,
) {
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
    if (gpu.adapter.software && !ahead) await first;
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
    ): BegunReading {
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
