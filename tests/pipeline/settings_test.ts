import { flagName } from "../../pipeline/flags.ts";
import { gpt2Config } from "../../pipeline/model/config.ts";
import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { join } from "node:path";
import { UserError } from "../../pipeline/errors.ts";
import { modelConfigToJson } from "../../pipeline/model/config_file.ts";
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
  type SparsifySettings,
  TRAIN_TOKENIZER,
} from "../../pipeline/settings.ts";
import { helpText, printedInstead } from "../../pipeline/settings/help.ts";
import { parseCommand } from "../../pipeline/settings/parse.ts";
import { defaultsOf, fromModelLine, resolveFully, resolveSettings } from "../../pipeline/settings/resolve.ts";
import { CHANGEABLE, resumedSettings } from "../../pipeline/settings/resume.ts";
import type { SettingsOf, SettingsTable } from "../../pipeline/settings/table.ts";
import { checkRuns } from "../../pipeline/sweep/check_runs.ts";
import { sweepRuns } from "../../pipeline/sweep/sweep_file.ts";
import { SERVE } from "../../serve/settings.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";

Deno.test("a command's flags become typed values", () => {
  const { given } = parseCommand(SPARSIFY, [
    ..."--steps 7 --lr 2e-4 --no-control --json --data a --data - --target-loss 3.5 --slack -0.1".split(" "),
  ]);
  assertEquals(given, {
    steps: 7,
    lr: 2e-4,
    control: false,
    json: true,
    data: ["a", "-"],
    targetLoss: 3.5,
    slack: -0.1,
  });
  assertEquals(parseCommand(SPARSIFY, ["--target-loss", "auto"]).given.targetLoss, "auto");
});

for (
  const [args, message] of [
    [["--vocab", "3"], "Unknown flag --vocab"],
    [["--learning-rate", "3"], "Unknown flag --learning-rate (did you mean --lr?)"],
    [["--batch-size", "3"], "Unknown flag --batch-size (did you mean --batch?)"],
    [["--max-steps", "3"], "Unknown flag --max-steps (did you mean --steps?)"],
    [["--checkpoint", "3"], "Unknown flag --checkpoint (did you mean --checkpoint-every?)"],
    [["--stepz", "3"], "Unknown flag --stepz (did you mean --steps?)"],
    [["--no-contrl"], "Unknown flag --no-contrl (did you mean --no-control?)"],
    [["-steps", "3"], "Unknown flag -steps (did you mean --steps?)"],
    [["-x"], "Unknown flag -x"],
    [["--constructor", "1"], "Unknown flag --constructor"],
    [["extra"], "Unknown argument extra"],
    [["--batch", "1.5"], "--batch as it must be a whole number: 1.5"],
    [["--lr", "0"], "--lr as it must be above 0: 0"],
    [["--lr", "NaN"], "--lr as it must be a number: NaN"],
    [["--decay", "1.5"], "--decay as it must be at most 1: 1.5"],
    [["--save-type", "F8"], "--save-type as it must be one of F32, F16, BF16: F8"],
    [["--model"], "--model as it must be a path: nothing given"],
    [["--model", "--json"], "--model as it must be a path: nothing given"],
    [["--data"], "--data as it must be a path: nothing given"],
    [["--data", "-", "--data", "-"], "--data - twice as standard input can be read once"],
    [["--control", "--no-control"], "--control with --no-control: give one of the two"],
    [["--no-front", "--front=true"], "--front with --no-front: give one of the two"],
    [["--slack", " "], "--slack as it must be a number: nothing given"],
    [["--seed", "4294967296"], "--seed as it must be at most 4294967295: 4294967296"],
    [["--json=maybe"], "--json as it must be true or false: maybe"],
    [["--no-control=true"], "--no-control as it must be given without a value: true"],
    [["--config"], "--config as it needs a value"],
    [["--target-loss", "low"], "--target-loss as it must be a number or auto or control: low"],
  ] as [string[], string][]
) {
  Deno.test(`${args.join(" ")} is refused in one line`, () => {
    const error = assertThrows(() => parseCommand(SPARSIFY, args), UserError);
    assertStringIncludes(error.message, message);
    assertEquals([error.exitCode, error.message.includes("\n")], [2, false]);
  });
}

