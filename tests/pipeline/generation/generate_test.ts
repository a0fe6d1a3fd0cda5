/** A model that continues a text: where it ends, what a seed keeps, and the command as a user meets it. */
import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { join } from "node:path";
import { UserError } from "../../../pipeline/errors.ts";
import { generate, type GeneratingModel } from "../../../pipeline/generation/generate.ts";
import { prepareDecoder } from "../../../pipeline/model/decoder.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { openWeights } from "../../../pipeline/model/load_weights.ts";
import { writeSafetensors } from "../../../pipeline/model/safetensors.ts";
import { loadParameters } from "../../../pipeline/model/parameters.ts";
import { loadTokenizer } from "../../../pipeline/text/tokenizer.ts";
import { loadModel } from "../../../pipeline/load_model.ts";
import { gpuTest, testGpu } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { type CommandOptions, runMain, writeTinyModel } from "../../support/tiny_model.ts";

const ROOT = new URL("../../../", import.meta.url).pathname;
const ADDITION = "data/addition-sparse";
const ENGLISH = "data/english-sparse";
const GENERATE: CommandOptions = { script: "pipeline/generation/main.ts" };

async function open(folder: string): Promise<GeneratingModel> {
  const gpu = await testGpu();
  const config = await readModelConfig(ROOT + folder);
  const weights = await openWeights(ROOT + folder, config);
  const parameters = await loadParameters(gpu, weights.parameters, weights.read);
  return { gpu, config, parameters, tokenizer: await loadTokenizer(ROOT + folder, config) };
}

/** What a command wrote of itself to standard output. */
const lastLine = (stdout: string) => JSON.parse(stdout.trimEnd().split("\n").at(-1)!);

gpuTest("the sum of two numbers, as the model was trained to write it", async () => {
  const model = await open(ADDITION);
  const { prompt, tokens, text, ended } = await generate(model, "12+34=", { tokens: 2 });
  assertEquals([prompt, tokens], [model.tokenizer.encode("12+34="), model.tokenizer.encode("64")]);
  assertEquals([text, ended], ["64", "tokens"], "46, its last digit first");
});

gpuTest(
  "what is added to activations steers every token, as hooks that add it to whole prompts do",
  async (gpu) => {
    using model = await loadModel(ROOT + ADDITION, { gpu });
    const { width } = model.config;
    const [stream, attention] = ["blocks.1.hook_resid_post", "blocks.3.hook_attn_out"];
    const directions = [stream, attention].map((activation, n) => ({
      activation,
      add: normals(n + 4, width, 3),
    }));
    for (const steer of [directions.slice(0, 1), directions.slice(1), directions]) {
      const hooks = Object.fromEntries(
        steer.map((
          { activation, add },
        ) => [activation, (values: Float32Array) => values.map((value, n) => value + add[n % width])]),
      );
      const read = model.tokenizer.encode("12+34=");
      const expected: number[] = [];
      for (let n = 0; n < 2; n++) {
        const { logits: { values } } = await model.run([...read, ...expected], { hooks });
        const next = values.indexOf(Math.max(...values));
        if (next === model.config.endOfText) break;
        expected.push(next);
      }
      const held = gpu.allocatedBytes;
      const { tokens } = await generate(model, "12+34=", { tokens: 2, steer });
      assertEquals(gpu.allocatedBytes, held);
      assertEquals(tokens, expected);
      assertNotEquals(tokens, model.tokenizer.encode("64"), "it makes a difference");
    }
    const refused = (activation: string, add: Float32Array, message: string) =>
      assertRejects(() => generate(model, "12+34=", { steer: [{ activation, add }] }), RangeError, message);
    const before = gpu.allocatedBytes;
    await refused(
      "blocks.0.hook_resid_past",
      new Float32Array(width),
      "did you mean blocks.0.hook_resid_post?",
    );
    await refused(
      "blocks.0.attn.hook_z",
      new Float32Array(width),
      "of the model's width that stands by itself",
    );
    await refused("hook_pos_embed", new Float32Array(width), "of the model's width that stands by itself");
    await refused(stream, new Float32Array(width + 1), `it has ${width} elements: ${width + 1}`);
    await refused(stream, new Float32Array(width).fill(NaN), "must be finite: NaN");
    assertEquals(gpu.allocatedBytes, before);
  },
);

