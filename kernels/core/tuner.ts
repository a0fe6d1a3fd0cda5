/**
 * Choosing between variants of a kernel by measuring them on the adapter at hand, once for each shape. What was measured
 * is remembered by whoever made the tuner; no file is touched here.
 *
 * @module
 */
import type { Contest, Gpu, Tuner } from "./gpu.ts";
import { oneAtATime } from "./one_at_a_time.ts";
import { createStopwatch, type Stopwatch } from "./stopwatch.ts";

/** What a tuner starts from and where its findings go. */
export interface TunerOptions {
  /** Names by key, from earlier. */
  known: ReadonlyMap<string, string>;
  /** Seconds that measuring may take in all. */
  seconds: number;
  /** Called with everything known after each new finding. */
  onFound(known: ReadonlyMap<string, string>): void | Promise<void>;
}

const ROUNDS = 3;
const MOST_REPEATS = 64;

/** Creates a tuner. It measures one thing at a time, whoever asks. */
export function createTuner({ known, seconds, onFound }: TunerOptions): Tuner {
  const found = new Map(known);
  let left = 1000 * seconds;
  const inTurn = oneAtATime();

  async function find(
    gpu: Gpu,
    key: string,
    names: readonly string[],
    prepare: () => Promise<Contest | undefined>,
  ): Promise<string | undefined> {
    const before = found.get(key);
    if (before !== undefined && names.includes(before)) return before;
    if (left <= 0) return undefined;
    const started = performance.now();
    const contest = await prepare();
    const fastest = contest && await winnerOf(gpu, contest);
    left -= performance.now() - started;
    if (fastest === undefined) return undefined;
    found.set(key, fastest);
    await onFound(found);
    return fastest;
  }

  return {
    choose: (gpu, key, names, prepare) => inTurn(() => find(gpu, key, names, prepare)),
  };
}

async function winnerOf(gpu: Gpu, { candidates, destroy }: Contest): Promise<string> {
  const stopwatch = createStopwatch(gpu);
  try {
    return await fastestOf(stopwatch, candidates);
  } finally {
    stopwatch.destroy();
    destroy();
  }
}

/**
 * The candidate with the least time of a few rounds. They take turns, so that a clock that rises or other work falls on
 * all of them, and each is run before, as drivers compile at the first run.
 */
async function fastestOf(
  { shortest, milliseconds }: Stopwatch,
  candidates: Contest["candidates"],
): Promise<string> {
  const entries = [];
  for (const [name, record] of candidates) {
    await milliseconds(record);
    const once = await milliseconds(record);
    const repeats = Math.min(MOST_REPEATS, Math.max(1, Math.ceil(shortest / once)));
    entries.push({ name, record, repeats, least: Infinity });
  }
  for (let round = 0; round < ROUNDS; round++) {
    for (const entry of entries) {
      const { record, repeats } = entry;
      const ms = await milliseconds((recorder) => {
        for (let n = 0; n < repeats; n++) record(recorder);
      });
      entry.least = Math.min(entry.least, ms / repeats);
    }
  }
  return entries.reduce((best, entry) => entry.least < best.least ? entry : best).name;
}