Deno.test("only a command that has runs resumes one", () => {
  assertEquals(parseCommand(SPARSIFY, ["--resume", "one"]).resume, "one");
  for (const table of [EVALUATE, CIRCUITS, GENERATE, ACTIVATIONS, SERVE] as SettingsTable[]) {
    assertThrows(() => parseCommand(table, ["--resume", "one"]), UserError, "Unknown flag --resume");
  }
});

Deno.test("a flag wins over the settings file, that over the model's recommendation, that over the default", async () => {
  await using folder = await temporaryFolder();
  const model = join(folder.path, "model");
  await Deno.mkdir(model);
  await Deno.writeTextFile(
    join(model, "sparsify.json"),
    JSON.stringify({ steps: 11, batch: 12, lr: 0.5, data: ["text.txt", "/absolute.txt"] }),
  );
  const config = join(folder.path, "config.json");
  await Deno.writeTextFile(config, JSON.stringify({ batch: 13, lr: 0.25, model }));
  const settings = await resolveSettings(SPARSIFY, { given: { lr: 0.125 }, config });
  assertEquals([settings.steps, settings.batch, settings.lr, settings.seed], [11, 13, 0.125, 1]);
  assertEquals(settings.data, [join(model, "text.txt"), "/absolute.txt"]);
});

Deno.test("how a model is trained has no say in what it is measured on, nor in what is drawn", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "sparsify.json");
  await Deno.writeTextFile(path, JSON.stringify({ data: ["text.txt"], seed: 7, context: 32 }));
  const given = { model: folder.path };
  for (const table of [BENCHMARK, CIRCUITS, GENERATE] as SettingsTable[]) {
    const { settings, recommended } = await resolveFully(table, { given, config: undefined });
    assertEquals([settings.seed, recommended], [1, {}]);
  }
  const help = await printedInstead(
    "benchmark",
    "Measures.",
    BENCHMARK,
    parseCommand(BENCHMARK, ["--help", "--model", folder.path]),
  );
  const line = help!.split("\n").find((text) => text.includes("--data"))!;
  assert(line.endsWith("(default: from the hub)"), line);
  assertEquals((await resolveSettings(EVALUATE, { given, config: undefined })).context, 32);
});

for (
  const [content, message] of [
    ["{", "Cannot read settings"],
    ["[]", "must be a JSON object"],
    ['{"a":\n x}', "Cannot read settings"],
    ['{"constructor":1}', "unknown key constructor"],
    ['{"lambdaMin":6}', "--lambda-min as it must be at most --lambda-max 5: 6"],
    ['{"stepz":1}', "unknown key stepz (did you mean steps?)"],
    ['{"steps":"ten"}', "steps in "],
    ['{"control":"no"}', "must be true or false"],
    ['{"lora":4,"loraTargets":["query"]}', 'config.json as it must be a name: ["query"]'],
    ['{"steps":{"of":3}}', 'as it must be a number: {"of":3}'],
    ['{"data":"one"}', ""],
  ]
) {
  Deno.test(`settings ${JSON.stringify(content)} are ${message ? "refused" : "taken"}`, async () => {
    await using folder = await temporaryFolder();
    const config = join(folder.path, "config.json");
    await Deno.writeTextFile(config, content);
    const resolved = resolveSettings(SPARSIFY, { given: { model: folder.path }, config });
    if (!message) assertEquals((await resolved).data, ["one"]);
    else {
      const error = await assertRejects(() => resolved, UserError);
      assertStringIncludes(error.message, message);
      assert(!error.message.includes("\n"), "one line");
    }
  });
}

