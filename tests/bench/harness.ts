/**
 * Timing side by side: candidates for the same computation take turns in one process, so that whatever else the machine
 * does falls on all of them.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";

/** Something to time. */
export interface Candidate {
  /** Milliseconds of one run, from `runs` of them started in a row; the device is idle before the first and after. */
  time(runs: number): Promise<number>;
}

/** A candidate beside ours. */
export interface Peer extends Candidate {
  /**
   * Compares what it computes with what ours computes.
   *
   * @throws {Error} when they differ by more than rounding
   */
  check?(): Promise<void>;
  /** Of each `time` so far, the milliseconds of one run by the device's own clock, where the peer tells. */
  deviceTimes?: readonly number[];
  /** The most bytes that it has held on the device, where the peer tells. */
  deviceBytes?(): number | undefined;
  destroy?(): void | Promise<void>;
}

/** One thing to measure, ours beside its peers. */
export interface BenchCase {
  /** Floating-point operations that one run cannot do without; left out where they are not the point. */
  operations?: number;
  /** Bytes that one run must at least read and write on the device. */
  bytes?: number;
  /** Tokens of one run, where speed is told in tokens. */
  tokens?: number;
  /** What else to tell, by name, of a case that took so long. */
  details?(median_ms: number): Record<string, number>;
  ours: Candidate;
  /** Each is made, checked and timed after ours is checked; one that cannot be is left out, and why is told. */
  peers?: Record<string, () => Promise<Peer>>;
  /**
   * Compares what ours computes with the reference.
   *
   * @throws {Error} when they differ by more than rounding
   */
  check(): Promise<void>;
  destroy?(): void | Promise<void>;
}

/** What was measured of a peer, or why nothing was. Ratio: its time over ours; above 1 ours is faster. */
export type PeerResult =
  | { median_ms: number; ratio: number; device_ms?: number; device_bytes?: number }
  | { error: string };

/** What was measured of one case. */
export interface BenchResult {
  median_ms: number;
  /** Fastest and slowest round. */
  range_ms?: [number, number];
  /** Of that time, what passed between the device's stamps around each submission, where it has stamps. */
  device_ms?: number;
  /** Bytes that ours holds on the device during the case. */
  device_bytes?: number;
  gflops?: number;
  gbps?: number;
  tokens_per_second?: number;
  peers: Record<string, PeerResult>;
  /** What else there is to say of it, by name. */
  details?: Record<string, number>;
}

/** Rounds, and how many of them are enough for a case that takes longer than {@link PATIENCE_MS}. */
const ROUNDS = { most: 5, least: 3 };
/** A GPU's clock is low while it has nothing to do, and takes about a second of work to rise: an H100's from 345 to 1980 MHz. */
const CLOCK_RISES_MS = 1000;
const ROUND_MS = 300;
const MOST_RUNS = 2000;
const PATIENCE_MS = 5000;
/** A run so long is one to a round, however much of it was compiling. */
const LONG_MS = 1000;
/** Runs that are stamped, at most. */
const STAMPED_RUNS = 20;

/** The middle of the sorted values; of two, the higher. */
export const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1];

/** A candidate from a way to start work and a way to wait until all that was started is done. */
export function candidate(run: () => void | Promise<void>, wait: () => Promise<void>): Candidate {
  return {
    async time(runs) {
      await wait();
      const started = performance.now();
      for (let n = 0; n < runs; n++) await run();
      await wait();
      return (performance.now() - started) / runs;
    },
  };
}

/** A candidate that submits kernels alone. What they read counts as just written: where it must be copied first, it is. */
export function kernelCandidate(gpu: Gpu, submit: () => void): Candidate {
  const run = (): void => {
    gpu.textures.expire();
    submit();
  };
  return candidate(run, () => gpu.sync());
}

/** The check, or making a peer ready, is told of where it takes longer than this. */
const SLOW_MS = 5000;

/** What {@link measure} may be told. */
export interface Measuring {
  /** Whether a peer of this name takes part; left out: all do. */
  wanted?(peer: string): boolean;
  /** Called with what takes long before anything is measured. */
  tell?(line: string): void;
  /** Rounds at most. */
  rounds?: number;
}

/** Repeats some work on a GPU until its clock has risen; a CPU driver's needs none. */
export async function raiseClock(gpu: Gpu, work: () => Promise<unknown>): Promise<void> {
  const started = performance.now();
  while (!gpu.adapter.software && performance.now() - started < CLOCK_RISES_MS) await work();
}

