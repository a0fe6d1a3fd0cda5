/** A step that a run has kept as a model's folder: that of the chosen step is the run's own model, byte for byte. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { openWeights } from "../../../pipeline/model/load_weights.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { checkpointPath, readCheckpoint } from "../../../pipeline/runs/checkpoint.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import {
  ADDITION,
  type CommandOptions,
  type CommandResult,
  runMain,
  writeTinyModel,
} from "../../support/tiny_model.ts";

const EXPORT: CommandOptions = { script: "pipeline/export/main.ts" };
// deno-fmt-ignore
const SETTINGS = ["--data", ADDITION.data, "--context", "8", "--batch", "16", "--steps", "8", "--warmup", "0",
  "--lr", "0.01", "--eval-every", "1", "--checkpoint-every", "3", "--validation-tokens", "128", "--eval-tokens", "128",
  "--no-autotune"];
const SPARSIFY = ["sparsify", "--no-control", ...SETTINGS];

const exported = (...args: string[]): Promise<CommandResult> => runMain(args, EXPORT);

const errorsOf = (stderr: string): string[] =>
  stderr.split("\n").filter((line) => line.startsWith("error: C"));

/** Every file of a folder, by name. */
async function filesOf(folder: string): Promise<Record<string, string>> {
  const files = await Array.fromAsync(Deno.readDir(folder));
  const read = files.map(async ({ name }) =>
    [name, (await Deno.readFile(join(folder, name))).toHex()] as const
  );
  return Object.fromEntries((await Promise.all(read)).toSorted());
}

/** The model that an adapter's folder says it is for. */
async function baseOf(folder: string): Promise<unknown> {
  return JSON.parse(await Deno.readTextFile(join(folder, "adapter_config.json"))).base_model_name_or_path;
}

async function trained(args: readonly string[]): Promise<void> {
  const { code, stderr } = await runMain([...args]);
  assertEquals(code, 0, stderr);
}

async function copyFolder(from: string, to: string, without: readonly string[] = []): Promise<void> {
  await Deno.mkdir(to);
  for await (const { name, isDirectory } of Deno.readDir(from)) {
    if (without.includes(name)) continue;
    if (isDirectory) await copyFolder(join(from, name), join(to, name));
    else await Deno.copyFile(join(from, name), join(to, name));
  }
}

