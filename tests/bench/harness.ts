/**
 * Timing side by side: candidates for the same computation take turns in one process, so that whatever else the machine
 * does falls on all of them.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";

/** Something to time: work that is started, and a way to wait until all that was started is done. */
export interface Candidate {
  run(): void | Promise<void>;
  wait(): Promise<void>;
}

/** One thing to measure, ours beside its peers. */
export interface BenchCase {
  name: string;
  /** Floating-point operations of one run; left out where they are not the point. */
  operations?: number;
  /** Bytes that one run must move at least. */
  bytes?: number;
  /** Tokens of one run, where speed is told in tokens. */
  tokens?: number;
  ours: Candidate;
  peers: Record<string, Candidate>;
  /**
   * Compares what ours and the peers computed.
   *
   * @throws {Error} when they differ by more than rounding
   */
  check(): Promise<void>;
  destroy?(): void;
}

/** What was measured of one case. */
export interface BenchResult {
  case: string;
  median_ms: number;
  /** Fastest and slowest round. */
  range_ms: [number, number];
  /** Time between the device's own stamps, where it has them. */
  device_ms?: number;
  gflops?: number;
  gbps?: number;
  tokens_per_second?: number;
  /** Ratio: the peer's time over ours; above 1 ours is faster. */
  peers: Record<string, { median_ms: number; ratio: number }>;
}

const ROUNDS = 5;
const ROUND_MS = 300;
const MOST_RUNS = 200;

const median = (values: number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1];

/** Checks a case, then measures it: medians over rounds in which the candidates take turns. */
export async function measure(gpu: Gpu, bench: BenchCase): Promise<BenchResult> {
  const candidates = Object.entries({ ours: bench.ours, ...bench.peers });
  await bench.check();
  const runs = new Map<string, number>();
  for (const [name, candidate] of candidates) {
    // The first run compiles; the second says how many fill a round.
    await timed(candidate, 1);
    const once = await timed(candidate, 1);
    runs.set(name, Math.min(MOST_RUNS, Math.max(1, Math.round(ROUND_MS / once))));
  }
  const times = new Map<string, number[]>(candidates.map(([name]) => [name, []]));
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, candidate] of candidates) {
      times.get(name)!.push(await timed(candidate, runs.get(name)!));
    }
  }
  const ours = median(times.get("ours")!);
  const perSecond = (amount: number | undefined, scale: number): number | undefined =>
    amount === undefined ? undefined : amount / (ours / 1000) / scale;
  return {
    case: bench.name,
    median_ms: ours,
    range_ms: [Math.min(...times.get("ours")!), Math.max(...times.get("ours")!)],
    device_ms: await deviceMilliseconds(gpu, bench.ours),
    gflops: perSecond(bench.operations, 1e9),
    gbps: perSecond(bench.bytes, 1e9),
    tokens_per_second: perSecond(bench.tokens, 1),
    peers: Object.fromEntries(
      Object.keys(bench.peers).map((name) => {
        const peer = median(times.get(name)!);
        return [name, { median_ms: peer, ratio: peer / ours }];
      }),
    ),
  };
}

/** Milliseconds of one run, from `runs` of them started in a row. */
async function timed(candidate: Candidate, runs: number): Promise<number> {
  await candidate.wait();
  const started = performance.now();
  for (let n = 0; n < runs; n++) await candidate.run();
  await candidate.wait();
  return (performance.now() - started) / runs;
}

/** Milliseconds of one run between two stamps of the device. */
async function deviceMilliseconds(gpu: Gpu, candidate: Candidate): Promise<number | undefined> {
  const { device } = gpu;
  if (!device.features.has("timestamp-query")) return undefined;
  const querySet = device.createQuerySet({ type: "timestamp", count: 4 });
  const resolved = device.createBuffer({
    size: 32,
    usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
  });
  const staging = device.createBuffer({ size: 32, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
  const stamp = (at: number): void => {
    const encoder = device.createCommandEncoder();
    const timestampWrites = { querySet, beginningOfPassWriteIndex: at, endOfPassWriteIndex: at + 1 };
    encoder.beginComputePass({ timestampWrites }).end();
    device.queue.submit([encoder.finish()]);
  };
  await candidate.wait();
  stamp(0);
  await candidate.run();
  stamp(2);
  const encoder = device.createCommandEncoder();
  encoder.resolveQuerySet(querySet, 0, 4, resolved, 0);
  encoder.copyBufferToBuffer(resolved, 0, staging, 0, 32);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const stamps = new BigUint64Array(staging.getMappedRange().slice(0));
  for (const resource of [querySet, resolved, staging]) resource.destroy();
  return Number(stamps[2] - stamps[1]) / 1e6;
}
