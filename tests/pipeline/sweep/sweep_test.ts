import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "node:path";
import { tableFromIPC } from "apache-arrow";
import {
  groupsOf,
  intervalOf,
  logOf,
  rowOf,
  type SweepRow,
  writeSweepTable,
} from "../../../pipeline/sweep/results.ts";
import { sweepHtml } from "../../../pipeline/sweep/page.ts";
import { checkBegun, checkRuns } from "../../../pipeline/sweep/check_runs.ts";
import { type Launched, runSweep } from "../../../pipeline/sweep/run_sweep.ts";
import { slurmScript } from "../../../pipeline/sweep/slurm.ts";
import { type SweepRun, sweepRuns } from "../../../pipeline/sweep/sweep_file.ts";
import { openSweepFolder } from "../../../pipeline/sweep/sweep_folder.ts";
import { UserError } from "../../../pipeline/errors.ts";
import { flagsOf } from "../../../pipeline/flags.ts";
import { readRunConfig, type SettingChange, writeRunConfig } from "../../../pipeline/runs/run_config.ts";
import { SPARSIFY, type SparsifySettings } from "../../../pipeline/settings.ts";
import { resolveSettings } from "../../../pipeline/settings/resolve.ts";
import { fakeRun } from "../../support/fake_run.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { writeTinyModel } from "../../support/tiny_model.ts";
import type { SparsifySummary } from "../../../pipeline/training/sparsify.ts";

const HERE = "/somewhere";
const runsOf = (json: unknown): SweepRun[] => sweepRuns(json, "sweep.json", HERE);

Deno.test("a sweep is its list by its grid by its seeds, and each name tells what varies", () => {
  const runs = runsOf({
    settings: { model: "./toy", steps: 5, control: false },
    list: [{ slack: 0 }, { slack: -0.02, lambdaRate: 0.02 }],
    grid: { lr: [5e-4, 1e-3] },
    seeds: [1, 2],
  });
  assertEquals(runs.length, 8);
  assertEquals(runs.map(({ seed }) => seed), [1, 2, 1, 2, 1, 2, 1, 2]);
  assertEquals(runs[2].varied, { slack: 0, lr: 1e-3 });
  assertEquals(runs[7].varied, { slack: -0.02, lambdaRate: 0.02, lr: 1e-3 });
  assertEquals(runs[7].settings, {
    model: "/somewhere/toy",
    steps: 5,
    control: false,
    slack: -0.02,
    lambdaRate: 0.02,
    lr: 1e-3,
    seed: 2,
  });
  assert(runs[7].name.startsWith("slack--0.02_lambdaRate-0.02_lr-0.001_seed-2_"), runs[7].name);
  assertEquals(new Set(runs.map(({ name }) => name)).size, 8);
  assertEquals(flagsOf(runs[7].settings), [
    "--model=/somewhere/toy",
    "--steps=5",
    "--no-control",
    "--slack=-0.02",
    "--lambda-rate=0.02",
    "--lr=0.001",
    "--seed=2",
  ]);
  // Other common settings are other runs; their order in the file is not.
  const nameOf = (settings: object): string => runsOf({ settings, seeds: [1] })[0].name;
  assertEquals(nameOf({ steps: 5, lr: 1e-3 }), nameOf({ lr: 1e-3, steps: 5 }));
  assert(nameOf({ steps: 5 }) !== nameOf({ steps: 6 }));
  assertEquals(runsOf({}).map(({ settings, seed }) => [settings, seed]), [[{}, undefined]]);
  assertEquals(flagsOf({ data: ["a", "b"] }), ["--data=a", "--data=b"]);
});

