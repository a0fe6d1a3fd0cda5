import { assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { readDocuments } from "../../pipeline/text/documents.ts";
import { UserError } from "../../pipeline/errors.ts";
import {
  checkIsFree,
  hashFile,
  readJson,
  readSealedJson,
  readText,
  removeOwn,
  storing,
  writeJson,
  writeSealedJson,
} from "../../pipeline/files.ts";
import { readModelConfig } from "../../pipeline/model/config_file.ts";
import { createRun, openRun, runIsLocked } from "../../pipeline/runs/run_folder.ts";
import { openSafetensors } from "../../pipeline/model/safetensors.ts";
import { loadTokenizer } from "../../pipeline/text/tokenizer.ts";
import { fakeConfig } from "../support/fake_run.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";
import { runMain, writeTinyModel } from "../support/tiny_model.ts";

const linux = { ignore: Deno.build.os !== "linux" };

async function fifo(path: string): Promise<void> {
  const { success } = await new Deno.Command("mkfifo", { args: [path] }).output();
  assertEquals(success, true);
}

/** Everything that reads a file which a user, or another process, may have put there. */
const READERS: Record<string, (path: string) => Promise<unknown>> = {
  "text": (path) => readText(path, 100),
  "JSON": (path) => readJson(path),
  "sealed JSON": (path) => readSealedJson(path),
  "a digest": hashFile,
  "safetensors": openSafetensors,
  "a tokenizer": loadTokenizer,
  "data": (path) => Array.fromAsync(readDocuments([path])),
};

for (const [what, read] of Object.entries(READERS)) {
  Deno.test({
    name: `reading ${what} refuses pipes, devices and loops of links, and waits for nothing`,
    ...linux,
    async fn() {
      await using folder = await temporaryFolder();
      const pipe = join(folder.path, "pipe");
      await fifo(pipe);
      const loop = join(folder.path, "loop");
      await Deno.symlink("loop", loop);
      for (const [path, why] of [[pipe, "a pipe"], ["/dev/zero", "a device"], [loop, "a loop of links"]]) {
        const error = await assertRejects(() => read(path), UserError, why);
        assertEquals(error.exitCode, 3);
      }
    },
  });
}

Deno.test({
  name: "a file of the system that never ends is read as far as its size says",
  ...linux,
  async fn() {
    for (const path of ["/proc/self/pagemap", "/proc/kmsg"]) {
      if (await Deno.stat(path).catch(() => undefined) === undefined) continue;
      await assertRejects(() => Array.fromAsync(readDocuments([path])), UserError);
    }
  },
});

Deno.test("no message quotes what a file holds", async () => {
  await using folder = await temporaryFolder();
  const secret = "root:x:0:0:secret";
  await Deno.writeTextFile(join(folder.path, "config.json"), `${secret}\nmore`);
  await Deno.writeTextFile(join(folder.path, "tokenizer.json"), secret);
  for (
    const read of [
      () => readModelConfig(folder.path),
      () => loadTokenizer(folder.path),
      () => readJson(join(folder.path, "tokenizer.json")),
      () => Array.fromAsync(readDocuments([join(folder.path, "config.json").replace(/json$/, "jsonl")])),
    ]
  ) {
    await Deno.writeTextFile(join(folder.path, "config.jsonl"), secret);
    const { message } = await assertRejects(read, UserError);
    assertEquals([message.includes("root"), message.includes("\n")], [false, false], message);
  }
});

Deno.test("a file larger than what is read of it is refused by its size", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "large.json");
  await Deno.writeTextFile(path, "{}");
  await Deno.truncate(path, 3e9);
  await assertRejects(() => readJson(path), UserError, "must have at most 8388608 bytes: 3000000000");
});

Deno.test("sealed JSON comes back, and is refused when any character of a value is another", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "a.json");
  const value = { lr: 0.001, name: "é", nothing: null, list: [1, -0, 1e21], missing: undefined };
  await writeSealedJson(path, value);
  assertEquals(await readSealedJson(path), { lr: 0.001, name: "é", nothing: null, list: [1, 0, 1e21] });
  const text = await Deno.readTextFile(path);
  for (
    const [from, to] of [["0.001", "0.003"], ["é", "è"], ["null", "0"], ["sha256", "sha257"], [
      "list",
      "lisp",
    ]]
  ) {
    await Deno.writeTextFile(path, text.replace(from, to));
    await assertRejects(() => readSealedJson(path), UserError, "damaged");
  }
  await writeJson(path, value);
  await assertRejects(() => readSealedJson(path), UserError, "damaged");
});

Deno.test("JSON that is deeper than can be written again is refused as any other", async () => {
  await using folder = await temporaryFolder();
  const deep = "[".repeat(200_000) + "]".repeat(200_000);
  const path = join(folder.path, "config.json");
  await Deno.writeTextFile(path, `{"sha256": "0", "deep": ${deep}}`);
  await assertRejects(() => readSealedJson(path), UserError, "damaged");
  await Deno.writeTextFile(path, `{"model_type": ${deep}}`);
  await assertRejects(() => readModelConfig(folder.path), UserError, "model_type must be");
});

