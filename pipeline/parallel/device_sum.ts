/**
 * Tensors of the device summed over ranks: read, added, and written back, some megabytes at a time, while the device goes
 * on with what is submitted behind them. Where each rank needs the sums of its own tensors alone, half as much is moved,
 * and what it makes of them is gathered later.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Tensor } from "../../kernels/core/tensor.ts";
import {
  type BegunReading,
  CHUNK,
  createReader,
  lengthOf,
  type Part,
  partsBetween,
  type Work,
} from "./device_reader.ts";
import type { Exchange } from "./exchange.ts";

/** Bytes that are on their way at once, at most, where nothing else is under way beside. */
const GATHERED_ON_THE_WAY = 64 << 20;

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
  begin(bucket: number, work?: Work): BegunReading;
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
  const reader = createReader(gpu, { what, size: longest, onTheWay });

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

  function begin(bucket: number, work?: Work): BegunReading {
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
  const reader = createReader(gpu, { what, size: Math.ceil(longest / size), onTheWay });
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
