/** Live events: nothing lost, nothing doubled, and nobody waited for. */
import { assert, assertEquals } from "@std/assert";
import { Hono } from "hono";
import type { MetricRow } from "../../pipeline/runs/metrics.ts";
import { createLive, firstAfter, parsePlace, placeOf, type Timing } from "../../serve/live.ts";
import { openRuns } from "../../serve/runs.ts";
import { fakeRun } from "../support/fake_run.ts";
import { holdRun } from "../support/hold_run.ts";
import { metricRow } from "../support/metric_row.ts";
import { seeded } from "../support/seeded.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";

const QUICK: Timing = { poll: 5, write: 100, heartbeat: 40 };
const text = new TextDecoder();

async function hub(timing: Partial<Timing> = {}) {
  const folder = await temporaryFolder();
  const stop = new AbortController();
  // Freshness is the store's; here every look is a new one.
  let now = 0;
  const runs = openRuns(folder.path, () => now += 1000);
  let look: Promise<unknown> = Promise.resolve();
  const view: typeof runs.view = (name) => {
    const looking = runs.view(name);
    look = looking.catch(() => {});
    return looking;
  };
  const live = createLive({ ...runs, view }, stop.signal, { ...QUICK, ...timing });
  const app = new Hono();
  app.get(
    "/:run",
    (context) => live.open(context, context.req.param("run"), parsePlace(context.req.query("since") ?? "")),
  );
  return {
    folder: folder.path,
    live,
    stop,
    open: async (since = "") => (await app.request(`/r?since=${since}`)).body!.getReader(),
    async [Symbol.asyncDispose]() {
      stop.abort();
      // The last look, and the pause behind it: of timers as long as each other the one set later ends later.
      await look;
      await new Promise((resolve) => setTimeout(resolve, QUICK.poll));
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** Events of a stream, one after the other. */
async function* eventsOf(reader: ReadableStreamDefaultReader<Uint8Array>) {
  let pending = "";
  for (let { value, done } = await reader.read(); !done; { value, done } = await reader.read()) {
    const parts = (pending + text.decode(value)).split("\n\n");
    pending = parts.pop()!;
    for (const part of parts) {
      const field = (name: string) =>
        part.split("\n").find((line) => line.startsWith(name))?.slice(name.length);
      yield { type: field("event: "), id: field("id: "), data: field("data: "), comment: field(": ") };
    }
  }
}

async function waitFor(condition: () => boolean, what: string): Promise<void> {
  for (let n = 0; n < 60_000; n++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`not within five minutes: ${what}`);
}

const rowsFrom = (first: number, count: number): MetricRow[] =>
  Array.from({ length: count }, (_, n) => metricRow(first + n));

Deno.test("a place is a phase and a step, and nothing else", () => {
  assertEquals(parsePlace("sparse:12"), { phase: "sparse", step: 12 });
  assertEquals(placeOf({ phase: "control", step: 3 }), "control:3");
  for (
    const bad of [
      "",
      "sparse",
      "sparse:",
      "sparse:x",
      "other:1",
      "sparse:1:2",
      " sparse:1",
      "sparse:99999999999",
    ]
  ) {
    assertEquals(parsePlace(bad), undefined, bad);
  }
});

Deno.test("the first row behind a place, over phases", () => {
  const rows = [...rowsFrom(1, 3), metricRow(1, { phase: "control" }), metricRow(2, { phase: "control" })];
  const at = (place: string) => firstAfter(rows, parsePlace(place));
  assertEquals([
    firstAfter(rows, undefined),
    at("sparse:0"),
    at("sparse:2"),
    at("sparse:9"),
    at("control:1"),
    at("control:2"),
  ], [
    0,
    0,
    2,
    3,
    4,
    5,
  ]);
});

Deno.test("all rows come in order, in bounded events with the last one's place, and then what is appended", async () => {
  await using server = await hub();
  const run = await fakeRun(server.folder, "r", { rows: rowsFrom(1, 450) });
  try {
    const reader = await server.open();
    const steps: number[] = [];
    let statuses = 0;
    for await (const { type, id, data } of eventsOf(reader)) {
      if (type === "status") statuses++;
      if (type !== "rows") continue;
      const rows = JSON.parse(data!) as MetricRow[];
      assert(rows.length <= 200);
      assertEquals(id, `sparse:${rows.at(-1)!.step}`);
      steps.push(...rows.map(({ step }) => step));
      if (steps.length === 450) await run.append(rowsFrom(451, 2));
      if (steps.length === 452) break;
    }
    await reader.cancel();
    assertEquals(steps, Array.from({ length: 452 }, (_, n) => n + 1));
    assert(statuses >= 1);
  } finally {
    run.release();
  }
});

Deno.test("a client that loses the connection again and again misses no row and gets none twice", async () => {
  await using server = await hub();
  const run = await fakeRun(server.folder, "r");
  const random = seeded(11);
  const total = 300;
  let written = 0;
  let writing = Promise.resolve();
  // Five rows an event: so that no connection sees many, however slow the machine is.
  const write = (): void => {
    if (written === total) return;
    const rows = rowsFrom(written + 1, 5);
    written += 5;
    writing = writing.then(() => run.append(rows));
  };
  try {
    const steps: number[] = [];
    let last = "";
    let connections = 0;
    while (steps.length < total) {
      connections++;
      const reader = await server.open(last);
      let left = random.integer(4);
      for await (const { type, id, data } of eventsOf(reader)) {
        write();
        if (type === "rows") {
          steps.push(...(JSON.parse(data!) as MetricRow[]).map(({ step }) => step));
          last = id!;
        }
        if (left-- === 0 || steps.length >= total) break;
      }
      await reader.cancel();
    }
    await writing;
    assert(connections > 10, `${connections} connections`);
    assertEquals(steps, Array.from({ length: total }, (_, n) => n + 1));
  } finally {
    run.release();
  }
});

Deno.test("a run that is resumed repeats steps in its file, and clients do not see them again", async () => {
  await using server = await hub();
  const { openMetrics } = await import("../../pipeline/runs/metrics.ts");
  const run = await fakeRun(server.folder, "r", { live: false, rows: rowsFrom(1, 20) });
  const reader = await server.open();
  const steps: number[] = [];
  for await (const { type, data } of eventsOf(reader)) {
    if (type !== "rows") continue;
    steps.push(...(JSON.parse(data!) as MetricRow[]).map(({ step }) => step));
    if (steps.length === 20) {
      const resumed = await openMetrics(`${run.path}/metrics.arrows`, { phase: "sparse", step: 12 });
      await resumed.append(rowsFrom(13, 4));
      await resumed.append(rowsFrom(17, 8));
      resumed.close();
    }
    if (steps.length >= 24) break;
  }
  await reader.cancel();
  assertEquals(steps, Array.from({ length: 24 }, (_, n) => n + 1));
});

Deno.test("a client that takes nothing is dropped, one that left is forgotten, and the others notice neither", async () => {
  await using server = await hub();
  const run = await fakeRun(server.folder, "r", { rows: rowsFrom(1, 2000) });
  try {
    const slow = await server.open();
    const gone = await server.open();
    const good = await server.open();
    await gone.read();
    assertEquals(server.live.clients, 3);
    await gone.cancel();
    let seen = 0;
    for await (const { type, data } of eventsOf(good)) {
      if (type === "rows") seen += JSON.parse(data!).length;
      if (seen === 2000) break;
    }
    await waitFor(() => server.live.clients === 1, "the one that left and the slow one are dropped");
    await good.cancel();
    await waitFor(() => server.live.clients === 0, "nobody is left");
    await slow.cancel();
  } finally {
    run.release();
  }
});

Deno.test("silence is broken by a comment; a run that is deleted ends the stream", async () => {
  await using server = await hub();
  const run = await fakeRun(server.folder, "r", { live: false, rows: rowsFrom(1, 1) });
  const reader = await server.open();
  let comments = 0;
  let ended = false;
  for await (const { type, comment } of eventsOf(reader)) {
    if (comment !== undefined && ++comments === 2) await Deno.remove(run.path, { recursive: true });
    ended = type === "gone";
  }
  assertEquals([comments >= 2, ended], [true, true]);
});

/** Statuses as they come, up to `last`. */
async function statusesUpTo(
  last: string,
  reader: ReadableStreamDefaultReader<Uint8Array>,
  onFirst: () => Promise<void>,
): Promise<[status: string, problem: string | null][]> {
  const seen: [string, string | null][] = [];
  for await (const { type, data } of eventsOf(reader)) {
    if (type !== "status") continue;
    const { status, problem } = JSON.parse(data!);
    seen.push([status, problem]);
    if (status === last) break;
    if (seen.length === 1) await onFirst();
  }
  await reader.cancel();
  return seen;
}

Deno.test("a process that is killed leaves a run that is interrupted, though no file of it changes", async () => {
  await using server = await hub();
  const process = await holdRun(server.folder, "r");
  const seen = await statusesUpTo("interrupted", await server.open(), process.kill);
  assertEquals(seen, [["training", null], ["interrupted", null]]);
});

Deno.test("a run whose lock cannot be looked at is not taken for one that trains", async () => {
  await using server = await hub();
  const run = await fakeRun(server.folder, "r", { rows: rowsFrom(1, 1) });
  const lock = `${run.path}/.lock`;
  const seen = await statusesUpTo("broken", await server.open(), async () => {
    await Deno.remove(lock);
    await Deno.symlink(lock, lock);
  });
  assertEquals(seen, [["training", null], ["broken", "its .lock must be a file: it is a link"]]);
  run.release();
});

Deno.test("when the server closes, streams end", async () => {
  await using server = await hub();
  await fakeRun(server.folder, "r", { live: false, rows: rowsFrom(1, 1) });
  const reader = await server.open();
  await reader.read();
  server.stop.abort();
  for await (const _ of eventsOf(reader));
  await waitFor(() => server.live.clients === 0, "nobody is left");
});
