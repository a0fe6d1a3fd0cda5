/**
 * Tokens that come in parts: files that are fetched one after the other, while a model learns from the first.
 */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "node:path";
import { UserError } from "../../../pipeline/errors.ts";
import { createBatches, type TokenSource } from "../../../pipeline/text/batches.ts";
import type { FileSequence } from "../../../pipeline/text/data_files.ts";
import { hashSources, splitOf, tokenise } from "../../../pipeline/text/tokenise.ts";
import { loadTokenizer } from "../../../pipeline/text/tokenizer.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { ADDITION } from "../../support/tiny_model.ts";

const SHARDS = new URL("../../fixtures/hub/shards/", import.meta.url).pathname;

/** Parts of tokens that count on from `1000 × part`, and which of them were asked for. */
function parts(lengths: readonly number[]): { first: TokenSource; asked: number[] } {
  const asked: number[] = [];
  const part = (n: number): TokenSource => ({
    name: `part ${n}`,
    length: lengths[n],
    window: (start, count) => Uint32Array.from({ length: count }, (_, t) => 1000 * n + start + t),
    next() {
      asked.push(n + 1);
      return Promise.resolve(n + 1 < lengths.length ? part(n + 1) : undefined);
    },
  });
  return { first: part(0), asked };
}

/** The first token of each of some rows. */
async function starts(tokens: TokenSource, rows: number, from = 0): Promise<number[]> {
  const batches = createBatches({ tokens, batch: 1, context: 8, seed: 3, rows });
  const found: number[] = [];
  for (let row = from; row < rows; row++) found.push((await batches.at(row)).inputs[0]);
  return found;
}

Deno.test("parts are gone through one after the other, each window once, then from the first again in another order", async () => {
  // 11, 6 and 3 windows of 8 fit behind the largest offset; the part of 7 tokens has none.
  const { first } = parts([100, 60, 7, 33]);
  const all = await starts(first, 40);
  const ofPart = all.map((start) => Math.floor(start / 1000));
  const once = [...Array(11).fill(0), ...Array(6).fill(1), ...Array(3).fill(3)];
  assertEquals(ofPart, [...once, ...once]);
  assertEquals(new Set(all.slice(0, 20)).size, 20);
  assert(JSON.stringify(all.slice(0, 11)) !== JSON.stringify(all.slice(20, 31)));
  // A run that goes on sees the same.
  for (const from of [5, 11, 16, 20, 33]) {
    assertEquals(await starts(parts([100, 60, 7, 33]).first, 40, from), all.slice(from));
  }
  // Without parts the first is as it was.
  const { next: _, ...alone } = first;
  assertEquals(await starts(alone, 11), all.slice(0, 11));
});

Deno.test("a row of an earlier part is found again", async () => {
  const batches = createBatches({ tokens: parts([100, 60]).first, batch: 1, context: 8, seed: 3 });
  const early = await batches.at(2);
  await batches.at(14);
  assertEquals(await batches.at(2), early);
});

Deno.test("a part is asked for as soon as the one before is begun, and one that no row needs is not", async () => {
  const { first, asked } = parts([100, 60, 40]);
  const batches = createBatches({ tokens: first, batch: 1, context: 8, seed: 3, rows: 17 });
  await batches.at(0);
  assertEquals(asked, [1]);
  for (let row = 1; row < 17; row++) await batches.at(row);
  assertEquals(new Set(asked), new Set([1]));
});

Deno.test("a part that cannot be had fails the row that needs it, and none before", async () => {
  const { first } = parts([100]);
  let asked = 0;
  const broken = { ...first, next: () => (asked++, Promise.reject(new Error("no net"))) };
  const batches = createBatches({ tokens: broken, batch: 1, context: 8, seed: 3, rows: 12 });
  for (let row = 0; row < 11; row++) await batches.at(row);
  assert(asked > 0);
  await assertRejects(() => batches.at(11), Error, "no net");
});

Deno.test("a first part that fills no row is refused", () => {
  assertThrows(
    () => createBatches({ tokens: parts([8, 100]).first, batch: 1, context: 8, seed: 3 }),
    UserError,
    "needs 9 tokens",
  );
});

/** The shards as files that have to be fetched; `fetched` says which were. */
function sequence(count = 4): FileSequence & { fetched: number[] } {
  const fetched: number[] = [];
  return {
    name: "hf:owner/data@0123:default/train",
    fetched,
    file(index) {
      if (index >= count) return Promise.resolve(undefined);
      fetched.push(index);
      return Promise.resolve(`${SHARDS}000${index}.parquet`);
    },
  };
}

const DOCUMENT_TOKENS = 8 * 8 + 1;

Deno.test("of files that have to be fetched no more is read than is enough", async () => {
  await using folder = await temporaryFolder();
  const tokenizer = await loadTokenizer(ADDITION.tokenizer);
  const data = sequence();
  const enough = { train: 20 * DOCUMENT_TOKENS, validation: 1, test: 1 };
  const tokens = await tokenise({ sources: [data], tokenizer, folder: folder.path, enough });
  assertEquals(data.fetched, [0]);
  assertEquals(tokens.train.next, undefined);
  const documents = Number(tokens.train.metadata.get("all_documents"));
  // As many as give each split its share, and not one more.
  const splits = Array.from({ length: documents }, (_, n) => splitOf(n));
  const count = (split: string, of = splits) => of.filter((each) => each === split).length;
  assert(count("train") >= 20 && count("validation") >= 1 && count("test") >= 1);
  const before = splits.slice(0, -1);
  assert(count("train", before) < 20 || count("validation", before) < 1 || count("test", before) < 1);
  // The same is opened again, for another amount it is made anew.
  const again = sequence();
  await tokenise({ sources: [again], tokenizer, folder: folder.path, enough });
  assertEquals(again.fetched, []);
  await tokenise({
    sources: [again],
    tokenizer,
    folder: folder.path,
    enough: { ...enough, train: 30 * DOCUMENT_TOKENS },
  });
  assertEquals(again.fetched, [0]);
});

