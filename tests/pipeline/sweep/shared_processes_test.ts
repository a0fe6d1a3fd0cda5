/** Processes of a sweep that ranks share: who starts what, who hears of it, and what is stopped. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { createExchange } from "../../../pipeline/parallel/exchange.ts";
import type { Launch } from "../../../pipeline/sweep/processes.ts";
import { shareProcesses } from "../../../pipeline/sweep/shared_processes.ts";
import type { SweepRun } from "../../../pipeline/sweep/sweep_file.ts";
import { ranksInProcess } from "../../support/ranks_in_process.ts";

const runOf = (name: string): SweepRun => ({ name, varied: {}, seed: undefined, settings: {} });

/** A process that ends when it is told to, or with 130 when it is to stop. */
interface Played {
  rank: number;
  mode: string;
  say(line: string): void;
  end(exitCode: number): void;
  isStopped: boolean;
}

/** What is played. */
interface PlayOptions {
  /** What cannot be started. */
  fails?: string;
  onStop?(): void;
  /** Told of a rank that has failed. */
  onFailure?(): void;
  /** The ranks' time, in milliseconds. */
  now?(): number;
}

/** Plays ranks to the end of each; `work` is rank 0's, with what they started, by name. */
async function settle<Result>(
  size: number,
  work: (launch: Launch, processes: Map<string, Played>, stops: AbortController[]) => Promise<Result>,
  { fails, onStop = () => {}, onFailure = () => {}, now }: PlayOptions = {},
): Promise<PromiseSettledResult<Result | undefined>[]> {
  const processes = new Map<string, Played>();
  const stops = Array.from({ length: size }, () => new AbortController());
  return await Promise.allSettled(
    ranksInProcess(size).map(async (transport) => {
      const { rank } = transport;
      const exchange = createExchange(transport, { limit: 1, now });
      const start: Launch = ({ name }, mode, say) => {
        const { promise, resolve } = Promise.withResolvers<number>();
        const played: Played = { rank, mode, say, end: resolve, isStopped: false };
        processes.set(name, played);
        return {
          ended: name === fails ? Promise.reject(new Error(`${name} has no log`)) : promise,
          stop() {
            played.isStopped = true;
            resolve(130);
          },
        };
      };
      try {
        return await shareProcesses(
          exchange,
          { start, signal: stops[rank].signal },
          rank === 0 ? { work: (launch) => work(launch, processes, stops), onStop } : undefined,
        );
      } catch (error) {
        onFailure();
        throw error;
      }
    }),
  );
}

/** As {@link settle}, with what every rank gives. */
async function play<Result>(...args: Parameters<typeof settle<Result>>): Promise<(Result | undefined)[]> {
  return (await settle(...args)).map((end) => {
    if (end.status === "rejected") throw end.reason;
    return end.value;
  });
}

/** Until something is so: what ranks tell each other comes by turns of the event loop. */
async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 1));
}

Deno.test("a process begins at the rank that has fewest, whose lines and end rank 0 hears", async () => {
  const lines: string[] = [];
  const [result, ...others] = await play(3, async (launch, processes) => {
    const say = (line: string): void => void lines.push(line);
    const first = ["a", "b", "c", "d"].map((name) => launch(runOf(name), "begin", say));
    await until(() => processes.size === 4);
    const ranksOf = () => [...processes].toSorted().map(([name, { rank }]) => `${name}${rank}`);
    assertEquals(ranksOf(), ["a0", "b1", "c2", "d0"]);
    processes.get("c")!.say("c is at it");
    await until(() => lines.length === 1);
    processes.get("c")!.end(7);
    assertEquals(await first[2].ended, 7);
    const next = launch(runOf("e"), "resume", say);
    await until(() => processes.size === 5);
    assertEquals([processes.get("e")!.rank, processes.get("e")!.mode], [2, "resume"]);
    for (const { end } of processes.values()) end(0);
    assertEquals(await Promise.all([...first, next].map(({ ended }) => ended)), [0, 0, 7, 0, 0]);
    return "done";
  });
  assertEquals([result, others, lines], ["done", [undefined, undefined], ["c is at it"]]);
});

Deno.test("where one rank is asked to stop its own stop, rank 0 is told, and stops the others'", async () => {
  let told = 0;
  const stop = new AbortController();
  await play(2, async (launch, processes, stops) => {
    const launched = ["a", "b"].map((name) => launch(runOf(name), "begin", () => {}));
    stop.signal.addEventListener("abort", () => launched.forEach((process) => process.stop()));
    await until(() => processes.size === 2);
    stops[1].abort();
    assert(processes.get("b")!.isStopped, "it does not wait for rank 0");
    assert(!processes.get("a")!.isStopped);
    assertEquals(await Promise.all(launched.map(({ ended }) => ended)), [130, 130]);
  }, {
    onStop() {
      told++;
      stop.abort();
    },
  });
  assert(told > 0);
});

Deno.test("a rank that cannot start its process says why", async () => {
  await assertRejects(
    () =>
      play(1, async (launch) => {
        await launch(runOf("a"), "begin", () => {}).ended;
      }, { fails: "a" }),
    Error,
    "a has no log",
  );
  // What rank 0 itself fails in comes out of it, when the others know that it is over.
  const over = play(2, () => Promise.reject(new Error("no table")));
  await assertRejects(() => over, Error, "no table");
});

Deno.test("another rank that cannot start its process says why and stops its own, and the first does not wait for it", async () => {
  const started = new Map<string, Played>();
  // Once a rank has failed, every look at the clock is a minute later.
  let [time, isLate] = [0, false];
  const [first, second] = await settle(2, async (launch, processes) => {
    for (const name of ["a", "b", "c"]) launch(runOf(name), "begin", () => {});
    await until(() => processes.size === 3);
    for (const [name, process] of processes) started.set(name, process);
    // Were it to go on in spite of it, the last would begin.
    for (const name of ["d", "e", "f"]) {
      launch(runOf(name), "begin", () => {});
      await until(() => processes.has(name) || isLate);
    }
  }, { fails: "d", onFailure: () => isLate = true, now: () => isLate ? time += 60_000 : time });
  assertEquals([...started].toSorted().map(([name, { rank, isStopped }]) => [name, rank, isStopped]), [
    ["a", 0, true],
    ["b", 1, true],
    ["c", 0, true],
  ]);
  const reasonOf = (end: PromiseSettledResult<unknown>) =>
    end.status === "rejected" ? end.reason.message : end;
  assertEquals(reasonOf(second), "d has no log");
  assertStringIncludes(reasonOf(first), "as rank 1 did not come to what became of runs within 1 minutes");
});
