/**
 * What a run says while it goes on, on standard error: one line rewritten in place on a terminal, plain lines off one.
 *
 * @module
 */
import { fixed } from "../fixed.ts";
import type { MetricRow } from "../runs/metrics.ts";
import { createTimeLeft, type TimeLeft, type Work } from "../training/time_left.ts";
import type { Activity, Reporter } from "../training/training_run.ts";

/** Where and how progress is shown. */
export interface ProgressOptions {
  /** Whether a line can be rewritten: a terminal. */
  interactive: boolean;
  quiet: boolean;
  /** Characters of a line. */
  columns: () => number;
  write(text: string): void;
  /** Milliseconds; for tests. */
  now?: () => number;
}

/** Rows over which speed is taken. */
const WINDOW = 50;
/** Off a terminal, milliseconds after which something is said; less than three seconds with a look every half second. */
const PLAIN_INTERVAL_MS = 2_400;
/** On a terminal, milliseconds between two versions of its line. */
const REDRAW_MS = 100;
/** Width of a terminal that does not know its own, as under some pseudo-terminals. */
const UNKNOWN_WIDTH = 80;

/** Seconds as `12s`, `3m05s`, `2h07m`. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}s`;
  const pad = (n: number): string => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)}m${pad(whole % 60)}s`;
  return `${Math.floor(whole / 3600)}h${pad(Math.floor(whole % 3600 / 60))}m`;
}

/** A share as a percentage with three significant digits or so. */
export function formatShare(share: number): string {
  const percent = 100 * share;
  return `${percent.toFixed(percent >= 10 ? 1 : 2)} %`;
}

/** A difference with its sign: `−0.0027`. */
export function formatSigned(value: number, digits = 4): string {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
}

/** A ratio: `×0.50`. */
export function formatFactor(value: number): string {
  return `×${value.toFixed(2)}`;
}

/** A mean with half its interval where it has one: `1.20 ± 0.05`; a dash where there is none. */
export function formatMean(
  of: { mean: number; half: number | null } | null,
  text: (value: number) => string,
  halfText: (half: number) => string = text,
): string {
  if (!of) return "–";
  return text(of.mean) + (of.half === null ? "" : ` ± ${halfText(of.half)}`);
}

/** A mean share with half its interval: `3.70 % ± 0.42`. */
export function formatMeanShare(of: { mean: number; half: number | null } | null): string {
  return formatMean(of, formatShare, (half) => (100 * half).toFixed(2));
}

/** The progress line of one row; `done` is the last step that is done, where the row is of an earlier one. */
export function formatRow(
  row: MetricRow,
  { steps, done = row.step, tokensPerSecond, secondsLeft }: {
    steps: number;
    done?: number;
    tokensPerSecond?: number;
    secondsLeft?: number;
  },
): string {
  const { target } = row;
  const parts = [`${row.phase} ${done}/${steps}`];
  // Early, since a narrow terminal cuts the end.
  if (secondsLeft !== undefined) parts.push(`${formatDuration(secondsLeft)} left`);
  parts.push(`${done > row.step ? `step ${row.step}: ` : ""}CE ${fixed(row.ce, 3)}`);
  if (target !== null) {
    parts.push(
      `τ ${fixed(target, 3)}${
        row.constraint === null
          ? ""
          : ` (${row.constraint >= 0 ? "+" : "−"}${fixed(Math.abs(row.constraint), 3)})`
      }`,
    );
  }
  if (row.lambda !== null) {
    const [integral, acting] = [row.lambda, row.lambda_acting ?? row.lambda].map((value) =>
      value.toPrecision(2)
    );
    // With a proportional term the λ in the loss is another than the one that is carried on.
    parts.push(integral === acting ? `λ ${acting}` : `λ ${acting} of ${integral}`);
  }
  if (row.open_fraction !== null) parts.push(`open ${formatShare(row.open_fraction)}`);
  else if (row.expected_open !== null) parts.push(`open ≈${formatShare(row.expected_open)}`);
  if (row.validation_ce !== null) parts.push(`validation CE ${fixed(row.validation_ce, 3)}`);
  if (tokensPerSecond !== undefined) parts.push(`${Math.round(tokensPerSecond)} tokens/s`);
  return parts.join("  ");
}

const MEGABYTE = 1e6;

/** The progress line of an activity: how far it is, how long it has gone on, and how long it or the run will. */
export function formatActivity(
  { name, done, of, bytes }: Activity,
  { seconds, secondsLeft }: { seconds: number; secondsLeft?: number },
): string {
  const count = (n: number): string => bytes ? (n / MEGABYTE).toFixed(1) : String(n);
  const parts = [
    of === undefined ? name : `${name} ${count(done ?? 0)} of ${count(of)}${bytes ? " MB" : ""}`,
  ];
  if (secondsLeft !== undefined) parts.push(`${formatDuration(secondsLeft)} left`);
  else parts.push(formatDuration(seconds));
  return parts.join("  ");
}

