/**
 * How long a run will still take, from what its latest work took.
 *
 * @module
 */

/** Work of one kind that lies ahead. */
export interface Work {
  /** The kind, of which each unit takes about as long. */
  kind: string;
  /** Units ahead. */
  units: number;
  /** Whether the first costs as much as any other; left out: its kernels are compiled in it, and it is not counted. */
  even?: true;
  /** What one is taken to cost until some are counted: `share` times a unit of another kind; left out: it is not known. */
  like?: { kind: string; share: number };
}

/** Units of the last finished work, of one kind, over which its cost is taken. */
const WINDOW_UNITS = 64;

interface Kind extends Work {
  /** Latest finished work. */
  spans: { units: number; seconds: number }[];
  /** Whether no unit is counted yet, as none has been done but the first. */
  first: boolean;
}

/** What is known of the work ahead. */
export interface TimeLeft {
  /**
   * Time that went by until now was other work's: what is finished next began now.
   *
   * @param now seconds, of any clock that goes on evenly
   */
  begin(now: number): void;
  /** So many units of a kind were finished since the last call. */
  finish(kind: string, units: number, now: number): void;
  /** Seconds until all the work is done; undefined while the cost of some of it is unknown. */
  secondsLeft(now: number): number | undefined;
}

/** Creates the account of the work ahead, of which nothing is done yet. */
export function createTimeLeft(work: readonly Work[]): TimeLeft {
  const kinds = new Map<string, Kind>();
  for (const { kind, units, like, even } of work) {
    const known = kinds.get(kind);
    if (known) known.units += units;
    else kinds.set(kind, { kind, units, like, spans: [], first: !even });
  }
  let last: number | undefined;

  /** Seconds of one unit. */
  function costOf({ spans, first, like }: Kind): number | undefined {
    if (first) {
      const other = like && kinds.get(like.kind);
      const cost = other && costOf(other);
      return cost === undefined ? undefined : cost * like!.share;
    }
    const units = spans.reduce((sum, span) => sum + span.units, 0);
    return units > 0 ? spans.reduce((sum, span) => sum + span.seconds, 0) / units : undefined;
  }

  return {
    begin(now) {
      last = now;
    },
    finish(kind, units, now) {
      const of = kinds.get(kind);
      if (of && last !== undefined && units > 0) {
        of.units = Math.max(0, of.units - units);
        if (of.first && of.spans.length > 0) {
          of.spans = [];
          of.first = false;
        }
        of.spans.push({ units, seconds: now - last });
        let inWindow = of.spans.reduce((sum, span) => sum + span.units, 0);
        while (of.spans.length > 1 && inWindow - of.spans[0].units >= WINDOW_UNITS) {
          inWindow -= of.spans.shift()!.units;
        }
      }
      last = now;
    },
    secondsLeft(now) {
      let seconds = 0;
      for (const kind of kinds.values()) {
        if (kind.units === 0) continue;
        const cost = costOf(kind);
        if (cost === undefined) return undefined;
        seconds += kind.units * cost;
      }
      return Math.max(0, seconds - (last === undefined ? 0 : now - last));
    },
  };
}
