import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { RecordBatchReader } from "apache-arrow";
import { UserError } from "../../pipeline/errors.ts";
import { type MetricRow, openMetrics, readMetrics } from "../../pipeline/metrics.ts";
import { createProgress, formatDuration, formatRow, formatShare } from "../../pipeline/progress.ts";
import { createRun, openRun } from "../../pipeline/run_folder.ts";
import { learningRate } from "../../pipeline/schedule.ts";
import { createHealthWatch, type HealthSample, signaturesOf } from "../../pipeline/signatures.ts";
import { formatTable } from "../../pipeline/table.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";

function row(step: number, fields: Partial<MetricRow> = {}): MetricRow {
  return {
    phase: "sparse",
    step,
    tokens: 1024 * step,
    ce: 1.5,
    constraint: 0.25,
    constraint_average: 0.5,
    lambda: 2,
    expected_open: 0.125,
    open_fraction: null,
    learning_rate: 0.5,
    grad_norm: 3,
    saturation: 0,
    kl: null,
    validation_ce: null,
    dead_queries: null,
    skipped: 0,
    open_by_head: null,
    seconds: 1,
    ...fields,
  };
}

Deno.test("metrics are appended and read back, nulls and lists too, also by a plain Arrow reader", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "metrics.arrows");
  const rows = [row(1), row(2, { open_by_head: [0.5, 0.25], validation_ce: 2.5 }), row(3, { lambda: null })];
  const file = await openMetrics(path);
  await file.append(rows.slice(0, 2));
  await file.append([]);
  await file.append(rows.slice(2));
  file.close();
  assertEquals(await readMetrics(path), rows);
  const batches = [...RecordBatchReader.from(await Deno.readFile(path))];
  assertEquals(batches.map(({ numRows }) => numRows), [2, 1]);
});

Deno.test("a metrics file cut at any byte reads up to its last whole batch and is appended to from there", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "metrics.arrows");
  const file = await openMetrics(path);
  for (let step = 1; step <= 3; step++) await file.append([row(step)]);
  file.close();
  const bytes = await Deno.readFile(path);
  const torn = join(folder.path, "torn.arrows");
  let seen = 0;
  for (let length = 0; length < bytes.length; length += 97) {
    await Deno.writeFile(torn, bytes.subarray(0, length));
    const before = await readMetrics(torn);
    assert(before.length >= seen && before.length < 3);
    seen = before.length;
    const again = await openMetrics(torn);
    await again.append([row(9)]);
    again.close();
    assertEquals((await readMetrics(torn)).map(({ step }) => step), [...before.map(({ step }) => step), 9]);
  }
  assertEquals(seen, 2);
});

Deno.test("resuming drops the rows of later steps and phases", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "metrics.arrows");
  const file = await openMetrics(path);
  for (const step of [1, 2, 3]) await file.append([row(step)]);
  await file.append([row(1, { phase: "control" })]);
  file.close();
  const steps = async () => (await readMetrics(path)).map(({ phase, step }) => `${phase} ${step}`);
  (await openMetrics(path, { phase: "control", step: 5 })).close();
  assertEquals((await steps()).length, 4);
  (await openMetrics(path, { phase: "sparse", step: 2 })).close();
  assertEquals(await steps(), ["sparse 1", "sparse 2"]);
  (await openMetrics(path, { phase: "pretrain", step: 0 })).close();
  assertEquals(await steps(), []);
});

Deno.test("a file that is no metrics file is refused", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "metrics.arrows");
  await Deno.writeFile(path, new Uint8Array(10_000));
  await assertRejects(() => openMetrics(path), UserError, "no metrics file");
});

Deno.test("a run is created once, opened again, and written by one process at a time", async () => {
  await using folder = await temporaryFolder();
  const run = await createRun(folder.path, "sparsify", "one");
  await Deno.writeTextFile(run.config, "{}");
  await assertRejects(() => createRun(folder.path, "sparsify", "one"), UserError, "--resume one");
  await assertRejects(() => openRun(folder.path, "one"), UserError, "another process");
  run.release();
  (await openRun(folder.path, "one")).release();
  await assertRejects(() => openRun(folder.path, "two"), UserError, "is no run");
  for (const name of ["../x", "a/b", "", ".hidden", "a b"]) {
    await assertRejects(() => createRun(folder.path, "sparsify", name), UserError, "Cannot name a run");
  }
  const unnamed = await createRun(folder.path, "sparsify");
  assert(/^sparsify-\d{8}-\d{6}$/.test(unnamed.name));
  unnamed.release();
});

