import { tmpdir } from "node:os";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { AdapterError } from "../../kernels/core/gpu_adapters.ts";
import { DeviceError } from "../../kernels/core/device.ts";
import { describeError, isInteractive } from "../../pipeline/command_line.ts";
import { inputError, usageError } from "../../pipeline/errors.ts";

Deno.test("each kind of error has its exit code, and only a bug is called one", () => {
  for (
    const [error, exitCode, bug] of [
      [usageError("x"), 2, false],
      [inputError("x"), 3, false],
      [new AdapterError("x"), 4, false],
      [new DeviceError("x"), 5, false],
      [new Error("No space left on device (os error 28)"), 5, false],
      [new TypeError("x"), 1, true],
      ["x", 1, true],
    ] as [unknown, number, boolean][]
  ) {
    const described = describeError(error);
    assertEquals(
      [described.exitCode, described.message.includes("is a bug")],
      [exitCode, bug],
      String(error),
    );
  }
});

Deno.test({
  name: "what Mesa reads of the environment is set where nobody has set it",
  ignore: Deno.build.os !== "linux",
  fn: async () => {
    const module = new URL("../../pipeline/command_line.ts", import.meta.url).href;
    const body = `import { prepareMesa } from "${module}";
      prepareMesa();
      console.log(["XDG_RUNTIME_DIR", "LP_NUM_THREADS"].map((name) => Deno.env.get(name)).join());`;
    const of = async (folder: string, threads: string) => {
      const env = { XDG_RUNTIME_DIR: folder, LP_NUM_THREADS: threads };
      const command = new Deno.Command(Deno.execPath(), { args: ["eval", "--no-check", body], env });
      return new TextDecoder().decode((await command.output()).stdout).trim();
    };
    assertEquals(await of("", ""), `${tmpdir()},${2 * navigator.hardwareConcurrency}`);
    assertEquals(await of("/else", "1"), "/else,1");
  },
});

Deno.test("a hang-up is heeded, but not by a process that was started to outlive it", async () => {
  const module = new URL("../../pipeline/command_line.ts", import.meta.url).href;
  const body = `import { stopSignal } from "${module}";
    stopSignal(() => { console.log("stopping"); Deno.exit(7); });
    const arrived = new Promise((resolve) => Deno.addSignalListener("SIGHUP", resolve));
    Deno.kill(Deno.pid, "SIGHUP");
    await arrived;
    for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setTimeout(resolve));
    console.log("goes on");
    Deno.exit(0);`;
  const run = async (shell: string) => {
    const args = ["-c", `${shell} exec "$0" eval --no-check "$1"`, Deno.execPath(), body];
    const { code, stdout } = await new Deno.Command("sh", { args }).output();
    return [code, new TextDecoder().decode(stdout).trim()];
  };
  if (Deno.build.os === "windows") return;
  assertEquals(await run(""), [7, "stopping"]);
  // As nohup does where standard input is a terminal.
  assertEquals(await run("exec 0>/dev/null;"), [0, "goes on"]);
});

Deno.test("a signal that comes twice at once, as deno task passes it on, is one wish to stop", async () => {
  if (Deno.build.os === "windows") return;
  const module = new URL("../../pipeline/command_line.ts", import.meta.url).href;
  const body = `import { stopSignal } from "${module}";
    const signal = stopSignal(() => console.log("stopping"));
    setInterval(() => {}, 1000);
    for (let n = 0; n < 3; n++) Deno.kill(Deno.pid, "SIGINT");
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setTimeout(resolve));
    console.log("saved");
    Deno.exit(0);`;
  const { code, stdout } = await new Deno.Command(Deno.execPath(), { args: ["eval", "--no-check", body] })
    .output();
  assertEquals([code, new TextDecoder().decode(stdout)], [0, "stopping\nsaved\n"]);
});

Deno.test("who listens for a wish to stop is not ended by a file that outgrows its limit", async () => {
  if (Deno.build.os === "windows") return;
  const module = new URL("../../pipeline/command_line.ts", import.meta.url).href;
  const body = `import { stopSignal } from "${module}";
    stopSignal(() => {});
    Deno.kill(Deno.pid, "SIGXFSZ");
    for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setTimeout(resolve));
    console.log("goes on");
    Deno.exit(0);`;
  const { code, stdout } = await new Deno.Command(Deno.execPath(), { args: ["eval", "--no-check", body] })
    .output();
  assertEquals([code, new TextDecoder().decode(stdout)], [0, "goes on\n"]);
});

/** Runs a command whose body is `body` in a process of its own. */
async function outcome(body: string, debug = false): Promise<{ code: number; stderr: string }> {
  const pipeline = new URL("../../pipeline/", import.meta.url).href;
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "eval",
      "--no-check",
      `import { runCommand } from "${pipeline}command_line.ts";
       import { usageError } from "${pipeline}errors.ts";
       await runCommand(async () => { ${body} }, { debug: ${debug} });`,
    ],
    env: { NO_COLOR: "1" },
  }).output();
  return { code, stderr: new TextDecoder().decode(stderr) };
}

Deno.test("an error is one line, with its stack only for --debug", async () => {
  const [user, bug, debug] = await Promise.all([
    outcome(`throw usageError("Cannot go on")`),
    outcome(`throw new TypeError("of ours\\nsecond line")`),
    outcome(`throw new TypeError("of ours")`, true),
  ]);
  assertEquals(user, { code: 2, stderr: "error: Cannot go on\n" });
  assertEquals(bug.code, 1);
  assertEquals(bug.stderr.trimEnd().split("\n").length, 1, bug.stderr);
  assertMatch(bug.stderr, /^error: TypeError: of ours.*--debug/);
  assertStringIncludes(debug.stderr, "    at ");
});

Deno.test("a command whose reader has left ends without a word, and not as a success", async () => {
  const { code, stderr } = await outcome(`throw new Deno.errors.BrokenPipe("pipe")`);
  assertEquals([code, stderr], [141, ""]);
  assert((await outcome("")).code === 0);
});

Deno.test("a line is written anew on a terminal, and never on one that is dumb", () => {
  const { isTerminal } = Deno.stderr;
  const before = Deno.env.get("TERM");
  try {
    for (
      const [isOne, term, wanted] of [[true, "xterm", true], [true, "dumb", false], [
        false,
        "xterm",
        false,
      ]] as const
    ) {
      Deno.stderr.isTerminal = () => isOne;
      Deno.env.set("TERM", term);
      assertEquals(isInteractive(), wanted, `${isOne}, ${term}`);
    }
  } finally {
    Deno.stderr.isTerminal = isTerminal;
    if (before === undefined) Deno.env.delete("TERM");
    else Deno.env.set("TERM", before);
  }
});
