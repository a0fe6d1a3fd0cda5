import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { tableFromIPC } from "apache-arrow";
import { createMetricsReader } from "../../../pipeline/runs/metrics.ts";
import { holdSweep } from "../../../pipeline/sweep/sweep_folder.ts";
import { killWith } from "../../support/kill_with.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { ADDITION, writeTinyModel } from "../../support/tiny_model.ts";

const ROOT = new URL("../../../", import.meta.url).pathname;

function sweep(args: string[], cwd = ROOT): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-check",
      "--quiet",
      "--allow-read",
      "--allow-write",
      "--allow-env",
      "--allow-run=deno",
      `${ROOT}pipeline/sweep/main.ts`,
      ...args,
    ],
    cwd,
    env: {
      NO_COLOR: "1",
      XDG_RUNTIME_DIR: Deno.env.get("XDG_RUNTIME_DIR") ?? "/tmp",
      HF_HUB_OFFLINE: "1",
      // As clusters set it: Deno starts no process with it where it may not start any.
      LD_LIBRARY_PATH: "/usr/lib",
    },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

async function ended(child: Deno.ChildProcess): Promise<{ code: number; stdout: string; stderr: string }> {
  const [{ code }, stdout, stderr] = await Promise.all([
    child.status,
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return { code, stdout, stderr };
}

/** Asks again and again until there is an answer, for as long as a process has not ended. */
async function until<Answer>(
  ask: () => Promise<Answer | undefined>,
  told: Promise<{ stderr: string }>,
): Promise<Answer> {
  let over: { stderr: string } | undefined;
  void told.then((end) => over = end);
  for (;;) {
    const isLast = over !== undefined;
    const answer = await ask().catch(() => undefined);
    if (answer !== undefined) return answer;
    assert(!isLast, over?.stderr);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Waits for the first row of a run's metrics. */
async function firstRow(run: string, told: Promise<{ stderr: string }>): Promise<void> {
  const metrics = createMetricsReader(join(run, "metrics.arrows"));
  await until(async () => (await metrics.read())[0], told);
}

async function tableOf(folder: string): Promise<Record<string, unknown>[]> {
  const table = tableFromIPC(await Deno.readFile(join(folder, "sweep.arrow")));
  return table.toArray().map((row) => row.toJSON());
}

Deno.test("a sweep that is killed goes on to the table that it has without, and names what fails", async () => {
  await using temporary = await temporaryFolder();
  const { path } = temporary;
  await writeTinyModel(join(path, "model"));
  const file = join(path, "tries.json");
  await Deno.writeTextFile(
    file,
    JSON.stringify({
      settings: {
        model: "model",
        data: [ADDITION.data],
        steps: 12,
        batch: 8,
        context: 8,
        control: false,
        evalTokens: 128,
        validationTokens: 128,
        evalEvery: 4,
        checkpointEvery: 2,
        autotune: false,
      },
      list: [{ lr: 1e-3 }, { context: 9 }],
      seeds: [1, 2],
    }),
  );
  // Paths in the file are from where the user stands.
  const one = sweep([file, "--runs", join(path, "whole"), "--jobs", "2", "--json"], path);
  const whole = await ended(one);
  // 3: a bad input, as of the run that failed.
  assertEquals(whole.code, 3, whole.stderr);
  assertStringIncludes(whole.stderr, "2 of 4 runs failed; the rest stands: context-9_seed-1_");
  assertStringIncludes(whole.stderr, "Cannot use a context of 9 as the positions of");
  const { settings } = JSON.parse(whole.stdout.trim().split("\n").at(-1)!);
  assertEquals(settings.map(({ finished }: { finished: number }) => finished), [2, 0]);
  const expected = await tableOf(join(path, "whole/tries"));
  assertEquals(expected.map(({ status }) => status), ["finished", "finished", "failed", "failed"]);
  assert(expected[0].sparse_ce !== expected[1].sparse_ce, "another seed is another run");
  assertStringIncludes(
    await Deno.readTextFile(join(path, "whole/tries/sweep.html")),
    "2 of 4 runs finished, 2 failed.",
  );

  const runs = join(path, "killed");
  const killed = sweep([file, "--runs", runs], path);
  const told = ended(killed);
  const first = String(expected[0].run);
  await firstRow(join(runs, "tries", first), told);
  killed.kill("SIGKILL");
  await told;
  const again = await ended(sweep([file, "--runs", runs, "--quiet"], path));
  assertEquals(again.code, 3, again.stderr);
  assertEquals(await tableOf(join(runs, "tries")), expected);

  // Another file's sweep, and a folder that holds none, are left as they are; so is a folder that there is not.
  await Deno.mkdir(join(path, "elsewhere"));
  await Deno.copyFile(file, join(path, "elsewhere/tries.json"));
  await Deno.mkdir(join(path, "own"));
  await Deno.writeTextFile(join(path, "own/sweep.html"), "precious");
  const refusals: [string[], string][] = [
    [[join(path, "elsewhere/tries.json"), "--runs", runs], "as it is that of"],
    [[file, "--runs", path, "--name", "own"], "holds no sweep: give another --name"],
    [[file, "--runs", runs, "--table", "--name", "never"], "as nothing has been run there"],
    [[file, "--runs", runs, "--only", "0", "--jobs", "2"], "--only and --jobs together"],
    [[file, "--runs", runs, "--slurm", "--table"], "--table and --slurm together"],
    // Which Deno keeps from programs.
    ...(Deno.build.os === "linux"
      ? [
        [
          [file, "--runs", "/proc/x"],
          "Cannot write /proc/x/tries: it is one of the system's own files, which are left alone",
        ] as [string[], string],
      ]
      : []),
  ];
  for (const [args, message] of refusals) {
    const { code, stderr } = await ended(sweep(args, path));
    assertEquals(code, 2, stderr);
    assertStringIncludes(stderr, message);
  }
  assertEquals(await Deno.readTextFile(join(path, "own/sweep.html")), "precious");
  using held = await holdSweep(join(runs, "tries"), { shared: false });
  const second = await ended(sweep([file, "--runs", runs], path));
  assertEquals(second.code, 3);
  assertStringIncludes(second.stderr, "as another process is at it");
  held.unlockSync();

  // What is there is neither run again nor changed.
  const last = await ended(sweep([file, "--runs", runs, "--table"], path));
  assertEquals(await tableOf(join(runs, "tries")), expected);
  assertStringIncludes(last.stdout, "2 of 2");
});

Deno.test({
  name: "a run that is killed from outside is named, and the sweep has failed",
  // Where processes can be found by their command lines.
  ignore: Deno.build.os !== "linux",
  fn: async () => {
    await using temporary = await temporaryFolder();
    const { path } = temporary;
    const file = join(path, "one.json");
    await writeTinyModel(join(path, "model"));
    await Deno.writeTextFile(
      file,
      JSON.stringify({
        settings: {
          model: "./model",
          data: [ADDITION.data],
          steps: 2000,
          batch: 8,
          context: 8,
          autotune: false,
        },
        seeds: [1],
      }),
    );
    const told = ended(sweep([file, "--runs", path, "--name", "kept"], path));
    const name = await until(async () => {
      const entries = await Array.fromAsync(Deno.readDir(join(path, "kept")));
      return entries.find(({ isDirectory }) => isDirectory)?.name;
    }, told);
    await firstRow(join(path, "kept", name), told);
    await killWith(name);
    const { code, stderr } = await told;
    assertEquals(code, 3, stderr);
    assertStringIncludes(stderr, `1 of 1 runs failed; the rest stands: ${name} (stopped, ended with`);
  },
});

Deno.test("a task of a job array runs one run alone, and the script for it is written", async () => {
  await using temporary = await temporaryFolder();
  const { path } = temporary;
  const file = join(path, "array.json");
  await Deno.writeTextFile(file, JSON.stringify({ settings: { model: "./none" }, seeds: [1, 2, 3] }));
  const slurm = await ended(sweep([file, "--runs", path, "--slurm"]));
  assertEquals(slurm.code, 0, slurm.stderr);
  assertStringIncludes(await Deno.readTextFile(join(path, "array/sweep.sbatch")), "--array=0-2");
  const beyond = await ended(sweep([file, "--runs", path, "--only", "3"]));
  assertEquals(beyond.code, 2);
  assertStringIncludes(beyond.stderr, "must be below the 3 runs of the sweep: 3");
  const one = await ended(sweep([file, "--runs", path, "--only", "1", "--quiet"]));
  assertEquals(one.code, 3, one.stderr);
  assertStringIncludes(one.stderr, "1 of 1 runs failed");
  const logs = (await Array.fromAsync(Deno.readDir(join(path, "array")))).map(({ name }) => name)
    .filter((name) => name.endsWith(".log"));
  assertEquals(logs.length, 1);
  assert(logs[0].startsWith("seed-2_"));
});

Deno.test("a sweep without its file, or of a file that is none, is refused in a sentence", async () => {
  const without = await ended(sweep(["--jobs", "2"]));
  assertEquals([without.code, without.stdout], [2, ""]);
  assertStringIncludes(
    without.stderr,
    "error: Cannot sweep without its file: Usage: deno task sweep FILE.json [flags]",
  );
  const none = await ended(sweep(["no-such.json"]));
  assertEquals(none.code, 3);
  assertStringIncludes(none.stderr, "no-such.json");
  const help = await ended(sweep(["--help"]));
  assertStringIncludes(help.stdout, "Usage: deno task sweep FILE.json [flags]");
});
