/** The folder of a benchmark's results. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { holdOutputFolder } from "../../../pipeline/benchmarks/output_folder.ts";
import { UserError } from "../../../pipeline/errors.ts";
import { exists } from "../../../pipeline/files.ts";
import { ENGLISH } from "../../support/benchmark_models.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { runMain } from "../../support/tiny_model.ts";

const namesIn = async (folder: string): Promise<string[]> =>
  (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name).sort();

Deno.test("two processes do not write the results of one folder", async () => {
  await using folder = await temporaryFolder();
  const output = join(folder.path, "out");
  const args = ["--task", "passkey", "--model", ENGLISH, "--limit", "2", "--lengths", "100"];
  {
    await using _held = await holdOutputFolder(output, () => {});
    const { code, stdout, stderr } = await runMain([...args, "--output", output], {
      script: "pipeline/benchmarks/main.ts",
    });
    assertEquals([code, stdout], [3, ""], stderr);
    assertStringIncludes(stderr, `Cannot write ${output} as another process is writing it`);
    // Whoever looked before the first had written has the same to lose.
    await Deno.writeTextFile(join(output, "results.json"), "[]");
  }
  assertEquals(await namesIn(output), ["results.json"]);
  const error = await assertRejects(() => holdOutputFolder(output, () => {}), UserError);
  assertEquals(error.exitCode, 2);
  assertStringIncludes(error.message, "results.json as it is there, and would be lost");
});

Deno.test("a folder of results that come to nothing is removed where it was made, and else left as it was", async () => {
  await using folder = await temporaryFolder();
  const output = join(folder.path, "out");
  const left: string[] = [];
  await (await holdOutputFolder(output, (path) => left.push(path)))[Symbol.asyncDispose]();
  assertEquals(await exists(output), false);
  assertEquals(left.splice(0), [join(output, ".lock"), output], "what a stop removes, the folder last");
  await Deno.mkdir(output);
  await Deno.writeTextFile(join(output, "notes"), "mine");
  await (await holdOutputFolder(output, (path) => left.push(path)))[Symbol.asyncDispose]();
  assertEquals(await namesIn(output), ["notes"]);
  assertEquals(left, [join(output, ".lock")]);
});
