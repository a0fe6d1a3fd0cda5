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
import { isAfter, type MetricRow, PHASES } from "../pipeline/runs/metrics.ts";
import { logFault } from "./fault_log.ts";
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
    if (isAfter(rows[middle], place, rows[0].phase)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * Something to wait for again and again. (Racing against one promise that lasts as long as a client would keep a callback
 * of every race in it.)
 */
interface Bell {
  /** Waits until it rings, or for so many milliseconds. */
  wait(milliseconds: number): Promise<"rung" | "late">;
  ring(): void;
}

function createBell(): Bell {
  let answer: ((what: "rung" | "late") => void) | undefined;
  return {
    wait(milliseconds) {
      return new Promise((resolve) => {
        const timer = setTimeout(() => answer?.("late"), milliseconds);
        answer = (what) => {
          clearTimeout(timer);
          answer = undefined;
          resolve(what);
        };
      });
    },
    ring: () => answer?.("rung"),
  };
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
  /** Rung at every change, one a client. */
  bells: Set<Bell>;
  view: RunView | undefined;
  /** Overview as JSON, and how often it has changed. */
  status: string;
  version: number;
}

const encoder = new TextEncoder();

/** Creates the hub. */
export function createLive(runs: Runs, signal: AbortSignal, timing: Timing = PATIENCE): Live {
  const watched = new Map<string, Watched>();
  /** Events by the rows that they begin and end with: clients stand mostly at the same place. */
  const encoded = new WeakMap<MetricRow, { last: MetricRow; bytes: Uint8Array }>();
  let clients = 0;

  async function poll(name: string, entry: Watched): Promise<void> {
    while (entry.bells.size > 0 && !signal.aborted) {
      try {
        entry.view = await runs.view(name);
      } catch (error) {
        // What cannot be read now may be readable in half a second.
        logFault(`events of ${name}`, error);
      }
      const status = entry.view ? JSON.stringify(entry.view.overview) : "gone";
      if (status !== entry.status) {
        entry.status = status;
        entry.version++;
        for (const bell of entry.bells) bell.ring();
      }
      await new Promise((resolve) => setTimeout(resolve, timing.poll));
    }
    watched.delete(name);
  }

  function join(name: string, bell: Bell): Watched {
    let entry = watched.get(name);
    if (entry) {
      entry.bells.add(bell);
      return entry;
    }
    entry = { bells: new Set([bell]), view: undefined, status: "", version: 0 };
    watched.set(name, entry);
    poll(name, entry);
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
        const news = createBell();
        const entry = join(name, news);
        clients++;
        let gone = false;
        const leave = (): void => {
          gone = true;
          news.ring();
        };
        out.onAbort(leave);
        signal.addEventListener("abort", leave, { once: true });
        const write = async (bytes: Uint8Array): Promise<void> => {
          const patience = createBell();
          const written = out.write(bytes).finally(patience.ring);
          if (await patience.wait(timing.write) === "rung") await written;
          else {
            out.abort();
            leave();
          }
        };
        try {
          let version = -1;
          let place = after;
          await write(encoder.encode("retry: 1000\n\n"));
          while (!gone) {
            const { view, status } = entry;
            if (entry.version !== version) {
              version = entry.version;
              let next = view ? firstAfter(view.rows, place) : 0;
              while (!gone && view && next < view.rows.length) {
                const { bytes, last } = rowsEvent(view.rows, next);
                await write(bytes);
                place = last;
                next = firstAfter(view.rows, place);
              }
              if (status === "gone") {
                await write(encoder.encode("event: gone\ndata: {}\n\n"));
                break;
              }
              if (!gone && view) await write(encoder.encode(`event: status\ndata: ${status}\n\n`));
            } else if (await news.wait(timing.heartbeat) === "late") {
              await write(encoder.encode(": still here\n\n"));
            }
          }
        } finally {
          entry.bells.delete(news);
          clients--;
          signal.removeEventListener("abort", leave);
        }
      }, (error) => {
        logFault(`events of ${name}`, error);
        return Promise.resolve();
      });
    },
  };
}
