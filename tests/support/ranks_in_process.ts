/**
 * Ranks in one process: what MPI does between processes, by promises.
 *
 * @module
 */
import type { Transport } from "../../pipeline/parallel/transport.ts";

/** A message queue between two ranks. */
interface Channel {
  waiting: Uint8Array[];
  wake(): void;
}

const channel = (): Channel => ({ waiting: [], wake() {} });

/** Milliseconds between two looks whether a wait has lasted too long. */
const LOOK_MS = 5;

/** What happened to a transport, beside its messages. */
export interface RankInProcess extends Transport {
  /** Code that all ranks were ended with. */
  readonly abortedAs: number | undefined;
  readonly closed: boolean;
  /** Bytes that this rank sent. */
  readonly sentBytes: number;
}

/** The transports of so many ranks. */
export function ranksInProcess(size: number, hosts: readonly string[] = []): RankInProcess[] {
  const channels = Array.from({ length: size }, () => Array.from({ length: size }, channel));
  let abortedAs: number | undefined;
  return Array.from({ length: size }, (_, rank) => {
    let closed = false;
    let sentBytes = 0;
    const send = (to: number, data: Uint8Array): Promise<void> => {
      const way = channels[rank][to];
      way.waiting.push(data.slice());
      if (to !== rank) sentBytes += data.length;
      way.wake();
      return Promise.resolve();
    };
    async function receive(from: number, data: Uint8Array, expired?: () => void): Promise<void> {
      const way = channels[from][rank];
      while (way.waiting.length === 0) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, LOOK_MS);
          way.wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
        expired?.();
      }
      const message = way.waiting.shift()!;
      if (message.length !== data.length) {
        throw new Error(
          `rank ${rank} awaited ${data.length} bytes of rank ${from}, which sent ${message.length}`,
        );
      }
      data.set(message);
    }
    const all = Array.from({ length: size }, (_, other) => other);
    return {
      rank,
      size,
      host: hosts[rank] ?? "here",
      get abortedAs() {
        return abortedAs;
      },
      get closed() {
        return closed;
      },
      get sentBytes() {
        return sentBytes;
      },
      send,
      receive,
      async broadcast(data) {
        if (rank !== 0) return await receive(0, data);
        for (const to of all.slice(1)) await send(to, data);
      },
      async allToAll(sent, received) {
        const block = sent.length / size;
        for (const to of all) await send(to, sent.subarray(to * block, (to + 1) * block));
        for (const from of all) await receive(from, received.subarray(from * block, (from + 1) * block));
      },
      async allGather(sent, received) {
        for (const to of all) await send(to, sent);
        for (const from of all) {
          await receive(from, received.subarray(from * sent.length, (from + 1) * sent.length));
        }
      },
      close: () => closed = true,
      abort: (code) => abortedAs = code,
    } as RankInProcess;
  });
}

/** Transports whose messages have gone when they have been taken, as MPI's large ones have. */
export function untilTaken(transports: readonly Transport[]): Transport[] {
  const waiting = transports.map(() => transports.map((): (() => void)[] => []));
  return transports.map((transport) => ({
    ...transport,
    async send(to, data) {
      const taken = new Promise<void>((resolve) => waiting[transport.rank][to].push(resolve));
      await transport.send(to, data);
      await taken;
    },
    async receive(from, data, expired) {
      await transport.receive(from, data, expired);
      waiting[from][transport.rank].shift()!();
    },
  }));
}
