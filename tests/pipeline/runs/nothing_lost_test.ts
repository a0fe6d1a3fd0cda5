/** What a user has in a folder stays there, whatever a command is told to do with it. */
import { gpt2Config } from "../../../pipeline/model/config.ts";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { saveCheckpoint } from "../../../pipeline/runs/checkpoint.ts";
import { hashFile } from "../../../pipeline/files.ts";
import { saveModel } from "../../../pipeline/model/save_weights.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { ADDITION, type CommandOptions, runMain, writeTinyModel } from "../../support/tiny_model.ts";

const CIRCUITS: CommandOptions = { script: "pipeline/circuits/main.ts" };
const SHORT = ["--context", "8", "--batch", "16", "--steps", "1", "--no-control", "--no-autotune"];

/** Every file below a folder with its digest, and every link and folder. */
async function contentOf(folder: string): Promise<Record<string, string>> {
  const content: Record<string, string> = {};
  for await (const { name, isDirectory, isSymlink } of Deno.readDir(folder)) {
    const path = join(folder, name);
    if (isSymlink) content[name] = `link to ${await Deno.readLink(path)}`;
    else if (isDirectory) {
      content[name] = "folder";
      for (const [inner, what] of Object.entries(await contentOf(path))) content[join(name, inner)] = what;
    } else content[name] = await hashFile(path);
  }
  return content;
}

/** A user's folder with files of the names that a run writes, and others. */
async function writeThesis(folder: string): Promise<void> {
  await Deno.mkdir(join(folder, "model"), { recursive: true });
  await Deno.mkdir(join(folder, "checkpoints"));
  await Deno.mkdir(join(folder, "tokens"));
  for (
    const name of [
      "chapter.txt",
      ".start",
      ".lock",
      "state.json",
      "summary.json",
      "circuits.json",
      "circuits.html",
      "model/model.safetensors",
      "checkpoints/best.partial",
      "checkpoints/sparse-0000001.safetensors",
      "tokens/train.arrow",
    ]
  ) await Deno.writeTextFile(join(folder, name), `my ${name}`);
  await Deno.symlink("chapter.txt", join(folder, "edges.arrow"));
}

Deno.test("a command that is given the name of a user's folder changes nothing in it, with bad data or good", async () => {
  await using folder = await temporaryFolder();
  const model = join(folder.path, "tiny");
  await writeTinyModel(model);
  const thesis = join(folder.path, "thesis");
  await writeThesis(thesis);
  const bad = join(folder.path, "bad.jsonl");
  await Deno.writeTextFile(bad, "no JSON\n");
  const vocabulary = join(folder.path, "vocabulary.json");
  await Deno.writeTextFile(vocabulary, "mine");
  await Deno.writeTextFile(vocabulary + ".partial", "mine too");
  const before = await contentOf(folder.path);
  const named = ["--runs", folder.path, "--name", "thesis"];
  for (
    const [args, options] of [
      [["sparsify", "--model", model, "--data", bad, ...SHORT, ...named], {}],
      [["sparsify", "--model", model, "--data", ADDITION.data, ...SHORT, ...named], {}],
      [["pretrain", "--tokenizer", ADDITION.tokenizer, "--data", ADDITION.data, ...named], {}],
      [["--task", "addition", "--model", "data/addition", "--prompts", "4", ...named], CIRCUITS],
      [["sparsify", "--resume", "thesis", "--runs", folder.path], {}],
      [["train-tokenizer", "--data", ADDITION.data, "--vocabulary", "260", "--output", vocabulary], {}],
      [["train-tokenizer", "--data", bad, "--vocabulary", "260", "--output", bad], {}],
      [["sparsify", "--resume", "tiny", "--runs", folder.path], {}],
    ] as [string[], CommandOptions][]
  ) {
    const { code, stderr } = await runMain(args, options);
    assert(code === 2 || code === 3, stderr);
    assertEquals(await contentOf(folder.path), before, args.join(" "));
  }
});

Deno.test("a run that cannot begin removes what it wrote and nothing else, also where its folder was there", async () => {
  await using folder = await temporaryFolder();
  const model = join(folder.path, "tiny");
  await writeTinyModel(model);
  const bad = join(folder.path, "bad.jsonl");
  await Deno.writeTextFile(bad, '{"text": "12"}\nno JSON\n');
  await Deno.mkdir(join(folder.path, "empty"));
  const before = await contentOf(folder.path);
  for (const name of ["empty", "new"]) {
    const args = [
      "sparsify",
      "--model",
      model,
      "--data",
      bad,
      ...SHORT,
      "--runs",
      folder.path,
      "--name",
      name,
    ];
    const { code, stderr } = await runMain(args);
    assertEquals(code, 3, stderr);
    assertStringIncludes(stderr, "line 2");
    assertEquals(await contentOf(folder.path), before, name);
  }
});

Deno.test("a folder of the user's is not replaced by a model, nor are its neighbours of a temporary name", async () => {
  await using folder = await temporaryFolder();
  await writeTinyModel(join(folder.path, "tiny"));
  const model = {
    config: gpt2Config({
      vocabularySize: 3,
      contextLength: 2,
      width: 2,
      layers: 0,
      heads: 1,
      mlpWidth: 3,
    }),
    tensors: [],
    type: "F32" as const,
    tokenizer: ADDITION.tokenizer,
  };
  for (const name of ["model", "model.partial", "model.old.partial"]) {
    await Deno.mkdir(join(folder.path, name));
    await Deno.writeTextFile(join(folder.path, name, "chapter.txt"), "mine");
    const before = await contentOf(folder.path);
    const said = await saveModel(join(folder.path, "model"), model).then(
      () => "saved",
      (error) => error.message,
    );
    assertStringIncludes(said, "chapter.txt is there");
    assertEquals(await contentOf(folder.path), before);
    await Deno.remove(join(folder.path, name), { recursive: true });
  }
});

Deno.test("what is written goes neither through a link nor over what stands under its temporary name", async () => {
  await using folder = await temporaryFolder();
  const own = join(folder.path, "mine.txt");
  await Deno.writeTextFile(own, "mine");
  const checkpoints = join(folder.path, "checkpoints");
  await Deno.mkdir(checkpoints);
  await Deno.symlink(own, join(checkpoints, "sparse-0000001.safetensors.partial"));
  await Deno.symlink(own, join(checkpoints, "sparse-0000001.safetensors"));
  await saveCheckpoint(checkpoints, { phase: "sparse", step: 1, state: {} }, []);
  assertEquals(await Deno.readTextFile(own), "mine");
  assertEquals((await Deno.lstat(join(checkpoints, "sparse-0000001.safetensors"))).isFile, true);
});

Deno.test("Ctrl-C leaves nothing of evaluate's temporary folder", async () => {
  await using folder = await temporaryFolder();
  const { code, stderr } = await runMain(
    ["evaluate", "--model", "data/english", "--data", "data/english/text.jsonl.gz", "--split", "all"],
    {
      env: { TMPDIR: folder.path },
      hold: [{ when: "self-check passed", meanwhile: (send) => send("SIGINT") }],
    },
  );
  assertEquals(code, 130, stderr);
  assertEquals(await contentOf(folder.path), {});
});
