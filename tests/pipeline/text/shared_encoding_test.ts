/** Tokens that ranks find together: the files of one process, whatever the data. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { serialize } from "node:v8";
import { UserError } from "../../../pipeline/errors.ts";
import { createExchange } from "../../../pipeline/parallel/exchange.ts";
import {
  encodeAhead,
  encodeForFirst,
  type EncodeMany,
  sharesOf,
  withEncoders,
} from "../../../pipeline/text/shared_encoding.ts";
import { SPLITS, tokenise } from "../../../pipeline/text/tokenise.ts";
import { loadTokenizer } from "../../../pipeline/text/tokenizer.ts";
import { ranksInProcess } from "../../support/ranks_in_process.ts";
import { seeded } from "../../support/seeded.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { ADDITION, additionExamples } from "../../support/tiny_model.ts";

const ENGLISH = new URL("../../../data/english/tokenizer.json", import.meta.url).pathname;

/**
 * Digests of the token files that so many ranks make, what was told of losses, of how many texts each rank but the first found
 * the tokens, and the bytes that rank 0 and the last rank sent.
 */
async function madeBy(
  size: number,
  { data, tokenizer: path, batch, folder }: {
    data: string[];
    tokenizer: string;
    batch?: number;
    folder: string;
  },
) {
  const tokenizer = await loadTokenizer(path);
  const told: string[] = [];
  const found: number[] = [];
  const transports = ranksInProcess(size);
  const ranks = transports.map((transport) => createExchange(transport, { limit: 1 }));
  await Deno.mkdir(folder);
  const [first, ...others] = ranks;
  const make = (encoder?: Parameters<typeof tokenise>[0]["encoder"]) =>
    tokenise({
      sources: data,
      tokenizer,
      folder: join(folder, "tokens"),
      encoder: encoder && { ...encoder, batch: batch ?? encoder.batch },
      onLoss: (message) => told.push(message),
    });
  const made = size === 1 ? make() : Promise.all([
    withEncoders(first, () => Deno.readTextFile(path), make),
    ...others.map(async (exchange) => void found.push(await encodeForFirst(exchange))),
  ]);
  await made;
  const digests: string[] = [];
  for (const split of SPLITS) {
    const bytes = await Deno.readFile(join(folder, "tokens", `${split}.arrow`));
    digests.push(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex());
  }
  return { digests, told, found, sent: transports[0].sentBytes, sentByLast: transports.at(-1)!.sentBytes };
}

/** Sentences, a document to a line. */
function sentences(count: number, seed: number): string[] {
  const random = seeded(seed);
  const words = [
    "The",
    "people",
    " of",
    " the",
    " State",
    " may",
    " not",
    " be",
    ", nor",
    ".\n",
    " 1787",
    " é",
  ];
  return Array.from(
    { length: count },
    () => Array.from({ length: 40 }, () => words[random.integer(words.length)]).join(""),
  );
}

Deno.test("several files, a long text in pieces and characters without a token give one process's files", async () => {
  await using folder = await temporaryFolder();
  const files = [1, 2, 3].map((n) => join(folder.path, `${n}.jsonl`));
  for (const [n, file] of files.entries()) {
    const lines = sentences(200, n).map((text) => JSON.stringify({ text }));
    await Deno.writeTextFile(file, lines.join("\n"));
  }
  // Longer than a piece.
  const long = join(folder.path, "long.txt");
  await Deno.writeTextFile(long, sentences(9000, 7).join(" "));
  const settings = { data: [...files, long], tokenizer: ENGLISH };
  const alone = await madeBy(1, { ...settings, folder: join(folder.path, "alone") });
  const [whole, batches] = [
    await madeBy(3, { ...settings, folder: join(folder.path, "whole") }),
    await madeBy(2, { ...settings, batch: 100_000, folder: join(folder.path, "batches") }),
  ];
  assertEquals(whole.digests, alone.digests);
  assertEquals(batches.digests, alone.digests);
  assertEquals(new Set(alone.digests).size, 3);
  assert(whole.sent > 5e5, "the texts went to the others");
  // Of three ranks one finds a third of the tokens of many documents, of two a half.
  const [thirds, halves] = [
    await madeBy(3, { data: files, tokenizer: ENGLISH, folder: join(folder.path, "thirds") }),
    await madeBy(2, { data: files, tokenizer: ENGLISH, folder: join(folder.path, "halves") }),
  ];
  const share = thirds.sentByLast / halves.sentByLast;
  assert(share > 0.6 && share < 0.75, `${share}`);
  // Of the 600 texts the ranks but the first have found the others' part.
  for (const { found } of [halves, thirds]) {
    const each = 600 / (found.length + 1);
    assert(found.every((texts) => Math.abs(texts - each) < 0.05 * each), found.join());
  }
  // Rank 0 sends a text once, to who encodes it, and the tokens to nobody; the tokenizer goes to all.
  const tokenizer = serialize(await Deno.readTextFile(ENGLISH)).length;
  const texts = await Promise.all(files.map((file) => Deno.stat(file)));
  const characters = texts.reduce((sum, { size }) => sum + size, 0);
  for (const [{ sent }, ranks] of [[halves, 2], [thirds, 3]] as const) {
    const ofTexts = (sent - (ranks - 1) * tokenizer) / (characters * (ranks - 1) / ranks);
    assert(ofTexts > 0.9 && ofTexts < 1.2, `${ofTexts} times the texts of the others`);
  }
});

