/** What the commands advise, tried as it is written. */
import { flagName } from "../../pipeline/flags.ts";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { readSlackChanges } from "../../pipeline/runs/control.ts";
import { readMetrics } from "../../pipeline/runs/metrics.ts";
import { readRunConfig } from "../../pipeline/runs/run_config.ts";
import {
  ACTIVATIONS,
  BENCHMARK,
  CIRCUITS,
  EVALUATE,
  EXPORT,
  GENERATE,
  PLAN,
  PRETRAIN,
  SPARSIFY,
  STUDY,
  SWEEP,
  TRAIN_TOKENIZER,
} from "../../pipeline/settings.ts";
import { CHANGEABLE } from "../../pipeline/settings/resume.ts";
import type { SettingsTable } from "../../pipeline/settings/table.ts";
import { SERVE } from "../../serve/settings.ts";
import { metricRow } from "../support/metric_row.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";
import { ADDITION, runMain, writeTinyModel } from "../support/tiny_model.ts";

/** A backend that no machine has: a command that opens a device leaves with 4. */
const NO_DEVICE = { env: { DENO_WEBGPU_BACKEND: "none" } };

/** The one line that a command fails with. */
function errorOf(stderr: string): string {
  const lines = stderr.split("\n").filter((line) => line.startsWith("error: "));
  assertEquals(lines.length, 1, stderr);
  return lines[0];
}

async function namesIn(folder: string): Promise<string[]> {
  return (await Array.fromAsync(Deno.readDir(folder)).catch(() => [])).map(({ name }) => name);
}

/** Flags of every command. */
function knownFlags(): Set<string> {
  const tables = [
    SPARSIFY,
    PRETRAIN,
    EVALUATE,
    TRAIN_TOKENIZER,
    CIRCUITS,
    GENERATE,
    PLAN,
    BENCHMARK,
    STUDY,
    SWEEP,
    ACTIVATIONS,
    EXPORT,
    SERVE,
  ] as SettingsTable[];
  // The last is Deno's, and printed for the tasks.
  const known = new Set(["--help", "--version", "--config", "--resume", "--allow-ffi"]);
  for (const table of tables) {
    for (const [name, { kind }] of Object.entries(table)) {
      const key = flagName(name);
      known.add(`--${key}`);
      if (kind === "flag") known.add(`--no-${key}`);
    }
  }
  return known;
}