const IDLE: [table: SettingsTable, flags: string[], message: string][] = [
  [SPARSIFY, ["--target-loss", "3", "--slack", "0.5"], "--slack with --target-loss 3, which is the target"],
  [SPARSIFY, ["--lambda-start", "6"], "--lambda-start 6 as it must be at most --lambda-max 5"],
  [SPARSIFY, ["--steps", "30", "--warmup", "40"], "--warmup 40 as it must be at most --steps 30"],
  [PRETRAIN, ["--steps", "30", "--warmup", "31"], "--warmup 31 as it must be at most --steps 30"],
  [SPARSIFY, ["--front-slack", "0.1"], "--front-slack without --front"],
  [SPARSIFY, ["--distill", "0", "--teacher", "dense"], "--teacher dense as nothing is learnt from it"],
  [PLAN, ["--teacher", "auto"], "--teacher auto as nothing is learnt from it"],
  [PRETRAIN, ["--port", "8001"], "--port without --serve"],
  [PRETRAIN, ["--gate-bias", "2"], "--gate-bias without --sparse"],
  [PRETRAIN, ["--lambda-start", "0.1"], "--lambda-start without --sparse"],
  [
    PRETRAIN,
    ["--sparse", "--target-loss", "3", "--lambda-start", "6"],
    "--lambda-start 6 as it must be at most",
  ],
  [PRETRAIN, ["--sparse-from", "0.5"], "--sparse-from without --sparse"],
  [CIRCUITS, ["--method", "eap", "--ig-steps", "3"], "--ig-steps with --method eap, which has no such"],
  [GENERATE, ["--steer-scale", "2"], "--steer-scale without --steer"],
  [GENERATE, ["--top-p", "0.5"], "--top-p with --temperature 0, at which nothing is drawn"],
  [GENERATE, ["--temperature", "0", "--seed", "5"], "--seed with --temperature 0, at which nothing is drawn"],
  [PLAN, ["--shard-optimizer"], "--shard-optimizer without --ranks"],
];

Deno.test("a flag that has no effect, or contradicts another, is refused; one that has is taken", async () => {
  const resolved = (table: SettingsTable, flags: string[]) =>
    resolveSettings(table, { given: parseCommand(table, flags).given, config: undefined });
  for (const [table, flags, message] of IDLE) {
    const error = await assertRejects(() => resolved(table, flags), UserError);
    assertEquals(error.exitCode, 2);
    assertStringIncludes(error.message, `Cannot use ${message}`);
  }
  const taken: [SettingsTable, string[]][] = [
    [SPARSIFY, ["--target-loss", "control", "--slack", "0.5"]],
    [SPARSIFY, ["--target-loss", "3"]],
    // What holds by default follows.
    [SPARSIFY, ["--lambda-max", "0.1"]],
    [PRETRAIN, ["--steps", "10"]],
    [PRETRAIN, ["--sparse", "--target-loss", "3", "--gate-bias", "2", "--sparse-from", "0.5"]],
    [SPARSIFY, ["--steps", "30", "--warmup", "30"]],
    [SPARSIFY, ["--front", "--front-slack", "0.1"]],
    // The embedded English model recommends a weight.
    [SPARSIFY, ["--teacher", "dense"]],
    [SPARSIFY, ["--distill", "0"]],
    [SPARSIFY, ["--serve", "--port", "8001"]],
    [CIRCUITS, ["--ig-steps", "3"]],
    [GENERATE, ["--temperature", "0.5", "--top-p", "0.5", "--seed", "5"]],
    [PLAN, ["--shard-optimizer", "--ranks", "2"]],
    [PLAN, ["--no-shard-optimizer"]],
  ];
  for (const [table, flags] of taken) await resolved(table, flags);
});

