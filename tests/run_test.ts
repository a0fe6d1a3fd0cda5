import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { temporaryFolder } from "./support/temporary_folder.ts";

/** Runs the runner from the top of the tree. */
async function run(...args: string[]): Promise<{ code: number; lines: string[]; errors: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", "--quiet", "--allow-read", "--allow-run", "tests/run.ts", ...args],
    cwd: new URL("../", import.meta.url).pathname,
    env: { NO_COLOR: "1" },
  }).output();
  const [text, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, lines: text.trim().split("\n"), errors };
}

/** Test files of a folder. */
const FILES = {
  "deep/passes_test.ts":
    `Deno.test("one", () => {}); Deno.test("two", () => console.log("5 passed | 9 failed"));`,
  "fails_test.ts": `Deno.test("three", () => { throw new Error("wrong"); }); Deno.test("four", () => {});`,
  "left_out_test.ts": `Deno.test({ name: "five", ignore: true, fn() {} });`,
  "dies_test.ts": `Deno.test("six", () => Deno.kill(Deno.pid, "SIGKILL"));`,
  "broken_test.ts": `throw new Error("before any test");`,
  "empty_test.ts": ``,
  "helper.ts": `throw new Error("no test");`,
};

Deno.test("test files run each in a process, and every way to fail counts", async () => {
  await using folder = await temporaryFolder();
  await Deno.mkdir(`${folder.path}/deep`);
  for (const [name, text] of Object.entries(FILES)) await Deno.writeTextFile(`${folder.path}/${name}`, text);
  const all = await run(folder.path);
  assertEquals(all.code, 1);
  const failed = /^failed in (.*)$/.exec(all.lines.at(-2)!)![1].split(", ").map((path) =>
    path.split("/").at(-1)
  );
  assertEquals(failed.sort(), ["broken_test.ts", "dies_test.ts", "empty_test.ts", "fails_test.ts"]);
  assertEquals(/^.*ignored/.exec(all.lines.at(-1)!)![0], "3 passed, 4 failed, 1 ignored");
  assertStringIncludes(all.lines.join("\n"), "dies_test.ts was ended by SIGKILL");

  const one = await run(
    "--jobs",
    "1",
    "--filter",
    "two",
    `${folder.path}/deep`,
    `${folder.path}/left_out_test.ts`,
  );
  assertEquals([one.code, /^.*ignored/.exec(one.lines.at(-1)!)![0]], [0, "1 passed, 0 failed, 0 ignored"]);
  assertEquals(
    (await run("--filter", "none", `${folder.path}/deep`)).code,
    1,
    "what tests nothing has not passed",
  );
});

Deno.test("a file that does not end in time is ended and run once more, and what it had said is told", async () => {
  await using folder = await temporaryFolder();
  const seldom = `Deno.test("seven", async () => {
    if (await Deno.stat("${folder.path}/mark").catch(() => undefined)) return;
    await Deno.writeTextFile("${folder.path}/mark", "");
    console.log("asks");
    const { pid } = new Deno.Command("sleep", { args: ["1000"] }).spawn();
    await Deno.writeTextFile("${folder.path}/pid", String(pid));
    await new Promise((done) => setTimeout(done, 1e9));
  });`;
  const [waits, waitsOnce] = ["waits_test.ts", "waits_once_test.ts"].map((name) => `${folder.path}/${name}`);
  await Deno.writeTextFile(waitsOnce, seldom);
  await Deno.writeTextFile(waits, seldom.replace("/mark", "/none"));
  for (const [path, code, count] of [[waitsOnce, 0, "1 passed, 0"], [waits, 1, "0 passed, 1"]] as const) {
    const result = await run("--minutes", "0.2", path);
    assertEquals([result.code, /^.*ignored/.exec(result.lines.at(-1)!)![0]], [
      code,
      `${count} failed, 0 ignored`,
    ]);
    const text = result.lines.join("\n");
    assertStringIncludes(text, "asks");
    assertStringIncludes(text, `${path} had not ended in time\n`);
    assertStringIncludes(text, `run again, as they had not ended in time: ${path}\n`);
    // What it had begun has ended with it.
    const pid = await Deno.readTextFile(`${folder.path}/pid`);
    if (Deno.build.os !== "linux") continue;
    const { stdout } = await new Deno.Command("cat", { args: [`/proc/${pid}/stat`], stderr: "null" })
      .output();
    assertMatch(new TextDecoder().decode(stdout), /^$|\) Z /);
  }
});

Deno.test("what cannot be run is said in one line", async () => {
  for (
    const [args, why] of [
      [["--foo"], "--foo is none of --jobs, --minutes, --filter and --doc"],
      [["--minutes", "soon"], "--minutes is no time: soon"],
      [["--jobs", "0"], "--jobs is no number of processes: 0"],
      [["nosuch"], "No such file or directory"],
    ] as const
  ) {
    const { code, lines, errors } = await run(...args);
    assertEquals([code, lines], [2, [""]]);
    assertStringIncludes(errors, `Cannot test: ${why}`);
    assertEquals(errors.trim().split("\n").length, 1, errors);
  }
});
