/** `--gpu` as a user meets it: the choice is said, and an unknown one is answered with those that there are. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { adapterLabel } from "../../kernels/core/gpu_adapters.ts";
import { gpuTest } from "../support/gpu.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";
import { ADDITION, runMain, writeTinyModel } from "../support/tiny_model.ts";

const CIRCUITS = "pipeline/circuits/main.ts";
const GENERATE = "pipeline/generation/main.ts";
const ACTIVATIONS = "pipeline/activations/main.ts";
const SERVE = "serve/main.ts";

gpuTest(
  "every command that opens a device refuses an unknown --gpu with the adapters that there are",
  async (gpu) => {
    await using folder = await temporaryFolder();
    const model = join(folder.path, "model");
    await writeTinyModel(model);
    const runs = ["--runs", join(folder.path, "runs")];
    const data = ["--data", ADDITION.data, "--context", "8"];
    const commands: [script: string | undefined, args: string[]][] = [
      [undefined, ["sparsify", "--model", model, ...data, ...runs]],
      [undefined, ["pretrain", "--tokenizer", ADDITION.tokenizer, "--width", "16", ...data, ...runs]],
      [undefined, ["evaluate", "--model", model, ...data]],
      [CIRCUITS, ["--model", model, "--task", "addition", ...runs]],
      [GENERATE, ["--model", model, "--prompt", "12+34="]],
      [ACTIVATIONS, [
        "--model",
        model,
        ...data,
        "--read",
        "blocks.0.hook_resid_pre",
        "--output",
        join(folder.path, "out"),
      ]],
      [SERVE, ["--port", "0", ...runs]],
    ];
    for (const [script, args] of commands) {
      // Mesa complains where there is no session folder.
      const options = { script, env: { XDG_RUNTIME_DIR: "" } };
      const { code, stderr } = await runMain([...args, "--gpu", "Voodoo 2"], options);
      assert(!stderr.includes("XDG_RUNTIME_DIR"), `${args[0]}: ${stderr}`);
      const errors = stderr.split("\n").filter((line) => line.startsWith("error: Cannot"));
      assertEquals([code, errors.length], [4, 1], `${args[0]}: ${stderr}`);
      assertStringIncludes(
        errors[0],
        "Cannot open Voodoo 2 as no adapter here has that in its name or as its number: ",
      );
      assertStringIncludes(errors[0], `${adapterLabel(gpu.adapter)} (`);
    }
    assertEquals(await Array.fromAsync(Deno.readDir(join(folder.path, "runs"))).catch(() => []), []);
  },
);

gpuTest("a command says which adapter it opened, by what backend", async (gpu) => {
  await using folder = await temporaryFolder();
  await writeTinyModel(folder.path);
  const evaluate = [
    "evaluate",
    "--model",
    folder.path,
    "--data",
    ADDITION.data,
    "--batch",
    "16",
    "--eval-tokens",
    "64",
  ];
  for (const choice of [[], ["--gpu", gpu.adapter.name.slice(0, 5).toUpperCase()], ["--gpu", "0"]]) {
    const { code, stderr } = await runMain([...evaluate, ...choice]);
    assertEquals(code, 0, stderr);
    assertStringIncludes(stderr, `adapter ${adapterLabel(gpu.adapter)}`);
  }
  assert(gpu.adapter.backend !== undefined);
});