Deno.test("what the embedded models recommend, alone and in a sweep, is not refused for what a flag leaves idle", async () => {
  for (const model of ["data/english", "data/addition"]) {
    for (const target of [3, "auto", "control"]) {
      const json = { settings: { model, targetLoss: target }, list: [{ distill: 0 }, { steps: 1 }] };
      await checkRuns(sweepRuns(json, "tries.json", Deno.cwd()), "tries.json");
    }
  }
  const idle = { settings: { targetLoss: 3 }, list: [{ slack: 0.1 }] };
  await assertRejects(
    () => checkRuns(sweepRuns(idle, "tries.json", Deno.cwd()), "tries.json"),
    UserError,
    "Cannot use --slack with --target-loss 3",
  );
});

Deno.test("all settings of a run, as a file, are taken with those that were idle in it; another idle one is refused", async () => {
  await using folder = await temporaryFolder();
  const resolved = (flags: string[]) => resolveSettings(SPARSIFY, parseCommand(SPARSIFY, flags));
  const settings = await resolved(["--model", "data/english", "--target-loss", "3"]);
  assert(settings.slack !== SPARSIFY.slack.value, "the model recommends a slack");
  const file = join(folder.path, "run.json");
  await Deno.writeTextFile(file, JSON.stringify(settings));
  assertEquals(await resolved(["--config", file]), settings);
  await Deno.writeTextFile(file, JSON.stringify({ ...settings, slack: 0.25 }));
  await assertRejects(() => resolved(["--config", file]), UserError, "Cannot use --slack with");
});

Deno.test("a resumed run keeps its settings but for the few that do not change its course", () => {
  const own = Object.fromEntries(
    Object.entries(SPARSIFY).map(([name, { value }]) => [name, value]),
  ) as unknown as SparsifySettings;
  const elsewhere = { model: "moved", tokenizer: "moved/tokenizer.json", adapter: "moved/adapter" };
  const free = { json: true, checkpointEvery: 3, autotune: false, ...elsewhere };
  assertEquals(resumedSettings<typeof SPARSIFY>(own, free, "run"), { ...own, ...free });
  assertThrows(
    () => resumedSettings<typeof SPARSIFY>(own, { steps: 5 }, "run"),
    UserError,
    "--steps 5, as the run began with 300",
  );
});

Deno.test("what a refused resume says may be new is taken", () => {
  const own = defaultsOf(SPARSIFY) as unknown as SparsifySettings;
  const { message } = assertThrows(
    () => resumedSettings<typeof SPARSIFY>(own, { steps: 5 }, "run"),
    UserError,
  );
  const offered = [...message.split(";")[1].matchAll(/--[a-z-]+/g)].map(([flag]) => flag);
  // What is read may be elsewhere; the data alone may be other data.
  assertEquals(offered.length, CHANGEABLE.length + 1);
  for (const flag of offered) {
    const { given } = parseCommand(SPARSIFY, [flag, "0.5"]);
    assertEquals(resumedSettings<typeof SPARSIFY>(own, given, "run"), { ...own, ...given });
  }
});

/** A folder with a model of 8 positions, as far as settings look at it. */
async function writeShortModel(folder: string, recommended?: object): Promise<void> {
  const config = gpt2Config({
    vocabularySize: 13,
    contextLength: 8,
    width: 16,
    layers: 2,
    heads: 2,
    mlpWidth: 64,
  });
  await Deno.writeTextFile(join(folder, "config.json"), JSON.stringify(modelConfigToJson(config)));
  if (recommended) await Deno.writeTextFile(join(folder, "sparsify.json"), JSON.stringify(recommended));
}

Deno.test("the default context is the model's where that is shorter, and the batch has as many tokens", async () => {
  await using folder = await temporaryFolder();
  const model = folder.path;
  await writeShortModel(model);
  const resolved = await resolveFully(SPARSIFY, { given: { model }, config: undefined });
  assertEquals([resolved.settings.context, resolved.settings.batch], [8, 128]);
  assertStringIncludes(fromModelLine(resolved)!, "context 8, batch 128 (as the positions of");
  const batch = await resolveSettings(SPARSIFY, { given: { model, batch: 3 }, config: undefined });
  assertEquals([batch.context, batch.batch], [8, 3]);
  const context = await resolveSettings(SPARSIFY, { given: { model, context: 9 }, config: undefined });
  assertEquals([context.context, context.batch], [9, 8], "what was asked for is refused, not mended");
  await writeShortModel(model, { context: 4 });
  const own = await resolveSettings(SPARSIFY, { given: { model }, config: undefined });
  assertEquals([own.context, own.batch], [4, 8], "the model's recommendation stands as it is");
});

