/**
 * What ranks need of whatever joins them: bytes, moved. MPI is one ({@link openMpi}), a test's double another.
 *
 * @module
 */

/**
 * A process among others. `broadcast`, `allToAll` and `allGather` are calls of all ranks, in the same order at each, and
 * none begins before every message that was sent or is awaited has gone or come. What is given must have memory of its
 * own (an ArrayBuffer), which is left alone until the call is over.
 */
export interface Transport {
  /** Its number, from 0. */
  readonly rank: number;
  /** How many there are. */
  readonly size: number;
  /** The machine it runs on. */
  readonly host: string;
  /** Sends a message to another rank; messages between two ranks keep their order. */
  send(to: number, data: Uint8Array): Promise<void>;
  /**
   * Receives the next message of a rank, of exactly that many bytes.
   *
   * @param expired asked again and again while nothing comes; throws to end the wait
   */
  receive(from: number, data: Uint8Array, expired?: () => void): Promise<void>;
  /** Rank 0's bytes, at every rank. */
  broadcast(data: Uint8Array): Promise<void>;
  /** Block r of `send` goes to rank r; block s of `receive` comes from rank s. */
  allToAll(send: Uint8Array, receive: Uint8Array): Promise<void>;
  /** The blocks of all ranks, in their order, at every rank. */
  allGather(send: Uint8Array, receive: Uint8Array): Promise<void>;
  /** Leaves the others, all of which do. */
  close(): void;
  /** Ends all ranks. */
  abort(code: number): void;
}