/** The reporter of a run, and what it needs to speak while nothing is reported. */
export interface Progress extends Reporter {
  /** Called twice a second: says what goes on where nothing has been said for a while. */
  tick(): void;
  /** Takes the line off the terminal. */
  finish(): void;
  /** What is being done; undefined before the first activity. */
  current(): Activity | undefined;
}

/** Creates the reporter of a run. */
export function createProgress(options: ProgressOptions): Progress {
  const { interactive, quiet, columns, write, now = () => performance.now() } = options;
  let shown = false;
  let said = now();
  let drawn = -Infinity;
  let phase: MetricRow["phase"] | undefined;
  let recent: Pick<MetricRow, "tokens" | "seconds">[] = [];
  /** The last row, as long as its phase goes on. */
  let last: { row: MetricRow; steps: number } | undefined;
  let activity: Activity | undefined;
  let since = now();
  /** Over the whole run where it has said what it is made of, and over the activity. */
  let ofRun: TimeLeft | undefined;
  let ofActivity: TimeLeft | undefined;

  const clear = (): void => {
    if (shown) write("\r\x1b[K");
    shown = false;
  };
  const line = (text: string): void => {
    clear();
    write(text + "\n");
    said = now();
  };
  const rowText = ({ row, steps }: NonNullable<typeof last>, done?: number): string => {
    const [first] = recent;
    const elapsed = recent.at(-1)!.seconds - first.seconds;
    return formatRow(row, {
      steps,
      done,
      tokensPerSecond: elapsed > 0.5 && row.tokens > first.tokens
        ? (row.tokens - first.tokens) / elapsed
        : undefined,
      secondsLeft: ofRun?.secondsLeft(now() / 1000),
    });
  };
  /** What goes on now, in one line. */
  const currentText = (): string | undefined => {
    if (!activity) return undefined;
    if (last && activity.name === last.row.phase) {
      // Rows come some steps late.
      return rowText(last, Math.max(activity.done ?? 0, last.row.step));
    }
    const secondsLeft = (ofRun ?? ofActivity)?.secondsLeft(now() / 1000);
    return formatActivity(activity, { seconds: (now() - since) / 1000, secondsLeft });
  };
  const draw = (text: string): void => {
    clear();
    write([...text].slice(0, (columns() || UNKNOWN_WIDTH) - 1).join(""));
    shown = true;
    drawn = now();
  };

  return {
    message(text) {
      if (!quiet) line(text);
    },
    warning(text) {
      line(`warning: ${text}`);
    },
    plan(work: readonly Work[]) {
      ofRun = createTimeLeft(work);
      ofRun.begin(now() / 1000);
    },
    activity(next) {
      const seconds = now() / 1000;
      const before = activity;
      activity = next;
      const another = before?.name !== next.name;
      const counted = before?.of === undefined && next.of !== undefined;
      if (another || counted || (next.done ?? 0) < (before.done ?? 0)) {
        if (!counted || another) since = now();
        ofActivity = next.of === undefined
          ? undefined
          : createTimeLeft([{ kind: "activity", units: next.of - (next.done ?? 0), even: true }]);
        ofActivity?.begin(seconds);
        // What stands between two evaluations is the steps' time, and not lost.
        ofRun?.begin(seconds);
      } else {
        const units = (next.done ?? 0) - (before.done ?? 0);
        ofActivity?.finish("activity", units, seconds);
        if (next.work !== undefined && units > 0) ofRun?.finish(next.work, units, seconds);
      }
      if (!quiet && interactive && now() - drawn >= REDRAW_MS) draw(currentText()!);
    },
    row(row, { steps }) {
      // A row that was to be evaluated yet is of the process before.
      if (row.phase !== phase || row.seconds < (recent.at(-1)?.seconds ?? 0)) recent = [];
      phase = row.phase;
      recent.push({ tokens: row.tokens, seconds: row.seconds });
      if (recent.length > WINDOW) recent.shift();
      last = { row, steps };
      if (quiet) return;
      if (row.validation_ce !== null) line(rowText(last));
      else if (interactive) draw(currentText() ?? rowText(last));
      else if (now() - said >= PLAIN_INTERVAL_MS) line(currentText() ?? rowText(last));
    },
    tick() {
      if (quiet) return;
      const text = currentText();
      if (text === undefined) return;
      if (interactive) draw(text);
      else if (now() - said >= PLAIN_INTERVAL_MS) line(text);
    },
    finish() {
      activity = undefined;
      clear();
    },
    current: () => activity,
  };
}
