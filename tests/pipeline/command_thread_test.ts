/** A command in its thread: it is heard and stopped while it holds its thread, and what it says comes in order. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { stoppingText } from "../../pipeline/command_thread.ts";
import { exists } from "../../pipeline/files.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";

const MODULE = new URL("../../pipeline/command_thread.ts", import.meta.url).href;
const ERRORS = new URL("../../pipeline/errors.ts", import.meta.url).href;

/** How a process is met: once its standard error has `when`, `then` is called, and then what is next. */
type Events = { when: string; then(child: Deno.ChildProcess): void }[];

/** Runs a command whose thread does `body`, in a process of its own. */
async function run(
  body: string,
  { events = [], debug = false, env = {}, fileLimit = false }: {
    events?: Events;
    debug?: boolean;
    env?: Record<string, string>;
    /** Under a limit on the size of files, of 4 or 8 MiB, as the shell counts. */
    fileLimit?: boolean;
  } = {},
): Promise<{ code: number; stdout: string; stderr: string }> {
  await using folder = await temporaryFolder();
  const script = join(folder.path, "command.ts");
  await Deno.writeTextFile(
    script,
    `import { inCommandThread, performCommand, superviseCommand } from "${MODULE}";
     import { usageError } from "${ERRORS}";
     /** Holds the thread, as a driver does, for a minute at most. */
     const hold = (until: () => boolean) => {
       const from = performance.now();
       while (!until() && performance.now() - from < 60_000) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
     };
     const there = (path: string): boolean => {
       try { return Deno.statSync(path).isFile; } catch { return false; }
     };
     if (inCommandThread()) performCommand(async (thread) => { ${body} }, { debug: ${debug} });
     else await superviseCommand(import.meta.url);`,
  );
  const args = ["run", "--no-check", "--quiet", "-A", script];
  const limited = ["-c", 'ulimit -f 8192 && exec "$0" "$@"', Deno.execPath(), ...args];
  const child = new Deno.Command(fileLimit ? "sh" : Deno.execPath(), {
    args: fileLimit ? limited : args,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    // What Deno keeps of all programs may be larger than the limit.
    env: { NO_COLOR: "1", ...fileLimit ? { DENO_DIR: join(folder.path, "deno") } : {}, ...env },
  }).spawn();
  const left = [...events];
  let stderr = "";
  const listen = async (): Promise<void> => {
    for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
      stderr += text;
      while (left.length > 0 && stderr.includes(left[0].when)) left.shift()!.then(child);
    }
  };
  const [{ code }, stdout] = await Promise.all([child.status, new Response(child.stdout).text(), listen()]);
  assertEquals(left.map(({ when }) => when), [], `not said: ${stderr}`);
  return { code, stdout, stderr };
}

const send = (signal: Deno.Signal) => (child: Deno.ChildProcess): void => child.kill(signal);

Deno.test("the exit code and the one line of an error come from the thread, with its stack only for --debug", async () => {
  const [done, user, bug, debug, pipe] = await Promise.all([
    run(`thread.print("result"); return true;`),
    run(`throw usageError("Cannot go on");`),
    run(`throw new TypeError("of ours\\nsecond line");`),
    run(`throw new TypeError("of ours");`, { debug: true }),
    run(`throw new Deno.errors.BrokenPipe("pipe");`),
  ]);
  assertEquals(done, { code: 0, stdout: "result\n", stderr: "" });
  assertEquals(user, { code: 2, stdout: "", stderr: "error: Cannot go on\n" });
  assertEquals(bug.code, 1);
  assertMatch(bug.stderr, /^error: TypeError: of ours second line.*--debug.*\n$/);
  assertStringIncludes(debug.stderr, "    at ");
  assertEquals([pipe.code, pipe.stderr], [141, ""]);
});

Deno.test({
  name:
    "a file that outgrows its limit is an error with its path, and does not end the command without a word",
  ignore: Deno.build.os === "windows",
  fn: async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "large");
    const { code, stderr } = await run(
      `const { writeNew } = await import("${new URL("../../pipeline/files.ts", import.meta.url).href}");
       await writeNew(${JSON.stringify(path)}, new Uint8Array(16 << 20));
       return true;`,
      { fileLimit: true },
    );
    assertEquals([code, stderr], [5, `error: Cannot write ${path}: File too large\n`]);
    assertEquals(await Array.fromAsync(Deno.readDir(folder.path)), []);
  },
});

Deno.test("what is written comes as it is, between lines that are printed", async () => {
  const { code, stdout, stderr } = await run(
    `thread.reporter.activity({ name: "reading" });
     thread.print("a title:");
     thread.write("one ");
     thread.write("日本\\n");
     thread.print("the end");
     return true;`,
  );
  assertEquals([code, stdout, stderr], [0, "a title:\none 日本\nthe end\n", ""]);
});

Deno.test("what is to be removed where a command is stopped stays where it fails or ends", async () => {
  await using folder = await temporaryFolder();
  const output = join(folder.path, "output");
  await Deno.mkdir(output);
  for (const end of [`throw usageError("Cannot go on");`, "return true;"]) {
    await run(`thread.removeIfStopped(${JSON.stringify(output)}, { recursive: true });
       ${end}`);
    assert(await exists(output), end);
  }
});

