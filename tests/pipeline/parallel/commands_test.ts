/** Commands that measure, as ranks by mpirun: what they leave and print is what one process does. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { tableFromIPC } from "apache-arrow";
import { join } from "node:path";
import { isThere, untilIn } from "../../hostile/rank_kills.ts";
import { itemsOf } from "../../support/benchmark_models.ts";
import { OPEN_MPI, runRanks } from "../../support/mpirun.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { ADDITION, additionExamples, runMain, writeTinyModel } from "../../support/tiny_model.ts";

const ignore = OPEN_MPI === undefined;

/** A file of a folder, with what tells the time left out of its JSON. */
async function read(folder: string, file: string): Promise<unknown> {
  if (!file.endsWith(".json")) return await Deno.readFile(join(folder, file));
  const { seconds: _, ...rest } = JSON.parse(await Deno.readTextFile(join(folder, file)));
  return rest;
}

Deno.test({
  name: "a benchmark by ranks that share its items has the table, JSON and Arrow of one process",
  ignore,
  async fn() {
    await using folder = await temporaryFolder();
    const [alone, shared] = ["alone", "shared"].map((name) => join(folder.path, name));
    // deno-fmt-ignore
    const args = ["--task", "arc_easy,blimp", "--data", itemsOf("arc_easy"), "--data", itemsOf("blimp"), "--limit", "6",
      "--model", "data/english-sparse", "--against", "data/english", "--batch-tokens", "100"];
    const script = "pipeline/benchmarks/main.ts";
    const one = await runMain([...args, "--output", alone], { script });
    assertEquals(one.code, 0, one.stderr);
    const ranks = await runRanks(OPEN_MPI!, 2, ["benchmark", ...args, "--output", shared], {
      mark: folder.path,
      byTask: true,
    });
    assertEquals(ranks.code, 0, ranks.stderr);
    assertEquals(ranks.stdout, one.stdout);
    assert(one.stdout.includes("arc_easy") && one.stdout.includes("blimp"), one.stdout);
    assertEquals(await read(shared, "items.arrow"), await read(alone, "items.arrow"));
    assertEquals(await read(shared, "results.json"), await read(alone, "results.json"));
    assertStringIncludes(await Deno.readTextFile(join(shared, "rank-1.log")), "adapter ");
    // What rank 0 finds wrong ends the other too.
    const wrong = await runRanks(OPEN_MPI!, 2, ["benchmark", ...args, "--output", shared], {
      mark: folder.path,
      byTask: true,
    });
    assertEquals(wrong.code, 2, wrong.stderr);
    assertEquals(wrong.stderr.match(/^error: /gm)?.length, 1, wrong.stderr);
    assertStringIncludes(wrong.stderr, "items.arrow as it is there, and would be lost");
  },
});

Deno.test({
  name: "circuits by ranks that share them are those of one process, in table, JSON and Arrow",
  ignore,
  async fn() {
    await using folder = await temporaryFolder();
    const { path: runs } = folder;
    // deno-fmt-ignore
    const args = ["--task", "addition", "--model", "data/addition", "--against", "data/addition-sparse", "--prompts", "4",
      "--method", "eap", "--runs", runs];
    const script = "pipeline/circuits/main.ts";
    const one = await runMain([...args, "--name", "alone"], { script });
    assertEquals(one.code, 0, one.stderr);
    const ranks = await runRanks(OPEN_MPI!, 3, ["circuits", ...args, "--name", "shared"], {
      mark: runs,
      byTask: true,
    });
    assertEquals(ranks.code, 0, ranks.stderr);
    assertEquals(ranks.stdout.replaceAll(join(runs, "shared"), join(runs, "alone")), one.stdout);
    for (const file of ["circuits.json", "edges.arrow", "curve.arrow", "token_edges.arrow"]) {
      assertEquals(await read(join(runs, "shared"), file), await read(join(runs, "alone"), file), file);
    }
    for (const rank of [1, 2]) {
      const log = await Deno.readTextFile(join(runs, "shared", `rank-${rank}.log`));
      assertStringIncludes(log, "self-check passed");
    }
    // A model that cannot do the task is no reason to wait.
    const model = join(runs, "tiny");
    await writeTinyModel(model);
    // deno-fmt-ignore
    const unable = await runRanks(OPEN_MPI!, 2, ["circuits", "--task", "addition", "--model", model, "--prompts", "8",
      "--runs", runs, "--name", "unable", "--json"], { mark: runs, byTask: true });
    assertEquals(unable.code, 0, unable.stderr);
    assertEquals(JSON.parse(unable.stdout).models[0].able, false);
  },
});

