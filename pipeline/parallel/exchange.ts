/**
 * How the ranks of a run work together. Every rank runs the same program; what only one may do (read the data, write the
 * run's folder, follow wishes from outside) rank 0 does inside {@link Exchange.share}, and the others get its result.
 *
 * Sums are of blocks: each rank gets one block of every rank's values, adds them in the order of the ranks in float64,
 * rounds once, and gives its sums to all. So the result depends on nothing but the values and their number of ranks,
 * whatever library, network or arrival; MPI_Allreduce leaves its order to the library, which may choose another for another
 * size, map of ranks or version. Each rank sends and receives twice its values, less a share, as in a ring.
 *
 * @module
 */
import { deserialize, serialize } from "node:v8";
import { UserError } from "../errors.ts";
import { groupOf } from "./group.ts";
import type { Transport } from "./transport.ts";

/** A rank among others. All calls are of all ranks, in the same order at each. */
export interface Exchange {
  /** Its number, from 0. */
  readonly rank: number;
  /** How many there are. */
  readonly size: number;
  /** Aborted in {@link Exchange.agree}, at all ranks or none. */
  readonly signal: AbortSignal;
  /**
   * What `work` gives at rank 0, at every rank; the others do not do it, and wait as long as it takes. Where it throws, it
   * throws at rank 0, which must end the others.
   */
  share<Result>(work: () => Result | Promise<Result>): Promise<Result>;
  /**
   * Of what `work` gives at rank 0, a value for each rank in their order, this rank's own; otherwise as
   * {@link Exchange.share}.
   */
  deal<Value>(work: () => readonly Value[] | Promise<readonly Value[]>): Promise<Value>;
  /** Every rank's value, in the order of the ranks, at every rank. */
  gather<Value>(value: Value, what: string): Promise<Value[]>;
  /** Every rank's value, in the order of the ranks, at rank 0; none at the others, which do not wait for one another. */
  collect<Value>(value: Value, what: string): Promise<Value[]>;
  /** Sets how many minutes a rank is waited for. */
  waitFor(minutes: number): void;
  /** Aborts {@link Exchange.signal} at all ranks where one was asked to stop. */
  agree(): Promise<void>;
  /**
   * Replaces `values` by their sums over the ranks, in place: the same bits at every rank and every time.
   *
   * @throws {RangeError} when their number is no multiple of the ranks'
   */
  sum(values: Float32Array<ArrayBuffer>, what: string): Promise<void>;
  /**
   * The sums over the ranks of this rank's block of `values`, which have a block for each rank. The same bits as of
   * {@link Exchange.sum}; they stand until the next sum.
   *
   * @throws {RangeError} when their number is no multiple of the ranks'
   */
  sumOwn(values: Float32Array<ArrayBuffer>, what: string): Promise<Float32Array<ArrayBuffer>>;
  /** Overwrites `all` by the blocks of all ranks, in their order; `own` is this rank's. */
  gatherOwn(own: Float32Array<ArrayBuffer>, all: Float32Array<ArrayBuffer>, what: string): Promise<void>;
  /** This rank's place among stages, where layers are divided. */
  readonly stages?: Stages;
  /**
   * This exchange with {@link Exchange.stages}: so many ranks in a row are a pipeline.
   *
   * @throws {RangeError} when the ranks are no multiple of the stages
   */
  divide(stages: number): Exchange;
  /** Leaves the others when all do. */
  close(): Promise<void>;
  /** Ends all ranks at once. */
  abort(code: number): void;
}

/**
 * A rank's place where a model's layers are divided among ranks. Ranks in a row are a pipeline, of which each has a stage;
 * pipelines share the rows of a step.
 */
export interface Stages {
  /** The rank's stage, from 0. */
  readonly index: number;
  /** Stages of a pipeline. */
  readonly count: number;
  /** The rank's pipeline, from 0. */
  readonly pipeline: number;
  /** How many there are. */
  readonly pipelines: number;
  /** The ranks of all pipelines with the same stage; undefined where there is one pipeline. */
  readonly peers: Exchange | undefined;
  /** Sends to a stage of the own pipeline. Messages between two stages keep their order. */
  send(stage: number, values: Float32Array<ArrayBuffer>, what: string): Promise<void>;
  /** Overwrites `values` by what a stage of the own pipeline sends next. */
  receive(stage: number, values: Float32Array<ArrayBuffer>, what: string): Promise<void>;
  /**
   * What a stage of the first pipeline reads, at rank 0; nothing at the others. A call of all ranks.
   *
   * @param read at every rank of that stage, of which the first pipeline's is taken
   * @param length of what is read
   */
  toFirst(
    stage: number,
    read: () => Promise<Float32Array>,
    length: number,
    what: string,
  ): Promise<Float32Array>;
}