Deno.test("a full disk is one sentence with the path and exit code 5, and no other error is taken for one", async () => {
  const full = new Error("No space left on device (os error 28)");
  const error = await assertRejects(() => storing("a/b", () => Promise.reject(full)), UserError);
  assertEquals([error.exitCode, error.message], [5, "Cannot write a/b as the disk is full: make room on it"]);
  const readOnly = new Error("Read-only file system (os error 30)");
  const other = await assertRejects(() => storing("a/b", () => Promise.reject(readOnly)), UserError);
  assertEquals([other.exitCode, other.message], [5, "Cannot write a/b: Read-only file system"]);
  const inTheWay = new Deno.errors.AlreadyExists("File exists (os error 17): mkdir 'a/b'");
  const taken = await assertRejects(() => storing("a/b", () => Promise.reject(inTheWay)), UserError);
  assertEquals([taken.exitCode, taken.message], [2, "Cannot write a/b: File exists"]);
  await using folder = await temporaryFolder();
  const opened = () => Deno.open(folder.path, { write: true, create: true });
  const isFolder = await assertRejects(() => storing(folder.path, opened), UserError);
  if (Deno.build.os !== "windows") assertEquals(isFolder.exitCode, 2, isFolder.message);
  const bug = new TypeError("x");
  assertEquals(await storing("a/b", () => Promise.reject(bug)).catch((thrown) => thrown), bug);
});

Deno.test("a path is free where nothing stands, and one that cannot be looked at is not said to be taken", async () => {
  await using folder = await temporaryFolder();
  const [file, link] = [join(folder.path, "file"), join(folder.path, "link")];
  await Deno.writeTextFile(file, "precious");
  await Deno.symlink(join(folder.path, "nowhere"), link);
  await checkIsFree(join(folder.path, "none", "x"));
  for (const path of [file, link, folder.path]) {
    const { exitCode, message } = await assertRejects(() => checkIsFree(path), UserError);
    assertEquals([exitCode, message.includes("as it is there, and would be lost")], [2, true], message);
  }
  const below = await assertRejects(() => checkIsFree(join(file, "x")), UserError);
  assertEquals([below.exitCode, below.message], [2, `Cannot write ${join(file, "x")}: Not a directory`]);
});

Deno.test({
  ...linux,
  name: "to write where Deno keeps programs from is a bad flag in every command, and no bug",
  fn: async () => {
    await using folder = await temporaryFolder();
    const text = join(folder.path, "text.txt");
    await Deno.writeTextFile(text, "to be or not to be\n".repeat(40));
    const tiny = join(folder.path, "tiny");
    await writeTinyModel(tiny);
    const own = "/dev/null/x";
    const activations = ["--model", tiny, "--data", text, "--read", "blocks.0.hook_resid_pre"];
    const commands: [script: string | undefined, args: string[], env?: Record<string, string>][] = [
      [undefined, ["train-tokenizer", "--data", text, "--output", own]],
      [undefined, ["sparsify", "--model", tiny, "--data", text, "--runs", own]],
      [undefined, ["evaluate", "--model", tiny, "--data", text], { TMPDIR: own }],
      ["pipeline/activations/main.ts", [...activations, "--output", own]],
      ["pipeline/benchmarks/main.ts", ["--task", "passkey", "--model", tiny, "--output", own]],
      ["pipeline/export/main.ts", ["--run", "base", "--runs", folder.path, "--step", "4", "--output", own]],
    ];
    for (const [script, args, env] of commands) {
      const { code, stderr } = await runMain(args, { script, env });
      assertEquals([code, stderr.match(/^error: /gm)?.length], [2, 1], stderr);
      assertMatch(
        stderr,
        /^error: .*\/dev\/null\/x.*: it is one of the system's own files, which are left alone$/m,
      );
    }
  },
});

Deno.test("what is removed is named, and what else is there stays with its folder", async () => {
  await using folder = await temporaryFolder();
  const own = join(folder.path, "own");
  await Deno.mkdir(join(own, "tokens"), { recursive: true });
  await Deno.writeTextFile(join(own, "config.json"), "");
  await Deno.writeTextFile(join(own, "tokens", "train.arrow"), "");
  await Deno.writeTextFile(join(own, "tokens", "notes.txt"), "mine");
  const names = ["config.json", { folder: "tokens", names: [/\.arrow$/] }];
  await removeOwn(own, names);
  assertEquals((await Array.fromAsync(Deno.readDir(own))).map(({ name }) => name), ["tokens"]);
  assertEquals(await Deno.readTextFile(join(own, "tokens", "notes.txt")), "mine");
  await Deno.remove(join(own, "tokens", "notes.txt"));
  await removeOwn(own, names);
  assertEquals(await Deno.stat(own).catch(() => "gone"), "gone");
});

Deno.test({
  name: "a run's lock that is a pipe or a link is neither waited for nor followed",
  ...linux,
  async fn() {
    await using folder = await temporaryFolder();
    const run = await createRun(folder.path, "sparsify", "one");
    await run.begin(fakeConfig("sparsify"));
    run.release();
    const lock = join(run.path, ".lock");
    await Deno.remove(lock);
    await fifo(lock);
    assertEquals(await runIsLocked(run.path), false);
    await assertRejects(() => openRun(folder.path, "one", "sparsify"), UserError, "it is a pipe");
    await Deno.remove(lock);
    await Deno.symlink(join(folder.path, "elsewhere"), lock);
    assertEquals(await runIsLocked(run.path), false);
    const error = await assertRejects(() => openRun(folder.path, "one", "sparsify"), UserError);
    assertStringIncludes(error.message, "it is a link");
    assertEquals(await Deno.stat(join(folder.path, "elsewhere")).catch(() => "not made"), "not made");
  },
});