Deno.test("what is no sweep is refused in one sentence with field and value", () => {
  const cases: [unknown, string][] = [
    [[], "it must be a JSON object"],
    [{ setings: {} }, "did you mean settings?"],
    [{ settings: { stepz: 3 } }, "unknown key stepz (did you mean steps?)"],
    [{ settings: { runs: "x" } }, "settings must leave to the sweep what is its own"],
    [{ settings: { rankLimit: 3 } }, 'settings must leave out what several have: "rankLimit"'],
    [{ list: [] }, "list must be a list of settings"],
    [{ list: [3] }, "list[0] must be an object of settings"],
    [{ grid: { lr: 3 } }, "grid.lr must be a list of values"],
    [{ grid: { lr: [-1] } }, "lr in grid.lr[0] of sweep.json as it must be above 0: -1"],
    [{ grid: { lr: [1] }, list: [{ lr: 2 }] }, "a setting stands either in list or in grid"],
    [{ settings: { lr: 0.1 }, grid: { lr: [1, 2] } }, 'no effect in settings: "lr"'],
    [
      { settings: { steps: 5, slack: 1 }, list: [{ slack: 2 }, { slack: 3 }] },
      'no effect in settings: "slack"',
    ],
    [{ seeds: [1.5] }, "seed in seeds as it must be a whole number: 1.5"],
    [{ seeds: [] }, "seeds must be a list of numbers"],
    [{ settings: { seed: 3 }, seeds: [1] }, "seeds are named once"],
    [{ seeds: [1, 1] }, "no two of its runs may be the same"],
    [{ grid: { seed: Array.from({ length: 10_001 }, (_, n) => n) } }, "a sweep has 10000 runs at most"],
  ];
  for (const [json, sentence] of cases) assertThrows(() => runsOf(json), Error, sentence);
  // What one entry of the list leaves open is taken from the settings.
  const partly = runsOf({ settings: { slack: 1 }, list: [{ slack: 2 }, { lr: 1e-3 }] });
  assertEquals(partly.map(({ settings }) => settings.slack), [2, 1]);
});

Deno.test("a sweep that a full disk keeps from beginning leaves no folder, and one that was there as it was", async () => {
  await using folder = await temporaryFolder();
  const { open } = Deno;
  const begin = async (sweep: string): Promise<void> => {
    Deno.open = () => Promise.reject(new Error("No space left on device (os error 28)"));
    try {
      const { exitCode } = await assertRejects(
        () => openSweepFolder(sweep, "/tries.json", { make: true }),
        UserError,
        "as the disk is full",
      );
      assertEquals(exitCode, 5);
    } finally {
      Deno.open = open;
    }
  };
  await begin(join(folder.path, "tries"));
  assertEquals(await Array.fromAsync(Deno.readDir(folder.path)), []);
  await Deno.mkdir(join(folder.path, "own"));
  await begin(join(folder.path, "own"));
  assertEquals((await Array.fromAsync(Deno.readDir(folder.path))).map(({ name }) => name), ["own"]);
});

Deno.test("an interval is Student's t over seeds", () => {
  assertEquals(intervalOf([]), null);
  assertEquals(intervalOf([3]), { mean: 3, half: null });
  const { mean, half } = intervalOf([1, 2, 3])!;
  assertEquals(mean, 2);
  // s = 1, t(2 degrees of freedom) = 4.303.
  assert(Math.abs(half! - 4.303 / Math.sqrt(3)) < 1e-12);
});

function summaryOf(
  open: number,
  above: number,
  more: { feasible?: boolean; control?: number } = {},
): SparsifySummary {
  const { feasible = true, control } = more;
  return {
    dense: { ce: 2 },
    control: control === undefined ? null : { ce: control },
    sparse: { ce: 2 + above, open_fraction: open, feasible, step: 5, live_heads: 3 },
    seed: 1,
  } as SparsifySummary;
}

const [FIRST, SECOND, THIRD] = runsOf({ grid: { lr: [1e-3, 2e-3, 3e-3] } });
const row = (run: SweepRun, summary: SparsifySummary | null, error: string | null = null): SweepRow => ({
  run,
  summary,
  error,
  status: summary ? "finished" : error ? "failed" : "stopped",
});