Deno.test("every flag that a message, the README or the docs name is one that a command has", async () => {
  const root = new URL("../../", import.meta.url).pathname;
  const known = knownFlags();
  const named = new Map<string, string>();
  const read = async (path: string): Promise<void> => {
    const text = (await Deno.readTextFile(path)).split("\n").filter((line) =>
      !/^\s*(\*|\/\/|\/\*|#SBATCH)/.test(line)
    );
    for (const [flag] of text.join("\n").matchAll(/(?<![\w(-])--[a-z][a-z-]*[a-z](?![\w-])/g)) {
      named.set(flag, path);
    }
  };
  for (const file of ["README.md", "docs/guide.md", "docs/method.md"]) await read(join(root, file));
  const walk = async (folder: string): Promise<void> => {
    for await (const { name, isDirectory } of Deno.readDir(folder)) {
      if (isDirectory) await walk(join(folder, name));
      else if (name.endsWith(".ts")) await read(join(folder, name));
    }
  };
  for (const folder of ["pipeline", "serve"]) await walk(join(root, folder));
  assert(named.size > 30, [...named.keys()].join());
  assertEquals([...named].filter(([flag]) => !known.has(flag)), []);
  const guide = await Deno.readTextFile(join(root, "docs/guide.md"));
  for (const name of CHANGEABLE) {
    assertStringIncludes(guide, `\`--${flagName(name)}\``);
  }
  for (const column of Object.keys(metricRow(1))) assertStringIncludes(guide, `\`${column}\``);
});

Deno.test("too little text is said before a device is opened, by its own name, and leaves nothing behind", async () => {
  await using folder = await temporaryFolder();
  const [model, runs] = [join(folder.path, "tiny"), join(folder.path, "runs")];
  await writeTinyModel(model);
  const text = join(folder.path, "little.txt");
  await Deno.writeTextFile(text, "12+34=46".repeat(4));
  const data = ["--model", model, "--data", text];
  const trained = await runMain(["sparsify", ...data, "--context", "8", "--runs", runs], NO_DEVICE);
  assertEquals(trained.code, 3, trained.stderr);
  const error = errorOf(trained.stderr);
  assertStringIncludes(error, `split of ${text} into windows`);
  assertStringIncludes(error, "give more text, or a smaller --context");
  assert(!error.includes("--resume"), error);
  assertEquals(await namesIn(runs), []);
  const evaluated = await runMain(["evaluate", ...data], NO_DEVICE);
  assertEquals(evaluated.code, 3, evaluated.stderr);
  assertStringIncludes(errorOf(evaluated.stderr), `the test split of ${text} into windows`);
  await Deno.writeTextFile(text, "12+34=46".repeat(400));
  const more = await runMain(["sparsify", ...data, "--context", "8", "--runs", runs], NO_DEVICE);
  assertEquals(more.code, 4, "more text comes as far as the device");
  assertEquals(await namesIn(runs), []);
});

Deno.test("data with a character that has no token and a taken name are found before a device is opened", async () => {
  await using folder = await temporaryFolder();
  const [model, runs] = [join(folder.path, "tiny"), join(folder.path, "runs")];
  await writeTinyModel(model);
  const text = join(folder.path, "words.txt");
  await Deno.writeTextFile(text, "words ".repeat(100));
  const bad = await runMain(["sparsify", "--model", model, "--data", text, "--runs", runs], NO_DEVICE);
  assertEquals(bad.code, 3, bad.stderr);
  assertStringIncludes(errorOf(bad.stderr), text);
  assertEquals(await namesIn(runs), []);
  await Deno.mkdir(join(runs, "taken"), { recursive: true });
  await Deno.writeTextFile(join(runs, "taken", "mine.txt"), "");
  const named = ["--model", model, "--data", ADDITION.data, "--runs", runs, "--name", "taken"];
  const taken = await runMain(["sparsify", ...named], NO_DEVICE);
  assertEquals(taken.code, 2, taken.stderr);
  assertStringIncludes(errorOf(taken.stderr), "Cannot create run taken");
});

Deno.test("a start that was killed while it tokenised gives its name to the next", async () => {
  await using folder = await temporaryFolder();
  const [model, runs] = [join(folder.path, "tiny"), join(folder.path, "runs")];
  await writeTinyModel(model);
  const tokens = join(runs, "run", "tokens");
  await Deno.mkdir(tokens, { recursive: true });
  await Deno.writeTextFile(join(tokens, "tokens.partial"), "torn");
  const start = [
    "sparsify",
    "--model",
    model,
    "--data",
    ADDITION.data,
    "--runs",
    runs,
    "--name",
    "run",
  ];
  await Deno.writeTextFile(join(runs, "run", ".lock"), "");
  assertEquals((await runMain(start, NO_DEVICE)).code, 2, "without a mark it is somebody's");
  await Deno.writeTextFile(
    join(runs, "run", ".start"),
    "A run was about to begin in this folder, which was made for it.\n",
  );
  const again = await runMain(start, NO_DEVICE);
  assertEquals(again.code, 4, again.stderr);
  assertEquals(await namesIn(runs), []);
});

Deno.test("a run that is stopped before it has begun leaves nothing behind", async () => {
  await using folder = await temporaryFolder();
  const [model, runs] = [join(folder.path, "tiny"), join(folder.path, "runs")];
  await writeTinyModel(model);
  const start = ["sparsify", "--model", model, "--data", ADDITION.data, "--runs", runs];
  const { code, stderr } = await runMain(start, {
    hold: [{ when: "tokenising", meanwhile: (send) => send("SIGINT") }],
  });
  assertEquals(code, 130, stderr);
  // Its few rows are tokenised in no time, so that it may have come to what follows.
  assertMatch(stderr, /stopping: (tokenising|opening the device)\nstopped\n/);
  assertEquals(await namesIn(runs), []);
});

Deno.test("a run that was stopped goes on with the settings that the signatures advise, and says from where", async () => {
  await using folder = await temporaryFolder();
  const model = join(folder.path, "tiny");
  await writeTinyModel(model);
  // deno-fmt-ignore
  const stopped = await runMain(["sparsify", "--model", model, "--data", ADDITION.data, "--batch", "16", "--steps", "40",
    "--lr", "0.01", "--warmup", "0", "--decay", "0", "--slack", "1", "--no-control", "--no-autotune", "--eval-every", "10",
    "--checkpoint-every", "20", "--validation-tokens", "256", "--eval-tokens", "256", "--runs", folder.path,
    "--name", "run"], { hold: [{ when: "sparse 10/40", meanwhile: (send) => send("SIGINT") }] });
  assertEquals(stopped.code, 130, stopped.stderr);
  assertStringIncludes(stopped.stderr, "settings from the model: context 8");
  assertStringIncludes(stopped.stderr, `sparsify --resume run --runs ${folder.path}`);
  const run = join(folder.path, "run");
  const done = (await readMetrics(join(run, "metrics.arrows"))).length;
  assert(done > 0 && done < 40, `${done} steps`);
  const resume = ["sparsify", "--resume", "run", "--runs", folder.path];
  const refused = await runMain([...resume, "--lambda-min", "9"]);
  assertEquals(refused.code, 2, refused.stderr);
  const advised = ["--lr", "0.005", "--slack", "2", "--lambda-min", "0.05", "--clip", "0.5"];
  const { code, stderr } = await runMain([...resume, ...advised, "--json"]);
  assertEquals(code, 0, stderr);
  assertStringIncludes(stderr, `lr 0.005 in place of 0.01 from step ${done + 1} of the sparse phase on`);
  const rows = await readMetrics(join(run, "metrics.arrows"));
  const rates = new Set(rows.map(({ step, learning_rate }) => `${step > done} ${learning_rate.toFixed(4)}`));
  assertEquals([...rates], ["false 0.0100", "true 0.0050"]);
  const config = await readRunConfig(join(run, "config.json"));
  assertEquals([config.settings.lr, config.settings.lambdaMin, config.settings.slack], [0.005, 0.05, 1]);
  assertEquals(config.changes?.map(({ setting, phase, step }) => [setting, phase, step]), [
    ["lr", "sparse", done],
    ["clip", "sparse", done],
    ["lambdaMin", "sparse", done],
  ]);
  assertEquals(await readSlackChanges(run), [{ phase: "sparse", step: done, slack: 2 }]);
  const report = await Deno.readTextFile(join(run, "report.html"));
  assertStringIncludes(report, "lr 0.005 in place of 0.01 from step");
  assertStringIncludes(
    report,
    "gives other bits than this run’s, as settings changed on the way, and the slack",
  );
  const finished = await runMain([...resume, "--json"], NO_DEVICE);
  assertEquals(finished.code, 0, finished.stderr);
  assertMatch(finished.stderr, /run .*run is finished: nothing is left to do/);
  assertEquals(
    finished.stdout,
    await Deno.readTextFile(join(run, "summary.json")).then(JSON.parse).then((summary) =>
      JSON.stringify(summary) + "\n"
    ),
  );
});

Deno.test("of a target that no loss comes to it is warned, and more steps are not advised", async () => {
  await using folder = await temporaryFolder();
  const model = join(folder.path, "tiny");
  await writeTinyModel(model);
  // deno-fmt-ignore
  const { code, stdout, stderr } = await runMain(["sparsify", "--model", model, "--data", ADDITION.data, "--batch", "16",
    "--steps", "2", "--warmup", "0", "--slack", "-50", "--no-control", "--no-autotune", "--validation-tokens", "64",
    "--eval-tokens", "64", "--runs", folder.path, "--name", "run"]);
  assertEquals(code, 0, stderr);
  const warnings = stderr.split("\n").filter((line) => line.includes("is below 0"));
  assertEquals(warnings.length, 1, stderr);
  assertMatch(
    warnings[0],
    /^warning: the target -4\d\.\d{4} is below 0, where no loss is, .*: raise --slack, also with/,
  );
  assertMatch(stderr, /is below 0[^]*sparse 2\/2/, "before it is trained");
  assertStringIncludes(stdout, "Begin another run with a higher --slack.");
  const resumed = await runMain([
    "sparsify",
    "--resume",
    "run",
    "--runs",
    folder.path,
    "--target-loss",
    "-1",
  ]);
  assertEquals(resumed.code, 2);
  assertStringIncludes(resumed.stderr, "Cannot use --target-loss as it must be at least 0: -1");
});

Deno.test("a vocabulary that the text cannot fill is answered with the one that it can", async () => {
  await using folder = await temporaryFolder();
  const text = join(folder.path, "text.txt");
  await Deno.writeTextFile(text, "so much and so much more");
  const train = ["train-tokenizer", "--data", text, "--output", join(folder.path, "tokenizer.json")];
  const { code, stderr } = await runMain(train);
  assertEquals(code, 3, stderr);
  const [, entries] = /give --vocabulary (\d+) or more text/.exec(errorOf(stderr))!;
  const taken = await runMain([...train, "--vocabulary", entries]);
  assertEquals(taken.code, 0, taken.stderr);
  const unknown = await runMain(["train-tokenizer", "--vocab", "300"]);
  assertStringIncludes(errorOf(unknown.stderr), "(did you mean --vocabulary?)");
});

Deno.test("a run's folder, a name of the hub and a folder without a model are answered with what to give", async () => {
  await using folder = await temporaryFolder();
  const run = join(folder.path, "run");
  const evaluate = async (model: string): Promise<string> => {
    const { code, stderr } = await runMain([
      "evaluate",
      "--model",
      model,
      "--data",
      ADDITION.data,
    ], NO_DEVICE);
    assertEquals(code, 3, stderr);
    return errorOf(stderr);
  };
  await Deno.mkdir(run);
  await Deno.writeTextFile(join(run, "config.json"), JSON.stringify({ command: "sparsify", settings: {} }));
  assertStringIncludes(await evaluate(run), "it has not come to the end");
  await writeTinyModel(join(run, "model"));
  const [, offered] = /the folder of a run: give (.*)$/.exec(await evaluate(run))!;
  const taken = await runMain(["evaluate", "--model", offered, "--data", ADDITION.data], NO_DEVICE);
  assertEquals(taken.code, 4, "it comes as far as the device");
  assertStringIncludes(
    await evaluate("distilbert/distilgpt2"),
    "HF_HUB_OFFLINE forbids to ask the hub; and there is",
  );
  assertStringIncludes(
    await evaluate("distilbert/distilgpt2"),
    "and there is no folder distilbert/distilgpt2",
  );
  assertStringIncludes(
    await evaluate(join(folder.path, "nowhere")),
    "of the Hugging Face hub is named owner/name",
  );
  const { stderr } = await runMain(["evaluate", "--model", folder.path, "--data", ADDITION.data]);
  assertStringIncludes(errorOf(stderr), "a model is a Hugging Face folder");
});

Deno.test("a memory that no device makes enough is refused before the data is read, let alone before it is tokenised", async () => {
  await using folder = await temporaryFolder();
  const [model, text] = [join(folder.path, "tiny"), join(folder.path, "text.txt")];
  await writeTinyModel(model);
  // Of which the vocabulary has no token.
  await Deno.writeTextFile(text, "Words".repeat(1000));
  const { code, stderr } = await runMain([
    "sparsify",
    ...["--model", model, "--data", text, "--runs", join(folder.path, "runs"), "--memory", "0.00001"],
  ]);
  assertEquals(code, 2, stderr);
  assertMatch(errorOf(stderr), /as it needs .* at least and there are 10 kB: lower --batch/);
});

Deno.test("an adapter that there is not is told before the data is read", async () => {
  await using folder = await temporaryFolder();
  const [model, text] = [join(folder.path, "tiny"), join(folder.path, "text.txt")];
  await writeTinyModel(model);
  await Deno.writeTextFile(text, "Words".repeat(1000));
  const start = ["sparsify", "--model", model, "--data", text, "--runs", join(folder.path, "runs")];
  const { code, stderr } = await runMain([...start, "--gpu", "Voodoo 2"]);
  assertEquals(code, 4, stderr);
  assertStringIncludes(errorOf(stderr), "Cannot open");
  assertEquals(await namesIn(join(folder.path, "runs")), []);
});