gpuTest("a text ends before the token that ends it, whether tokenizer or config names it", async () => {
  const model = await open(ADDITION);
  const [first, second] = model.tokenizer.encode("64");
  const endingAt = (...endsOfText: number[]) => ({ ...model, tokenizer: { ...model.tokenizer, endsOfText } });
  const byTokenizer = endingAt(12, second);
  const byConfig = { ...model, config: { ...model.config, endOfText: second } };
  for (const ending of [byTokenizer, byConfig]) {
    const { tokens, text, ended } = await generate(ending, "12+34=");
    assertEquals([tokens, text, ended], [[first], "6", "end of text"]);
  }
  const { tokens, text, ended } = await generate(endingAt(first), "12+34=");
  assertEquals([tokens, text, ended], [[], "", "end of text"]);
});

gpuTest(
  "a text gets the token that the model was trained with before every text, tokens do not",
  async () => {
    const model = await open(ADDITION);
    const starting = { ...model, tokenizer: { ...model.tokenizer, startOfText: 5 } };
    const tokens = model.tokenizer.encode("2+34=");
    const { prompt, text } = await generate(starting, "2+34=", { tokens: 1 });
    assertEquals(prompt, [5, ...tokens]);
    assertEquals(text, (await generate(starting, [5, ...tokens], { tokens: 1 })).text);
    await assertRejects(() => generate(starting, ""), UserError, "empty prompt");
  },
);

gpuTest("where the positions end the text ends, and a prompt beyond them is refused", async () => {
  const model = await open(ADDITION);
  assertEquals(model.config.contextLength, 8);
  // Six positions of the prompt, two of what it says, and the last is drawn without a position of its own.
  const all = await generate(model, "12+34=", { tokens: 100 });
  assertEquals([all.tokens.length, all.ended], [3, "positions"]);
  const just = await generate(model, "12+34=", { tokens: 3 });
  assertEquals([just.tokens, just.ended], [all.tokens, "tokens"]);
  const full = await generate(model, "12+34=64", { tokens: 5 });
  assertEquals([full.tokens, full.ended], [[all.tokens[2]], "positions"]);
  await assertRejects(
    () => generate(model, "12+34=640"),
    UserError,
    "Cannot continue a prompt of 9 tokens as the model's positions end at 8",
  );
});

gpuTest("through its own gates or with all of them open, a sparse model goes on otherwise", async () => {
  const model = await open(ENGLISH);
  const prompt = "We the people of the";
  const gated = await generate(model, prompt, { tokens: 40 });
  const opened = await generate(model, prompt, { tokens: 40, dense: true });
  const without = { ...model, config: { ...model.config, gate: undefined } };
  assertEquals((await generate(without, prompt, { tokens: 40 })).tokens, opened.tokens);
  assert(gated.tokens.join() !== opened.tokens.join(), "gates must close something");
  assertEquals(gated.tokens.length, 40);
});

gpuTest(
  "a seed gives the same text again, in one decoder or another, and the text is what came",
  async () => {
    const model = await open(ENGLISH);
    const options = { tokens: 30, temperature: 0.9, topP: 0.95, seed: 3 };
    let streamed = "";
    const counts: number[] = [];
    const first = await generate(model, "The President", {
      ...options,
      onText: (text) => streamed += text,
      onToken: (count) => counts.push(count),
    });
    assertEquals([first.text, counts], [streamed, first.tokens.map((_, n) => n + 1)]);
    assertEquals(
      first.text,
      model.tokenizer.decode(first.prompt.concat(first.tokens)).slice("The President".length),
    );
    const decoder = await prepareDecoder(model.gpu, model.config, { room: 7 });
    await generate(model, "Another text before it, of which nothing is left", { decoder, tokens: 3 });
    assertEquals(await generate(model, "The President", { ...options, decoder }), first);
    assert((await generate(model, first.prompt, { ...options, seed: 4, decoder })).text !== first.text);
    assertEquals(decoder.positions, model.config.contextLength, "a decoder that was given stays");
    decoder.destroy();
  },
);

gpuTest("what cannot be continued is refused in one sentence", async () => {
  const model = await open(ADDITION);
  await assertRejects(() => generate(model, ""), UserError, "Cannot continue an empty prompt");
  await assertRejects(() => generate(model, [1, 13]), UserError, "vocabulary has 13 entries: token 13");
  await assertRejects(() => generate(model, "1+x="), UserError, 'no token for "x"');
  for (const tokens of [0, -1, 1.5]) {
    await assertRejects(() => generate(model, "1", { tokens }), RangeError, `whole one from 1: ${tokens}`);
  }
  await assertRejects(() => generate(model, "1", { temperature: -1 }), RangeError, "temperature");
  const decoder = await prepareDecoder(model.gpu, model.config, { positions: 3 });
  await assertRejects(() => generate(model, "12+3", { decoder }), UserError, "positions end at 3");
  decoder.destroy();
});

