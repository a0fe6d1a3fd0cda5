/** The token that a model was trained with before every text: in token files, in windows, in prompts. */
import { assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { TASKS } from "../../../pipeline/circuits/tasks/tasks.ts";
import { readPairs } from "../../../pipeline/circuits/tasks/pairs_file.ts";
import { UserError } from "../../../pipeline/errors.ts";
import { writeSealedJson } from "../../../pipeline/files.ts";
import { createBatches, sequentialBatches } from "../../../pipeline/text/batches.ts";
import { IGNORED } from "../../../kernels/core/targets.ts";
import { tokenise, type Tokens } from "../../../pipeline/text/tokenise.ts";
import { loadTokenizer, type Tokenizer } from "../../../pipeline/text/tokenizer.ts";
import { randomStream } from "../../../kernels/core/random.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { ADDITION } from "../../support/tiny_model.ts";

const LLAMA = new URL("../../fixtures/tokenizers/llama2.json", import.meta.url).pathname;

async function closeAll(tokens: Tokens): Promise<void> {
  for (const file of Object.values(tokens)) await file.close();
}

/** The tokens of a split. */
const all = async ({ train }: Tokens): Promise<number[]> => Array.from(await train.window(0, train.length));

/** The addition's tokenizer with a token, the 5, that stands before every text. */
async function startingWith5(folder: string): Promise<Tokenizer> {
  await Deno.copyFile(ADDITION.tokenizer, join(folder, "tokenizer.json"));
  const settings = { add_bos_token: true, bos_token: "5" };
  await Deno.writeTextFile(join(folder, "tokenizer_config.json"), JSON.stringify(settings));
  return await loadTokenizer(folder);
}

Deno.test("every document stands between the tokens that begin and end a text, also one of several pieces", async () => {
  await using folder = await temporaryFolder();
  const tokenizer = await loadTokenizer(LLAMA);
  const lines = join(folder.path, "lines.jsonl");
  const texts = Array.from({ length: 60 }, (_, n) => `line ${n} of the people`);
  await Deno.writeTextFile(lines, texts.map((text) => JSON.stringify({ text })).join("\n"));
  const short = await tokenise({ sources: [lines], tokenizer, folder: join(folder.path, "short") });
  assertEquals([short.train.startOfText, short.train.metadata.get("start_of_text")], [1, "1"]);
  assertEquals(short.train.metadata.get("end_of_text"), "2");
  const documents = (await all(short)).join().split(/(?<=,2),/).map((part) => part.split(",").map(Number));
  const expected = texts.map((text) => [1, ...tokenizer.encode(text), 2].join());
  for (const document of documents) assertEquals(expected.includes(document.join()), true);
  await closeAll(short);

  const text = "the people of the state ".repeat(60_000);
  const source = join(folder.path, "long.txt");
  await Deno.writeTextFile(source, text);
  const long = await tokenise({ sources: [source], tokenizer, folder: join(folder.path, "long") });
  const parts = await Promise.all(Object.values(long).map((file) => file.window(0, file.length)));
  assertEquals(parts.flatMap((part) => [...part]), [1, ...tokenizer.encode(text), 2]);
  await closeAll(long);
});

Deno.test("a prompt has the token that begins a text, its completion none, and neither a space more", async () => {
  await using folder = await temporaryFolder();
  const tokenizer = await loadTokenizer(LLAMA);
  const source = join(folder.path, "examples.jsonl");
  const example = { prompt: "the people", completion: " of the state" };
  await Deno.writeTextFile(source, Array(40).fill(JSON.stringify(example)).join("\n"));
  const tokens = await tokenise({ sources: [source], tokenizer, folder: join(folder.path, "tokens") });
  const whole = [1, ...tokenizer.encode("the people of the state")];
  const prompt = 1 + tokenizer.encode("the people").length;
  const { train } = tokens;
  assertEquals(train.exampleTokens, whole.length);
  assertEquals(Array.from(await train.window(0, whole.length)), whole);
  assertEquals(
    Array.from(await train.countedWindow(0, whole.length)),
    whole.map((_, n) => n < prompt ? 0 : 1),
  );
  const context = whole.length - 1;
  const { inputs, targets } = await createBatches({ tokens: train, batch: 1, context, seed: 1 }).at(0);
  assertEquals(Array.from(inputs), whole.slice(0, -1));
  assertEquals(Array.from(targets), whole.slice(1).map((token, n) => n + 1 < prompt ? IGNORED : token));
  await closeAll(tokens);
});

/** Tokens 10, 11, 12, …, with a 1 that begins a text at some places. */
function running(length: number, starts: readonly number[], startOfText?: number) {
  const tokens = Uint32Array.from({ length }, (_, n) => starts.includes(n) ? 1 : 10 + n);
  return {
    name: "running",
    length,
    startOfText,
    window: (start: number, count: number) => tokens.subarray(start, start + count),
  };
}

Deno.test("every window begins with the token that begins a text, once, and every token behind it is a target", async () => {
  const tokens = running(40, [0, 16], 1);
  const [first, second, third, fourth] = await Array.fromAsync(
    sequentialBatches({ tokens, batch: 1, context: 8 }),
  );
  // It stands there already.
  assertEquals(Array.from(first.inputs), [1, 11, 12, 13, 14, 15, 16, 17]);
  assertEquals(Array.from(first.targets), [11, 12, 13, 14, 15, 16, 17, 18]);
  assertEquals(Array.from(second.inputs), [1, 18, 19, 20, 21, 22, 23, 24]);
  assertEquals(Array.from(second.targets), [18, 19, 20, 21, 22, 23, 24, 25]);
  assertEquals(Array.from(third.inputs), [1, 27, 28, 29, 30, 31, 32, 33]);
  assertEquals(Array.from(fourth.inputs), [1, 34, 35, 36, 37, 38, 39, 40]);
  const batches = createBatches({ tokens, batch: 4, context: 8, seed: 3 });
  for (let position = 0; position < 5; position++) {
    const { inputs, targets } = await batches.at(position);
    for (let row = 0; row < 4; row++) {
      assertEquals(inputs[8 * row], 1);
      for (let t = 1; t < 8; t++) assertEquals(inputs[8 * row + t], targets[8 * row + t - 1]);
    }
  }
  const [plain] = await Array.fromAsync(
    sequentialBatches({ tokens: running(40, [0, 16]), batch: 1, context: 8 }),
  );
  assertEquals(plain.inputs, first.inputs);
});

Deno.test("data that was tokenised with other tokens around its documents is tokenised anew", async () => {
  await using folder = await temporaryFolder();
  const source = join(folder.path, "sums.txt");
  await Deno.writeTextFile(source, "12+34=46".repeat(100));
  const options = { sources: [source], folder: join(folder.path, "tokens") };
  const plain = await loadTokenizer(ADDITION.tokenizer);
  const starting = await startingWith5(folder.path);
  assertEquals([plain.startOfText, starting.startOfText, plain.hash], [undefined, 5, starting.hash]);
  const firsts: number[] = [];
  for (const tokenizer of [plain, starting, plain, { ...plain, endOfText: 7 }]) {
    const tokens = await tokenise({ ...options, tokenizer });
    const rows = await Promise.all(Object.values(tokens).map((file) => file.window(0, file.length)));
    const row = rows.flatMap((part) => [...part]);
    firsts.push(row[0], row.at(-1)!);
    await closeAll(tokens);
  }
  assertEquals(firsts, [1, 12, 5, 12, 1, 12, 1, 7]);
  // What came from standard input is not there again.
  const piped = { ...options, hash: "-" };
  await closeAll(await tokenise({ ...piped, tokenizer: plain }));
  await closeAll(await tokenise({ ...piped, tokenizer: plain }));
  await assertRejects(
    () => tokenise({ ...piped, tokenizer: starting }),
    UserError,
    "give the same text with --data",
  );
  const path = join(folder.path, "tokens", "tokens.json");
  await writeSealedJson(path, { format: "2", tokenizer: plain.hash, sources: "-", digests: {} });
  await assertRejects(() => tokenise({ ...piped, tokenizer: plain }), UserError, "tokenised in another way");
});

Deno.test("prompts of tasks and pairs of one's own begin with it, and answers are asked one place later", async () => {
  await using folder = await temporaryFolder();
  const plain = await loadTokenizer(ADDITION.tokenizer);
  const starting = await startingWith5(folder.path);
  const make = (tokenizer: Tokenizer, contextLength: number) =>
    TASKS.addition.generate({ tokenizer, contextLength, prompts: 4, random: randomStream(1) });
  const path = join(folder.path, "pairs.jsonl");
  const pair = { clean: "12+34=", corrupted: "21+34=", answers: ["6"], wrong: ["5"] };
  await Deno.writeTextFile(
    path,
    [pair, { ...pair, clean: "13+34=" }].map((line) => JSON.stringify(line)).join("\n"),
  );
  const read = (tokenizer: Tokenizer, contextLength: number) =>
    readPairs(path, { tokenizer, contextLength, prompts: 4 });
  for (
    const [without, begun] of [[make(plain, 8), make(starting, 9)], [
      await read(plain, 6),
      await read(starting, 7),
    ]]
  ) {
    assertEquals(begun.pairs.length > 1, true);
    for (const [n, { clean, corrupted, places }] of begun.pairs.entries()) {
      const other = without.pairs[n];
      assertEquals([clean, corrupted], [[5, ...other.clean], [5, ...other.corrupted]]);
      assertEquals(places, other.places.map((place) => ({ ...place, position: place.position + 1 })));
    }
  }
  await assertRejects(() => read(starting, 6), UserError, "the model has 6 positions: 7 tokens");
});

Deno.test("words of tasks are those that are one token inside a text, of vocabularies that put a space before it too", async () => {
  const tokenizer = await loadTokenizer(LLAMA);
  const { pairs } = TASKS.copy.generate({
    tokenizer,
    contextLength: 64,
    prompts: 2,
    random: randomStream(1),
  });
  for (const { clean } of pairs) {
    assertEquals(clean[0], 1);
    const text = tokenizer.decode(clean.slice(1));
    assertEquals([1, ...tokenizer.encode(text)], clean);
  }
});
