/**
 * Choosing between variants of a kernel by measuring them on the adapter at hand, once for each shape. What was measured
 * is remembered by whoever made the tuner; no file is touched here.
 *
 * @module
 */
import type { Gpu } from "./gpu.ts";
import type { Recorder } from "./recorder.ts";

/** One variant to be measured. */
export interface Candidate {
  name: string;
  /** Compiles it. */
  prepare(): Promise<{ record(recorder: Recorder): void; destroy(): void }>;
}

/** Measures, and remembers. */
export interface Tuner {
  /**
   * The name of the fastest candidate for `key`: as remembered, else measured now.
   *
   * @returns undefined when it is not known and the time for measuring is used up
   */
  choose(gpu: Gpu, key: string, candidates: readonly Candidate[]): Promise<string | undefined>;
}

/** What a tuner starts from and where its findings go. */
export interface TunerOptions {
  /** Names by key, from earlier. */
  known: ReadonlyMap<string, string>;
  /** Seconds that measuring may take in all. */
  seconds: number;
  /** Called with everything known after each new finding. */
  onFound(known: ReadonlyMap<string, string>): void | Promise<void>;
}

const RUNS = 3;
/** A measurement shorter than this is repeated within one submission, as waiting for the device costs as much. */
const SHORTEST_MS = 5;
const MOST_REPEATS = 64;

/** Creates a tuner. It measures one thing at a time, whoever asks. */
export function createTuner({ known, seconds, onFound }: TunerOptions): Tuner {
  const names = new Map(known);
  let left = 1000 * seconds;
  let last: Promise<unknown> = Promise.resolve();

  async function find(gpu: Gpu, key: string, candidates: readonly Candidate[]): Promise<string | undefined> {
    const before = names.get(key);
    if (before !== undefined && candidates.some(({ name }) => name === before)) return before;
    if (left <= 0) return undefined;
    const started = performance.now();
    let fastest: { name: string; ms: number } | undefined;
    for (const { name, prepare } of candidates) {
      const { record, destroy } = await prepare();
      try {
        const ms = await millisecondsOf(gpu, record);
        if (!fastest || ms < fastest.ms) fastest = { name, ms };
      } finally {
        destroy();
      }
    }
    left -= performance.now() - started;
    if (!fastest) return undefined;
    names.set(key, fastest.name);
    await onFound(names);
    return fastest.name;
  }

  return {
    choose(gpu, key, candidates) {
      const found = last.then(() => find(gpu, key, candidates));
      last = found.catch(() => {});
      return found;
    },
  };
}

/** The least of a few runs, the first, in which drivers compile, left out. */
async function millisecondsOf(gpu: Gpu, record: (recorder: Recorder) => void): Promise<number> {
  const run = async (repeats: number): Promise<number> => {
    const started = performance.now();
    gpu.submit("measuring a kernel", (recorder) => {
      for (let n = 0; n < repeats; n++) record(recorder);
    });
    await gpu.sync();
    return (performance.now() - started) / repeats;
  };
  await run(1);
  const once = await run(1);
  const repeats = Math.min(MOST_REPEATS, Math.max(1, Math.ceil(SHORTEST_MS / once)));
  let least = repeats === 1 ? once : Infinity;
  for (let n = 1; n < RUNS; n++) least = Math.min(least, await run(repeats));
  return least;
}
