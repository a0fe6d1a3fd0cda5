/**
 * Runs of a sweep as processes that several ranks start, each on its own machine and with the GPU that it is shown: rank 0
 * decides which is whose, and every rank looks after its own.
 *
 * @module
 */
import type { Exchange } from "../parallel/exchange.ts";
import type { Launch } from "./processes.ts";
import type { Launched } from "./run_sweep.ts";
import type { SweepRun } from "./sweep_file.ts";

/** Milliseconds between two meetings where nothing begins or is to stop. */
const MEETING_MS = 500;

/** A process that a rank is to start. */
interface Order {
  id: number;
  rank: number;
  run: SweepRun;
  mode: "begin" | "resume";
}

/** What rank 0 tells all. */
interface Orders {
  start: Order[];
  /** Processes that are to stop. */
  stop: number[];
  /** Whether there is nothing more to do. */
  isOver: boolean;
}

/** What a rank tells of its own processes. */
interface Report {
  /** Whether it was asked to stop. */
  isToStop: boolean;
  /** Processes that have ended, with their exit codes. */
  ended: [id: number, exitCode: number][];
  /** The last line that each has said since. */
  lines: [id: number, line: string][];
}

/** How ranks share processes. */
export interface SharedProcessesOptions {
  /** Starts one at this rank. */
  start: Launch;
  /** Aborted where this rank is asked to stop: its own stop at once. */
  signal: AbortSignal;
}

/** What rank 0 does with the others. */
export interface Leading<Result> {
  /** Starts processes at whichever rank has fewest. */
  work(launch: Launch): Promise<Result>;
  /** Told where a rank was asked to stop. */
  onStop(): void;
}

/**
 * Shares processes among ranks until `work` is done. A call of all ranks.
 *
 * @param leading at rank 0 alone
 * @returns what `work` gives, at rank 0
 */
export async function shareProcesses<Result>(
  exchange: Exchange,
  { start, signal }: SharedProcessesOptions,
  leading?: Leading<Result>,
): Promise<Result | undefined> {
  const own = new Map<number, Launched>();
  let ended: Report["ended"] = [];
  let lines = new Map<number, string>();
  let failure: { error: unknown } | undefined;
  const stopOwn = (): void => own.forEach((process) => process.stop());
  signal.addEventListener("abort", stopOwn);

  function obey({ start: toStart, stop }: Orders): void {
    for (const { id, rank, run, mode } of toStart) {
      if (rank !== exchange.rank) continue;
      const process = start(run, mode, (line) => lines.set(id, line));
      own.set(id, process);
      if (signal.aborted) process.stop();
      process.ended.then((exitCode) => {
        own.delete(id);
        ended.push([id, exitCode]);
      }, (error) => failure = { error });
    }
    for (const id of stop) own.get(id)?.stop();
  }

  const lead = leading && createLead(exchange.size, leading);
  try {
    for (;;) {
      const orders = await exchange.share<Orders>(() => lead!.next());
      obey(orders);
      const report: Report = { isToStop: signal.aborted, ended, lines: [...lines] };
      [ended, lines] = [[], new Map()];
      const reports = await exchange.gather(report, "what became of runs");
      if (failure) throw failure.error;
      if (orders.isOver) return await lead?.result;
      lead?.hear(reports);
    }
  } finally {
    signal.removeEventListener("abort", stopOwn);
    stopOwn();
  }
}

/** Rank 0's part: what is to begin and to stop, and whom to tell of what was heard. */
function createLead<Result>(size: number, { work, onStop }: Leading<Result>) {
  let orders: Orders = { start: [], stop: [], isOver: false };
  let wake = (): void => {};
  const under = new Map<number, { rank: number; end(exitCode: number): void; onLine(line: string): void }>();
  let started = 0;

  /** The rank with fewest processes under way, of several the first. */
  function idlest(): number {
    const counts = new Array<number>(size).fill(0);
    for (const { rank } of under.values()) counts[rank]++;
    return counts.indexOf(Math.min(...counts));
  }

  const result = work((run, mode, onLine) => {
    const { promise, resolve } = Promise.withResolvers<number>();
    const [id, rank] = [started++, idlest()];
    under.set(id, { rank, end: resolve, onLine });
    orders.start.push({ id, rank, run, mode });
    wake();
    return {
      ended: promise,
      stop() {
        orders.stop.push(id);
        wake();
      },
    };
  });
  // Whether it is done or failed is told where it is waited for.
  result.catch(() => {}).then(() => {
    orders.isOver = true;
    wake();
  });

  return {
    result,

    /** What is to be told next, soon. */
    async next(): Promise<Orders> {
      if (orders.start.length === 0 && orders.stop.length === 0 && !orders.isOver) {
        const { promise, resolve } = Promise.withResolvers<void>();
        wake = resolve;
        const timer = setTimeout(resolve, MEETING_MS);
        await promise;
        clearTimeout(timer);
      }
      const told = orders;
      orders = { start: [], stop: [], isOver: told.isOver };
      return told;
    },

    hear(reports: readonly Report[]): void {
      for (const { isToStop, ended, lines } of reports) {
        for (const [id, line] of lines) under.get(id)?.onLine(line);
        for (const [id, exitCode] of ended) {
          under.get(id)!.end(exitCode);
          under.delete(id);
        }
        if (isToStop) onStop();
      }
    },
  };
}
