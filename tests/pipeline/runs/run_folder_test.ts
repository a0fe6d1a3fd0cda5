import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { UserError } from "../../../pipeline/errors.ts";
import { createRun, openRun } from "../../../pipeline/runs/run_folder.ts";
import { fakeConfig } from "../../support/fake_run.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

Deno.test("a run is created once, opened again, and written by one process at a time", async () => {
  await using folder = await temporaryFolder();
  const run = await createRun(folder.path, "sparsify", "one");
  await run.begin(fakeConfig("sparsify"));
  await assertRejects(() => createRun(folder.path, "sparsify", "one"), UserError, "--resume one");
  await assertRejects(() => openRun(folder.path, "one", "sparsify"), UserError, "another process");
  run.release();
  (await openRun(folder.path, "one", "sparsify")).folder.release();
  await assertRejects(() => openRun(folder.path, "two", "sparsify"), UserError, "is no run");
  for (const name of ["../x", "a/b", "", ".hidden", "a b"]) {
    await assertRejects(() => createRun(folder.path, "sparsify", name), UserError, "Cannot name a run");
  }
  const unnamed = await createRun(folder.path, "sparsify");
  assert(/^sparsify-\d{8}-\d{6}$/.test(unnamed.name));
  unnamed.release();
});

Deno.test("of a name that is taken --resume is told where it goes on with that run, and nowhere else", async () => {
  await using folder = await temporaryFolder();
  for (const command of ["sparsify", "pretrain", "circuits"]) {
    const run = await createRun(folder.path, command, command);
    await run.begin(fakeConfig(command));
    run.release();
  }
  const told = async (command: string, name: string): Promise<string> => {
    const path = join(folder.path, name);
    const { exitCode, message } = await assertRejects(() => createRun(folder.path, command, name), UserError);
    const [before, behind] = [`Cannot create run ${name} as ${path} is there: `, "use another --name"];
    assertEquals([exitCode, message.startsWith(before), message.endsWith(behind)], [2, true, true], message);
    return message.slice(before.length, -behind.length);
  };
  const goOn = (name: string): string => `go on with it by --resume ${name} --runs ${folder.path}, or `;
  for (const name of ["sparsify", "pretrain", "circuits"]) {
    for (const command of ["sparsify", "pretrain", "circuits"]) {
      assertEquals(await told(command, name), command === name && name !== "circuits" ? goOn(name) : "");
    }
  }
  await Deno.writeTextFile(join(folder.path, "sparsify", "summary.json"), "{}");
  assertEquals(await told("sparsify", "sparsify"), "");
});

Deno.test("a folder that a process killed at its start left behind can be used", async () => {
  await using folder = await temporaryFolder();
  await Deno.mkdir(join(folder.path, "one"));
  (await createRun(folder.path, "sparsify", "one")).release();
});

Deno.test("what is put into a start while it is abandoned goes with it, and what is not a start's own stays", async () => {
  await using folder = await temporaryFolder();
  for (const [name, left] of [["own", []], ["other", ["other"]]] as const) {
    const run = await createRun(folder.path, "sparsify", name);
    // As tokenising does: a folder, and a file in it; and another rank its log.
    const { remove } = Deno;
    Deno.remove = async (path, options) => {
      if (path === run.path) {
        Deno.remove = remove;
        await Deno.mkdir(run.tokens);
        await Deno.writeTextFile(join(run.path, "rank-1.log"), "");
        if (name === "other") await Deno.writeTextFile(join(run.path, "notes.txt"), "mine");
      }
      await remove(path, options);
    };
    try {
      await run.abandon();
    } finally {
      Deno.remove = remove;
    }
    const there = (await Array.fromAsync(Deno.readDir(folder.path))).map(({ name }) => name);
    assertEquals(there, [...left]);
  }
  assertEquals(await Deno.readTextFile(join(folder.path, "other", "notes.txt")), "mine");
});

