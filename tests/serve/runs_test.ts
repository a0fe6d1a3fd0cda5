/** A folder of runs as it is found: live, ended, torn, foreign. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { dirname, join } from "node:path";
import { writeSealedJson } from "../../pipeline/files.ts";
import { openMetrics } from "../../pipeline/runs/metrics.ts";
import { readRunConfig, type RunConfig } from "../../pipeline/runs/run_config.ts";
import { createRun, openRun } from "../../pipeline/runs/run_folder.ts";
import { signaturesOf } from "../../pipeline/training/signatures.ts";
import type { RunOverview } from "../../serve/api.ts";
import { MOST_RUNS, openRuns } from "../../serve/runs.ts";
import { fakeRun } from "../support/fake_run.ts";
import { metricRow } from "../support/metric_row.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";

/** A store that never takes what it read for fresh, and waits for whatever a busy machine takes. */
function unhurried(folder: string) {
  let now = 0;
  return openRuns(folder, () => now += 1000, { wait: 300_000, slowList: Infinity });
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

Deno.test("the folder of a sweep is shown as one, with its runs, also while they come; one of that name is no run", async () => {
  await using folder = await temporaryFolder();
  const runs = unhurried(folder.path);
  const sweep = join(folder.path, "tries");
  await Deno.mkdir(sweep);
  await Deno.writeTextFile(join(sweep, "sweep.json"), JSON.stringify({ file: "/somewhere/tries.json" }));
  const seen = async () => {
    const [{ name, command, status, problem, result }] = await runs.list();
    assertEquals([name, command, status, problem, result?.kind], ["tries", "sweep", "sweep", null, "sweep"]);
    return result?.kind === "sweep" ? result.runs : undefined;
  };
  assertEquals(await seen(), []);
  for (const name of ["b", "a"]) await fakeRun(sweep, name, { live: false });
  await Deno.mkdir(join(sweep, "no-run"));
  await Deno.writeTextFile(join(sweep, "a", "summary.json"), "{}");
  await Deno.symlink(join(sweep, "a"), join(sweep, "link"));
  assertEquals(await seen(), [{ name: "a", finished: true }, { name: "b", finished: false }]);
  const view = (await runs.view("tries"))!;
  await Deno.writeTextFile(join(sweep, "sweep.html"), "<p>");
  assertEquals((await runs.detail(view)).reports.map(({ file }) => file), ["sweep.html"]);
  assertEquals(view.overview.result?.kind === "sweep" && view.overview.result.of, "sweep");
  // A study's folder holds the folders of its stages.
  const study = join(folder.path, "sensitivity");
  await Deno.mkdir(study);
  await Deno.writeTextFile(join(study, "study.json"), JSON.stringify({ file: "sensitivity" }));
  await Deno.writeTextFile(join(study, "study.html"), "<p>");
  const of = (await runs.view("sensitivity"))!;
  assertEquals([of.overview.status, of.overview.result], ["sweep", { kind: "sweep", of: "study", runs: [] }]);
  assertEquals((await runs.detail(of)).reports.map(({ file }) => file), ["study.html"]);
  await Deno.remove(study, { recursive: true });
  // What only has the name of its mark is as broken as any.
  await Deno.writeTextFile(join(sweep, "sweep.json"), "[]");
  assertEquals((await runs.list()).map(({ status }) => status), ["broken"]);
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
  const run = await fakeRun(folder.path, "r", { steps: 400, settings: { decay: 0.9 } });
  for (let n = 0; n < rows.length; n += 37) {
    await run.append(rows.slice(n, n + 37));
    await runs.view("r");
  }
  const found = (await runs.view("r"))!.overview.signatures.map(({ name, step }) => `${name} ${step}`);
  const expected = signaturesOf(rows, { steps: 400, decay: 0.9, lambdaMin: 0.02, lambdaMax: 5 });
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
  assertEquals((await runs.list()).map(({ name, status, problem }) => [name, status, problem]), [
    ["r", "interrupted", null],
    ["link", "broken", "left out: a symbolic link"],
  ]);
  for (
    const name of [
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
  for (const file of ["summary.json", "report.html"]) {
    await Deno.writeTextFile(join(outside.path, file), '{"secret":1}');
  }
  const link = (await runs.view("link"))!;
  assertEquals(
    link.overview,
    (await runs.list()).find(({ name }) => name === "link"),
    "what is listed is served",
  );
  const detail = await runs.detail(link);
  assertEquals([link.rows, detail.summary, detail.reports, detail.slack_changes], [[], null, [], []]);
  assertEquals(await runs.checkpoints(link), { checkpoints: [], torn: [] });
  assertEquals(await runs.report(link, "report.html"), undefined);
  await assertRejects(() => runs.control(link, { stop: true }), Error, "Cannot steer link");
  // Files that lead elsewhere are not followed.
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

const write = (run: string, file: string, text: string) => Deno.writeTextFile(join(run, file), text);

/** Changes what a file of JSON says. */
async function change(run: string, file: string, edit: (json: Record<string, unknown>) => unknown) {
  await write(run, file, JSON.stringify(edit(JSON.parse(await Deno.readTextFile(join(run, file))))));
}
const state = (run: string, fields: object) =>
  change(run, "state.json", (state) => ({ ...state, ...fields }));

/** Changes what a run's config.json says, under a seal that fits. */
async function configure(run: string, edit: (config: RunConfig) => object) {
  const path = join(run, "config.json");
  await writeSealedJson(path, edit(await readRunConfig(path)));
}
const settings = (run: string, fields: object) =>
  configure(run, ({ settings, ...rest }) => ({ ...rest, settings: { ...settings, ...fields } }));
const sizes = (run: string, fields: object) =>
  configure(
    run,
    ({ model, ...rest }) => ({ ...rest, model: { ...model, config: { ...model.config, ...fields } } }),
  );

const deepJson = (levels: number) => `${"[".repeat(levels)}${"]".repeat(levels)}`;

async function pipe(run: string, file: string) {
  await Deno.remove(join(run, file)).catch(() => {});
  await Deno.mkdir(dirname(join(run, file)), { recursive: true });
  const { success } = await new Deno.Command("mkfifo", { args: [join(run, file)] }).output();
  assert(success);
}

async function loop(run: string, file: string) {
  await Deno.remove(join(run, file)).catch(() => {});
  await Deno.symlink(join(run, file), join(run, file));
}

async function folderAt(run: string, file: string) {
  await Deno.remove(join(run, file)).catch(() => {});
  await Deno.mkdir(join(run, file));
}

/** A file of so many zeros that takes no room. */
async function holes(run: string, file: string, bytes: number) {
  using open = await Deno.open(join(run, file), { write: true, create: true });
  await open.truncate(bytes);
}

async function row(run: string, fields: object) {
  const metrics = await openMetrics(join(run, "metrics.arrows"));
  await metrics.append([{ ...metricRow(9), ...fields }]);
  metrics.close();
}

/** Ways to spoil a run, and what is said of it then; null where it is looked at only where it is shown. */
const SPOILED: [what: string, problem: RegExp | null, spoil: (run: string) => Promise<unknown>][] = [
  ["a state that began at no time", /state\.json is damaged/, (run) => state(run, { since: "yesterday" })],
  ["a state that began beyond any calendar", /state\.json is damaged/, (run) => state(run, { since: 1e300 })],
  ["a state of no name", /state\.json is damaged/, (run) => state(run, { state: "dancing" })],
  ["an error that is no text", /state\.json is damaged/, (run) => state(run, { error: { a: 1 } })],
  ["a state that is a list", /state\.json is damaged/, (run) => write(run, "state.json", "[]")],
  ["a state that is half there", /state\.json is damaged/, (run) => write(run, "state.json", '{"state":')],
  ["a state that is a pipe", /state\.json must be a file: it is a pipe/, (run) => pipe(run, "state.json")],
  ["a state of 3 GB", /state\.json must have at most/, (run) => holes(run, "state.json", 3e9)],
  ["a lock that is a loop of links", /\.lock must be a file: it is a link/, (run) => loop(run, ".lock")],
  ["a lock that is a pipe", /\.lock must be a file: it is a pipe/, (run) => pipe(run, ".lock")],
  ["a lock that is a folder", /\.lock must be a file: it is a folder/, (run) => folderAt(run, ".lock")],
  ["a config that is a pipe", /config\.json must be a file/, (run) => pipe(run, "config.json")],
  ["a config of 3 GB", /config\.json must have at most/, (run) => holes(run, "config.json", 3e9)],
  ["a config without steps", /config\.json is damaged/, (run) => settings(run, { steps: undefined })],
  ["a config whose steps are text", /config\.json is damaged/, (run) => settings(run, { steps: "100" })],
  [
    "a config that is deep",
    /config\.json is damaged/,
    async (run) => {
      const path = join(run, "config.json");
      const text = await Deno.readTextFile(path);
      await Deno.writeTextFile(
        path,
        text.replace('"settings": {', `"settings": { "a": ${deepJson(100_000)},`),
      );
    },
  ],
  ["a model of 1e9 layers", /config\.json is damaged/, (run) => sizes(run, { layers: 1e9 })],
  ["a model without heads", /config\.json is damaged/, (run) => sizes(run, { heads: undefined })],
  ["metrics of 3 GB", /metrics\.arrows must have at most/, (run) => holes(run, "metrics.arrows", 3e9)],
  ["metrics that are a pipe", /metrics\.arrows must be a file/, (run) => pipe(run, "metrics.arrows")],
  ["a row without a phase", /metrics(\.arrows| file) is/, (run) => row(run, { phase: null })],
  ["a row of another phase", /metrics(\.arrows| file) is/, (run) => row(run, { phase: "other" })],
  ["a row without a step", /metrics(\.arrows| file) is/, (run) => row(run, { step: null })],
  ["a row without seconds", /metrics(\.arrows| file) is/, (run) => row(run, { seconds: null })],
  ["a summary that is a list", null, (run) => write(run, "summary.json", "[1]")],
  ["a summary of nulls", null, (run) => write(run, "summary.json", '{"sparse":null,"dense":null}')],
  ["a summary that is deep", null, (run) => write(run, "summary.json", `{"a":${deepJson(100_000)}}`)],
  ["slack that is no list", null, (run) => write(run, "slack.json", '{"changes":3}')],
  ["slack of nulls", null, (run) => write(run, "slack.json", "[null]")],
  ["a control that is a pipe", null, (run) => pipe(run, "control.json")],
  ["a control that is a list", null, (run) => write(run, "control.json", "[3]")],
  ["a checkpoint that is a pipe", null, (run) => pipe(run, "checkpoints/sparse-0000001.safetensors")],
  ["checkpoints that are a file", null, async (run) => {
    await write(run, "checkpoints", "");
  }],
  ["a report that is a pipe", null, (run) => pipe(run, "report.html")],
];

Deno.test("a spoiled run is shown as broken, alone, and can be asked for all that a run has", async () => {
  await using folder = await temporaryFolder();
  await fakeRun(folder.path, "healthy", { live: false, rows: [metricRow(1), metricRow(2)] });
  for (const [what, , spoil] of SPOILED) {
    const run = await fakeRun(folder.path, what.replaceAll(" ", "-"), { live: false, rows: [metricRow(1)] });
    await spoil(run.path);
  }
  for (const runs of [openRuns(folder.path), unhurried(folder.path)]) {
    const found = new Map((await runs.list()).map((overview) => [overview.name, overview]));
    assertEquals(found.size, SPOILED.length + 1);
    const { status, last } = found.get("healthy")!;
    assertEquals([status, last?.step], ["interrupted", 2]);
    for (const [what, complaint] of SPOILED) {
      const name = what.replaceAll(" ", "-");
      const { status, problem } = found.get(name)!;
      if (complaint) {
        assertEquals([status, complaint.test(problem ?? "")], ["broken", true], `${what}: ${problem}`);
      } else assert(status !== "broken", `${what}: ${problem}`);
      const view = (await runs.view(name))!;
      const detail = await runs.detail(view);
      JSON.stringify(detail);
      assertEquals([detail.summary, detail.slack_changes, detail.control], [null, [], {
        paused: false,
        stop: false,
        slack: null,
      }], what);
      assertEquals((await runs.checkpoints(view)).checkpoints, []);
      assertEquals(await runs.report(view, "report.html"), undefined);
    }
  }
});

Deno.test("a run that is spoiled and mended again is whole again", async () => {
  await using folder = await temporaryFolder();
  const runs = unhurried(folder.path);
  const run = await fakeRun(folder.path, "r", { live: false, rows: [metricRow(1)] });
  const seen = async () => {
    const { overview, rows } = (await runs.view("r"))!;
    return [overview.status, rows.map(({ step }) => step)];
  };
  for (const file of ["config.json", "state.json", "metrics.arrows"]) {
    const path = join(run.path, file);
    assertEquals(await seen(), ["interrupted", [1]]);
    const whole = await Deno.readFile(path);
    await write(run.path, file, "no more ".repeat(1000));
    assertEquals((await seen())[0], "broken", file);
    await Deno.writeFile(path, whole);
  }
  assertEquals(await seen(), ["interrupted", [1]]);
});

Deno.test("of a folder with more runs than are listed, those that began last are", async () => {
  await using folder = await temporaryFolder();
  for (let n = 0; n < MOST_RUNS + 200; n++) await Deno.mkdir(join(folder.path, `a${n}`));
  for (let n = 0; n < 1000; n++) await Deno.writeTextFile(join(folder.path, `file ${n}`), "");
  await fakeRun(folder.path, "z", { live: false, rows: [metricRow(1)] });
  const list = await unhurried(folder.path).list();
  assertEquals([list.length, list[0].name, list[0].status], [MOST_RUNS, "z", "interrupted"]);
});

Deno.test("the list does not read again what ended, and sees a run that goes on", async () => {
  await using folder = await temporaryFolder();
  const runs = unhurried(folder.path);
  for (let n = 0; n < 20; n++) await fakeRun(folder.path, `r${n}`, { live: false, rows: [metricRow(1)] });
  await runs.list();
  const opened = new Set<string>();
  const { open } = Deno;
  Deno.open = (path, ...rest) => {
    opened.add(String(path));
    return open(path, ...rest);
  };
  const status = async () => (await runs.list()).find(({ name }) => name === "r7")!.status;
  try {
    assertEquals(await status(), "interrupted");
    assertEquals([...opened].filter((path) => path.endsWith("metrics.arrows")), []);
    const { folder: resumed } = await openRun(folder.path, "r7", "sparsify");
    try {
      assertEquals(await status(), "training");
    } finally {
      resumed.release();
    }
    assertEquals(await status(), "interrupted");
  } finally {
    Deno.open = open;
  }
});

/** What is asked of the disk while something is done: files opened, by their last two names, and paths looked at. */
async function watchingDisk(act: () => Promise<unknown>): Promise<{ opened: string[]; looks: number }> {
  const { open, lstat } = Deno;
  const opened: string[] = [];
  let looks = 0;
  Deno.open = (path, ...rest) => {
    const name = String(path).split("/").slice(-2).join("/");
    // Whether a process is at a run is asked of its lock, which holds nothing.
    if (!name.endsWith("/.lock")) opened.push(name);
    return open(path, ...rest);
  };
  Deno.lstat = (path) => {
    looks++;
    return lstat(path);
  };
  try {
    await act();
  } finally {
    Object.assign(Deno, { open, lstat });
  }
  return { opened: opened.sort(), looks };
}

/** Makes the folder's last change so many seconds old: old enough to be told from the next by its time. */
const settle = (folder: string, seconds = 5) => {
  const time = new Date(Date.now() - 1000 * seconds);
  return Deno.utime(folder, time, time);
};

/** More ended runs than a list looks at again, of which one was chosen at its target. */
async function manyRuns(folder: string): Promise<void> {
  for (let n = 0; n < 120; n++) await fakeRun(folder, `r${n}`, { live: false, rows: [metricRow(1)] });
}

Deno.test("a list opens each file once, then those that changed, and looks at few of the others", async () => {
  await using folder = await temporaryFolder();
  const runs = unhurried(folder.path);
  await manyRuns(folder.path);
  const damaged = await fakeRun(folder.path, "damaged", { live: false });
  await write(damaged.path, "config.json", "no config");
  const live = await fakeRun(folder.path, "live", { rows: [metricRow(1)] });
  const first = await watchingDisk(() => runs.list());
  assertEquals(first.opened.length, new Set(first.opened).size, "no file is opened twice");
  // config.json, state.json and metrics.arrows of each; of the damaged one the metrics cannot be understood.
  assertEquals(first.opened.length, 3 * 121 + 2);
  await settle(folder.path);
  await runs.list();
  const second = await watchingDisk(() => runs.list());
  assertEquals(second.opened, [], "nothing changed");
  assert(second.looks < 50 * 8, `${second.looks} paths were looked at, of 122 runs with five files each`);
  await live.append([metricRow(2)]);
  const third = await watchingDisk(() => runs.list());
  assertEquals(third.opened, ["live/metrics.arrows"]);
  await live.state({ state: "paused" });
  const fourth = await watchingDisk(() => runs.list());
  assertEquals(fourth.opened, ["live/state.json"]);
  live.release();
});

Deno.test("among many runs that ended, one that goes on is seen at once, though none of its files changed", async () => {
  await using folder = await temporaryFolder();
  const runs = unhurried(folder.path);
  await manyRuns(folder.path);
  await settle(folder.path);
  const status = async (name: string) => (await runs.list()).find((run) => run.name === name)?.status;
  // The last of those that would be looked at again.
  assertEquals(await status("r119"), "interrupted");
  await status("r119");
  const { folder: resumed } = await openRun(folder.path, "r119", "sparsify");
  try {
    assertEquals(await status("r119"), "training");
  } finally {
    resumed.release();
  }
  assertEquals(await status("r119"), "interrupted");
  await settle(folder.path);
  await runs.list();
  await Deno.remove(join(folder.path, "r7"), { recursive: true });
  await settle(folder.path, 2);
  assertEquals(await status("r7"), undefined);
});

Deno.test("lists after a run has begun look once at each folder, few at a time, and read that run alone", async () => {
  await using folder = await temporaryFolder();
  const runs = unhurried(folder.path);
  // More than are listed, so that it is asked which began last; most of them are no runs.
  for (let n = 0; n < MOST_RUNS; n++) await Deno.mkdir(join(folder.path, `a${n}`));
  for (let n = 0; n < 20; n++) await fakeRun(folder.path, `r${n}`, { live: false, rows: [metricRow(1)] });
  await settle(folder.path);
  await runs.list();
  await runs.list();
  await fakeRun(folder.path, "z", { live: false, rows: [metricRow(1)] });
  await settle(folder.path, 2);
  let list: RunOverview[] = [];
  const { opened, looks } = await watchingDisk(async () => list = await runs.list());
  assertEquals([list.length, list.some(({ name }) => name === "z")], [MOST_RUNS, true]);
  assertEquals(opened.filter((path) => path.startsWith("z/")).length, 3);
  assert(opened.length < 20, opened.join());
  // One a folder, a few of each that is looked at again, and of the one that began.
  assert(looks < 250 + 11 * 10, `${looks} paths were looked at, of ${MOST_RUNS} runs`);
  let all = looks;
  for (let n = 0; n < 3; n++) all += (await watchingDisk(() => runs.list())).looks;
  assert(all > MOST_RUNS && all < MOST_RUNS + 4 * 60 * 10, `${all} paths were looked at`);
  // Then only what is looked at again in every list.
  assert((await watchingDisk(() => runs.list())).looks < 51 * 10);
});

Deno.test("a run that goes on in the moment in which another begins is seen within a few lists", async () => {
  await using folder = await temporaryFolder();
  const runs = unhurried(folder.path);
  for (let n = 0; n < 600; n++) await Deno.mkdir(join(folder.path, `a${n}`));
  await fakeRun(folder.path, "z", { live: false, rows: [metricRow(1)] });
  await settle(folder.path);
  await runs.list();
  await runs.list();
  const statusOf = async () => (await runs.list()).find(({ name }) => name === "z")?.status;
  // Where nothing came or went, at once: every folder is looked at.
  const { folder: alone } = await openRun(folder.path, "z", "sparsify");
  await settle(folder.path, 4);
  let status: string | undefined;
  const { looks } = await watchingDisk(async () => status = await statusOf());
  assertEquals(status, "training");
  assert(looks >= 600, `${looks} paths were looked at`);
  alone.release();
  assertEquals(await statusOf(), "interrupted");
  const { folder: resumed } = await openRun(folder.path, "z", "sparsify");
  await fakeRun(folder.path, "new", { live: false, rows: [metricRow(1)] });
  await settle(folder.path, 2);
  try {
    const lists: (string | undefined)[] = [];
    for (let n = 0; n < 3; n++) lists.push(await statusOf());
    assertEquals(lists.at(-1), "training", lists.join());
  } finally {
    resumed.release();
  }
});

Deno.test("what another program writes into a run that ended is noticed within a few lists", async () => {
  await using folder = await temporaryFolder();
  const runs = unhurried(folder.path);
  await manyRuns(folder.path);
  await settle(folder.path);
  for (let n = 0; n < 3; n++) await runs.list();
  // In place: the folder's own time stays.
  await state(join(folder.path, "r60"), { state: "failed", error: "Cannot go on" });
  const problems = new Set<string | null>();
  for (let n = 0; n < 3; n++) {
    problems.add((await runs.list()).find(({ name }) => name === "r60")!.problem);
  }
  assert(problems.has("Cannot go on"), [...problems].join());
});

Deno.test("rows of runs that ended are let go once they are listed, and kept where somebody looks", async () => {
  await using folder = await temporaryFolder();
  const runs = unhurried(folder.path);
  for (const name of ["a", "b"]) await fakeRun(folder.path, name, { live: false, rows: [metricRow(1)] });
  await runs.view("a");
  await runs.list();
  const again = await watchingDisk(async () => {
    await runs.view("a");
    await runs.view("b");
  });
  assertEquals(again.opened, ["b/config.json", "b/metrics.arrows", "b/state.json"]);
});

/** A summary of a run of 2 × 2 heads, as far as the server goes by it. */
const summaryOf = (step: number, feasible: boolean) => ({
  dense: { ce: 1.5 },
  control: { ce: 1.25 },
  sparse: { ce: 1.375, open_fraction: 0.0625, step, feasible, open_by_head: [[0, 0.25], [0, 0]] },
  test_tokens: 4096,
});

const evaluated = (step: number, validation_ce: number, open_fraction: number) =>
  metricRow(step, { target: 1.25, validation_ce, open_fraction, open_by_head: [open_fraction, 0, 0, 0] });

Deno.test("whether the target is met, the step that is chosen and the result are those of rows and summary", async () => {
  await using folder = await temporaryFolder();
  const runs = unhurried(folder.path);
  const seen = async () => (await runs.view("r"))!.overview;
  const run = await fakeRun(folder.path, "r", {
    rows: [evaluated(1, 1.25, 0.5), evaluated(2, 1.5, 0.125), metricRow(3)],
    control: true,
  });
  const first = { step: 1, validation_ce: 1.25, open_fraction: 0.5, target: 1.25 };
  assertEquals((await seen()).chosen, first, "fewer open edges above the target are none");
  assertEquals([(await seen()).target_met, (await seen()).result], [null, null], "before the end");
  await run.append([evaluated(4, 1.125, 0.25)]);
  assertEquals((await seen()).chosen?.step, 4);
  // Fewer edges, but of the phase without gates: it has no say.
  await run.append([
    metricRow(1, { phase: "control", validation_ce: 1, open_fraction: 0.0625, constraint: null }),
  ]);
  assertEquals([(await seen()).chosen?.step, (await seen()).evaluation?.step], [4, 4]);
  run.release();
  await write(run.path, "summary.json", JSON.stringify(summaryOf(4, true)));
  const met = await seen();
  assertEquals([met.status, met.target_met, met.chosen?.step], ["finished", true, 4]);
  assertEquals(met.result, {
    kind: "sparsify",
    ce: 1.375,
    open_fraction: 0.0625,
    dense_ce: 1.5,
    control_ce: 1.25,
    test_tokens: 4096,
  });
  await Deno.remove(join(run.path, "summary.json"));
  await write(run.path, "summary.json", JSON.stringify(summaryOf(2, false)));
  const missed = await seen();
  assertEquals([missed.status, missed.target_met], ["finished", false]);
  assertEquals(missed.chosen, { step: 2, validation_ce: 1.5, open_fraction: 0.125, target: 1.25 });
});

Deno.test("a target that was lowered rules out what was chosen before", async () => {
  await using folder = await temporaryFolder();
  const run = await fakeRun(folder.path, "r", {
    live: false,
    rows: [evaluated(1, 1.25, 0.5), metricRow(2, { target: 1, validation_ce: 1.125, open_fraction: 0.25 })],
  });
  assertEquals((await unhurried(folder.path).view("r"))!.overview.chosen, null);
  assert(run);
});

Deno.test("the list says what model a run began with, and which settings are not the defaults", async () => {
  await using folder = await temporaryFolder();
  const run = await fakeRun(folder.path, "r", { live: false, steps: 77 });
  await settings(run.path, { lr: 0.125, model: "data/addition", quiet: true });
  const { model, changed } = (await unhurried(folder.path).view("r"))!.overview;
  assertEquals([model, changed], ["data/addition", { steps: 77, lr: 0.125, data: ["text"], control: false }]);
});

Deno.test("a run of circuits says its task and sizes, and when it ended", async () => {
  await using folder = await temporaryFolder();
  const run = await fakeRun(folder.path, "c", { live: false, command: "circuits" });
  // As the command writes it: without a state and without metrics.
  for (const file of ["state.json", "metrics.arrows"]) await Deno.remove(join(run.path, file));
  const model = (edges: number | null, heads: number | null) => ({
    performance: 0.75,
    able: edges !== null,
    n90_edges: edges,
    n90_heads: heads,
  });
  const models = [{ name: "seed 1\nand more", ...model(114, 9) }, { name: "seed 2", ...model(null, null) }, {
    name: "rubbish",
  }];
  const summary = { task: "copy", models, ratio: null };
  await write(run.path, "summary.json", JSON.stringify(summary));
  const { overview } = (await unhurried(folder.path).view("c"))!;
  assertEquals([overview.status, overview.command, overview.phases], ["finished", "circuits", []]);
  assertEquals(overview.result, {
    kind: "circuits",
    task: "copy",
    models: [
      { name: "seed 1", able: true, performance: 0.75, edges: 114, heads: 9 },
      { name: "seed 2", able: false, performance: 0.75, edges: null, heads: null },
    ],
  });
  assertEquals(overview.target_met, null);
  assertEquals(overview.updated, (await Deno.stat(join(run.path, "summary.json"))).mtime!.toISOString());
});

Deno.test("a run that is about to begin is preparing, and one whose start was broken off is none", async () => {
  await using folder = await temporaryFolder();
  const runs = unhurried(folder.path);
  const start = await createRun(folder.path, "sparsify", "r");
  const { status, problem } = (await runs.view("r"))!.overview;
  assertEquals([status, problem], ["preparing", null]);
  start.release();
  assertEquals((await runs.view("r"))!.overview.status, "broken");
});