Deno.test("a folder that a process killed at its start left behind can be used", async () => {
  await using folder = await temporaryFolder();
  await Deno.mkdir(join(folder.path, "one"));
  (await createRun(folder.path, "sparsify", "one")).release();
});

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
  const text = formatRow(row(50), { steps: 100, target: 1.25, tokensPerSecond: 1234.5, secondsLeft: 61 });
  assertEquals(
    text,
    "sparse 50/100  CE 1.500  τ 1.250 (+0.250)  λ 2.0  open ≈12.5 %  1235 tokens/s  1m01s left",
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
    for (let step = 1; step <= 4; step++) progress.row(row(step), { steps: 4 });
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

Deno.test("a table's columns line up", () => {
  assertEquals(
    formatTable([["", "loss"], ["dense", "1.5"], ["sparse fit", "12.25"]]),
    [
      "             loss",
      "dense         1.5",
      "sparse fit  12.25",
    ].join("\n"),
  );
});

Deno.test("the learning rate rises, stays and falls", () => {
  const schedule = { peak: 1, warmup: 10, decay: 0.5, steps: 100 };
  assertEquals([0, 4, 9, 30, 50, 74, 99].map((step) => learningRate(schedule, step)), [
    0.1,
    0.5,
    1,
    1,
    1,
    0.52,
    0.02,
  ]);
  assertEquals(learningRate({ ...schedule, warmup: 0, decay: 0 }, 99), 1);
});

/** Names of the signatures that a course of samples sets off, with their steps. */
function course(samples: Partial<HealthSample>[], steps = 1000): string[] {
  const watch = createHealthWatch({ steps, lambdaMin: 0.1, lambdaMax: 5 });
  return samples.flatMap((sample, index) =>
    watch({ step: index + 1, ...sample }).map(({ name, step }) => `${name} ${step}`)
  );
}

Deno.test("a healthy run sets off nothing", () => {
  const samples = Array.from({ length: 1000 }, (_, n) => ({
    violation: 0.01 * Math.sin(n),
    lambda: 1 + 0.5 * Math.sin(n / 50),
    expectedOpen: Math.exp(-n / 150),
    deadQueries: n / 2000,
  }));
  assertEquals(course(samples), []);
});

Deno.test("a loss spike is named when it sets in, and again only after it has passed", () => {
  const samples = [0, 0.6, 0.7, 0.1, 0.8].map((violation) => ({ violation }));
  assertEquals(course(samples, 10), ["loss spike 2", "loss spike 5"]);
  assertEquals(course(samples, 1000), [], "closing the first gates is no failure");
});

Deno.test("wind-up is λ at its ceiling, or at its floor while CE is too high, for a tenth of the run", () => {
  const at = (lambda: number, violation: number) =>
    Array.from({ length: 150 }, () => ({ lambda, violation }));
  assertEquals(course(at(5, 0.1)), ["wind-up 101"]);
  assertEquals(course(at(0.1, 0.1)), ["wind-up 101"]);
  assertEquals(course(at(0.1, -0.1)), [], "resting on the floor while the constraint holds is healthy");
});

Deno.test("a plateau above the goal is named once a window; one below the goal is none", () => {
  const still = (expectedOpen: number) =>
    Array.from({ length: 250 }, () => ({ expectedOpen, violation: -0.1, lambda: 1 }));
  assertEquals(course(still(0.2)), ["plateau 101", "plateau 202"].slice(0, course(still(0.2)).length));
  assert(course(still(0.2)).length >= 1);
  assertEquals(course(still(0.005)), []);
});

Deno.test("dead queries are named, and rows of the metrics say the same as samples", () => {
  assertEquals(course([{ deadQueries: 0.5 }, { deadQueries: 0.95, violation: 0.1 }]), ["dead queries 2"]);
  assertEquals(course([{ deadQueries: 0.95, violation: -0.1 }]), [], "sparse, and the loss holds");
  const rows = [row(1, { constraint: 0.7 }), row(2, { dead_queries: 0.99, constraint: 0.1 })];
  const bounds = { steps: 10, lambdaMin: 0, lambdaMax: 9 };
  assertEquals(signaturesOf(rows, bounds).map(({ name }) => name), ["loss spike", "dead queries"]);
});