/** The ranks among which the rows of a step are shared: all, or where layers are divided those of the same stage. */
export function sharersOf(
  exchange: Exchange | undefined,
): { rank: number; size: number; exchange: Exchange | undefined } {
  if (!exchange) return { rank: 0, size: 1, exchange };
  const { rank, size, stages } = exchange;
  return stages
    ? { rank: stages.pipeline, size: stages.pipelines, exchange: stages.peers }
    : { rank, size, exchange };
}

/** What rank 0 alone does, of one rank or several: its result at every rank. */
export function atFirst<Result>(
  exchange: Exchange | undefined,
  work: () => Result | Promise<Result>,
): Result | Promise<Result> {
  return exchange ? exchange.share(work) : work();
}

/** Whether this is the one rank there is, or the first. */
export function isFirst(exchange: Exchange | undefined): boolean {
  return exchange === undefined || exchange.rank === 0;
}

/** Rank 0 is still at it. */
const WAIT = 1;
/** A rank has come to a meeting; its value follows. */
const HERE = 2;
/** All have come, or what rank 0 did is done; what it gives follows. */
const GO = 3;

/** kind, bytes that follow, whether they are float32, number of the meeting; float64 each. */
const HEADER_WORDS = 4;
/** Milliseconds between two signs of life from rank 0, at most. */
const BEAT_MS = 10_000;
/** Milliseconds between two looks whether what all do at once has lasted too long. */
const LOOK_MS = 250;
/** Bytes that are moved in one call, at most: MPI counts with 32 bits. */
const LARGEST_MOVE = 1 << 29;
const MINUTE = 60_000;
/** How much longer than the limit a stage waits for each other that the one it waits for may be waiting for. */
const PATIENCE_FOR_EACH = 0.1;
/** Milliseconds that a rank which is asked to stop waits for another, at least, and how many times its longest wait. */
const STOP_PATIENCE_MS = 15_000;
const STOP_PATIENCE = 3;

/** How an exchange is opened. */
export interface ExchangeOptions {
  /** Minutes after which a rank that is waited for is given up. */
  limit: number;
  /** Whether this rank is asked to stop. */
  wish?: AbortSignal;
  /** Milliseconds; for tests. */
  now?: () => number;
}

const ownMemory = (length: number): Uint8Array<ArrayBuffer> => new Uint8Array(new ArrayBuffer(length));

/** Values as they must be to be sent. */
const withOwnMemory = (values: Float32Array): Float32Array<ArrayBuffer> =>
  values.buffer instanceof ArrayBuffer ? values as Float32Array<ArrayBuffer> : Float32Array.from(values);

/** A value as bytes: float32 values as they are, all else as V8 writes it. */
function encode(value: unknown): { data: Uint8Array<ArrayBuffer>; isFloats: boolean } {
  if (value === undefined) return { data: ownMemory(0), isFloats: false };
  const isFloats = value instanceof Float32Array;
  const written = isFloats
    ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
    : serialize(value);
  const data = ownMemory(written.length);
  data.set(written);
  return { data, isFloats };
}

function decode(data: Uint8Array<ArrayBuffer>, isFloats: boolean): unknown {
  if (isFloats) return new Float32Array(data.buffer);
  return data.length === 0 ? undefined : deserialize(data);
}