Deno.test("of two starts under one name only one begins, also where the first is abandoned meanwhile", async () => {
  await using folder = await temporaryFolder();
  for (let n = 0; n < 20; n++) {
    const name = `run-${n}`;
    const first = await createRun(folder.path, "sparsify", name);
    const second = createRun(folder.path, "sparsify", name).then((run) => run, (error) => error);
    for (let turn = 0; turn < n; turn++) await new Promise((resolve) => setTimeout(resolve));
    await first.abandon();
    const run = await second;
    if (run instanceof Error) {
      assert(run instanceof UserError, String(run));
      continue;
    }
    await run.begin(fakeConfig("sparsify"));
    await assertRejects(() => openRun(folder.path, name, "sparsify"), UserError, "another process");
    run.release();
  }
});

Deno.test("a run whose folders lead elsewhere is not written", async () => {
  await using folder = await temporaryFolder();
  const run = await createRun(folder.path, "sparsify", "one");
  await run.begin(fakeConfig("sparsify"));
  run.release();
  for (const own of [run.checkpoints, run.tokens, run.model, run.metrics]) {
    await Deno.symlink(folder.path, own);
    await assertRejects(() => openRun(folder.path, "one", "sparsify"), UserError, "is a link, which is not");
    await Deno.remove(own);
  }
  (await openRun(folder.path, "one", "sparsify")).folder.release();
});

Deno.test("a run whose folder was moved, removed or replaced is told so", async () => {
  await using folder = await temporaryFolder();
  const run = await createRun(folder.path, "sparsify", "one");
  await run.begin(fakeConfig("sparsify"));
  await run.check();
  const elsewhere = join(folder.path, "two");
  await Deno.rename(run.path, elsewhere);
  await assertRejects(
    () => run.check(),
    UserError,
    `Cannot save run one as ${run.path} was moved or removed`,
  );
  await Deno.mkdir(run.path);
  await assertRejects(() => run.check(), UserError, "was moved or removed");
  await Deno.remove(run.path);
  await Deno.rename(elsewhere, run.path);
  await run.check();
  run.release();
});

Deno.test("runs without a name that begin in the same second get different folders", async () => {
  await using folder = await temporaryFolder();
  const runs = await Promise.all(Array.from({ length: 4 }, () => createRun(folder.path, "sparsify")));
  assertEquals(new Set(runs.map(({ path }) => path)).size, 4);
  for (const run of runs) run.release();
});

Deno.test("a place for runs that is no folder is refused in one line", async () => {
  await using folder = await temporaryFolder();
  const file = join(folder.path, "file");
  await Deno.writeTextFile(file, "");
  for (const name of ["one", undefined]) {
    const error = await assertRejects(() => createRun(file, "sparsify", name), UserError, file);
    assertEquals([error.exitCode, error.message.includes("\n")], [2, false]);
  }
});

Deno.test("a disk for runs that cannot be written is exit code 5, as it is where anything else is written", async () => {
  await using folder = await temporaryFolder();
  const { mkdir } = Deno;
  Deno.mkdir = () => Promise.reject(new Error("Read-only file system (os error 30): mkdir"));
  try {
    const { exitCode, message } = await assertRejects(
      () => createRun(folder.path, "sparsify", "one"),
      UserError,
    );
    assertEquals([exitCode, message], [5, `Cannot write ${folder.path}: Read-only file system`]);
  } finally {
    Deno.mkdir = mkdir;
  }
});

Deno.test("kill -9 of the process that writes a run lets another go on with it", async () => {
  await using folder = await temporaryFolder();
  const module = new URL("../../../pipeline/runs/run_folder.ts", import.meta.url);
  const holder = new Deno.Command(Deno.execPath(), {
    args: [
      "eval",
      "--no-check",
      `import { createRun } from ${JSON.stringify(module.href)};
       const run = await createRun(${JSON.stringify(folder.path)}, "sparsify", "one");
       await run.begin(${JSON.stringify(fakeConfig("sparsify"))});
       console.log("locked");
       setInterval(() => {}, 1000);`,
    ],
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const reader = holder.stdout.getReader();
  await reader.read();
  await assertRejects(() => openRun(folder.path, "one", "sparsify"), UserError, "another process");
  holder.kill("SIGKILL");
  await holder.status;
  await reader.cancel();
  (await openRun(folder.path, "one", "sparsify")).folder.release();
});
