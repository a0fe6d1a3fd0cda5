/**
 * `deno task serve-load [seconds]`: a live run with 500 SSE clients and 2,000 status reads a second on loopback. Prints
 * one line of JSON: reads reached and their latency, whether every client saw every row once, and what it cost the
 * server in memory and processor time (/proc, so on Linux only).
 *
 * The run is a fake one that gets a row every 50 ms; the server is a process of its own.
 *
 * @module
 */
import { fakeRun } from "../support/fake_run.ts";
import { metricRow } from "../support/metric_row.ts";
import { startServerProcess } from "./server_process.ts";

const CLIENTS = 500;
const READS_A_SECOND = 2000;
const ROW_MS = 50;
/** Reads under way at once. */
const READERS = 32;
const seconds = Number(Deno.args[0] ?? 20);

const folder = await Deno.makeTempDir();
const run = await fakeRun(folder, "live", { rows: [metricRow(1)], steps: 1_000_000 });
const server = await startServerProcess(folder);
const { base, cost } = server;

/** Follows the run, and returns the steps it saw. */
async function follow(signal: AbortSignal): Promise<number[]> {
  const steps: number[] = [];
  const response = await fetch(`${base}/api/runs/live/events`);
  const reader = response.body!.getReader();
  signal.addEventListener("abort", () => reader.cancel());
  const decoder = new TextDecoder();
  let pending = "";
  for (let { value, done } = await reader.read(); !done; { value, done } = await reader.read()) {
    const events = (pending + decoder.decode(value, { stream: true })).split("\n\n");
    pending = events.pop()!;
    for (const event of events) {
      if (!event.startsWith("event: rows")) continue;
      // Only the steps: parsing 500 copies of every row would load this process, not the server.
      for (const [, step] of event.matchAll(/"step":(\d+)/g)) steps.push(Number(step));
    }
  }
  return steps;
}

const ending = new AbortController();
const idle = await cost();
const clients = Array.from({ length: CLIENTS }, () => follow(ending.signal));
let step = 1;
const writing = setInterval(() => run.append([metricRow(++step)]), ROW_MS);
await new Promise((resolve) => setTimeout(resolve, 2000));

const begun = performance.now();
const start = await cost();
let middle = start;
const latencies: number[] = [];
let started = 0;
let failed = 0;
async function reader(): Promise<void> {
  while (true) {
    const elapsed = performance.now() - begun;
    if (elapsed > 1000 * seconds) return;
    if (started >= READS_A_SECOND * elapsed / 1000) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      continue;
    }
    started++;
    const at = performance.now();
    const response = await fetch(`${base}/api/runs/live`);
    await response.body?.cancel();
    if (!response.ok) failed++;
    latencies.push(performance.now() - at);
  }
}
setTimeout(async () => middle = await cost(), 500 * seconds);
await Promise.all(Array.from({ length: READERS }, reader));
const spent = (performance.now() - begun) / 1000;
const end = await cost();
clearInterval(writing);
await new Promise((resolve) => setTimeout(resolve, 2000));
ending.abort();
const seen = await Promise.all(clients);
const complete =
  seen.filter((steps) => steps.length === step && steps.every((value, n) => value === n + 1)).length;
await server.stop();
run.release();
await Deno.remove(folder, { recursive: true });

latencies.sort((a, b) => a - b);
const at = (share: number): number =>
  Number(latencies[Math.floor(share * (latencies.length - 1))].toFixed(1));
const megabytes = (bytes: number): number => Math.round(bytes / 1e6);
console.log(JSON.stringify({
  seconds: Number(spent.toFixed(1)),
  reads_a_second: Math.round(latencies.length / spent),
  failed,
  p50_ms: at(0.5),
  p99_ms: at(0.99),
  rows: step,
  clients: CLIENTS,
  clients_that_saw_every_row_once: complete,
  server_rss_mb: {
    idle: megabytes(idle.rss),
    start: megabytes(start.rss),
    middle: megabytes(middle.rss),
    end: megabytes(end.rss),
  },
  server_cpu_share: Number(((end.cpu - start.cpu) / spent).toFixed(2)),
}));
Deno.exit(0);
