/** A folder of runs as it is found: live, ended, torn, foreign. */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { openMetrics } from "../../pipeline/metrics.ts";
import { signaturesOf } from "../../pipeline/signatures.ts";
import { openRuns } from "../../serve/runs.ts";
import { fakeRun } from "../support/fake_run.ts";
import { metricRow } from "../support/metric_row.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";

/** A store that never takes what it read for fresh. */
function unhurried(folder: string) {
  let now = 0;
  return openRuns(folder, () => now += 1000);
}

Deno.test("what a run is doing is told by its lock, its summary and its last word", async () => {
  await using folder = await temporaryFolder();
  const runs = unhurried(folder.path);
  const status = async () => (await runs.view("r"))!.overview.status;
  const run = await fakeRun(folder.path, "r", { rows: [metricRow(1)] });
  assertEquals(await status(), "training");
  await run.state({ state: "paused" });
  assertEquals(await status(), "paused");
  await run.state({ state: "preparing" });
  assertEquals(await status(), "preparing");
  await run.state({ state: "training" });
  run.release();
  assertEquals(await status(), "interrupted", "no process, and none said why");
  await run.state({ state: "stopped" });
  assertEquals(await status(), "stopped");
  await run.state({ state: "failed", error: "Cannot go on" });
  assertEquals([await status(), (await runs.view("r"))!.overview.problem], ["failed", "Cannot go on"]);
  await Deno.writeTextFile(join(run.path, "summary.json"), "{}");
  await run.state({ state: "finished", error: null });
  assertEquals(await status(), "finished");
});

Deno.test("what is no run, or a damaged one, is shown as such", async () => {
  await using folder = await temporaryFolder();
  const runs = unhurried(folder.path);
  await Deno.mkdir(join(folder.path, "empty"));
  const damaged = await fakeRun(folder.path, "damaged", { live: false });
  await Deno.writeTextFile(join(damaged.path, "config.json"), '{"command":');
  const foreign = await fakeRun(folder.path, "foreign", { live: false });
  await Deno.writeFile(join(foreign.path, "metrics.arrows"), new Uint8Array(5000).fill(7));
  const problems = Object.fromEntries(
    (await runs.list()).map(({ name, status, problem }) => [name, [status, problem]]),
  );
  assertEquals(problems, {
    empty: ["broken", "not a run: it has no config.json"],
    damaged: ["broken", "its config.json is damaged"],
    foreign: ["broken", "its metrics file is of another version, or damaged"],
  });
  for (const name of ["empty", "damaged", "foreign"]) {
    const view = (await runs.view(name))!;
    assertEquals((await runs.detail(view)).summary, null);
    assertEquals((await runs.checkpoints(view)).checkpoints, []);
  }
});

Deno.test("metrics cut at any byte are shown up to their last whole batch", async () => {
  await using folder = await temporaryFolder();
  const run = await fakeRun(folder.path, "r", { live: false, rows: [metricRow(1)] });
  const path = join(run.path, "metrics.arrows");
  const file = await openMetrics(path);
  await file.append([metricRow(2)]);
  file.close();
  const whole = await Deno.readFile(path);
  let seen = 0;
  for (let length = 0; length <= whole.length; length += 61) {
    await Deno.writeFile(path, whole.subarray(0, length));
    const { rows, overview } = (await unhurried(folder.path).view("r"))!;
    assert(rows.length >= seen && overview.status === "interrupted", `${length} bytes: ${overview.problem}`);
    seen = rows.length;
  }
  assertEquals(seen, 1);
});

Deno.test("rows that are appended appear, and those that a resumed run repeats do not come twice", async () => {
  await using folder = await temporaryFolder();
  const runs = unhurried(folder.path);
  const run = await fakeRun(folder.path, "r", { rows: [1, 2, 3].map((step) => metricRow(step)) });
  const steps = async () => (await runs.view("r"))!.rows.map(({ step }) => step);
  assertEquals(await steps(), [1, 2, 3]);
  await run.append([metricRow(4)]);
  assertEquals(await steps(), [1, 2, 3, 4]);
  run.release();
  const resumed = await openMetrics(join(run.path, "metrics.arrows"), { phase: "sparse", step: 2 });
  await resumed.append([metricRow(3)]);
  assertEquals(await steps(), [1, 2, 3, 4]);
  await resumed.append([metricRow(4), metricRow(5)]);
  resumed.close();
  assertEquals(await steps(), [1, 2, 3, 4, 5]);
});