Deno.test("examples have one process's prompts and completions, and what is too little nobody is asked", async () => {
  await using folder = await temporaryFolder();
  const data = [join(folder.path, "examples.jsonl")];
  await Deno.writeTextFile(data[0], await additionExamples(1500));
  // A character without a token in a text, more of them than may be left out in another.
  const [few, many] = ["few", "many"].map((name) => join(folder.path, `${name}.txt`));
  const text = "12+34=46 ".replaceAll(" ", "").repeat(9000);
  await Deno.writeTextFile(few, `${text}é${text}`);
  await Deno.writeTextFile(many, "1é".repeat(40_000));
  const { tokenizer } = ADDITION;
  const more = [...data, join(folder.path, "more.jsonl")];
  await Deno.writeTextFile(more[1], Array(5).fill(await additionExamples(1500)).join("\n"));
  const examples = await madeBy(1, { data: more, tokenizer, folder: join(folder.path, "examples") });
  const asked = await madeBy(2, { data: more, tokenizer, folder: join(folder.path, "asked") });
  assertEquals([asked.digests, asked.sent > 1e5], [examples.digests, true]);
  const alone = await madeBy(1, { data, tokenizer, folder: join(folder.path, "alone") });
  const little = await madeBy(2, { data, tokenizer, folder: join(folder.path, "little") });
  assertEquals([little.digests, little.sent < 2000], [alone.digests, true]);
  const lost = await madeBy(1, { data: [few], tokenizer, folder: join(folder.path, "lost") });
  const shared = await madeBy(2, { data: [few], tokenizer, folder: join(folder.path, "shared") });
  assertEquals([shared.digests, shared.told], [lost.digests, lost.told]);
  assertEquals(lost.told.length, 1);
  await assertRejects(
    () => madeBy(1, { data: [many], tokenizer, folder: join(folder.path, "refused") }),
    UserError,
    "at most 1 % may be left out",
  );
});

Deno.test("ranks get as many characters each as whole texts allow", () => {
  const texts = (...lengths: number[]) =>
    lengths.map((length) => ({ text: "x".repeat(length), continued: false }));
  assertEquals(sharesOf(texts(3, 3, 3, 3), 2), [{ start: 0, end: 2 }, { start: 2, end: 4 }]);
  assertEquals(sharesOf(texts(9, 1, 1, 1), 2), [{ start: 0, end: 1 }, { start: 1, end: 4 }]);
  assertEquals(sharesOf(texts(4), 3), [{ start: 0, end: 1 }, { start: 1, end: 1 }, { start: 1, end: 1 }]);
  assertEquals(sharesOf([], 2), [{ start: 0, end: 0 }, { start: 0, end: 0 }]);
});

Deno.test("a piece goes on with the one before it in its document, and an example's texts with its first", async () => {
  const piece = (text: string, last: boolean) => ({ kind: "text" as const, text, last, where: "here" });
  const example = { kind: "example" as const, prompt: "p", completion: "c", where: "here" };
  async function* documents() {
    yield* [piece("a", false), piece("b", true), piece("d", true)];
    yield { ...example, further: [{ prompt: "q", completion: "r" }] };
  }
  const asked: string[][] = [];
  const encode: EncodeMany = (texts) => {
    asked.push(texts.map(({ text, continued }) => text + (continued ? "+" : "")));
    return Promise.resolve(texts.map(({ text }) => ({ tokens: [text.charCodeAt(0)], lost: 0 })));
  };
  const known: string[] = [];
  for await (const each of encodeAhead(documents(), { encode, batch: 2 })) {
    known.push(String.fromCharCode(...each.known!.flatMap((one) => one!.tokens)));
  }
  assertEquals(asked, [["a", "b+"], ["d", "p", "c+", "q+", "r+"], []]);
  assertEquals(known, ["a", "b", "d", "pcqr"]);
});