Deno.test("a fault that nobody waits for ends the command as a bug", async () => {
  const { code, stderr } = await run(
    `setTimeout(() => { throw new Error("late"); }); await new Promise(() => {});`,
  );
  assertEquals(code, 1, stderr);
  assertStringIncludes(stderr, "late (this is a bug; --debug shows where)");
});

Deno.test("what goes on is said while the thread is held, off a terminal too, but not to the quiet", async () => {
  await using folder = await temporaryFolder();
  const heard = join(folder.path, "heard");
  const { code, stderr } = await run(
    `thread.reporter.activity({ name: "compiling kernels" });
     hold(() => there(${JSON.stringify(heard)}));
     thread.reporter.message("compiled");
     return true;`,
    { events: [{ when: "compiling kernels  ", then: () => Deno.writeTextFileSync(heard, "") }] },
  );
  assertEquals(code, 0, stderr);
  assertMatch(stderr, /compiling kernels {2}\d+s\n(.*\n)*compiled\n$/);
  const quiet = await run(
    `thread.beQuiet();
     thread.reporter.activity({ name: "compiling kernels" });
     thread.reporter.message("compiled");
     thread.reporter.warning("look");
     return true;`,
  );
  assertEquals(quiet.stderr, "warning: look\n");
});

if (Deno.build.os !== "windows") {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    Deno.test(`${signal} ends a held thread that has nothing to save, and says what is stopped`, async () => {
      await using folder = await temporaryFolder();
      const { code, stderr } = await run(
        `const folder = await thread.temporaryFolder();
         await Deno.writeTextFile(folder.path + "/tokens", "");
         const output = Deno.env.get("TMPDIR") + "/output.partial";
         await Deno.mkdir(output);
         await Deno.writeTextFile(output + "/shard", "");
         thread.removeIfStopped(output + " that is not there");
         thread.removeIfStopped(output, { recursive: true });
         thread.goOnBy("deno task sparsify --resume run");
         thread.reporter.activity({ name: "measuring the dense model", done: 2, of: 16 });
         thread.reporter.message("begun");
         hold(() => false);
         throw new Error("not stopped");`,
        { events: [{ when: "begun", then: send(signal) }], env: { TMPDIR: folder.path } },
      );
      assertEquals(code, 130, stderr);
      assertStringIncludes(stderr, "stopping: measuring the dense model at 2 of 16\n");
      assertStringIncludes(stderr, "stopped; go on by: deno task sparsify --resume run\n");
      assertEquals(await Array.fromAsync(Deno.readDir(folder.path)), []);
    });
  }

  Deno.test("stopped within a line of its result, it ends the line and goes on after no beginning", async () => {
    const { code, stdout, stderr } = await run(
      `thread.write("one two");
       thread.reporter.message("begun");
       hold(() => false);
       throw new Error("not stopped");`,
      { events: [{ when: "begun", then: send("SIGINT") }] },
    );
    assertEquals([code, stdout, stderr], [130, "one two\n", "begun\nstopping\nstopped\n"]);
  });

  Deno.test("what is worth saving is waited for, however often the signal comes at once", async () => {
    await using folder = await temporaryFolder();
    const saved = join(folder.path, "saved");
    const { code, stderr } = await run(
      `thread.reporter.activity({ name: "sparse", done: 2, of: 16, keep: true });
       thread.reporter.message("begun");
       await new Promise((resolve) => thread.signal.addEventListener("abort", resolve));
       const from = performance.now();
       hold(() => performance.now() - from > 2500);
       await Deno.writeTextFile(${JSON.stringify(saved)}, "whole");
       return false;`,
      {
        events: [{
          when: "begun",
          then(child) {
            for (const signal of ["SIGINT", "SIGTERM"] as const) child.kill(signal);
          },
        }],
      },
    );
    assertEquals(code, 130, stderr);
    assertStringIncludes(stderr, "stopping sparse at 2 of 16: what is under way is saved first");
    assertEquals(stderr.split("stopping").length, 2);
    assertEquals(await Deno.readTextFile(saved).catch(() => "not saved"), "whole");
  });

  Deno.test("a second wish to stop, later than the first, does not wait for what is saved", async () => {
    const { code } = await run(
      `thread.reporter.activity({ name: "sparse", done: 2, of: 16, keep: true });
       thread.reporter.message("begun");
       hold(() => false);`,
      {
        events: [
          { when: "begun", then: send("SIGINT") },
          {
            when: "stopping sparse",
            then(child) {
              setTimeout(() => child.kill("SIGINT"), 1500);
            },
          },
        ],
      },
    );
    assertEquals(code, 130);
  });
}

Deno.test("what is being stopped is named by its activity", () => {
  assertEquals(stoppingText(undefined), "stopping at the start");
  assertEquals(stoppingText(undefined, true), "stopping");
  assertEquals(stoppingText({ name: "tokenising", bytes: true, done: 1, of: 2 }), "stopping: tokenising");
  assertEquals(stoppingText({ name: "evaluating", done: 1, of: 2 }), "stopping: evaluating at 1 of 2");
});