Deno.test("signatures found row by row are those of all rows at once", async () => {
  await using folder = await temporaryFolder();
  const runs = unhurried(folder.path);
  const rows = Array.from({ length: 400 }, (_, n) =>
    metricRow(n + 1, {
      constraint: n === 150 ? 2 : 0.1,
      lambda: n > 200 ? 5 : 1,
      expected_open: 0.5,
    }));
  const run = await fakeRun(folder.path, "r", { steps: 400 });
  for (let n = 0; n < rows.length; n += 37) {
    await run.append(rows.slice(n, n + 37));
    await runs.view("r");
  }
  const found = (await runs.view("r"))!.overview.signatures.map(({ name, step }) => `${name} ${step}`);
  const expected = signaturesOf(rows, { steps: 400, lambdaMin: 0.02, lambdaMax: 5 });
  assertEquals(found, expected.map(({ name, step }) => `${name} ${step}`));
  assert(found.length >= 3, found.join());
  run.release();
});

Deno.test("speed and time left come from the last rows of one process", async () => {
  await using folder = await temporaryFolder();
  const runs = unhurried(folder.path);
  const run = await fakeRun(folder.path, "r", { steps: 20, control: true });
  await run.append([1, 2, 3, 4].map((step) => metricRow(step, { seconds: step === 1 ? 100 : 2 * step })));
  const { tokens_per_second, seconds_left } = (await runs.view("r"))!.overview;
  // Steps 2 to 4, since step 1 is another process's: 1024 tokens in 2 s; 16 sparse steps and 20 of the control are left.
  assertEquals([tokens_per_second, seconds_left], [512, 72]);
  run.release();
});

Deno.test("nothing outside the folder is a run, by whatever name or link", async () => {
  await using folder = await temporaryFolder();
  const inside = join(folder.path, "runs");
  const runs = unhurried(inside);
  assertEquals(await runs.list(), [], "the folder need not be there yet");
  const outside = await fakeRun(join(folder.path, "elsewhere"), "secret", {
    live: false,
    rows: [metricRow(1)],
  });
  const run = await fakeRun(inside, "r", { live: false, rows: [metricRow(1)] });
  await Deno.symlink(outside.path, join(inside, "link"));
  await Deno.mkdir(join(inside, ".hidden"));
  assertEquals((await runs.list()).map(({ name }) => name), ["r"]);
  for (
    const name of [
      "link",
      ".hidden",
      "..",
      ".",
      "",
      "../elsewhere/secret",
      "r/../../elsewhere/secret",
      "r\0",
      "a".repeat(200),
    ]
  ) {
    assertEquals(await runs.view(name), undefined, name);
  }
  // Files that lead elsewhere count as absent.
  for (const file of ["config.json", "metrics.arrows", "summary.json", "state.json"]) {
    await Deno.remove(join(run.path, file)).catch(() => {});
    await Deno.symlink(join(outside.path, file), join(run.path, file));
  }
  const view = (await unhurried(inside).view("r"))!;
  assertEquals([view.config, view.rows.length, view.overview.status], [undefined, 0, "broken"]);
});

Deno.test("a run that is deleted is gone, and one that comes back is read anew", async () => {
  await using folder = await temporaryFolder();
  const runs = unhurried(folder.path);
  const run = await fakeRun(folder.path, "r", { live: false, rows: [metricRow(1), metricRow(2)] });
  assertEquals((await runs.view("r"))!.rows.length, 2);
  await Deno.remove(run.path, { recursive: true });
  assertEquals([await runs.view("r"), await runs.list()], [undefined, []]);
  await fakeRun(folder.path, "r", { live: false, rows: [metricRow(1)] });
  assertEquals((await runs.view("r"))!.rows.length, 1);
});

Deno.test("more runs than are held in memory are listed all the same", async () => {
  await using folder = await temporaryFolder();
  const runs = unhurried(folder.path);
  for (let n = 0; n < 20; n++) await fakeRun(folder.path, `r${n}`, { live: false, rows: [metricRow(n + 1)] });
  const steps = async () => new Map((await runs.list()).map(({ name, last }) => [name, last?.step]));
  const expected = new Map(Array.from({ length: 20 }, (_, n) => [`r${n}`, n + 1]));
  for (let n = 0; n < 2; n++) assertEquals(new Map([...await steps()].sort()), new Map([...expected].sort()));
});
