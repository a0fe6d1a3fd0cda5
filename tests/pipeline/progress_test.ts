import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { createProgress, formatDuration, formatRow, formatShare } from "../../pipeline/progress.ts";
import { metricRow } from "../support/metric_row.ts";

Deno.test("durations and shares are short", () => {
  assertEquals([0, 59.4, 60, 3599, 3600, 90061].map(formatDuration), [
    "0s",
    "59s",
    "1m00s",
    "59m59s",
    "1h00m",
    "25h01m",
  ]);
  assertEquals([1, 0.123, 0.0456, 0.00012].map(formatShare), ["100.0 %", "12.3 %", "4.56 %", "0.01 %"]);
});

Deno.test("the progress line says step, CE, τ, λ, open edges, speed and time left", () => {
  const text = formatRow(metricRow(50), {
    steps: 100,
    tokensPerSecond: 1234.5,
    secondsLeft: 61,
  });
  assertEquals(
    text,
    "sparse 50/100  CE 1.500  τ 1.250 (+0.250)  λ 3.0 of 2.0  open ≈12.5 %  1235 tokens/s  1m01s left",
  );
});

Deno.test("a terminal gets one line rewritten, a pipe plain lines, quiet nothing but warnings", () => {
  const show = (interactive: boolean, quiet: boolean) => {
    let text = "";
    let time = 0;
    const progress = createProgress({
      interactive,
      quiet,
      columns: () => 40,
      write: (piece) => text += piece,
      now: () => time += 1000,
    });
    for (let step = 1; step <= 4; step++) progress.row(metricRow(step), { steps: 4 });
    progress.warning("look");
    progress.finish();
    return text;
  };
  const terminal = show(true, false);
  assert(terminal.split("\r\x1b[K").length >= 4);
  assert(terminal.split(/\r|\n/).every((line) => line.replace("\x1b[K", "").length < 40));
  assertEquals(
    show(false, false).split("\n").length,
    3,
    "the first row and the warning: ten seconds have not passed",
  );
  assertEquals(show(false, true), "warning: look\n");
});

/** Reports rows at given milliseconds and returns what was written. */
function course(
  columns: number,
  interactive: boolean,
  rows: { row: ReturnType<typeof metricRow>; at: number }[],
): string[] {
  const written: string[] = [];
  let time = 0;
  const progress = createProgress({
    interactive,
    quiet: false,
    columns: () => columns,
    write: (text) => written.push(text),
    now: () => time,
  });
  for (const { row, at } of rows) {
    time = at;
    progress.row(row, { steps: 100 });
  }
  return written;
}

Deno.test("speed and time left come from this phase's last rows", () => {
  const last = course(200, true, [
    { row: metricRow(99, { phase: "sparse" }), at: 0 },
    { row: metricRow(10, { phase: "control" }), at: 5000 },
    { row: metricRow(20, { phase: "control" }), at: 15000 },
  ]).at(-1)!;
  assertStringIncludes(last, "1024 tokens/s  1m20s left");
});

Deno.test("a terminal that does not know its width gets a line of at most 80 characters", () => {
  const long = metricRow(1e20, { ce: 1e20 });
  const [line] = course(0, true, [{ row: long, at: 0 }]);
  assertEquals(line.length, 79);
});

Deno.test("off a terminal every evaluation has its line, other steps one in ten seconds", () => {
  const lines = course(80, false, [
    { row: metricRow(1), at: 0 },
    { row: metricRow(2), at: 4000 },
    { row: metricRow(3, { validation_ce: 1.5 }), at: 5000 },
    { row: metricRow(4), at: 14000 },
    { row: metricRow(5), at: 15000 },
  ]);
  assertEquals(lines.map((line) => line.match(/ (\d+)\/100/)?.[1]), ["1", "3", "5"]);
  assert(lines.every((line) => line.endsWith("\n")));
});