gpuTest("it ends where it is told to, between two tokens", async () => {
  const model = await open(ENGLISH);
  const stop = new AbortController();
  let count = 0;
  const options = { signal: stop.signal, onToken: (done: number) => (count = done) === 3 && stop.abort() };
  await assertRejects(() => generate(model, "The", options), DOMException, "aborted");
  assertEquals(count, 3);
});

Deno.test("the command writes the continuation, and with --json one line that holds it", async () => {
  const args = ["--model", ROOT + ENGLISH, "--prompt", "We the people of the", "--tokens", "12"];
  const { code, stdout, stderr } = await runMain(args, GENERATE);
  assertEquals(code, 0, stderr);
  assertMatch(stderr, /12 tokens, [\d.]+ tokens\/s/);
  const json = await runMain([...args, "--json", "--quiet"], GENERATE);
  assertEquals([json.code, json.stderr.replace(/error: XDG_RUNTIME_DIR.*\n/g, "")], [0, ""]);
  assertEquals(json.stdout.split("\n").length, 2, "one line");
  const line = lastLine(json.stdout);
  assertEquals([line.model, line.mode, line.ended, line.tokens.length], [
    ROOT + ENGLISH,
    "gated",
    "tokens",
    12,
  ]);
  assertEquals([line.top_p, Object.keys(line).filter((name) => /[A-Z]/.test(name))], [1, []]);
  assertEquals(`${line.text}\n`, stdout);
  const tokenizer = await loadTokenizer(ROOT + ENGLISH);
  assertEquals(tokenizer.decode(line.tokens), line.text);
  assertEquals(line.prompt, tokenizer.encode("We the people of the"));
  assert(!("gated" in line));
});

Deno.test("with --frozen the weights lie as frozen ones do in training, which is said with what is lost", async () => {
  const args = ["--model", ROOT + ADDITION, "--prompt", "12+34=", "--tokens", "2", "--json"];
  const { code, stdout, stderr } = await runMain([...args, "--frozen", "int8"], GENERATE);
  assertEquals(code, 0, stderr);
  assertMatch(stderr, /weights as int8: off by \d\.\de-3 of their size \(RMS\)/);
  // The last digit first.
  assertEquals(lastLine(stdout).text, "64");
});

Deno.test("--steer adds a file's directions, as often as the scale says", async () => {
  await using folder = await temporaryFolder();
  const { width } = await readModelConfig(ROOT + ADDITION);
  const [directions, activation] = [join(folder.path, "add.safetensors"), "blocks.1.hook_resid_post"];
  const write = (name: string, values: Float32Array) =>
    writeSafetensors(directions, [{
      name,
      shape: [values.length],
      type: "F32",
      read: () => Promise.resolve(values),
    }]);
  const add = normals(4, width, 3);
  await write(activation, add.map((value) => value / 2));
  const args = [
    "--model",
    ROOT + ADDITION,
    "--prompt",
    "12+34=",
    "--tokens",
    "2",
    "--json",
    "--steer",
    directions,
  ];
  const { code, stdout, stderr } = await runMain([...args, "--steer-scale", "2"], GENERATE);
  assertEquals(code, 0, stderr);
  const { text, steer, steer_scale } = lastLine(stdout);
  const steered = await generate(await open(ADDITION), "12+34=", { tokens: 2, steer: [{ activation, add }] });
  assertEquals([text, steer, steer_scale], [steered.text, [activation], 2]);
  assertEquals(lastLine((await runMain([...args, "--steer-scale", "0"], GENERATE)).stdout).text, "64");
  const refused = async (name: string, values: Float32Array, message: string) => {
    await write(name, values);
    const { code, stderr } = await runMain(args, GENERATE);
    assertEquals(code, 3, stderr);
    assertStringIncludes(stderr, `Cannot steer by ${directions}: ${message}`);
    assert(!stderr.includes("adapter"), "before a device is opened");
  };
  await refused("blocks.1.hook_resid", add, "Cannot find an activation as none is named blocks.1.hook_resid");
  await refused(
    activation,
    add.subarray(1),
    `Cannot add to ${activation} as it has ${width} elements: ${width - 1}`,
  );
  await Deno.writeTextFile(directions, "none");
  assertEquals((await runMain(args, GENERATE)).code, 3);
});

