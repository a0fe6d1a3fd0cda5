/**
 * `deno task serve-list [runs] [rows]`: what a list of so many runs, of so many rows each, costs the server in processor
 * time: the first, one that nothing has changed for, one while a run goes on, and one after a run has begun. Prints one
 * line of JSON; each figure but the first is a mean over several lists.
 *
 * @module
 */
import { join } from "node:path";
import { fakeRun } from "../support/fake_run.ts";
import { metricRow } from "../support/metric_row.ts";
import { type ServerProcess, startServerProcess } from "./server_process.ts";

const runs = Number(Deno.args[0] ?? 1000);
const rows = Number(Deno.args[1] ?? 20);
/** Lists of one kind. */
const LISTS = 50;
/** Between two lists: what was read is taken as fresh for a quarter of a second. */
const PAUSE_MS = 300;

const rowsFrom = (first: number, count: number) =>
  Array.from({ length: count }, (_, n) =>
    metricRow(first + n, {
      seconds: first + n,
      ...((first + n) % 10 === 0 ? { validation_ce: 1.2, open_fraction: 0.1 } : {}),
    }));

const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE_MS));

/** Makes the runs: one, and copies of it. */
async function fill(folder: string): Promise<void> {
  const first = await fakeRun(folder, "r0", { live: false, rows: rowsFrom(1, rows), steps: rows });
  for (let n = 1; n < runs; n++) {
    const path = join(folder, `r${n}`);
    await Deno.mkdir(path);
    for await (const { name, isFile } of Deno.readDir(first.path)) {
      if (isFile) await Deno.copyFile(join(first.path, name), join(path, name));
    }
  }
}

/** What lists of this folder cost the server. */
async function costs(server: ServerProcess, folder: string): Promise<object> {
  let etag = "";
  /** Asks for the list as the page does: what it has already is not sent again. */
  async function list(): Promise<{ status: number; bytes: number }> {
    const response = await fetch(`${server.base}/api/runs`, {
      headers: etag ? { "If-None-Match": etag } : {},
    });
    etag = response.headers.get("ETag") ?? etag;
    return { status: response.status, bytes: (await response.arrayBuffer()).byteLength };
  }

  /** Processor milliseconds of the server for a list, apart from what it takes while it waits. */
  async function measured(before: (n: number) => Promise<unknown>): Promise<object> {
    let cpu = 0;
    let wall = 0;
    let last = { status: 0, bytes: 0 };
    for (let n = 0; n < LISTS; n++) {
      await before(n);
      await pause();
      const start = await server.cost();
      const begun = performance.now();
      last = await list();
      wall += performance.now() - begun;
      cpu += (await server.cost()).cpu - start.cpu;
    }
    return {
      cpu_ms: Math.round(1000 * cpu / LISTS),
      wall_ms: Math.round(wall / LISTS),
      ...last,
    };
  }

  const start = await server.cost();
  const begun = performance.now();
  // A list is answered after three seconds with what is known by then, and those after it read on.
  let firstLists = 0;
  for (let unread = true; unread; firstLists++) {
    const overviews = await (await fetch(`${server.base}/api/runs`)).json();
    unread = overviews.some(({ problem }: { problem: string | null }) =>
      problem?.includes("still being read")
    );
  }
  const reading = await server.cost();
  const first = {
    cpu_s: Number((reading.cpu - start.cpu).toFixed(2)),
    wall_s: Number(((performance.now() - begun) / 1000).toFixed(2)),
    lists: firstLists,
  };
  const same = await measured(() => Promise.resolve());
  const live = await fakeRun(folder, "live", { rows: rowsFrom(1, rows), steps: 1000 });
  try {
    await list();
    const growing = await measured((n) => live.append(rowsFrom(rows + n + 1, 1)));
    const begins = await measured((n) =>
      fakeRun(folder, `new${n}`, { live: false, rows: rowsFrom(1, rows) })
    );
    const { rss } = await server.cost();
    return { first, same, a_run_goes_on: growing, a_run_began: begins, rss_mb: Math.round(rss / 1e6) };
  } finally {
    live.release();
  }
}

const folder = await Deno.makeTempDir();
try {
  await fill(folder);
  const server = await startServerProcess(folder);
  try {
    console.log(JSON.stringify({ runs, rows, ...await costs(server, folder) }));
  } finally {
    await server.stop();
  }
} finally {
  await Deno.remove(folder, { recursive: true });
}
Deno.exit(0);