/** Checks a case, then measures it: medians over rounds in which the candidates take turns. */
export async function measure(
  gpu: Gpu,
  { peers: made = {}, ...bench }: BenchCase,
  { wanted = () => true, tell = () => {}, rounds = ROUNDS.most }: Measuring = {},
): Promise<BenchResult> {
  const inTime = async <Result>(what: string, work: () => Promise<Result>): Promise<Result> => {
    const started = performance.now();
    try {
      return await work();
    } finally {
      const ms = performance.now() - started;
      if (ms > SLOW_MS) tell(`${what} took ${(ms / 1000).toFixed(0)} s`);
    }
  };
  const possible = Object.entries(made).filter(([name]) => wanted(name));
  await inTime("the check", () => bench.check());
  const peers = new Map<string, Peer>();
  const errors = new Map<string, string>();
  const runs = new Map<string, number>();
  const times = new Map<string, number[]>();
  const warm = async (name: string, of: Candidate): Promise<void> => {
    // The first run may compile; the second says how many fill a round, unless the first was as long as several.
    const first = await of.time(1);
    const once = first > LONG_MS ? first : await of.time(1);
    runs.set(name, Math.min(MOST_RUNS, Math.max(1, Math.round(ROUND_MS / once))));
    times.set(name, []);
  };
  await warm("ours", bench.ours);
  for (const [name, make] of possible) {
    try {
      await inTime(`making ${name} ready`, async () => {
        const peer = await make();
        peers.set(name, peer);
        await peer.check?.();
        await warm(name, peer);
      });
    } catch (error) {
      await peers.get(name)?.destroy?.();
      peers.delete(name);
      errors.set(name, firstLine(error));
    }
  }
  await raiseClock(gpu, () => bench.ours.time(runs.get("ours")!));
  const started = performance.now();
  for (let round = 0; round < rounds; round++) {
    if (round >= ROUNDS.least && performance.now() - started > PATIENCE_MS) break;
    for (const [name, of] of [["ours", bench.ours] as const, ...peers]) {
      times.get(name)!.push(await of.time(runs.get(name)!));
    }
  }
  const device_ms = await deviceMilliseconds(gpu, bench.ours, Math.min(runs.get("ours")!, STAMPED_RUNS));
  const held = new Map([...peers].map(([name, peer]) => [name, peer.deviceBytes?.()]));
  for (const peer of peers.values()) await peer.destroy?.();
  const ours = median(times.get("ours")!);
  const perSecond = (amount: number | undefined, scale: number): number | undefined =>
    amount === undefined ? undefined : amount / (ours / 1000) / scale;
  return {
    median_ms: ours,
    range_ms: [Math.min(...times.get("ours")!), Math.max(...times.get("ours")!)],
    device_ms,
    device_bytes: gpu.allocatedBytes,
    gflops: perSecond(bench.operations, 1e9),
    gbps: perSecond(bench.bytes, 1e9),
    tokens_per_second: perSecond(bench.tokens, 1),
    details: bench.details?.(ours),
    peers: Object.fromEntries(
      possible.map(([name]) => {
        if (errors.has(name)) return [name, { error: errors.get(name)! }];
        const peer = median(times.get(name)!);
        const stamps = peers.get(name)!.deviceTimes ?? [];
        const device = stamps.length > 0 ? { device_ms: median(stamps) } : {};
        const bytes = held.get(name);
        const memory = bytes === undefined ? {} : { device_bytes: bytes };
        return [name, { median_ms: peer, ratio: peer / ours, ...device, ...memory }];
      }),
    ),
  };
}

/** What an error says, as far as it fits a line. */
export function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).trim().split("\n")[0];
}

/** Milliseconds of one run that the device was at work: between its stamps before and after every submission. */
async function deviceMilliseconds(gpu: Gpu, of: Candidate, runs: number): Promise<number | undefined> {
  const { device } = gpu;
  if (!device.features.has("timestamp-query")) return undefined;
  // WebGPU's limit on a set of queries.
  const count = 4096;
  const querySet = device.createQuerySet({ type: "timestamp", count });
  const resolved = device.createBuffer({
    size: 8 * count,
    usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
  });
  const staging = device.createBuffer({
    size: 8 * count,
    usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
  });
  const { queue } = device;
  const submit = queue.submit.bind(queue);
  let stamps = 0;
  const stamp = (): GPUCommandBuffer => {
    const encoder = device.createCommandEncoder();
    encoder.beginComputePass({ timestampWrites: { querySet, endOfPassWriteIndex: stamps++ } }).end();
    return encoder.finish();
  };
  queue.submit = (buffers) => {
    if (stamps + 2 > count) submit(buffers);
    else submit([stamp(), ...buffers, stamp()]);
  };
  try {
    await of.time(runs);
  } finally {
    // The own property goes, the prototype's method shows again.
    delete (queue as Partial<GPUQueue>).submit;
  }
  const encoder = device.createCommandEncoder();
  encoder.resolveQuerySet(querySet, 0, count, resolved, 0);
  encoder.copyBufferToBuffer(resolved, 0, staging, 0, 8 * count);
  submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const values = new BigUint64Array(staging.getMappedRange().slice(0, 8 * stamps));
  for (const resource of [querySet, resolved, staging]) resource.destroy();
  if (stamps === 0 || stamps + 2 > count) return undefined;
  let busy = 0;
  for (let n = 0; n < stamps; n += 2) busy += Number(values[n + 1] - values[n]);
  return busy / 1e6 / runs;
}