Deno.test("training begins with the first file; the others are parts that come when they are asked for, and stay", async () => {
  await using folder = await temporaryFolder();
  const tokenizer = await loadTokenizer(ADDITION.tokenizer);
  const enough = { train: 1e9, validation: DOCUMENT_TOKENS, test: DOCUMENT_TOKENS };
  const open = (data: FileSequence) => tokenise({ sources: [data], tokenizer, folder: folder.path, enough });
  const data = sequence();
  const { train } = await open(data);
  assertEquals(data.fetched, [0]);
  assertEquals(train.metadata.get("all_documents"), "60");
  const second = (await train.next!())!;
  assertEquals(data.fetched, [0, 1]);
  // All of a further file is for training.
  assertEquals(second.length, 60 * DOCUMENT_TOKENS);
  const window = await second.window(0, DOCUMENT_TOKENS);
  assertEquals(window[DOCUMENT_TOKENS - 1], tokenizer.endOfText);
  assertEquals(await train.next!(), second);
  const last = (await (await second.next!())!.next!())!;
  assertEquals(await last.next!(), undefined);
  assertEquals(data.fetched, [0, 1, 2, 3]);
  // Whoever goes on finds them there, and makes a damaged one anew.
  const damaged = join(folder.path, "train-2.arrow");
  const bytes = await Deno.readFile(damaged);
  bytes[bytes.length >> 1] ^= 1;
  await Deno.writeFile(damaged, bytes);
  const later = sequence();
  let part = (await open(later)).train as TokenSource | undefined;
  for (let n = 0; n < 3; n++) part = await part!.next!();
  assertEquals(later.fetched, [2]);
  assertEquals(part!.length, last.length);
});

Deno.test("texts of a part begin as the model's texts do", async () => {
  await using folder = await temporaryFolder();
  const tokenizer = { ...await loadTokenizer(ADDITION.tokenizer), startOfText: 5 };
  const enough = { train: 1e9, validation: 1, test: 1 };
  const { train } = await tokenise({ sources: [sequence()], tokenizer, folder: folder.path, enough });
  const second = (await train.next!())!;
  assertEquals([train.startOfText, second.startOfText, second.length], [5, 5, 60 * (DOCUMENT_TOKENS + 1)]);
  const window = Array.from(await second.window(DOCUMENT_TOKENS, 3));
  assertEquals(window.slice(0, 2), [tokenizer.endOfText, 5]);
});

Deno.test("what a further file has no tokens for is told or refused as that of the first is, and examples are no text", async () => {
  await using folder = await temporaryFolder();
  const tokenizer = await loadTokenizer(ADDITION.tokenizer);
  const rows = {
    few: [...Array.from({ length: 60 }, () => ({ text: "12+34=640" })), { text: "1ä" }],
    many: [{ text: "12+34=640" }, { text: "12+ä" }],
    examples: [{ prompt: "1+1=", completion: "2" }],
  };
  const paths = await Promise.all(
    Object.entries(rows).map(async ([name, of]) => {
      const path = join(folder.path, `${name}.jsonl`);
      await Deno.writeTextFile(path, of.map((row) => JSON.stringify(row) + "\n").join(""));
      return path;
    }),
  );
  for (const [n, path] of paths.entries()) {
    const files = [`${SHARDS}0000.parquet`, path];
    const told: string[] = [];
    const { train } = await tokenise({
      sources: [{ name: "hf:owner/data", file: (index) => Promise.resolve(files[index]) }],
      tokenizer,
      folder: join(folder.path, `tokens ${n}`),
      enough: { train: 1e9, validation: 1, test: 1 },
      onLoss: (message) => told.push(message),
    });
    const refusals = [
      undefined,
      `Cannot use ${path} as the tokenizer has no token for 1 of 13 characters (7.7 %), of which the first, "ä", stands in ${path}, line 2`,
      `Cannot use ${path}, line 1 as it must be running text`,
    ];
    const refusal = refusals[n];
    if (refusal !== undefined) await assertRejects(() => train.next!(), UserError, refusal);
    else assertEquals((await train.next!())!.length, 60 * 10 + 2);
    const lost =
      `1 of 542 characters (0.18 %), of which the first, "ä", stands in ${path}, line 61: they are left out`;
    assertEquals(told.map((text) => text.slice(text.indexOf("1 of"))), n === 0 ? [lost] : []);
  }
});

Deno.test("what is known of files that have to be fetched is their name; among paths they are read in order", async () => {
  const data = sequence(1);
  const hash = await hashSources([data]);
  assertEquals(await hashSources([{ ...data, name: "hf:owner/data@4567:default/train" }]) === hash, false);
  assertEquals(data.fetched, []);
  await using folder = await temporaryFolder();
  const path = join(folder.path, "a.txt");
  await Deno.writeTextFile(path, "11+22=33".repeat(200));
  const tokenizer = await loadTokenizer(ADDITION.tokenizer);
  const enough = { train: 1e9, validation: 1, test: 1 };
  const { train } = await tokenise({
    sources: [path, data],
    tokenizer,
    folder: join(folder.path, "t"),
    enough,
  });
  assertEquals(train.metadata.get("all_documents"), "61");
  assertEquals(train.next, undefined);
});