Deno.test("the chosen step is the run's own model byte for byte, a level of the front and the last step are theirs; what is damaged or not there is refused", async () => {
  await using folder = await temporaryFolder();
  const runs = folder.path;
  const model = join(runs, "tiny");
  await writeTinyModel(model);
  const at = ["--runs", runs];
  await trained([
    ...SPARSIFY,
    "--model",
    model,
    ...at,
    "--name",
    "one",
    "--slack",
    "-1.5",
    "--lambda-start",
    "5",
    "--front",
    "--front-slack",
    "3",
  ]);
  const run = join(runs, "one");
  const summary = JSON.parse(await Deno.readTextFile(join(run, "summary.json")));
  const { step } = summary.sparse;
  const out = (name: string): string => join(runs, name);
  const same = await exported("--run", "one", ...at, "--step", String(step), "--output", out("chosen"));
  assertEquals(same.code, 0, same.stderr);
  assertEquals(await filesOf(out("chosen")), await filesOf(join(run, "model")));

  // Levels whose step is another.
  const listed = await exported("--run", "one", ...at, "--json");
  const list = JSON.parse(listed.stdout.trim().split("\n").at(-1)!);
  assertEquals(list.front, summary.front.map((level: { step: number | null }) => level.step));
  const level = summary.front.findLastIndex((of: { step: number | null }) => of.step !== null);
  const ofLevel = summary.front[level];
  assert(level > 0 && ofLevel.step !== step, JSON.stringify(summary.front));
  const front = await exported("--run", "one", ...at, "--front", String(level), "--output", out("front"));
  assertEquals(front.code, 0, front.stderr);
  const block = JSON.parse(await Deno.readTextFile(join(out("front"), "config.json"))).sparse_attention;
  assertEquals([block.open_fraction, block.test_ce], [ofLevel.open_fraction, ofLevel.ce]);
  await assertHolds(
    out("front"),
    checkpointPath(join(run, "checkpoints"), { phase: "sparse-best", step: ofLevel.step }),
  );

  // A run that was stopped has neither summary nor model.
  await copyFolder(run, join(runs, "stopped"), ["summary.json", "model", "report.html", ".lock"]);
  const stopped = ["--run", "stopped", ...at];
  const text = await exported(...stopped);
  assertEquals(text.code, 0, text.stderr);
  assertMatch(text.stdout, new RegExp(`^ *${step} +\\d\\.\\d{4} .*--front 0`, "m"));
  assertMatch(text.stdout, /^ *8 .*a run goes on from it$/m);
  const evaluated = list.steps.find((of: { step: number }) => of.step === step);
  assertStringIncludes(text.stdout, evaluated.validation_ce.toFixed(4));
  const last = await exported(...stopped, "--step", "8", "--output", out("last"), "--json");
  assertEquals(JSON.parse(last.stdout.trim().split("\n").at(-1)!).step, 8, last.stderr);
  await assertHolds(out("last"), checkpointPath(join(run, "checkpoints"), { phase: "sparse", step: 8 }));
  const config = JSON.parse(await Deno.readTextFile(join(out("last"), "config.json")));
  assertEquals(Object.keys(config.sparse_attention), ["gate"]);
  const again = await exported(...stopped, "--front", String(level), "--output", out("front of stopped"));
  assertEquals(again.code, 0, again.stderr);
  const weights = "model.safetensors";
  assertEquals((await filesOf(out("front of stopped")))[weights], (await filesOf(out("front")))[weights]);

  const kept = list.steps.map((of: { step: number }) => of.step).join(", ");
  const missing = [2, 4, 5, 7].find((n) => !list.steps.some((of: { step: number }) => of.step === n))!;
  const levels = summary.front.length;
  const inStopped = (phase: string, step: number): string =>
    checkpointPath(join(runs, "stopped", "checkpoints"), { phase, step });
  // Of two files of its weights the other; what is damaged there is no weight.
  await Deno.remove(inStopped("sparse-best", 6)).catch(() => {});
  const bytes = await Deno.readFile(inStopped("sparse", 6));
  bytes[bytes.length - 100] ^= 1;
  await Deno.writeFile(inStopped("sparse", 6), bytes);
  await Deno.truncate(inStopped("sparse-best", ofLevel.step), 9000);
  const none = ["--output", out("none")];
  const cases: [args: string[], code: number, message: string][] = [
    [[...at], 2, "give --run NAME"],
    [["--run", "nowhere", ...at], 2, "is no run"],
    [["--run", "../tiny", ...at], 2, "is no run"],
    [["--run", "one", ...at, ...none], 2, `give --step, of which there are ${kept}`],
    [["--run", "one", ...at, "--step", String(missing), ...none], 2, `was not kept: there are ${kept}`],
    [["--run", "one", ...at, "--step", "8", "--front", "0", ...none], 2, "give one of the two"],
    [["--run", "one", ...at, "--front", String(levels), ...none], 2, `they go from 0 to ${levels - 1}`],
    [["--run", "one", ...at, "--step", "8"], 2, "give --output DIR"],
    [["--run", "one", ...at, "--step", "8", "--output", model], 2, "as it is there, and would be lost"],
    [["--run", "stopped", ...at, "--step", "6", ...none], 3, "is damaged: its bytes have another SHA-256"],
    [["--run", "stopped", ...at, "--step", String(ofLevel.step), ...none], 3, "the file is cut short"],
  ];
  for (const [args, code, message] of cases) {
    const result = await exported(...args);
    assertEquals(
      [result.code, errorsOf(result.stderr).length],
      [code, 1],
      `${args.join(" ")}: ${result.stderr}`,
    );
    assertStringIncludes(errorsOf(result.stderr)[0], message);
  }
  assertEquals(await Deno.stat(out("none")).catch(() => "none"), "none");
});

/** Asserts that a folder has the weights of a checkpoint, as float32. */
async function assertHolds(folder: string, path: string): Promise<void> {
  const [config, checkpoint] = [await readModelConfig(folder), await readCheckpoint(path)];
  const weights = await openWeights(folder, config);
  for (const { name, shape } of parametersOf(config)) {
    assertEquals(await weights.read(name), await checkpoint.read(`weight.${name}`, shape), name);
  }
}