Deno.test("a line tells what comes from a model's sparsify.json, and nothing that a flag overrules", async () => {
  await using folder = await temporaryFolder();
  const model = folder.path;
  await writeShortModel(model, { context: 8, steps: 11, lr: 0.5, lambdaGain: 0 });
  const line = fromModelLine(await resolveFully(SPARSIFY, { given: { model, lr: 1 }, config: undefined }));
  assertEquals(
    line,
    `settings from the model: context 8, steps 11, lambda-gain 0 (${model}/sparsify.json)`
      .replace("(", "(from "),
  );
  const none = { model, context: 8, steps: 1, lr: 1, lambdaGain: 1 };
  assertEquals(fromModelLine(await resolveFully(SPARSIFY, { given: none, config: undefined })), undefined);
});

Deno.test("a model of the hub says how it is trained, and neither what is read nor where anything is written", async () => {
  await using folder = await temporaryFolder();
  await writeShortModel(folder.path, {
    steps: 11,
    slack: 0.25,
    data: ["own.txt"],
    runs: "elsewhere",
    evalTokens: 1,
  });
  const asked = { given: { model: "owner/name" }, config: undefined };
  const ofHub = () => Promise.resolve({ folder: folder.path, name: "owner/name@0123" });
  const { settings, recommended } = await resolveFully(SPARSIFY, asked, ofHub);
  assertEquals(recommended, { steps: 11, slack: 0.25 });
  assertEquals([settings.steps, settings.data, settings.model], [11, [], "owner/name@0123"]);
});

Deno.test("a model's temperature of training is not that of its texts", async () => {
  await using folder = await temporaryFolder();
  await writeShortModel(folder.path, { temperature: 0.5, seed: 7 });
  const asked = { given: { model: folder.path }, config: undefined };
  const { temperature, seed } = await resolveSettings(GENERATE, asked);
  assertEquals([temperature, seed], [0, GENERATE.seed.value]);
  assertEquals((await resolveSettings(SPARSIFY, asked)).temperature, 0.5);
});

Deno.test("help shows what would hold with --model, and says that the model decides it", async () => {
  await using folder = await temporaryFolder();
  const model = folder.path;
  await writeShortModel(model, { steps: 11, slack: 0.25, data: ["text.txt"] });
  const help =
    (await printedInstead("sparsify", "", SPARSIFY, parseCommand(SPARSIFY, ["--help", "--model", model])))!;
  for (
    const part of [
      "optimiser steps (11)",
      "with auto or control (0.25)",
      `(${model}/text.txt)`,
      "(8)",
      "(128)",
    ]
  ) {
    assertStringIncludes(help, part);
  }
  assertStringIncludes(help, `what holds with --model ${model}`);
  assertStringIncludes(help, "--steps, --slack, --data, --context, --batch");
  const plain = (await printedInstead("pretrain", "", PRETRAIN, parseCommand(PRETRAIN, ["--help"])))!;
  assert(!plain.includes("In brackets"), "no model, no say");
});

