import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { UserError } from "../../pipeline/errors.ts";
import { loadModel } from "../../pipeline/load_model.ts";
import { sparsifyModel, type SparsifyOptions } from "../../pipeline/sparsify_model.ts";
import { gpuTest } from "../support/gpu.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";
import { ADDITION, writeTinyModel } from "../support/tiny_model.ts";

/** A tiny model, and options that train it for a few steps below the same folder. */
async function tiny(folder: string): Promise<{ model: string; options: SparsifyOptions; run: string }> {
  const model = join(folder, "dense");
  await writeTinyModel(model);
  const runs = join(folder, "runs");
  const options: SparsifyOptions = {
    data: [ADDITION.data],
    runs,
    name: "r",
    steps: 3,
    batch: 16,
    context: 8,
    evalEvery: 2,
    checkpointEvery: 2,
    evalTokens: 64,
    validationTokens: 64,
    control: false,
    autotune: false,
  };
  return { model, options, run: join(runs, "r") };
}

const stateOf = async (run: string): Promise<string> =>
  JSON.parse(await Deno.readTextFile(join(run, "state.json"))).state;

gpuTest("a model is made sparse by one call, which leaves a whole run and a model that loads", async () => {
  await using folder = await temporaryFolder();
  const { model, options, run } = await tiny(folder.path);
  const steps: (number | null)[] = [];
  const messages: string[] = [];
  const result = await sparsifyModel(model, {
    ...options,
    reporter: {
      message: (text) => messages.push(text),
      warning() {},
      row: ({ step }) => steps.push(step),
    },
  });
  assertEquals(result!.folder, run);
  assertEquals(steps, [1, 2, 3]);
  assert(messages.some((text) => text.startsWith("dense loss")));
  assertEquals(JSON.parse(await Deno.readTextFile(join(run, "summary.json"))), result!.summary);
  assertEquals([result!.summary.steps, result!.summary.model, await stateOf(run)], [3, model, "finished"]);
  assert((await Deno.readTextFile(join(run, "report.html"))).includes("<svg"));
  using loaded = await loadModel(join(run, "model"));
  assertEquals(loaded.config.gate, { bias: 0, temperature: 1 });
});

gpuTest("a run that is stopped is undefined, and can be told from a finished one", async () => {
  await using folder = await temporaryFolder();
  const { model, options, run } = await tiny(folder.path);
  assertEquals(await sparsifyModel(model, { ...options, signal: AbortSignal.abort() }), undefined);
  assertEquals(await stateOf(run), "stopped");
});

Deno.test("options that are none, and a folder that is no model, are refused before a run is made", async () => {
  await using folder = await temporaryFolder();
  const { model, options } = await tiny(folder.path);
  const refused = (model: string, odd: object, message: string) =>
    assertRejects(() => sparsifyModel(model, { ...options, ...odd }), UserError, message);
  await refused(model, { step: 3 }, "Cannot use the options: unknown key step (did you mean steps?)");
  await refused(model, { steps: 0 }, "steps in the options as it must be at least 1: 0");
  await refused(model, { lambdaMin: 9 }, "at most --lambda-max 5");
  await refused(model, { context: 9 }, "a context of 9");
  await refused(folder.path, {}, "config.json");
  assertEquals(await Deno.stat(options.runs!).catch(() => "none"), "none");
});