Deno.test("a run's adapters are exported as adapters, also where its model is gone; attention alone with the rest of the model", async () => {
  await using folder = await temporaryFolder();
  const runs = folder.path;
  const model = join(runs, "tiny");
  await writeTinyModel(model);
  const base = [...SPARSIFY, "--model", model, "--slack", "0.3", "--runs", runs];
  await trained([...base, "--name", "lora", "--lora", "4"]);
  await trained([...base, "--name", "more", "--adapter", join(runs, "lora", "model"), "--merge"]);
  await trained([...base, "--name", "attention", "--train", "attention", "--save-type", "F16"]);
  for (const name of ["lora", "more", "attention"]) {
    const { sparse } = JSON.parse(await Deno.readTextFile(join(runs, name, "summary.json")));
    const output = join(runs, `${name} out`);
    const args = ["--run", name, "--runs", runs, "--step", String(sparse.step), "--output"];
    const { code, stderr } = await exported(...args, output);
    assertEquals(code, 0, stderr);
    // What was saved merged has its adapter beside it.
    const own = join(runs, name, name === "more" ? "adapter" : "model");
    assertEquals(await filesOf(output), await filesOf(own), name);
    if (name !== "attention") assert("adapter_config.json" in await filesOf(output));
  }
  const step = async (name: string): Promise<string> =>
    String(JSON.parse(await Deno.readTextFile(join(runs, name, "summary.json"))).sparse.step);
  /** The chosen step of a run. */
  const exportedStep = async (name: string, output: string) =>
    await exported("--run", name, "--runs", runs, "--step", await step(name), "--output", output);
  await Deno.remove(model, { recursive: true });
  for (const name of ["lora", "attention"]) {
    // The run's own copy of the model's files.
    const output = join(runs, `${name} without`);
    const { code, stderr } = await exportedStep(name, output);
    assertEquals(code, 0, stderr);
    const weights = name === "lora" ? "adapter_model.safetensors" : "model.safetensors";
    assertEquals((await filesOf(output))[weights], (await filesOf(join(runs, name, "model")))[weights]);
    if (name === "lora") assertEquals(await baseOf(output), await Deno.realPath(join(runs, name, "dense")));
  }
  // Where there is no copy either, what it was called when the run began.
  await Deno.remove(join(runs, "lora", "dense"), { recursive: true });
  const bare = join(runs, "lora bare");
  const named = await exportedStep("lora", bare);
  assertEquals(named.code, 0, named.stderr);
  assertEquals(await baseOf(bare), model);
  await Deno.remove(join(runs, "attention", "dense"), { recursive: true });
  const none = join(runs, "none");
  for (const name of ["more", "attention"]) {
    const { code, stderr } = await exportedStep(name, none);
    assertEquals(code, 3, stderr);
    assertStringIncludes(stderr, "the model that it began with is not there");
  }
  await copyFolder(join(runs, "attention", "model"), model);
  const other = await exported(
    "--run",
    "attention",
    "--runs",
    runs,
    "--step",
    await step("attention"),
    "--output",
    none,
  );
  assertEquals(other.code, 3, other.stderr);
  assertStringIncludes(other.stderr, "are not those that it began with");
  assertEquals(await Deno.stat(none).catch(() => "none"), "none");
});

Deno.test("a pre-trained model has gates from the step on from which it was trained with them", async () => {
  await using folder = await temporaryFolder();
  const runs = folder.path;
  // deno-fmt-ignore
  await trained(["pretrain", "--tokenizer", ADDITION.tokenizer, "--layers", "2", "--heads", "2", "--width", "16", ...SETTINGS,
    "--sparse", "--target-loss", "9", "--sparse-from", "0.5", "--keep-checkpoints", "9", "--runs", runs, "--name", "new"]);
  const { constraint } = JSON.parse(await Deno.readTextFile(join(runs, "new", "summary.json")));
  for (const [step, isGated] of [[constraint.step, true], [3, false]] as const) {
    const output = join(runs, `step ${step}`);
    const { code, stderr } = await exported(
      "--run",
      "new",
      "--runs",
      runs,
      "--step",
      String(step),
      "--output",
      output,
    );
    assertEquals(code, 0, stderr);
    if (isGated) assertEquals(await filesOf(output), await filesOf(join(runs, "new", "model")));
    assertEquals((await readModelConfig(output)).gate !== undefined, isGated);
  }
  const tokenizer = join(runs, "new", "tokenizer.json");
  await Deno.writeTextFile(tokenizer, await Deno.readTextFile(tokenizer) + " ");
  const { code, stderr } = await exported(
    "--run",
    "new",
    "--runs",
    runs,
    "--step",
    "3",
    "--output",
    join(runs, "none"),
  );
  assertEquals(code, 3, stderr);
  assertStringIncludes(stderr, "is not the tokenizer that it began with");
});
