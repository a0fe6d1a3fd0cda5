/**
 * What a run says while it goes on, on standard error: one line rewritten in place on a terminal, plain lines off one.
 *
 * @module
 */
import type { MetricRow } from "./metrics.ts";
import type { Reporter } from "./training_run.ts";

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

/** Steps over which speed and time left are taken. */
const WINDOW = 50;
const PLAIN_INTERVAL_MS = 10_000;
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

/** The progress line of one row. */
export function formatRow(
  row: MetricRow,
  { steps, tokensPerSecond, secondsLeft }: {
    steps: number;
    tokensPerSecond?: number;
    secondsLeft?: number;
  },
): string {
  const { target } = row;
  const parts = [`${row.phase} ${row.step}/${steps}`, `CE ${row.ce.toFixed(3)}`];
  if (target !== null) {
    parts.push(
      `τ ${target.toFixed(3)}${
        row.constraint === null
          ? ""
          : ` (${row.constraint >= 0 ? "+" : "−"}${Math.abs(row.constraint).toFixed(3)})`
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
  if (row.validation_ce !== null) parts.push(`validation CE ${row.validation_ce.toFixed(3)}`);
  if (tokensPerSecond !== undefined) parts.push(`${Math.round(tokensPerSecond)} tokens/s`);
  if (secondsLeft !== undefined) parts.push(`${formatDuration(secondsLeft)} left`);
  return parts.join("  ");
}

/** Creates the reporter of a run. */
export function createProgress(options: ProgressOptions): Reporter & { finish(): void } {
  const { interactive, quiet, columns, write, now = () => performance.now() } = options;
  let shown = false;
  let lastPlain = -Infinity;
  let phase: MetricRow["phase"] | undefined;
  let recent: { step: number; tokens: number; time: number }[] = [];

  const clear = (): void => {
    if (shown) write("\r\x1b[K");
    shown = false;
  };
  const line = (text: string): void => {
    clear();
    write(text + "\n");
  };

  return {
    message(text) {
      if (!quiet) line(text);
    },
    warning(text) {
      line(`warning: ${text}`);
    },
    row(row, { steps }) {
      if (quiet) return;
      if (row.phase !== phase) recent = [];
      phase = row.phase;
      recent.push({ step: row.step, tokens: row.tokens, time: now() });
      if (recent.length > WINDOW) recent.shift();
      const first = recent[0];
      const elapsed = (now() - first.time) / 1000;
      const known = elapsed > 0.5 && row.step > first.step;
      const text = formatRow(row, {
        steps,
        tokensPerSecond: known ? (row.tokens - first.tokens) / elapsed : undefined,
        secondsLeft: known ? (steps - row.step) * elapsed / (row.step - first.step) : undefined,
      });
      if (interactive) {
        if (row.validation_ce !== null) return line(text);
        clear();
        write([...text].slice(0, (columns() || UNKNOWN_WIDTH) - 1).join(""));
        shown = true;
      } else if (row.validation_ce !== null || now() - lastPlain >= PLAIN_INTERVAL_MS) {
        lastPlain = now();
        line(text);
      }
    },
    finish: clear,
  };
}