Deno.test("with --dense the sparse model's own continuation stands beside", async () => {
  const args = ["--model", ROOT + ENGLISH, "--prompt", "We the people of the", "--tokens", "40", "--dense"];
  const line = lastLine((await runMain([...args, "--json"], GENERATE)).stdout);
  assertEquals(line.mode, "dense");
  assert(line.text !== line.gated.text);
  assertEquals(line.gated.tokens.length, 40);
  const { stdout } = await runMain(args, GENERATE);
  assertEquals(stdout, `with its gates:\n${line.gated.text}\n\nall gates open:\n${line.text}\n`);
  const dense = await runMain(["--model", `${ROOT}data/english`, ...args.slice(2), "--json"], GENERATE);
  const { mode, gated } = lastLine(dense.stdout);
  assertEquals([mode, gated], ["dense", undefined], "a dense model has nothing to stand beside");
});

/** Runs the command with this on standard input. */
async function piped(args: string[], input: Uint8Array<ArrayBuffer>) {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-check",
      "--allow-read",
      "--allow-write",
      "--allow-env",
      ROOT + GENERATE.script,
      ...args,
    ],
    cwd: ROOT,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1" },
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(input);
  await writer.close();
  const { code, stdout, stderr } = await child.output();
  return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
}

Deno.test("a prompt comes from standard input without the line end at its end", async () => {
  const args = ["--model", ROOT + ENGLISH, "--prompt", "-", "--tokens", "2", "--json"];
  const tokenizer = await loadTokenizer(ROOT + ENGLISH);
  for (const end of ["", "\n", "\r\n", "\n\n"]) {
    const { code, stdout, stderr } = await piped(args, new TextEncoder().encode(`One\ntwo${end}`));
    assertEquals(code, 0, stderr);
    assertEquals(lastLine(stdout).prompt, tokenizer.encode(end === "\n\n" ? "One\ntwo\n" : "One\ntwo"));
  }
  const empty = await piped(args, new Uint8Array());
  assertEquals(empty.code, 3);
  assertStringIncludes(empty.stderr, "error: Cannot continue an empty prompt");
  const bytes = await piped(args, Uint8Array.of(255, 254, 65));
  assertEquals(bytes.code, 3);
  assertStringIncludes(bytes.stderr, "error: Cannot read the prompt from standard input as it must be UTF-8");
});

Deno.test("what the command cannot use is said on one line, before a device is opened", async () => {
  await using folder = await temporaryFolder();
  const tiny = join(folder.path, "tiny");
  await writeTinyModel(tiny);
  const cases: [args: string[], code: number, message: string][] = [
    [["--model", tiny], 2, "Cannot generate without a prompt: give --prompt TEXT, or - for standard input"],
    [["--model", tiny, "--prompt", ""], 2, "--prompt as it must be a text"],
    [["--model", tiny, "--prompt", "1", "--temperature", "-1"], 2, "--temperature as it must be at least 0"],
    [["--model", tiny, "--prompt", "1", "--top-p", "0"], 2, "--top-p as it must be above 0"],
    [["--model", tiny, "--prompt", "1", "--top-p", "1.1"], 2, "--top-p as it must be at most 1"],
    [["--model", tiny, "--prompt", "1", "--tokens", "0"], 2, "--tokens as it must be at least 1"],
    [["--model", join(folder.path, "nowhere"), "--prompt", "1"], 3, "config.json: no such file"],
    [["--model", tiny, "--prompt", "1 + 2"], 3, 'has no token for " "'],
    [["--model", tiny, "--prompt", "123456789"], 3, "a prompt of 9 tokens as the model's positions end at 8"],
  ];
  for (const [args, wanted, message] of cases) {
    // No adapter is there to be opened.
    const env = { VK_DRIVER_FILES: "/nowhere", VK_ICD_FILENAMES: "/nowhere" };
    const { code, stdout, stderr } = await runMain(args, { ...GENERATE, env });
    const errors = stderr.split("\n").filter((line) => line.startsWith("error: Cannot"));
    assertEquals([code, stdout, errors.length], [wanted, "", 1], stderr);
    assertStringIncludes(errors[0], message);
  }
});

Deno.test("a prompt that begins with a dash is one", async () => {
  const args = ["--model", ROOT + ENGLISH, "--tokens", "2", "--json", "--prompt", "- the first"];
  const { prompt } = lastLine((await runMain(args, GENERATE)).stdout);
  assertEquals(prompt, (await loadTokenizer(ROOT + ENGLISH)).encode("- the first"));
});
