/**
 * Live events of a run: Server-Sent Events that a client can take up again where it lost them.
 *
 * Every client has its own place in the run's rows and nothing else, so that a slow one costs no memory: its next event
 * is made when it has taken the last. One that takes none for long is dropped.
 *
 * @module
 */
import type { Context } from "hono";
import { stream } from "hono/streaming";
import { isAfter, type MetricRow, PHASES } from "../pipeline/metrics.ts";
import { problem } from "./problem.ts";
import type { Runs, RunView } from "./runs.ts";

/** A place in a run's rows, as events and `since` name it: `sparse:120`. */
export type Place = Pick<MetricRow, "phase" | "step">;

/** How patient the server is, in milliseconds. */
export interface Timing {
  /** Between looks at a run that is watched. */
  poll: number;
  /** After which a client that takes no event is dropped. */
  write: number;
  /** Of silence, after which a comment goes out: proxies keep the connection, and vanished clients are noticed. */
  heartbeat: number;
}

const PATIENCE: Timing = { poll: 500, write: 30_000, heartbeat: 15_000 };
const ROWS_PER_EVENT = 200;
const MAX_CLIENTS = 2_000;

/** Reads a place; undefined when it is none. */
export function parsePlace(text: string): Place | undefined {
  const [, phase, step] = /^([a-z]+):(\d{1,10})$/.exec(text) ?? [];
  const known = PHASES.find((name) => name === phase);
  return known && { phase: known, step: Number(step) };
}

/** The name of a row's place. */
export function placeOf({ phase, step }: Place): string {
  return `${phase}:${step}`;
}

/** The index of the first row behind a place. */
export function firstAfter(rows: readonly MetricRow[], place: Place | undefined): number {
  if (!place) return 0;
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (isAfter(rows[middle], place)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Waits for the first of the promises, or for so many milliseconds. */
async function firstOf(milliseconds: number, ...promises: Promise<unknown>[]): Promise<"late" | "done"> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<"late">((resolve) => timer = setTimeout(() => resolve("late"), milliseconds));
  const done = Promise.race(promises).then(() => "done" as const);
  try {
    return await Promise.race([done, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The live events of all runs. */
export interface Live {
  /** Answers with the run's events behind `after`. */
  open(context: Context, run: string, after: Place | undefined): Response;
  /** Clients connected now. */
  readonly clients: number;
}

/** One run that clients watch: polled once for all of them. */
interface Watched {
  clients: number;
  view: RunView | undefined;
  /** Overview as JSON, and how often it has changed. */
  status: string;
  version: number;
  /** Resolves at the next change. */
  changed: PromiseWithResolvers<void>;
}

const encoder = new TextEncoder();

/** Creates the hub. */
export function createLive(runs: Runs, signal: AbortSignal, timing: Timing = PATIENCE): Live {
  const watched = new Map<string, Watched>();
  /** Events by the rows that they begin and end with: clients stand mostly at the same place. */
  const encoded = new WeakMap<MetricRow, { last: MetricRow; bytes: Uint8Array }>();
  let clients = 0;

  async function poll(name: string, entry: Watched): Promise<void> {
    while (entry.clients > 0 && !signal.aborted) {
      try {
        entry.view = await runs.view(name);
      } catch {
        // What cannot be read now may be readable in half a second.
      }
      const status = entry.view ? JSON.stringify(entry.view.overview) : "gone";
      if (status !== entry.status) {
        entry.status = status;
        entry.version++;
        entry.changed.resolve();
        entry.changed = Promise.withResolvers();
      }
      await new Promise((resolve) => setTimeout(resolve, timing.poll));
    }
    watched.delete(name);
    entry.changed.resolve();
  }

  function join(name: string): Watched {
    let entry = watched.get(name);
    if (!entry) {
      entry = { clients: 0, view: undefined, status: "", version: 0, changed: Promise.withResolvers() };
      watched.set(name, entry);
      entry.clients++;
      poll(name, entry);
    } else {
      entry.clients++;
    }
    return entry;
  }

  function rowsEvent(rows: readonly MetricRow[], from: number): { bytes: Uint8Array; last: MetricRow } {
    const upTo = Math.min(rows.length, from + ROWS_PER_EVENT);
    const last = rows[upTo - 1];
    const known = encoded.get(rows[from]);
    if (known?.last === last) return known;
    const data = JSON.stringify(rows.slice(from, upTo));
    const event = { last, bytes: encoder.encode(`event: rows\nid: ${placeOf(last)}\ndata: ${data}\n\n`) };
    encoded.set(rows[from], event);
    return event;
  }

  return {
    get clients() {
      return clients;
    },

    open(context, name, after) {
      if (clients >= MAX_CLIENTS) throw problem(503, "Too many clients", { "Retry-After": "10" });
      context.header("Content-Type", "text/event-stream");
      context.header("Cache-Control", "no-store");
      context.header("X-Accel-Buffering", "no");
      return stream(context, async (out) => {
        const entry = join(name);
        clients++;
        let gone = false;
        const left = Promise.withResolvers<void>();
        const leave = (): void => {
          gone = true;
          left.resolve();
        };
        out.onAbort(leave);
        signal.addEventListener("abort", leave, { once: true });
        const write = async (bytes: Uint8Array): Promise<void> => {
          const what = await firstOf(timing.write, out.write(bytes), left.promise);
          if (what !== "late") return;
          out.abort();
          leave();
        };
        try {
          let version = -1;
          let place = after;
          await write(encoder.encode("retry: 1000\n\n"));
          while (!gone) {
            const { view, changed } = entry;
            if (view) {
              let next = firstAfter(view.rows, place);
              while (!gone && next < view.rows.length) {
                const { bytes, last } = rowsEvent(view.rows, next);
                await write(bytes);
                place = last;
                next = firstAfter(view.rows, place);
              }
              if (!gone && entry.version !== version) {
                version = entry.version;
                await write(encoder.encode(`event: status\ndata: ${entry.status}\n\n`));
                continue;
              }
            } else if (entry.status === "gone") {
              await write(encoder.encode("event: gone\ndata: {}\n\n"));
              break;
            }
            const what = await firstOf(timing.heartbeat, changed.promise, left.promise);
            if (what === "late") await write(encoder.encode(": still here\n\n"));
          }
        } finally {
          entry.clients--;
          clients--;
          signal.removeEventListener("abort", leave);
        }
      }, (error) => {
        console.error(`serve: events of ${name}: ${error.message}`);
        return Promise.resolve();
      });
    },
  };
}
