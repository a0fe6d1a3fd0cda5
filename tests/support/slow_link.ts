/**
 * A network of a given speed beneath ranks: bytes arrive as they would over it, whatever moves them.
 *
 * @module
 */
import type { Transport } from "../../pipeline/parallel/transport.ts";

/** When a rank's link was busy, in milliseconds of `performance.now()`. */
export interface Busy {
  start: number;
  end: number;
}

/**
 * A transport whose collectives take at least as long as a rank's bytes take over a link, each way at once; they come one
 * after the other, as over one link.
 *
 * @param bytesPerSecond of the link
 * @param busy is told when it was busy
 */
export function overLink(
  transport: Transport,
  bytesPerSecond: number,
  busy: (times: Busy) => void,
): Transport {
  const { size } = transport;
  let free = 0;
  async function take(bytes: number, move: Promise<void>): Promise<void> {
    const start = Math.max(free, performance.now());
    free = start + 1000 * bytes / bytesPerSecond;
    busy({ start, end: free });
    await Promise.all([
      move,
      new Promise((resolve) => setTimeout(resolve, Math.max(0, Math.ceil(free - performance.now())))),
    ]);
  }
  return {
    rank: transport.rank,
    size,
    host: transport.host,
    send: (to, data) => transport.send(to, data),
    receive: (from, data, expired) => transport.receive(from, data, expired),
    broadcast: (data) => take(data.length, transport.broadcast(data)),
    allToAll: (send, receive) => take(send.length * (size - 1) / size, transport.allToAll(send, receive)),
    allGather: (send, receive) => take(send.length * (size - 1), transport.allGather(send, receive)),
    close: () => transport.close(),
    abort: (code) => transport.abort(code),
  };
}

/**
 * Rank 0 among so many that have what it has and come when it comes, so that it is measured by itself. For trainers, which
 * only sum and gather tensors.
 */
export function amongEqual(size: number): Transport {
  let heard = 0;
  return {
    rank: 0,
    size,
    host: "here",
    send: () => Promise.resolve(),
    receive(_from, data) {
      // Where only sums are made, rank 0 hears of each that it has come (2), with nothing else, to the next meeting.
      new Float64Array(data.buffer).set([2, 0, 0, 1 + Math.floor(heard++ / (size - 1))]);
      return Promise.resolve();
    },
    broadcast: () => Promise.resolve(),
    allToAll(send, receive) {
      receive.set(send);
      return Promise.resolve();
    },
    allGather(send, receive) {
      for (let rank = 0; rank < size; rank++) receive.set(send, rank * send.length);
      return Promise.resolve();
    },
    close() {},
    abort() {},
  };
}
