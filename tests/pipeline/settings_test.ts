import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "node:path";
import { UserError } from "../../pipeline/errors.ts";
import {
  EVALUATE,
  helpText,
  parseCommand,
  PRETRAIN,
  resolveSettings,
  resumedSettings,
  type SettingsTable,
  SPARSIFY,
  type SparsifySettings,
  TRAIN_TOKENIZER,
} from "../../pipeline/settings.ts";
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
    [["--slack", " "], "--slack as it must be a number: nothing given"],
    [["--seed", "4294967296"], "--seed as it must be at most 4294967295: 4294967296"],
    [["--json=maybe"], "--json as it must be true or false: maybe"],
    [["--no-control=true"], "--no-control as it must be given without a value: true"],
    [["--config"], "--config as it needs a value"],
    [["--target-loss", "low"], "--target-loss as it must be a number or auto: low"],
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
  assertThrows(() => parseCommand(EVALUATE, ["--resume", "one"]), UserError, "Unknown flag --resume");
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

Deno.test("a resumed run keeps its settings but for the few that do not change its course", () => {
  const own = Object.fromEntries(
    Object.entries(SPARSIFY).map(([name, { value }]) => [name, value]),
  ) as unknown as SparsifySettings;
  const free = { json: true, checkpointEvery: 3, autotune: false };
  assertEquals(resumedSettings<typeof SPARSIFY>(own, free, "run"), { ...own, ...free });
  assertThrows(
    () => resumedSettings<typeof SPARSIFY>(own, { steps: 5 }, "run"),
    UserError,
    "--steps 5, as the run began with 300",
  );
});

Deno.test("help names every flag with its default", () => {
  for (const table of [SPARSIFY, PRETRAIN, EVALUATE, TRAIN_TOKENIZER] as SettingsTable[]) {
    const lines = helpText("command", "", table, { runs: true }).split("\n");
    for (const [name, setting] of Object.entries(table)) {
      const flag = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
      const line = lines.find((line) => new RegExp(`^  --(\\[no-\\])?${flag}(?![a-z-])`).test(line));
      assert(line !== undefined, `--${flag} is not named`);
      assertStringIncludes(line, setting.help);
      const isOn = setting.kind === "flag" && setting.value;
      assertEquals(line.includes("[no-]"), isOn, line);
      if (setting.kind.startsWith("number")) assert(line.endsWith(` (${setting.value})`), line);
    }
  }
  const help = helpText("pretrain", "Trains.", PRETRAIN, { runs: true });
  for (const flag of ["--weight-decay N", "--sparse", "--resume NAME", "(0.002)"]) {
    assertStringIncludes(help, flag);
  }
  assert(!helpText("evaluate", "", EVALUATE, { runs: false }).includes("--resume"));
  assert(help.split("\n").every((line) => line.length < 120));
});