Deno.test("on the front is what no other setting beats in open edges and loss", () => {
  const rows = [
    row(FIRST, summaryOf(0.02, 0.01)),
    row(SECOND, summaryOf(0.03, 0.02)),
    row(THIRD, summaryOf(0.05, -0.01, { feasible: false, control: 1.9 })),
  ];
  const groups = groupsOf(rows);
  // The third missed its target.
  assertEquals(groups.map(({ front }) => front), [true, false, false]);
  assertEquals(groups.map(({ feasible }) => feasible), [1, 1, 0]);
  assert(Math.abs(groups[2].aboveControl!.mean - 0.09) < 1e-12);
  assertEquals(groupsOf([row(FIRST, null)])[0], {
    varied: FIRST.varied,
    rows: [row(FIRST, null)],
    finished: 0,
    feasible: 0,
    open: null,
    above: null,
    aboveControl: null,
    front: false,
  });
});

Deno.test("the page counts its runs, links each finished one, and names those that failed with their errors", () => {
  const rows = [row(FIRST, summaryOf(0.02, 0.01)), row(SECOND, null, "no <such> model"), row(THIRD, null)];
  const page = sweepHtml("tries", rows);
  assertStringIncludes(page, "1 of 3 runs finished, 1 failed, 1 not ended.");
  // Once in the chart and once in the table.
  assertEquals(page.split(`href="${FIRST.name}/report.html"`).length - 1, 2);
  assert(!page.includes(`href="${SECOND.name}`));
  assertStringIncludes(page, `<strong>${SECOND.name}</strong>: no &lt;such&gt; model`);
  assertStringIncludes(page, "2.00 % open, loss +0.0100 against dense, target met");
  assert(!sweepHtml("none", [row(THIRD, null)]).includes("<svg"), "nothing is drawn where nothing finished");
});

Deno.test("the table has a row for each run, with what varies as columns of their own types", async () => {
  const path = await Deno.makeTempFile();
  try {
    const runs = runsOf({ list: [{ recompute: true }, { dtype: "f16" }], seeds: [7] });
    await writeSweepTable(path, [row(runs[0], summaryOf(0.02, 0.01)), row(runs[1], null, "lost")]);
    const table = tableFromIPC(await Deno.readFile(path));
    const [first, second] = table.toArray().map((each) => each.toJSON());
    assertEquals(
      [
        first.run,
        first.status,
        first.seed,
        first.recompute,
        first.dtype,
        first.open_fraction,
        first.feasible,
      ],
      [runs[0].name, "finished", 7, true, null, 0.02, true],
    );
    assertEquals(
      [second.status, second.error, second.recompute, second.dtype, second.open_fraction],
      ["failed", "lost", null, "f16", null],
    );
  } finally {
    await Deno.remove(path);
  }
});

/** Processes that do as they are told, and leave files as runs do. */
function processes(folder: string, outcomes: Record<string, "finishes" | "fails" | "waits">) {
  const launched: string[] = [];
  let most = 0;
  const under = new Set<string>();
  const launch = (run: SweepRun, mode: string): Launched => {
    launched.push(`${mode} ${run.name}`);
    under.add(run.name);
    most = Math.max(most, under.size);
    const write = async (state: string): Promise<void> => {
      await Deno.mkdir(join(folder, run.name), { recursive: true });
      await Deno.writeTextFile(join(folder, run.name, "config.json"), "{}");
      await Deno.writeTextFile(join(folder, run.name, "state.json"), JSON.stringify({ state, error: null }));
      if (state === "finished") {
        await Deno.writeTextFile(join(folder, run.name, "summary.json"), JSON.stringify(summaryOf(0.1, 0)));
      }
    };
    const stopped = Promise.withResolvers<void>();
    const ended = (async () => {
      try {
        if (outcomes[run.name] === "fails") {
          await Deno.writeTextFile(logOf(folder, run), "tokenising\nerror: Cannot do this\n");
          return 3;
        }
        if (outcomes[run.name] === "waits") {
          await write("training");
          await stopped.promise;
          await write("stopped");
          return 130;
        }
        await write("finished");
        return 0;
      } finally {
        under.delete(run.name);
      }
    })();
    return { ended, stop: () => stopped.resolve() };
  };
  return { launch, launched, most: () => most };
}