Deno.test("help lists choices, says what is required and what circuits take", () => {
  const sparsify = helpText("sparsify", "", SPARSIFY);
  assertStringIncludes(sparsify, "--dtype f32|f16 ");
  assertStringIncludes(sparsify, "--save-type F32|F16|BF16 ");
  assertStringIncludes(helpText("evaluate", "", EVALUATE), "--split test|validation|train|all ");
  assertMatch(helpText("pretrain", "", PRETRAIN), /--tokenizer PATH .*required\n/);
  assertMatch(helpText("pretrain", "", PRETRAIN), /--data PATH .*required\n/);
  // Less than a row is not read.
  for (
    const [command, table] of Object.entries({ sparsify: SPARSIFY, pretrain: PRETRAIN, evaluate: EVALUATE })
  ) {
    assertMatch(helpText(command, "", table), /--eval-tokens N .*, at most, or one row/);
  }
  assertMatch(sparsify, /--validation-tokens N .*, at most, or one row/);
  assertMatch(helpText("activations", "", ACTIVATIONS), /--tokens N .*, at most, or one row/);
  const circuits = helpText("circuits", "", CIRCUITS);
  assertMatch(circuits, /--seed N .*prompts/);
  assertMatch(circuits, /--memory N .*pairs/);
  assert(!circuits.includes("batches"), "nothing of training");
});

Deno.test("pretrain has no slack, as there is no dense loss that it could stand above", () => {
  const help = helpText("pretrain", "", PRETRAIN);
  assertMatch(help, /--target-loss N .*which --sparse needs; auto: none/);
  assert(!help.includes("slack"), help);
  assertThrows(() => parseCommand(PRETRAIN, ["--slack", "0.1"]), UserError, "Unknown flag --slack");
  const run = defaultsOf(PRETRAIN) as SettingsOf<typeof PRETRAIN>;
  const { message } = assertThrows(() => resumedSettings(run, { steps: 7 }, "one"), UserError);
  assertStringIncludes(message, "--data, --lr, --clip, --target-loss, --lambda-min, --lambda-max may be new");
});

Deno.test("--version is known everywhere", async () => {
  for (
    const table of [
      SPARSIFY,
      PRETRAIN,
      EVALUATE,
      TRAIN_TOKENIZER,
      CIRCUITS,
      GENERATE,
      PLAN,
      BENCHMARK,
      ACTIVATIONS,
      EXPORT,
      SERVE,
    ] as SettingsTable[]
  ) {
    const printed = await printedInstead("c", "", table, parseCommand(table, ["--version"]));
    assertMatch(printed!, /^sparse-attention \d+\.\d+\.\d+, Deno \d/);
    assertStringIncludes(helpText("c", "", table), "--version");
  }
});

Deno.test("from another folder the default paths are such that they can be used there", async () => {
  const elsewhere = await resolveSettings(TRAIN_TOKENIZER, {
    given: {},
    config: undefined,
    folder: "/elsewhere",
  });
  assertEquals(elsewhere.output, join(Deno.cwd(), "tokenizer.json"));
  const { runs, model } = await resolveSettings(SPARSIFY, {
    given: {},
    config: undefined,
    folder: "/elsewhere",
  });
  assertEquals([runs, model], [join(Deno.cwd(), "runs"), join(Deno.cwd(), "data/english")]);
  assertEquals((await resolveSettings(SPARSIFY, { given: {}, config: undefined })).runs, "runs");
});

Deno.test("help names every flag with its default", () => {
  for (const table of [SPARSIFY, PRETRAIN, EVALUATE, PLAN, TRAIN_TOKENIZER] as SettingsTable[]) {
    const lines = helpText("command", "", table).split("\n");
    for (const [name, setting] of Object.entries(table)) {
      const flag = flagName(name);
      const line = lines.find((line) => new RegExp(`^  --(\\[no-\\])?${flag}(?![a-z-])`).test(line));
      assert(line !== undefined, `--${flag} is not named`);
      assertStringIncludes(line, setting.help);
      const isOn = setting.kind === "flag" && setting.value;
      assertEquals(line.includes("[no-]"), isOn, line);
      if (setting.kind.startsWith("number")) assert(line.endsWith(` (${setting.value})`), line);
    }
  }
  const help = helpText("pretrain", "Trains.", PRETRAIN);
  for (const flag of ["--weight-decay N", "--sparse", "--resume NAME", "(0.002)"]) {
    assertStringIncludes(help, flag);
  }
  assert(!helpText("evaluate", "", EVALUATE).includes("--resume"));
  assert(help.split("\n").every((line) => line.length <= 120));
});