/** Opens the exchange of a rank. */
export function createExchange(transport: Transport, options: ExchangeOptions): Exchange {
  const { rank, size } = transport;
  const { wish, now = () => performance.now() } = options;
  let minutes = options.limit;
  const agreed = new AbortController();
  let meetings = 0;
  let longestWait = 0;

  const header = (kind: number, length = 0, isFloats = false): Uint8Array => {
    const words = new Float64Array(HEADER_WORDS);
    words.set([kind, length, isFloats ? 1 : 0, meetings]);
    return new Uint8Array(words.buffer);
  };

  /** The error of a wait that lasts too long. */
  function faultOf(waited: number, patience: number, who: string, what: string): UserError | undefined {
    // Launchers ask all others to stop when a rank dies, and then that one never comes.
    if (wish?.aborted && waited > Math.max(STOP_PATIENCE_MS, STOP_PATIENCE * longestWait)) {
      return new UserError(
        1,
        `Cannot stop with a checkpoint as ${who} does not come to ${what}: it may have died`,
      );
    }
    if (waited <= patience) return undefined;
    return new UserError(
      1,
      `Cannot go on as ${who} did not come to ${what} within ${minutes} minutes of the others: it hangs, or is far ` +
        `slower; --rank-limit MINUTES waits longer`,
    );
  }

  /** The next header of a rank, or the error that none comes. */
  async function hear(from: number, what: string, patience: number): Promise<Float64Array> {
    const since = now();
    const words = new Float64Array(HEADER_WORDS);
    await transport.receive(from, new Uint8Array(words.buffer), () => {
      const fault = faultOf(now() - since, patience, `rank ${from}`, what);
      if (fault) throw fault;
    });
    if (!wish?.aborted) longestWait = Math.max(longestWait, now() - since);
    const [kind, , , meeting] = words;
    // A sign of life may be older.
    if (kind !== WAIT && meeting !== meetings) {
      throw new Error(`rank ${from} came to meeting ${meeting}, rank ${rank} to ${meetings} (${what})`);
    }
    return words;
  }

  const others = Array.from({ length: size }, (_, other) => other).filter((other) => other !== 0);

  /** Does `work` at rank 0, telling the others again and again that it is at it. */
  async function beating<Result>(work: () => Result | Promise<Result>): Promise<Result> {
    let beat: Promise<unknown> = Promise.resolve();
    const timer = setInterval(() => {
      // What fails here fails again where the result is sent.
      beat = beat.then(() => Promise.all(others.map((to) => transport.send(to, header(WAIT))))).catch(
        () => {},
      );
    }, Math.min(BEAT_MS, minutes * MINUTE / 4));
    try {
      return await work();
    } finally {
      clearInterval(timer);
      await beat;
    }
  }

  /** Waits for what all ranks do at once, which one of them may leave in the middle. */
  async function together(
    moving: Promise<void>,
    what: string,
    patience: number = minutes * MINUTE,
  ): Promise<void> {
    const since = now();
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = setInterval(() => {
      const fault = faultOf(now() - since, patience, "a rank", `the end of the exchange of ${what}`);
      if (fault) reject(fault);
    }, LOOK_MS);
    try {
      await Promise.race([moving, late]);
    } finally {
      clearInterval(timer);
    }
  }

  async function move(data: Uint8Array<ArrayBuffer>): Promise<void> {
    for (let at = 0; at < data.length; at += LARGEST_MOVE) {
      await together(transport.broadcast(data.subarray(at, at + LARGEST_MOVE)), "what rank 0 tells");
    }
  }

  /** Rank 0's value, at every rank. */
  async function tell(value: unknown): Promise<void> {
    const { data, isFloats } = encode(value);
    await Promise.all(others.map((to) => transport.send(to, header(GO, data.length, isFloats))));
    await move(data);
  }

  /** @param take what rank 0 sends behind its header */
  async function listen(
    what: string,
    take: (data: Uint8Array<ArrayBuffer>) => Promise<void> = move,
  ): Promise<unknown> {
    for (;;) {
      // A little more than rank 0's own patience, which knows who is missing.
      const [kind, length, isFloats] = await hear(0, what, 1.25 * minutes * MINUTE + 2 * BEAT_MS);
      if (kind === WAIT) continue;
      const data = ownMemory(length);
      await take(data);
      return decode(data, isFloats === 1);
    }
  }

  /** Sends a value to rank 0, which takes it by {@link takeAll}. */
  async function bring(value: unknown): Promise<void> {
    const { data, isFloats } = encode(value);
    await transport.send(0, header(HERE, data.length, isFloats));
    if (data.length > 0) await transport.send(0, data);
  }

  /** At rank 0, its own value and those that the others bring. */
  async function takeAll<Value>(value: Value, what: string): Promise<Value[]> {
    const all: unknown[] = [value];
    for (const from of others) {
      const [, length, isFloats] = await hear(from, what, minutes * MINUTE);
      const data = ownMemory(length);
      if (length > 0) await transport.receive(from, data);
      all.push(decode(data, isFloats === 1));
    }
    return all as Value[];
  }

  async function gather<Value>(value: Value, what: string): Promise<Value[]> {
    meetings++;
    if (rank !== 0) {
      await bring(value);
      return await listen(what) as Value[];
    }
    const values = await beating(() => takeAll(value, what));
    await tell(values);
    return values;
  }

  async function collect<Value>(value: Value, what: string): Promise<Value[]> {
    meetings++;
    // Nobody waits here for a sign of life, and one might be taken for what rank 0 sends next.
    if (rank === 0) return await takeAll(value, what);
    await bring(value);
    return [];
  }

  async function deal<Value>(work: () => readonly Value[] | Promise<readonly Value[]>): Promise<Value> {
    meetings++;
    const what = "what rank 0 deals out";
    if (rank !== 0) return await listen(what, (data) => moveFrom(0, data, what)) as Value;
    const values = await beating(work);
    await Promise.all(others.map(async (to) => {
      const { data, isFloats } = encode(values[to]);
      await transport.send(to, header(GO, data.length, isFloats));
      await moveTo(to, data, what);
    }));
    return values[0];
  }

  /** As {@link gather}, without values. */
  async function meet(what: string): Promise<void> {
    meetings++;
    if (rank !== 0) {
      await transport.send(0, header(HERE));
      await listen(what);
      return;
    }
    await beating(async () => {
      for (const from of others) await hear(from, what, minutes * MINUTE);
    });
    await tell(undefined);
  }

  let received = ownMemory(0);
  let sums = new Float32Array(0);
  let total = new Float64Array(0);
  const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array<ArrayBuffer>): Uint8Array<ArrayBuffer> =>
    new Uint8Array(buffer, byteOffset, byteLength);

  async function sumOwn(
    values: Float32Array<ArrayBuffer>,
    what: string,
  ): Promise<Float32Array<ArrayBuffer>> {
    if (values.length % size !== 0) {
      throw new RangeError(
        `Cannot sum ${values.length} values over ${size} ranks as their number must be a multiple of that`,
      );
    }
    const block = values.length / size;
    if (sums.length < block) {
      received = ownMemory(values.byteLength);
      sums = new Float32Array(block);
      total = new Float64Array(block);
    }
    await meet(what);
    await together(transport.allToAll(bytesOf(values), received.subarray(0, values.byteLength)), what);
    const all = new Float32Array(received.buffer);
    total.fill(0, 0, block);
    for (let from = 0; from < size; from++) {
      const start = from * block;
      for (let n = 0; n < block; n++) total[n] += all[start + n];
    }
    const own = sums.subarray(0, block);
    own.set(total.subarray(0, block));
    return own;
  }

  /** Sends to one rank, whose own waiting tells who does not come. */
  async function moveTo(to: number, data: Uint8Array<ArrayBuffer>, what: string): Promise<void> {
    for (let at = 0; at < data.length; at += LARGEST_MOVE) {
      await together(transport.send(to, data.subarray(at, at + LARGEST_MOVE)), what, 2 * minutes * MINUTE);
    }
  }

  /** @param between ranks that the other may wait for itself, each of which is to tell before it */
  async function moveFrom(
    from: number,
    data: Uint8Array<ArrayBuffer>,
    what: string,
    between = 0,
  ): Promise<void> {
    const since = now();
    const patience = (1 + PATIENCE_FOR_EACH * between) * minutes * MINUTE;
    for (let at = 0; at < data.length; at += LARGEST_MOVE) {
      await transport.receive(from, data.subarray(at, at + LARGEST_MOVE), () => {
        const fault = faultOf(now() - since, patience, `rank ${from}`, what);
        if (fault) throw fault;
      });
    }
    if (!wish?.aborted) longestWait = Math.max(longestWait, now() - since);
  }

  function stagesOf(count: number): Stages {
    if (size % count !== 0) {
      throw new RangeError(`Cannot divide ${size} ranks into pipelines of ${count} stages`);
    }
    const [index, pipeline, pipelines] = [rank % count, Math.floor(rank / count), size / count];
    const rankOf = (stage: number): number => pipeline * count + stage;
    const peers = Array.from({ length: pipelines }, (_, n) => n * count + index);
    return {
      index,
      count,
      pipeline,
      pipelines,
      peers: pipelines === 1
        ? undefined
        : createExchange(groupOf(transport, peers), { ...options, limit: minutes }),
      send: (stage, values, what) => moveTo(rankOf(stage), bytesOf(values), what),
      receive: (stage, values, what) =>
        moveFrom(rankOf(stage), bytesOf(values), what, stage < index ? stage : count - 1 - stage),
      async toFirst(stage, read, length, what) {
        if (index === stage) {
          const values = await read();
          if (pipeline === 0 && rank > 0) await moveTo(0, bytesOf(withOwnMemory(values)), what);
          return values;
        }
        const values = new Float32Array(rank === 0 ? length : 0);
        if (rank === 0) await moveFrom(stage, bytesOf(values), what);
        return values;
      },
    };
  }

  return {
    rank,
    size,
    signal: agreed.signal,
    gather,
    collect,
    deal,

    divide(count) {
      return { ...this, stages: stagesOf(count) };
    },

    async share<Result>(work: () => Result | Promise<Result>): Promise<Result> {
      meetings++;
      if (rank !== 0) return await listen("what it shares") as Result;
      const result = await beating(work);
      await tell(result);
      return result;
    },

    waitFor(longer) {
      minutes = longer;
    },

    async agree() {
      const wishes = await gather(wish?.aborted ?? false, "whether to stop");
      if (wishes.includes(true)) agreed.abort();
    },

    sumOwn,

    async sum(values, what) {
      const own = await sumOwn(values, what);
      await together(transport.allGather(bytesOf(own), bytesOf(values)), what);
    },

    async gatherOwn(own, all, what) {
      await meet(what);
      await together(transport.allGather(bytesOf(own), bytesOf(all)), what);
    },

    async close() {
      await meet("the end");
      transport.close();
    },

    abort: (code) => transport.abort(code),
  };
}