Deno.test("what failed costs the others nothing, what is finished stays, and what was stopped goes on", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const all = [FIRST, SECOND, THIRD];
    const first = processes(folder, { [SECOND.name]: "fails" });
    const never = new AbortController().signal;
    const rows = await runSweep(all, { runs: folder, jobs: 1, launch: first.launch, signal: never });
    assertEquals(rows.map(({ status }) => status), ["finished", "failed", "finished"]);
    assertEquals(rows[1].error, "Cannot do this");
    assertEquals(first.most(), 1);

    // Begun again, only what failed is tried, from its beginning: it never was a run.
    const stopper = new AbortController();
    const again = processes(folder, { [SECOND.name]: "waits" });
    const stopped = await runSweep(all, {
      runs: folder,
      jobs: 2,
      launch: again.launch,
      signal: stopper.signal,
      onRun: ({ kind }) => kind === "begin" && stopper.abort(),
    });
    assertEquals(again.launched, [`begin ${SECOND.name}`]);
    assertEquals(stopped[1].status, "failed", "its log still says so");
    await Deno.remove(logOf(folder, SECOND));
    assertEquals((await rowOf(folder, SECOND)).status, "stopped");

    const last = processes(folder, {});
    const ended = await runSweep(all, { runs: folder, jobs: 2, launch: last.launch, signal: never });
    assertEquals(last.launched, [`resume ${SECOND.name}`]);
    assertEquals(ended.map(({ status }) => status), ["finished", "finished", "finished"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a run that another process has is waited for, and as many run at a time as are asked for", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.mkdir(join(folder, FIRST.name));
    const lock = await Deno.open(join(folder, FIRST.name, ".lock"), { create: true, write: true });
    await lock.lock(true);
    const { launch, launched, most } = processes(folder, {});
    const kinds: string[] = [];
    const rows = await runSweep([FIRST, SECOND, THIRD], {
      runs: folder,
      jobs: 3,
      launch,
      signal: new AbortController().signal,
      onRun({ row, kind }) {
        kinds.push(`${kind} ${row.run.name}`);
        if (kind === "wait") lock.close();
      },
    });
    assertEquals(rows.map(({ status }) => status), ["finished", "finished", "finished"]);
    assertEquals(kinds.filter((kind) => kind.startsWith("wait")), [`wait ${FIRST.name}`]);
    assertEquals(launched.at(-1), `begin ${FIRST.name}`, "it was free last");
    assert(most() <= 3);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("one at a time, a run that another process has comes last, and the others do not wait for it", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.mkdir(join(folder, FIRST.name));
    const lock = await Deno.open(join(folder, FIRST.name, ".lock"), { create: true, write: true });
    await lock.lock(true);
    const { launch, launched } = processes(folder, {});
    const kinds: string[] = [];
    await runSweep([FIRST, SECOND, THIRD], {
      runs: folder,
      jobs: 1,
      launch,
      signal: new AbortController().signal,
      onRun({ row, kind }) {
        kinds.push(`${kind} ${row.run.name}`);
        // Held until all others have ended.
        if (kind === "end" && row.run === THIRD) lock.close();
      },
    });
    assertEquals(launched, [`begin ${SECOND.name}`, `begin ${THIRD.name}`, `begin ${FIRST.name}`]);
    assertEquals(kinds.filter((kind) => kind.startsWith("wait")), [`wait ${FIRST.name}`]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a run that diverged is named and not run again, as one that failed otherwise is", async () => {
  const folder = await Deno.makeTempDir();
  try {
    for (const [run, diverged] of [[FIRST, true], [SECOND, undefined]] as const) {
      await Deno.mkdir(join(folder, run.name));
      await Deno.writeTextFile(join(folder, run.name, "config.json"), "{}");
      await Deno.writeTextFile(
        join(folder, run.name, "state.json"),
        JSON.stringify({ state: "failed", error: "the gradients were not finite", diverged }),
      );
    }
    const { launch, launched } = processes(folder, {});
    const signal = new AbortController().signal;
    const rows = await runSweep([FIRST, SECOND], { runs: folder, jobs: 1, launch, signal });
    assertEquals(launched, [`resume ${SECOND.name}`]);
    assertEquals(rows.map(({ status }) => status), ["failed", "finished"]);
    assertEquals(rows[0].error, "the gradients were not finite");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("settings that contradict each other are found before anything runs, those of all runs at once", async () => {
  const runs = runsOf({
    settings: { model: "./none" },
    list: [
      { steps: 5 },
      { lambdaMin: 3, lambdaMax: 2 },
      { targetLoss: "control", control: false },
      { rslora: true },
    ],
  });
  const error = await assertRejects(() => checkRuns(runs, "tries.json"), Error);
  for (
    const part of [
      "Cannot run the sweep tries.json as the settings of 3 of its 4 runs contradict themselves",
      `${runs[1].name}: Cannot use --lambda-min as it must be at most --lambda-max 2: 3`,
      `${runs[2].name}: Cannot take the control's loss as the target without a control`,
      `${runs[3].name}: Cannot use --rslora without --lora RANK`,
    ]
  ) assertStringIncludes(error.message, part);
  assert(!error.message.includes(runs[0].name));
  await checkRuns(runs.slice(0, 1), "tries.json");
});

Deno.test("a sweep does not go on where the settings that it leaves open have become others", async () => {
  await using temporary = await temporaryFolder();
  const model = join(temporary.path, "model");
  await writeTinyModel(model);
  const recommend = (settings: object): Promise<void> =>
    Deno.writeTextFile(join(model, "sparsify.json"), JSON.stringify(settings));
  const runs = runsOf({ settings: { model, control: false }, seeds: [1, 2, 3] });
  /** A run as it is once it has begun. */
  async function begin({ name, settings: given }: SweepRun, changes: SettingChange[]): Promise<void> {
    const settings = await resolveSettings(SPARSIFY, {
      given: given as Partial<SparsifySettings>,
      config: undefined,
    });
    const now = Object.fromEntries(changes.map(({ setting, now }) => [setting, now]));
    const path = join((await fakeRun(temporary.path, name, { live: false })).path, "config.json");
    await writeRunConfig(path, {
      ...await readRunConfig(path),
      settings: { ...settings, ...now },
      changes,
    });
  }
  const check = (): Promise<void> => checkBegun(runs, temporary.path, "the sweep tries.json");
  const change = (before: number, now: number): SettingChange => {
    return { setting: "lr", phase: "sparse", step: 1, before, now };
  };
  await recommend({ steps: 200, lr: 2e-3 });
  await check();
  await begin(runs[0], []);
  await begin(runs[1], [change(2e-3, 1e-3), change(1e-3, 5e-4)]);
  await check();
  await recommend({ steps: 140, lr: 2e-3 });
  const { message } = await assertRejects(check, Error);
  assertStringIncludes(
    message,
    "Cannot go on with the sweep tries.json as 2 of its 3 runs began with settings that are others now",
  );
  assertStringIncludes(message, "the defaults: steps 200 (now 140); --table");
  await recommend({ steps: 200, lr: 2e-3, batch: "auto" });
  await check();
  await recommend({ steps: 200, lr: 1e-3 });
  assertStringIncludes(
    (await assertRejects(check, Error)).message,
    "the defaults: lr 0.002 (now 0.001); --table",
  );
});

Deno.test("the script for a job array has a task for each run, and hands the signal on", () => {
  const script = slurmScript({
    name: "tries",
    runs: "/data/runs/tries",
    count: 12,
    command: ["deno", "task", "sweep", "/my files/it's.json"],
    project: "/the project",
  });
  assertStringIncludes(script, "cd '/the project' || exit\n");
  assertThrows(
    () => slurmScript({ name: "x", runs: "/my runs/x", count: 1, command: [], project: "/" }),
    Error,
    "must be without white space: /my runs/x",
  );
  assertStringIncludes(script, "#SBATCH --array=0-11\n");
  assertStringIncludes(script, `deno task sweep '/my files/it'\\''s.json' --only "$SLURM_ARRAY_TASK_ID" &`);
  assertStringIncludes(script, `trap 'kill -TERM "$task"' TERM`);
});
