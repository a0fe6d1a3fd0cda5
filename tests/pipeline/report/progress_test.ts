import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { createProgress, formatDuration, formatRow, formatShare } from "../../../pipeline/report/progress.ts";
import { metricRow } from "../../support/metric_row.ts";

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
    "sparse 50/100  1m01s left  CE 1.500  τ 1.250 (+0.250)  λ 3.0 of 2.0  open ≈12.5 %  1235 tokens/s",
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
      now: () => time,
    });
    for (let step = 1; step <= 4; step++) {
      time += 700;
      progress.row(metricRow(step), { steps: 4 });
    }
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
    "a row after three seconds of silence, and the warning",
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

Deno.test("speed comes from this phase's last rows", () => {
  const last = course(200, true, [
    { row: metricRow(99, { phase: "sparse", seconds: 90 }), at: 0 },
    { row: metricRow(10, { phase: "control", seconds: 5 }), at: 15000 },
    { row: metricRow(20, { phase: "control", seconds: 15 }), at: 15000 },
  ]).at(-1)!;
  assertStringIncludes(last, "1024 tokens/s");
});

Deno.test("speed is of this process alone, where one before it left a row that was to be evaluated", () => {
  const last = course(200, true, [
    { row: metricRow(10, { phase: "sparse", seconds: 600 }), at: 0 },
    { row: metricRow(12, { phase: "sparse", seconds: 4 }), at: 1000 },
    { row: metricRow(22, { phase: "sparse", seconds: 14 }), at: 2000 },
  ]).at(-1)!;
  assertStringIncludes(last, "1024 tokens/s");
});

Deno.test("a terminal that does not know its width gets a line of at most 80 characters", () => {
  const long = metricRow(1e20, { ce: 1e20 });
  const [line] = course(0, true, [{ row: long, at: 0 }]);
  assertEquals(line.length, 79);
});

Deno.test("off a terminal every evaluation has its line, other steps one in three seconds", () => {
  const lines = course(80, false, [
    { row: metricRow(1), at: 0 },
    { row: metricRow(2), at: 2500 },
    { row: metricRow(3, { validation_ce: 1.5 }), at: 3000 },
    { row: metricRow(4), at: 5000 },
    { row: metricRow(5), at: 5500 },
  ]);
  assertEquals(lines.map((line) => line.match(/ (\d+)\/100/)?.[1]), ["2", "3", "5"]);
  assert(lines.every((line) => line.endsWith("\n")));
});

/** Progress at scripted times, looked at every half second as a command does. */
function scripted(interactive: boolean, columns = 80) {
  const said: { at: number; text: string }[] = [];
  let time = 0;
  const progress = createProgress({
    interactive,
    quiet: false,
    columns: () => columns,
    write: (text) => said.push({ at: time, text }),
    now: () => time,
  });
  const wait = (seconds: number): void => {
    for (let half = 0; half < 2 * seconds; half++) {
      time += 500;
      progress.tick();
    }
  };
  return { said, progress, wait };
}

for (const interactive of [true, false]) {
  Deno.test(`nothing is silent for three seconds ${interactive ? "on" : "off"} a terminal`, () => {
    const { said, progress, wait } = scripted(interactive);
    progress.activity({ name: "compiling kernels" });
    wait(20);
    progress.activity({ name: "measuring the dense model", done: 0, of: 4 });
    wait(9);
    progress.activity({ name: "measuring the dense model", done: 1, of: 4 });
    wait(6);
    progress.activity({ name: "sparse", done: 0, of: 100 });
    wait(9);
    progress.row(metricRow(8), { steps: 100 });
    progress.activity({ name: "sparse", done: 10, of: 100 });
    wait(9);
    const times = [0, ...said.filter(({ text }) => /\w/.test(text)).map(({ at }) => at), 53_000];
    times.slice(1).forEach((at, n) => assert(at - times[n] < 3000, `${at} after ${times[n]}`));
    const texts = said.map(({ text }) => text).join("\n");
    assertStringIncludes(texts, "compiling kernels  18s");
    assertStringIncludes(texts, "measuring the dense model 1 of 4  ");
    assertStringIncludes(texts, "sparse 10/100");
  });
}

Deno.test("of an activity that is counted the time left is said, of bytes in megabytes", () => {
  const { said, progress, wait } = scripted(true);
  progress.activity({ name: "tokenising", bytes: true, done: 0, of: undefined });
  wait(1);
  progress.activity({ name: "tokenising", bytes: true, done: 0, of: 8e6 });
  wait(2);
  progress.activity({ name: "tokenising", bytes: true, done: 2e6, of: 8e6 });
  wait(0.5);
  assertEquals(said.at(-1)!.text, "tokenising 2.0 of 8.0 MB  6s left");
});

Deno.test("time left counts the whole plan, goes down between steps, and is whole at 80 columns", () => {
  const { said, progress, wait } = scripted(true);
  progress.plan([
    { kind: "evaluation", units: 10 },
    { kind: "sparse", units: 100 },
    { kind: "control", units: 100, like: { kind: "sparse", share: 0.5 } },
  ]);
  for (let done = 0; done <= 10; done++) {
    progress.activity({ name: "measuring the dense model", done, of: 10, work: "evaluation" });
    wait(1);
  }
  for (let done = 0; done <= 20; done++) {
    progress.activity({ name: "sparse", done, of: 100, work: "sparse" });
    if (done === 8 || done === 16) {
      for (let n = 7; n >= 0; n--) progress.row(metricRow(done - n), { steps: 100 });
    }
    if (done < 20) wait(2);
  }
  wait(1);
  // 80 steps of 2 s and 100 of 1 s, and a second has gone by.
  assertStringIncludes(said.at(-1)!.text, "sparse 20/100  4m19s left  step 16: CE 1.500");
  assert(said.at(-1)!.text.length < 80);
});
