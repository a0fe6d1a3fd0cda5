import { assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { saveCheckpoint } from "../../../pipeline/runs/checkpoint.ts";
import { UserError } from "../../../pipeline/errors.ts";
import { openControl, readSlackChanges, requestControl } from "../../../pipeline/runs/control.ts";
import { hashFile, writeSealedJson } from "../../../pipeline/files.ts";
import { findResumePoint } from "../../../pipeline/runs/resume.ts";
import { readRunConfig } from "../../../pipeline/runs/run_config.ts";
import { PRETRAIN, SPARSIFY, type SparsifySettings } from "../../../pipeline/settings.ts";
import { defaultsOf } from "../../../pipeline/settings/resolve.ts";
import type { SettingsOf, SettingsTable } from "../../../pipeline/settings/table.ts";
import { openResumed } from "../../../pipeline/training/prepare_run.ts";
import { fakeRun } from "../../support/fake_run.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { ADDITION, type CommandOptions, runMain, writeTinyModel } from "../../support/tiny_model.ts";

const STEPS = 40;

/** Saves a checkpoint whose tensor says its step; `best` is the best step that it names. */
async function save(folder: string, phase: string, step: number, best?: number): Promise<string> {
  const state = { best: best === undefined ? null : { step: best, ce: 1, openFraction: 0.5 } };
  const read = () => Promise.resolve(new Float32Array(64).fill(step));
  return await saveCheckpoint(folder, { phase, step, state }, [{ name: "weight", shape: [64], read }]);
}

/** Flips twenty bytes, as a bad disk does, or makes the second half zeros, as a power cut does. */
async function damage(path: string, how: "flipped" | "zeros"): Promise<void> {
  const bytes = await Deno.readFile(path);
  if (how === "zeros") bytes.fill(0, bytes.length / 2);
  else for (let n = 1; n <= 20; n++) bytes[bytes.length - 3 * n] ^= 0x55;
  await Deno.writeFile(path, bytes);
}

for (
  const [how, what] of [["flipped", "twenty flipped bytes"], ["zeros", "a second half of zeros"]] as const
) {
  Deno.test(`a checkpoint with ${what} gives way to the one before it, which is said`, async () => {
    await using folder = await temporaryFolder();
    await save(folder.path, "sparse", 10);
    const newest = await save(folder.path, "sparse", 20);
    assertEquals((await findResumePoint(folder.path, STEPS)).last, { phase: "sparse", step: 20 });
    await damage(newest, how);
    const point = await findResumePoint(folder.path, STEPS);
    assertEquals(point.last, { phase: "sparse", step: 10 });
    assertEquals((await point.checkpoints.get("sparse")!.read("weight", [64]))[0], 10);
    assertEquals(point.problems.length, 1);
    assertStringIncludes(point.problems[0], newest);
  });
}

Deno.test("an older checkpoint under a newer name is not taken for it", async () => {
  await using folder = await temporaryFolder();
  const older = await save(folder.path, "sparse", 10);
  await Deno.copyFile(older, join(folder.path, "sparse-0000030.safetensors"));
  const { last, problems } = await findResumePoint(folder.path, STEPS);
  assertEquals(last.step, 10);
  assertMatch(
    problems[0],
    /sparse-0000030\.safetensors as it is the checkpoint of sparse at step 10, renamed/,
  );
});

Deno.test("another run's checkpoint is not taken for this run's, nor its changes of slack", async () => {
  await using folder = await temporaryFolder();
  await save(folder.path, "sparse", 10);
  await assertRejects(
    () => findResumePoint(folder.path, STEPS, "other"),
    UserError,
    "as it is another run's",
  );
  await writeSealedJson(join(folder.path, "slack.json"), { run: "a", changes: [] });
  assertEquals(await readSlackChanges(folder.path, "a"), []);
  await assertRejects(() => readSlackChanges(folder.path, "b"), UserError, "another run's");
});

/** The other target with which a run would go on, if there is one, or why it does not. */
async function resumedTarget<const Table extends SettingsTable>(
  command: string,
  table: Table,
  runs: string,
  given: Partial<SettingsOf<Table>>,
): Promise<unknown> {
  try {
    const { resumed } = await openResumed(command, table, runs, "run", given);
    resumed.folder.release();
    return resumed.changed?.find(({ setting }) => setting === "targetLoss")?.now;
  } catch (error) {
    if (error instanceof UserError) return error.message;
    throw error;
  }
}

Deno.test("a run goes on with another target only where no slack holds in its place", async () => {
  await using folder = await temporaryFolder();
  const settings = { targetLoss: "auto", slack: 0.1 };
  const { path, release } = await fakeRun(folder.path, "run", { settings });
  release();
  const targetOf = (given: Partial<SparsifySettings>) =>
    resumedTarget("sparsify", SPARSIFY, folder.path, given);
  const refused = async (given: Partial<SparsifySettings>, why: string) =>
    assertEquals(await targetOf(given), `Cannot resume run with --${why}`);
  const held = "target-loss 0.3, as its slack has been changed and holds in its place: give --slack instead";
  const both = "slack and --target-loss 0.3, which is the target itself: give one of them";

  assertEquals(await targetOf({ targetLoss: 0.3 }), 0.3);
  await refused({ targetLoss: 0.3, slack: 0.2 }, both);
  await requestControl(path, { paused: true });
  assertEquals(await targetOf({ targetLoss: 0.3 }), 0.3);
  // It will hold from the next step on.
  await requestControl(path, { slack: 0.2 });
  await refused({ targetLoss: 0.3 }, held);
  const run = { run: path, id: "a run", onPause() {}, onSlack() {}, onProblem() {} };
  const control = await openControl(run);
  await control.beforeStep(
    { phase: "sparse", step: 4, constrained: true },
    new AbortController().signal,
  );
  // What cannot be read is forgotten where the run goes on; what took effect holds all the same.
  await Deno.writeTextFile(join(path, "control.json"), "no JSON");
  await refused({ targetLoss: 0.3 }, held);
  await refused({ targetLoss: 0.3, slack: 0.2 }, both);
  // As it began, and what does not concern the target.
  for (const given of [{ targetLoss: "auto", slack: 0.3 }, { slack: 0.3 }, { lr: 0.1 }] as const) {
    assertEquals(await targetOf(given), undefined);
  }
  await Deno.remove(join(path, "slack.json"));
  assertEquals(await targetOf({ targetLoss: 0.3 }), 0.3);
});

Deno.test("a pre-trained run, which no slack steers, goes on with another target whatever was asked for", async () => {
  await using folder = await temporaryFolder();
  const settings = { ...defaultsOf(PRETRAIN), sparse: true, targetLoss: 2 };
  const { path, release } = await fakeRun(folder.path, "run", { command: "pretrain", settings });
  release();
  await requestControl(path, { slack: 0.2 });
  assertEquals(await resumedTarget("pretrain", PRETRAIN, folder.path, { targetLoss: 3 }), 3);
  await using other = await temporaryFolder();
  (await fakeRun(other.path, "run", { command: "pretrain", settings: defaultsOf(PRETRAIN) })).release();
  const dense = resumedTarget("pretrain", PRETRAIN, other.path, { lambdaMax: 3 });
  assertEquals(await dense, "Cannot use --lambda-max without --sparse");
});

Deno.test("a checkpoint whose best step is damaged or gone gives way to one whose best step is whole", async () => {
  await using folder = await temporaryFolder();
  await save(folder.path, "sparse-best", 5);
  await save(folder.path, "sparse", 10, 5);
  const best = await save(folder.path, "sparse-best", 15);
  await save(folder.path, "sparse", 20, 15);
  assertEquals((await findResumePoint(folder.path, STEPS)).last.step, 20);
  await damage(best, "flipped");
  assertEquals((await findResumePoint(folder.path, STEPS)).last.step, 10);
  await Deno.remove(best);
  assertEquals((await findResumePoint(folder.path, STEPS)).last.step, 10);
});

Deno.test("a run none of whose checkpoints is whole does not begin again at step 1 without a word", async () => {
  await using folder = await temporaryFolder();
  for (const step of [10, 20]) await damage(await save(folder.path, "sparse", step), "zeros");
  const error = await assertRejects(
    () => findResumePoint(folder.path, STEPS),
    UserError,
    "Cannot go on as no",
  );
  assertEquals(error.exitCode, 3);
  assertStringIncludes(error.message, "to begin again at step 1, delete");
});

Deno.test("where an earlier phase has to end again, later checkpoints make way for those that will come", async () => {
  await using folder = await temporaryFolder();
  await save(folder.path, "sparse", 30);
  const end = await save(folder.path, "sparse", STEPS);
  const later = await save(folder.path, "control", 10);
  assertEquals((await findResumePoint(folder.path, STEPS)).last, { phase: "control", step: 10 });
  await damage(end, "flipped");
  const { last, checkpoints } = await findResumePoint(folder.path, STEPS);
  assertEquals([last, checkpoints.has("control")], [{ phase: "sparse", step: 30 }, false]);
  assertEquals(await Deno.stat(later).catch(() => "removed"), "removed");
});

Deno.test("a run goes on from the checkpoint before a damaged one, says so, and ends with the same bits", async () => {
  await using folder = await temporaryFolder();
  const model = join(folder.path, "tiny");
  await writeTinyModel(model);
  // deno-fmt-ignore
  const settings = ["sparsify", "--model", model, "--data", ADDITION.data, "--context", "8", "--batch", "16", "--steps",
    "24", "--lr", "0.01", "--eval-every", "6", "--checkpoint-every", "3", "--validation-tokens", "128", "--no-control",
    "--eval-tokens", "128", "--slack", "5", "--no-autotune", "--runs", folder.path];
  const whole = await runMain([...settings, "--name", "whole"]);
  assertEquals(whole.code, 0, whole.stderr);
  const stopped = await runMain([...settings, "--name", "run"], {
    hold: [{ when: "sparse 6/24", meanwhile: (send) => send("SIGHUP") }],
  });
  assertEquals(stopped.code, 130, stopped.stderr);
  assertStringIncludes(
    stopped.stderr,
    `stopped; go on by: deno task sparsify --resume run --runs ${folder.path}`,
  );
  const checkpoints = join(folder.path, "run", "checkpoints");
  const newest = (await Array.fromAsync(Deno.readDir(checkpoints))).map(({ name }) => name)
    .filter((name) => /^sparse-\d/.test(name)).sort().at(-1)!;
  await damage(join(checkpoints, newest), "zeros");
  const resumed = await runMain(["sparsify", "--resume", "run", "--runs", folder.path]);
  assertEquals(resumed.code, 0, resumed.stderr);
  assertMatch(resumed.stderr, new RegExp(`warning: .*${newest}`));
  const weights = (name: string) => hashFile(join(folder.path, name, "model", "model.safetensors"));
  assertEquals(await weights("run"), await weights("whole"));
});

Deno.test("a model's own start of texts goes through a run to its model, and another is refused on resuming", async () => {
  await using folder = await temporaryFolder();
  const model = join(folder.path, "tiny");
  await writeTinyModel(model);
  const beside = join(model, "tokenizer_config.json");
  await Deno.writeTextFile(beside, '{"add_bos_token":true,"bos_token":"5"}');
  const data = join(folder.path, "text.txt");
  await Deno.writeTextFile(data, "12+34=46".repeat(200));
  // deno-fmt-ignore
  const settings = ["sparsify", "--model", model, "--data", data, "--context", "8", "--batch", "16", "--steps", "4",
    "--validation-tokens", "32", "--eval-tokens", "32", "--no-control", "--no-autotune", "--runs", folder.path];
  const run = await runMain([...settings, "--name", "run"]);
  assertEquals(run.code, 0, run.stderr);
  const { tokenizer } = await readRunConfig(join(folder.path, "run", "config.json"));
  assertEquals([tokenizer.startOfText, tokenizer.endOfText], [5, 12]);
  for (const name of ["tokenizer_config.json", "model/tokenizer_config.json"]) {
    assertEquals(await Deno.readTextFile(join(folder.path, "run", name)), await Deno.readTextFile(beside));
  }
  await Deno.writeTextFile(beside, '{"add_bos_token":false}');
  // Nothing is read of a run that is at its end.
  await Deno.remove(join(folder.path, "run", "summary.json"));
  const refused = await runMain(["sparsify", "--resume", "run", "--runs", folder.path]);
  assertEquals(refused.code, 3);
  assertStringIncludes(refused.stderr, "that began and ended its texts, 5 and 12: none and 12");
});

Deno.test("a run is not resumed on text that has changed, unless it is given again with --data", async () => {
  await using folder = await temporaryFolder();
  const model = join(folder.path, "tiny");
  await writeTinyModel(model);
  const data = join(folder.path, "text.txt");
  const moved = join(folder.path, "moved.txt");
  await Deno.writeTextFile(data, "12+34=46".repeat(200));
  // deno-fmt-ignore
  const settings = ["sparsify", "--model", model, "--data", data, "--context", "8", "--batch", "16", "--steps", "4",
    "--validation-tokens", "32", "--eval-tokens", "32", "--no-control", "--no-autotune", "--runs", folder.path];
  assertEquals((await runMain([...settings, "--name", "run"])).code, 0);
  const resume = (...more: string[]) =>
    runMain(["sparsify", "--resume", "run", "--runs", folder.path, ...more]);
  await Deno.rename(data, moved);
  const gone = await resume();
  assertEquals(gone.code, 3);
  assertStringIncludes(gone.stderr, `Cannot read data ${data}: `);
  assertStringIncludes(gone.stderr, "; where the data has moved, give --data with its place");
  const same = await resume("--data", moved);
  assertEquals([same.code, same.stderr.includes("the data is not")], [0, false], same.stderr);
  await Deno.writeTextFile(moved, "12+35=47".repeat(200));
  const refused = await resume();
  assertEquals(refused.code, 3);
  assertStringIncludes(
    refused.stderr,
    `as its data ${moved} has changed since it began; --data ${moved} takes it`,
  );
  const other = join(folder.path, "other.txt");
  await Deno.rename(moved, other);
  const taken = await resume("--data", other);
  assertEquals(taken.code, 0, taken.stderr);
  assertStringIncludes(taken.stderr, "warning: the data is not what the run began with");
  assertEquals((await resume()).code, 0, "what was taken is what the run has now");
  const checkpoints = join(folder.path, "run", "checkpoints");
  for await (const { name } of Deno.readDir(checkpoints)) {
    await Deno.rename(join(checkpoints, name), join(folder.path, name));
  }
  await Deno.remove(join(folder.path, "run", "summary.json"));
  const again = await resume();
  assertStringIncludes(
    again.stderr,
    "but its last checkpoint is of step 0: the steps from there are done again",
  );
  const piped = await resume("--data", "-");
  assertStringIncludes(piped.stderr, "the data is not what the run began with");
});

Deno.test("a run whose model has moved goes on from its own copy, or from where it is now, to the same bits", async () => {
  await using folder = await temporaryFolder();
  const [model, moved, other] = ["tiny", "moved", "other"].map((name) => join(folder.path, name));
  await writeTinyModel(model);
  await writeTinyModel(other, { contextLength: 16 });
  // deno-fmt-ignore
  const settings = ["sparsify", "--model", model, "--data", ADDITION.data, "--context", "8", "--batch", "16", "--steps",
    "24", "--lr", "0.01", "--eval-every", "6", "--checkpoint-every", "3", "--validation-tokens", "128", "--no-control",
    "--eval-tokens", "128", "--slack", "5", "--no-autotune", "--runs", folder.path];
  assertEquals((await runMain([...settings, "--name", "whole"])).code, 0);
  const stop = (at: number): CommandOptions => ({
    hold: [{ when: `sparse ${at}/24`, meanwhile: (send) => send("SIGHUP") }],
  });
  const resume = (more: string[] = [], options?: CommandOptions) =>
    runMain(["sparsify", "--resume", "run", "--runs", folder.path, ...more], options);
  assertEquals((await runMain([...settings, "--name", "run"], stop(6))).code, 130);
  await Deno.rename(model, moved);
  const own = await resume([], stop(12));
  assertEquals(own.code, 130, own.stderr);
  assertStringIncludes(own.stderr, `the model ${model} is no longer there: the run's own copy is taken`);
  const copy = await resume(["--model", join(folder.path, "run", "dense")], stop(18));
  assertEquals([copy.code, copy.stderr.includes("no longer there")], [130, false], copy.stderr);
  const refused = await resume(["--model", other]);
  assertEquals(refused.code, 3);
  assertStringIncludes(refused.stderr, `as its model ${other} has changed since it began`);
  const named = await resume(["--model", moved]);
  assertEquals(named.code, 0, named.stderr);
  const weights = (name: string) => hashFile(join(folder.path, name, "model", "model.safetensors"));
  assertEquals(await weights("run"), await weights("whole"));
  const { settings: kept } = await readRunConfig(join(folder.path, "run", "config.json"));
  assertEquals(kept.model, moved);
  // Without either there is nothing to go on with.
  await Deno.rename(moved, model);
  await Deno.remove(join(folder.path, "run", "dense"), { recursive: true });
  const nowhere = await resume();
  assertEquals(nowhere.code, 3);
  assertStringIncludes(nowhere.stderr, "give --model, the folder where it is now");
});

Deno.test("a pretrained run whose tokenizer has moved goes on from its own copy", async () => {
  await using folder = await temporaryFolder();
  const [tokenizer, moved] = ["vocabulary.json", "moved.json"].map((name) => join(folder.path, name));
  await Deno.copyFile(ADDITION.tokenizer, tokenizer);
  // deno-fmt-ignore
  const settings = ["pretrain", "--tokenizer", tokenizer, "--data", ADDITION.data, "--context", "8", "--batch", "16",
    "--layers", "1", "--heads", "2", "--width", "16", "--steps", "12", "--checkpoint-every", "3", "--eval-every", "6",
    "--validation-tokens", "128", "--eval-tokens", "128", "--no-autotune", "--runs", folder.path];
  assertEquals((await runMain([...settings, "--name", "whole"])).code, 0);
  const stopped = await runMain([...settings, "--name", "run"], {
    hold: [{ when: "pretrain 6/12", meanwhile: (send) => send("SIGHUP") }],
  });
  assertEquals(stopped.code, 130, stopped.stderr);
  await Deno.rename(tokenizer, moved);
  const resumed = await runMain(["pretrain", "--resume", "run", "--runs", folder.path]);
  assertEquals(resumed.code, 0, resumed.stderr);
  assertStringIncludes(resumed.stderr, `the tokenizer ${tokenizer} is no longer there`);
  const named = await runMain(["pretrain", "--resume", "run", "--runs", folder.path, "--tokenizer", moved]);
  assertEquals(named.code, 0, named.stderr);
  const weights = (name: string) => hashFile(join(folder.path, name, "model", "model.safetensors"));
  assertEquals(await weights("run"), await weights("whole"));
});