/** The rows of a sweep's table. */
async function tableOf(folder: string): Promise<Record<string, unknown>[]> {
  return tableFromIPC(await Deno.readFile(join(folder, "sweep.arrow"))).toArray().map((row) => row.toJSON());
}

Deno.test({
  name: "a sweep by ranks that run its runs by turns has the table of one process, also after it was stopped",
  ignore,
  async fn() {
    await using folder = await temporaryFolder();
    const { path } = folder;
    await writeTinyModel(join(path, "model"));
    const file = join(path, "tries.json");
    const settings = {
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
    };
    await Deno.writeTextFile(
      file,
      JSON.stringify({
        settings: { ...settings, model: join(path, "model") },
        grid: { lr: [1e-3, 2e-3] },
        seeds: [1, 2],
      }),
    );
    const [alone, shared] = ["alone", "shared"].map((name) => join(path, name));
    const script = "pipeline/sweep/main.ts";
    const one = await runMain([file, "--runs", alone], { script, allow: ["--allow-run=deno"] });
    assertEquals(one.code, 0, one.stderr);
    const args = ["sweep", file, "--runs", shared];
    const first = String((await tableOf(join(alone, "tries")))[0].run);
    const stopped = await runRanks(OPEN_MPI!, 2, args, {
      mark: shared,
      byTask: true,
      async meanwhile(ranks) {
        await untilIn(ranks, () => isThere(join(shared, "tries", first, "checkpoints")));
        await ranks.send("SIGTERM", 1);
      },
    });
    assertEquals(stopped.code, 130, stopped.stderr);
    assertStringIncludes(stopped.stderr, "each with a checkpoint; go on by deno task sweep");
    const again = await runRanks(OPEN_MPI!, 2, args, { mark: shared, byTask: true });
    assertEquals(again.code, 0, again.stderr);
    assertEquals(again.stdout.replaceAll(shared, alone), one.stdout);
    assertEquals(await tableOf(join(shared, "tries")), await tableOf(join(alone, "tries")));
    const wrong = await runRanks(OPEN_MPI!, 2, ["sweep", join(path, "none.json")], {
      mark: path,
      byTask: true,
    });
    assertEquals(wrong.stderr.match(/^error: /gm)?.length, 1, wrong.stderr);
    assertStringIncludes(wrong.stderr, "error: rank 0: ");
  },
});

Deno.test({
  name: "ranks that train encode the data together, to the token files of one process",
  ignore,
  async fn() {
    await using folder = await temporaryFolder();
    const { path: runs } = folder;
    const model = join(runs, "tiny");
    await writeTinyModel(model);
    const examples = await additionExamples(1500);
    const files = [1, 2, 3, 4, 5].map((n) => join(runs, `${n}.jsonl`));
    for (const file of files) await Deno.writeTextFile(file, examples);
    // deno-fmt-ignore
    const args = ["sparsify", "--model", model, ...files.flatMap((file) => ["--data", file]), "--context", "8", "--batch",
      "2", "--steps", "2", "--no-control", "--no-autotune", "--validation-tokens", "64", "--eval-tokens", "64", "--runs", runs];
    const one = await runMain([...args, "--name", "alone"], {
      allow: ["--allow-sys=statfs,systemMemoryInfo"],
    });
    assertEquals(one.code, 0, one.stderr);
    const ranks = await runRanks(OPEN_MPI!, 2, [...args, "--name", "shared"], { mark: runs });
    assertEquals(ranks.code, 0, ranks.stderr);
    for (const split of ["train", "validation", "test"]) {
      const [alone, shared] = ["alone", "shared"].map((name) => join(runs, name, "tokens"));
      assertEquals(await read(shared, `${split}.arrow`), await read(alone, `${split}.arrow`), split);
    }
    // Of five times 1,500 examples half, each a prompt and a completion.
    const log = await Deno.readTextFile(join(runs, "shared", "rank-1.log"));
    const found = Number(/found the tokens of (\d+) texts for rank 0/.exec(log)?.[1]);
    assert(Math.abs(found / 7500 - 1) < 0.05, log);
  },
});
