import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { RecordBatchReader } from "apache-arrow";
import { createBatches, sequentialBatches } from "../../../pipeline/text/batches.ts";
import { IGNORED } from "../../../kernels/core/targets.ts";
import {
  bpeTokenizerJson,
  byteCharacters,
  END_OF_TEXT,
  trainBpe,
} from "../../../pipeline/text/bpe_trainer.ts";
import { findDataFiles } from "../../../pipeline/text/data_files.ts";
import { readDocuments, readRecords } from "../../../pipeline/text/documents.ts";
import { UserError } from "../../../pipeline/errors.ts";
import type { ModelConfig } from "../../../pipeline/model/config.ts";
import { hashFile } from "../../../pipeline/files.ts";
import { type Split, tokenise } from "../../../pipeline/text/tokenise.ts";
import { openTokenFile, writeTokenFile } from "../../../pipeline/text/token_file.ts";
import { checkOwnTokenizer, checkTokenizer, loadTokenizer } from "../../../pipeline/text/tokenizer.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { ADDITION } from "../../support/tiny_model.ts";

const ENGLISH = new URL("../../../data/english/tokenizer.json", import.meta.url).pathname;

interface TokenizerJson {
  model: { vocab: Record<string, number>; merges: [string, string][] };
}

Deno.test("the BPE trainer merges the most frequent pair first, and of equals the lower one", async () => {
  const { model } = await trainBpe(["aab aab ab ba"], { vocabularySize: 259 }) as TokenizerJson;
  // Pairs: "ab" 3 times in "aab", " aab", " ab"; then " a" ... the second follows from what is left.
  assertEquals(model.merges[0], ["a", "b"]);
  assertEquals(model.merges.length, 2);
  assertEquals(model.vocab[END_OF_TEXT], 258);
  const again = await trainBpe(["aab aab ab ba"], { vocabularySize: 259 });
  assertEquals(again, await trainBpe(["aab aab ab ba"], { vocabularySize: 259 }));
});

Deno.test("the BPE trainer stops where no pair occurs twice, and refuses a vocabulary below the bytes", async () => {
  const { model } = await trainBpe(["abc"], { vocabularySize: 400 }) as TokenizerJson;
  assertEquals(Object.keys(model.vocab).length, 257);
  await assertRejects(() => trainBpe(["abc"], { vocabularySize: 256 }), RangeError, "at least 257");
});

Deno.test("the byte alphabet has 256 distinct printable characters, a space among them as Ġ", () => {
  const characters = byteCharacters();
  assertEquals(new Set(characters).size, 256);
  assertEquals([characters[32], characters[65], characters[10]], ["Ġ", "A", "Ċ"]);
});

Deno.test("what is encoded is decoded again, whatever the text", async () => {
  const tokenizer = await loadTokenizer(ENGLISH);
  assertEquals([tokenizer.vocabularySize, tokenizer.endOfText], [4096, 4095]);
  for (
    const text of [
      "Fellow-Citizens of the Senate,  and\n\n  more",
      "naïve — 𝛼β 漢字 👩‍🚀",
      " ",
      "\t\r\n",
      "it's we'll I'D",
    ]
  ) {
    assertEquals(tokenizer.decode(Array.from(tokenizer.encode(text))), text);
  }
});

Deno.test("the text of a special token is text, at the start and inside", async () => {
  for (const path of [ENGLISH]) {
    const tokenizer = await loadTokenizer(path);
    for (const text of [END_OF_TEXT, `a ${END_OF_TEXT} b`, `${END_OF_TEXT}${END_OF_TEXT}`]) {
      const tokens = Array.from(tokenizer.encode(text));
      assert(!tokens.includes(tokenizer.endOfText), text);
      assertEquals(tokenizer.decode(tokens), text);
    }
  }
});

Deno.test("a normalizer and a space before the text are a tokenizer's own, also of one that is GPT-2's otherwise", async () => {
  await using folder = await temporaryFolder();
  const json = JSON.parse(await Deno.readTextFile(ENGLISH));
  const plain = await loadTokenizer(ENGLISH);
  const path = join(folder.path, "tokenizer.json");
  for (
    const [other, text] of [
      [{ ...json, normalizer: { type: "Lowercase" } }, "hello world"],
      [{ ...json, pre_tokenizer: { ...json.pre_tokenizer, add_prefix_space: true } }, " Hello World"],
    ]
  ) {
    await Deno.writeTextFile(path, JSON.stringify(other));
    assertEquals((await loadTokenizer(path)).encode("Hello World"), plain.encode(text));
  }
});

Deno.test("tables and pages are refused by name, and left out of folders", async () => {
  await using folder = await temporaryFolder();
  for (const name of ["a.csv", "b.tsv.gz", "c.HTML"]) {
    const path = join(folder.path, name);
    await Deno.writeTextFile(path, "text\n");
    await assertRejects(() => findDataFiles([path]), UserError, "would be taken for text");
  }
  await Deno.writeTextFile(join(folder.path, "d.txt"), "text\n");
  const { files, leftOut } = await findDataFiles([folder.path]);
  assertEquals([files.length, leftOut.length], [1, 3]);
});

Deno.test("a tokenizer of the model's size with other entries is refused, one with more entries is not", async () => {
  await using folder = await temporaryFolder();
  const own = await loadTokenizer(ENGLISH);
  const model = dirname(own.path);
  await checkOwnTokenizer(own, model);
  await checkOwnTokenizer(own, folder.path);
  const json = JSON.parse(await Deno.readTextFile(own.path));
  const { vocab } = json.model;
  const [first, second] = Object.keys(vocab).filter((entry) => vocab[entry] === 300 || vocab[entry] === 301);
  const path = join(folder.path, "tokenizer.json");
  const more = {
    ...json,
    added_tokens: [...json.added_tokens, { id: 4096, content: "<tool>", special: false }],
  };
  await Deno.writeTextFile(path, JSON.stringify(more));
  await checkOwnTokenizer(await loadTokenizer(path), model);
  [vocab[first], vocab[second]] = [vocab[second], vocab[first]];
  await Deno.writeTextFile(path, JSON.stringify(json));
  const exchanged = await loadTokenizer(path);
  await assertRejects(() => checkOwnTokenizer(exchanged, model), UserError, "as token 300 is");
});

Deno.test("a tokenizer that is missing, broken or without an end of text is refused", async () => {
  await using folder = await temporaryFolder();
  await assertRejects(() => loadTokenizer(join(folder.path, "none.json")), UserError, "no such file");
  const path = join(folder.path, "tokenizer.json");
  await Deno.writeTextFile(path, "{");
  await assertRejects(() => loadTokenizer(folder.path), UserError, path);
  const json = bpeTokenizerJson(["a"], []) as { added_tokens: unknown[]; model: TokenizerJson["model"] };
  json.added_tokens = [];
  delete json.model.vocab[END_OF_TEXT];
  await Deno.writeTextFile(path, JSON.stringify(json));
  await assertRejects(() => loadTokenizer(path), UserError, "to separate documents");
});

Deno.test("an added token that is not special is one token, also with spaces in it; a special one is spelled", async () => {
  await using folder = await temporaryFolder();
  const json = JSON.parse(await Deno.readTextFile(ENGLISH));
  const options = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  json.added_tokens.push({ id: 4096, content: "<tool call>", special: false, ...options });
  json.added_tokens.push({ id: 4097, content: "<|secret|>", special: true, ...options });
  await Deno.writeTextFile(join(folder.path, "tokenizer.json"), JSON.stringify(json));
  const tokenizer = await loadTokenizer(folder.path);
  const text = "he said <tool call> and <|secret|> went";
  const tokens = Array.from(tokenizer.encode(text));
  assertEquals([tokens.includes(4096), tokens.includes(4097)], [true, false]);
  assertEquals(tokenizer.decode(tokens), text);
  const plain = await loadTokenizer(ENGLISH);
  assertEquals(
    Array.from(tokenizer.encode("he said and went")),
    Array.from(plain.encode("he said and went")),
  );
});

Deno.test("decoding gives back every space, before full stops and apostrophes too", async () => {
  const tokenizer = await loadTokenizer(ENGLISH);
  for (
    const text of ["He said . And then , so ?", "the men 's boots", "he did n't go !", " ' quoted ' ", ""]
  ) {
    assertEquals(tokenizer.decode(Array.from(tokenizer.encode(text))), text);
  }
  assertNotEquals(tokenizer.decode(Array.from(tokenizer.encode(" ."))), ".");
});

Deno.test("the token that ends a text is the one that the model names, where the tokenizer has it", async () => {
  const { endOfText } = await loadTokenizer(ENGLISH);
  assertEquals((await loadTokenizer(ENGLISH, { endOfText: 7 })).endOfText, 7);
  assertEquals((await loadTokenizer(ENGLISH, { endOfText: 4200 })).endOfText, endOfText);
  await using folder = await temporaryFolder();
  const json = JSON.parse(await Deno.readTextFile(ADDITION.tokenizer));
  json.added_tokens[0].content = "<|end|>";
  delete json.model.vocab[END_OF_TEXT];
  const path = join(folder.path, "tokenizer.json");
  await Deno.writeTextFile(path, JSON.stringify(json));
  assertEquals((await loadTokenizer(path, { endOfText: 12 })).endOfText, 12);
  await assertRejects(() => loadTokenizer(path), UserError, "nor does a config.json name another");
});

Deno.test("a tokenizer is not taken for a model's of another vocabulary, but for that of a padded one", async () => {
  const tokenizer = await loadTokenizer(ADDITION.tokenizer);
  const check = (vocabularySize: number) => () =>
    checkTokenizer(tokenizer, { vocabularySize } as ModelConfig, "a model");
  for (const size of [13, 16]) check(size)();
  for (const size of [12, 17, 4096]) assertThrows(check(size), UserError, `has ${size} entries: 13`);
});

Deno.test("a tokenizer of whole words is taken, and a word that it has no token for is no token 0", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "tokenizer.json");
  const vocab: Record<string, number> = { "<eos>": 0, cat: 1, dog: 2 };
  const json = {
    version: "1.0",
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: "Whitespace" },
    post_processor: null,
    decoder: null,
    model: { type: "WordLevel", vocab, unk_token: "[UNK]" },
  };
  await Deno.writeTextFile(path, JSON.stringify(json));
  const tokenizer = await loadTokenizer(path);
  assertEquals(Array.from(tokenizer.encode("cat dog cat")), [1, 2, 1]);
  assertThrows(() => tokenizer.encode("cat bird"), UserError, "no token for a part of the text");
});

Deno.test("where only vocab.json and merges.txt are, the sentence says how to make a tokenizer.json", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(join(folder.path, "vocab.json"), "{}");
  await assertRejects(() => loadTokenizer(folder.path), UserError, "AutoTokenizer.from_pretrained(");
});

const BAD_ENTRIES: [what: string, vocab: unknown, message: RegExp][] = [
  ["an id that is text", { a: "0" }, /the id of "a" must be a whole number from 0: "0"/],
  ["a negative id", { a: -1 }, /the id of "a" must be a whole number from 0: -1/],
  ["a fractional id", { a: 0.5 }, /the id of "a" must be a whole number from 0: 0\.5/],
  ["a huge id", { a: 1e12 }, /the id of "a" must be at most 16777216: 1000000000000/],
  ["a list for a vocabulary", ["a", "b"], /its vocabulary must be an object/],
];

for (const [what, vocab, message] of BAD_ENTRIES) {
  Deno.test(`a tokenizer with ${what} is refused`, async () => {
    await using folder = await temporaryFolder();
    const json = bpeTokenizerJson(["a"], []) as { model: { vocab: unknown } };
    json.model.vocab = vocab;
    await Deno.writeTextFile(join(folder.path, "tokenizer.json"), JSON.stringify(json));
    assertMatch((await assertRejects(() => loadTokenizer(folder.path), UserError)).message, message);
  });
}

Deno.test("a token file whose tokens cannot be read to their end ends with why, and leaves nothing", async () => {
  await using folder = await temporaryFolder();
  async function* tokens() {
    yield { tokens: new Uint16Array(300_000) };
    throw new Error("reading failed");
  }
  const path = join(folder.path, "train.arrow");
  await assertRejects(
    () => writeTokenFile(path, { wide: false, counted: false }, {}, tokens()),
    Error,
    "reading failed",
  );
  assertEquals((await Array.fromAsync(Deno.readDir(folder.path))).length, 0);
});

Deno.test("token files that are damaged are made anew, which is said; of standard input they cannot be", async () => {
  await using folder = await temporaryFolder();
  const data = join(folder.path, "text.txt");
  await Deno.writeTextFile(data, "some words and more ".repeat(100));
  const tokenizer = await loadTokenizer(ENGLISH);
  const output = join(folder.path, "tokens");
  const said: string[] = [];
  const options = { sources: [data], tokenizer, folder: output, onDamage: (text: string) => said.push(text) };
  const before = await hashFile((await tokenise(options)).train.name);
  const damage = async (): Promise<void> => {
    const path = join(output, "train.arrow");
    const bytes = await Deno.readFile(path);
    bytes[bytes.length >> 1] ^= 1;
    await Deno.writeFile(path, bytes);
  };
  await damage();
  assertEquals(await hashFile((await tokenise(options)).train.name), before);
  assertEquals(said.length, 1);
  assertStringIncludes(said[0], "train.arrow is damaged");
  await tokenise(options);
  assertEquals(said.length, 1, "whole files are used again");
  // As standard input would have left them.
  await tokenise({ ...options, hash: "-" });
  await damage();
  await assertRejects(() => tokenise({ ...options, hash: "-" }), UserError, "give the same text with --data");
});

Deno.test("documents come from text, gzip, JSONL and folders, in order", async () => {
  await using folder = await temporaryFolder();
  const write = (name: string, text: string) => Deno.writeTextFile(join(folder.path, name), text);
  await Deno.mkdir(join(folder.path, "b"));
  await write("a.txt", "first");
  await write("b/c.jsonl", '{"text":"second"}\n\n{"text":"third"}\n');
  await write("ignored.bin", "no");
  await Deno.writeFile(join(folder.path, "d.txt.gz"), gzipSync("fourth"));
  const documents = await Array.fromAsync(readDocuments([folder.path]));
  assertEquals(documents.map((document) => document.kind === "text" && document.text), [
    "first",
    "second",
    "third",
    "fourth",
  ]);
});

const DOCUMENTS = ["first", "second\nwith a line", "third"];
const LINES = DOCUMENTS.map((text) => JSON.stringify({ text })).join("\n");
const ARRAY = JSON.stringify(DOCUMENTS.map((text) => ({ text })), null, 2);

for (
  const [what, name, content] of [
    ["JSON Lines called .json", "train.json", LINES],
    ["JSON Lines called .JSONL", "TRAIN.JSONL", LINES],
    [
      "JSON Lines with a mark of byte order and CR LF",
      "dos.jsonl",
      "\uFEFF" + LINES.replaceAll("\n", "\r\n"),
    ],
    ["JSON Lines of no known ending", "data", LINES],
    ["an array called .json", "array.json", ARRAY],
    ["an array of no known ending", "array", ARRAY],
    ["JSON Lines in gzip without its ending", "lines.jsonl", gzipSync(LINES)],
    ["JSON Lines in two members of gzip", "two.jsonl.gz", [
      gzipSync(LINES.slice(0, 20)),
      gzipSync(LINES.slice(20)),
    ]],
  ] as [string, string, string | Uint8Array | Uint8Array[]][]
) {
  Deno.test(`${what} is read as documents, not as prose`, async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, name);
    await Deno.writeFile(path, new Uint8Array(await new Blob([content].flat() as BlobPart[]).arrayBuffer()));
    const documents = await Array.fromAsync(readDocuments([path]));
    assertEquals(documents.map((document) => document.kind === "text" && document.text), DOCUMENTS);
  });
}

Deno.test("text is text by its name, whatever it looks like, and what only begins like JSON is prose", async () => {
  await using folder = await temporaryFolder();
  for (
    const [name, text] of [["a.txt", LINES], ["b.md", ARRAY], ["c", "[Illustration] {Once} upon a time"]]
  ) {
    const path = join(folder.path, name);
    await Deno.writeTextFile(path, text);
    const documents = await Array.fromAsync(readDocuments([path]));
    assertEquals(documents, [{ kind: "text", text, last: true, where: path, line: 1 }]);
  }
  const path = join(folder.path, "settings.json");
  await Deno.writeTextFile(path, JSON.stringify({ lr: 1 }, null, 2));
  await assertRejects(
    () => Array.fromAsync(readDocuments([path])),
    UserError,
    "must be JSON Lines, or an array",
  );
});

Deno.test("a folder means its text: links once, no hidden files, no README, no configurations", async () => {
  await using folder = await temporaryFolder();
  const [data, elsewhere] = [join(folder.path, "data"), join(folder.path, "elsewhere")];
  await Deno.mkdir(join(data, ".cache"), { recursive: true });
  await Deno.mkdir(elsewhere);
  const write = (path: string, text: string) => Deno.writeTextFile(path, text);
  await write(join(data, "a.txt"), "a");
  await write(join(data, "README.md"), "# A data set");
  await write(join(data, "LICENSE.txt"), "MIT");
  await write(join(data, ".hidden.txt"), "hidden");
  await write(join(data, ".cache", "b.txt"), "cached");
  await write(join(data, "config.json"), '{"text_column": "text"}');
  await write(join(data, "train.json"), '{"text": "t"}\n');
  await write(join(elsewhere, "linked.txt"), "linked");
  await Deno.symlink(elsewhere, join(data, "link"));
  await Deno.symlink(elsewhere, join(data, "link again"));
  await Deno.symlink(join(elsewhere, "linked.txt"), join(data, "z.txt"));
  await Deno.symlink(data, join(data, "loop"));
  await Deno.symlink("nowhere.txt", join(data, "dangling.txt"));
  const { files, leftOut } = await findDataFiles([data]);
  const relativeTo = (paths: string[]) => paths.map((path) => path.slice(data.length + 1));
  assertEquals(relativeTo(files), ["a.txt", "link/linked.txt", "train.json"]);
  assertEquals(relativeTo(leftOut), [
    ".cache",
    ".hidden.txt",
    "LICENSE.txt",
    "README.md",
    "config.json",
    "dangling.txt",
  ]);
});

for (const codec of ["zstd", "gzip", "brotli", "lz4"]) {
  Deno.test(`a Parquet file compressed with ${codec} holds what one with snappy holds`, async () => {
    const read = async (name: string) =>
      (await Array.fromAsync(readDocuments([`${PARQUET}${name}.parquet`]))).map((document) =>
        document.kind === "text" && document.text
      );
    const texts = await read(codec);
    assertEquals(texts.length, 5);
    assertEquals(texts, await read("snappy"));
  });
}

const PARQUET = new URL("../../fixtures/parquet/", import.meta.url).pathname;

Deno.test("documents come from the rows of a Parquet file, compressed or not, over its row groups", async () => {
  const documents = await Array.fromAsync(
    readDocuments([`${PARQUET}texts.parquet`, `${PARQUET}examples.parquet`]),
  );
  assertEquals(documents, [
    { kind: "text", text: "first row", last: true, where: `${PARQUET}texts.parquet, row 1` },
    { kind: "text", text: "naïve — second", last: true, where: `${PARQUET}texts.parquet, row 2` },
    { kind: "text", text: "third\nwith a line end", last: true, where: `${PARQUET}texts.parquet, row 3` },
    { kind: "text", text: "fourth", last: true, where: `${PARQUET}texts.parquet, row 4` },
    { kind: "text", text: "", last: true, where: `${PARQUET}texts.parquet, row 5` },
    { kind: "example", prompt: "1+1=", completion: "2", where: `${PARQUET}examples.parquet, row 1` },
    { kind: "example", prompt: "2+2=", completion: "4", where: `${PARQUET}examples.parquet, row 2` },
  ]);
});

Deno.test("text comes from another column where one is named, and those there are are told where it is not there", async () => {
  await using folder = await temporaryFolder();
  const lines = join(folder.path, "posts.jsonl");
  await Deno.writeTextFile(
    lines,
    ["12+3", "45"].map((content) => `{"id":"a","content":"${content}"}\n`).join(""),
  );
  const textsOf = async (source: string, textColumn?: string) =>
    (await Array.fromAsync(readDocuments([source], { textColumn }))).map((document) =>
      document.kind === "text" && document.text
    );
  assertEquals(await textsOf(lines, "content"), ["12+3", "45"]);
  assertEquals(await textsOf(`${PARQUET}examples.parquet`, "completion"), ["2", "4"]);
  for (
    const [source, column, message] of [
      [
        lines,
        undefined,
        '"turns" of these; strings are "id", "content": --text-column NAME takes the text from one',
      ],
      [lines, "body", 'line 1 as it needs a "body" that is a string: strings are "id", "content"'],
      [lines, "constructor", 'needs a "constructor" that is a string'],
      [
        `${PARQUET}examples.parquet`,
        "body",
        'needs a "body" that is a string: strings are "prompt", "completion"',
      ],
    ] as const
  ) await assertRejects(() => textsOf(source, column), UserError, message);
  const nested = `${PARQUET}nested.parquet`;
  assertEquals(await Array.fromAsync(readDocuments([nested])), [
    { kind: "example", prompt: "1+1=", completion: "2", where: `${nested}, row 1` },
  ]);
  await assertRejects(
    () => textsOf(nested, "content"),
    UserError,
    'needs a "content" that is a string: strings are "prompt", "completion"',
  );
  for (
    const [line, message] of [
      ['"a text by itself"', 'or "turns" of these'],
      ['["a", "b"]', 'or "turns" of these'],
      ['{"prompt": "1", "note": "no completion"}', 'or "turns" of these'],
      [
        JSON.stringify(Object.fromEntries(Array.from({ length: 12 }, (_, n) => [`c${n}`, ""]))),
        '"c9", and 2 more: --text-column',
      ],
    ]
  ) {
    await Deno.writeTextFile(lines, line);
    const { message: found } = await assertRejects(() => textsOf(lines), UserError, message);
    assertEquals(found.includes("--text-column"), message.includes("--text-column"), found);
  }
  // Tokens of one column are not taken for those of another.
  const tokenizer = await loadTokenizer(ADDITION.tokenizer);
  const tokens = async (textColumn: string) => {
    const options = { sources: [lines], textColumn, tokenizer, folder: join(folder.path, "tokens") };
    const files = Object.values(await tokenise(options));
    const count = files.reduce((sum, { length }) => sum + length, 0);
    for (const file of files) await file.close();
    return count;
  };
  await Deno.writeTextFile(lines, `{"one":"12","two":"12345"}\n`);
  assertEquals([await tokens("one"), await tokens("two")], [3, 6]);
});

Deno.test("a Parquet file without text, or one cut short, is refused, naming the file", async () => {
  const without = `${PARQUET}no_text.parquet`;
  await assertRejects(() => Array.fromAsync(readDocuments([without])), UserError, `${without}, row 1`);
  await using folder = await temporaryFolder();
  const cut = join(folder.path, "cut.parquet");
  await Deno.writeFile(cut, (await Deno.readFile(`${PARQUET}texts.parquet`)).slice(0, -20));
  await assertRejects(() => Array.fromAsync(readDocuments([cut])), UserError, cut);
});

Deno.test("documents come from standard input, of any length, as one text", async () => {
  const module = new URL("../../../pipeline/text/documents.ts", import.meta.url).href;
  const script = `const { readDocuments } = await import("${module}");
    let text = "", pieces = 0;
    for await (const piece of readDocuments(["-"])) { text += piece.text; pieces++; }
    console.log(JSON.stringify({ pieces, length: text.length, start: text.slice(0, 10), end: text.slice(-5) }));`;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["eval", script],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  for (let n = 0; n < 30; n++) await writer.write(new TextEncoder().encode("naïve words ".repeat(10_000)));
  await writer.write(new TextEncoder().encode("end."));
  await writer.close();
  const { code, stdout, stderr } = await child.output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  const { pieces, ...rest } = JSON.parse(new TextDecoder().decode(stdout));
  assert(pieces >= 3);
  assertEquals(rest, { length: 3_600_004, start: "naïve word", end: " end." });
});

Deno.test("a long text comes in pieces that add up and that cut no word", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "long.txt");
  const text = Array.from({ length: 400_000 }, (_, n) => `word${n}`).join(" ");
  await Deno.writeTextFile(path, text);
  const pieces = await Array.fromAsync(readDocuments([path]));
  assert(pieces.length > 3);
  assertEquals(pieces.map((piece) => piece.kind === "text" && piece.last).indexOf(true), pieces.length - 1);
  const texts = pieces.map((piece) => piece.kind === "text" ? piece.text : "");
  assert(texts.join("") === text);
  assert(texts.slice(1).every((piece) => piece.startsWith(" word")));
});

/** Text in UTF-16 without a mark of its byte order. */
const utf16 = (text: string): Uint8Array =>
  new Uint8Array(Uint16Array.from(text, (c) => c.charCodeAt(0)).buffer);

/** A Parquet file with the two bytes of an ï cut short. */
const LATIN = (await Deno.readFile(`${PARQUET}texts.parquet`))
  .map((byte, n, bytes) => byte === 0xaf && bytes[n - 1] === 0xc3 ? 0x20 : byte);

for (
  const [what, name, content, message] of [
    ["text of 16 bits", "bad.txt", utf16("Plain letters alone."), "has characters of 16"],
    ["its high bytes first", "bad.txt", utf16("Plain letters alone.").slice(1), "has characters of 16"],
    ["JSON Lines of 16 bits", "bad.jsonl", utf16('{"text":"a"}\n'), "has characters of 16"],
    ["Parquet with strings that are no UTF-8", "bad.parquet", LATIN, "its strings must be UTF-8 text"],
    ["bytes that are no UTF-8", "bad.txt", Uint8Array.of(0xff, 0xfe, 0x41), "UTF-8"],
    ["a line that is no JSON", "bad.jsonl", '{"text":"a"}\n{oops}\n', "line 2"],
    ["a line without text", "bad.jsonl", '{"body":"a"}\n', 'needs a "text"'],
    ["a text that is a number", "bad.jsonl", '{"text":3}\n', 'needs a "text"'],
    ["a null", "bad.jsonl", "null\n", 'needs a "text"'],
    ["an empty file", "bad.txt", "", "empty"],
    ["JSONL without a document", "bad.jsonl", "\n\n", "no document"],
    ["a file that is no Parquet", "bad.parquet", "PAR2", "Parquet"],
    ["a gzip file that is none", "bad.txt.gz", "plain", "bad.txt.gz"],
  ] as [string, string, string | Uint8Array, string][]
) {
  Deno.test(`${what} is refused, naming the file`, async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, name);
    await Deno.writeFile(path, typeof content === "string" ? new TextEncoder().encode(content) : content);
    const error = await assertRejects(() => Array.fromAsync(readDocuments([path])), UserError, message);
    assert(error.message.includes(path) && !error.message.includes("\n"));
  });
}

Deno.test("where no columns are named, bytes of Parquet that are no text are left as they are", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "bytes.parquet");
  await Deno.writeFile(path, LATIN);
  const texts = (await Array.fromAsync(readRecords([path])))
    .map(({ value }) => (value as { text: unknown }).text);
  assertEquals([texts[0], texts[1] instanceof Uint8Array], ["first row", true]);
});

Deno.test("a folder without data files and a missing path are refused", async () => {
  await using folder = await temporaryFolder();
  await assertRejects(() => Array.fromAsync(readDocuments([folder.path])), UserError, "none found");
  await assertRejects(() => Array.fromAsync(readDocuments([folder.path + "/no"])), UserError, "no such file");
});

Deno.test("tokenise splits by document, separates documents, and is reused until something changes", async () => {
  await using folder = await temporaryFolder();
  const source = join(folder.path, "data.jsonl");
  const texts = Array.from({ length: 200 }, (_, n) => `document number ${n}`);
  await Deno.writeTextFile(source, texts.map((text) => JSON.stringify({ text })).join("\n"));
  const tokenizer = await loadTokenizer(ENGLISH);
  const output = join(folder.path, "tokens");
  const files = await tokenise({ sources: [source], tokenizer, folder: output });
  // By murmur3's finaliser of the index plus 0x9e3779b9: below a twentieth validation, below a tenth test.
  const heldOut = {
    validation: [56, 133, 135, 174, 194],
    test: [43, 48, 51, 60, 105, 181, 182, 190, 196],
  };
  const train = texts.keys().filter((n) => !Object.values(heldOut).flat().includes(n));
  for (const [split, indices] of Object.entries({ ...heldOut, train })) {
    const file = files[split as Split];
    const tokens = Array.from(await file.window(0, file.length));
    const documents = tokenizer.decode(tokens).split(END_OF_TEXT).slice(0, -1);
    assertEquals(documents, [...indices].map((index) => texts[index]));
    assertEquals(file.metadata.get("tokens"), String(tokens.length));
    assertEquals(file.metadata.get("tokenizer"), tokenizer.hash);
  }
  // Any Arrow reader sees the same tokens.
  const [batch] = [...RecordBatchReader.from(await Deno.readFile(join(output, "test.arrow")))];
  assertEquals(
    Array.from(batch.getChild("token")!),
    Array.from(await files.test.window(0, files.test.length)),
  );
  const before = (await Deno.stat(join(output, "train.arrow"))).mtime;
  await tokenise({ sources: [source], tokenizer, folder: output });
  assertEquals((await Deno.stat(join(output, "train.arrow"))).mtime, before, "reused");
  await Deno.writeTextFile(source, JSON.stringify({ text: "one more, alone" }));
  const changed = await tokenise({ sources: [source], tokenizer, folder: output });
  assertEquals(changed.train.metadata.get("all_documents"), "1");
  assert(changed.test.metadata.get("split_rule")!.startsWith("by position"));
  for (const file of [...Object.values(files), ...Object.values(changed)]) await file.close();
});

Deno.test("however few examples there are, none is cut, and fewer than one for each split are refused", async () => {
  await using folder = await temporaryFolder();
  const tokenizer = await loadTokenizer(ADDITION.tokenizer);
  const source = join(folder.path, "few.jsonl");
  for (const count of [2, 3, 7, 15]) {
    const lines = Array.from(
      { length: count },
      (_, n) => `{"prompt":"1+${n % 10}=","completion":"${n % 10}"}\n`,
    );
    await Deno.writeTextFile(source, lines.join(""));
    const tokens = tokenise({ sources: [source], tokenizer, folder: join(folder.path, String(count)) });
    if (count === 2) {
      await assertRejects(() => tokens, UserError, "training, validation and test need an example each");
      continue;
    }
    const files = await tokens;
    let examples = 0;
    for (const [split, file] of Object.entries(files)) {
      const { exampleTokens, length } = file;
      assert(exampleTokens !== undefined && length > 0 && length % exampleTokens === 0, `${count}, ${split}`);
      examples += length / exampleTokens;
      await file.close();
    }
    assertEquals(examples, count);
  }
});

Deno.test("of an example of several turns every completion counts, and nothing else", async () => {
  await using folder = await temporaryFolder();
  const tokenizer = await loadTokenizer(ADDITION.tokenizer);
  const source = join(folder.path, "turns.jsonl");
  const lines = Array.from({ length: 60 }, (_, n) => {
    const a = String(n % 10);
    return n % 2 === 0
      ? { turns: [{ prompt: `${a}+`, completion: "12" }, { prompt: "3=", completion: "4" }] }
      : { prompt: `${a}+12`, completion: "3=4" };
  });
  await Deno.writeTextFile(source, lines.map((line) => JSON.stringify(line)).join("\n"));
  const files = await tokenise({ sources: [source], tokenizer, folder: join(folder.path, "tokens") });
  const { train } = files;
  assertEquals(train.exampleTokens, 7);
  const texts = new Set<string>();
  for (let start = 0; start < train.length; start += 7) {
    const text = tokenizer.decode(Array.from(await train.window(start, 7)));
    const counted = Array.from(await train.countedWindow!(start, 7));
    // The turns' rows and the others spell the same.
    texts.add(`${text.slice(1)} ${counted.join("")}`);
  }
  assertEquals([...texts].sort(), ["+123=4 0000111", "+123=4 0011001"]);
  for (const file of Object.values(files)) await file.close();
  for (const turns of [[], [{ prompt: "1" }], "1", [{ prompt: "1", completion: 2 }]]) {
    await Deno.writeTextFile(source, JSON.stringify({ turns }));
    await assertRejects(() => Array.fromAsync(readDocuments([source])), UserError, 'or "turns" of these');
  }
});

Deno.test("examples keep their length, count only completions, and must be equally long", async () => {
  await using folder = await temporaryFolder();
  const tokenizer = await loadTokenizer(ADDITION.tokenizer);
  const files = await tokenise({ sources: [ADDITION.data], tokenizer, folder: join(folder.path, "tokens") });
  assertEquals([files.test.exampleTokens, files.test.length % 9], [9, 0]);
  const [batch] = await Array.fromAsync(
    sequentialBatches({ tokens: files.test, batch: 4, context: 8, limit: 32 }),
  );
  for (let row = 0; row < 4; row++) {
    const targets = Array.from(batch.targets.subarray(8 * row, 8 * row + 8));
    assertEquals(targets.slice(0, 5), new Array(5).fill(IGNORED));
    assert(targets.slice(5).every((token) => token < 10));
    const inputs = tokenizer.decode(batch.inputs.subarray(8 * row, 8 * row + 8));
    const [, a, b] = /^(\d\d)\+(\d\d)=/.exec(inputs)!;
    const answer = [...tokenizer.decode(targets.slice(5))].reverse().join("");
    assertEquals(Number(answer), Number(a) + Number(b));
  }
  await assertRejects(
    () => Array.fromAsync(sequentialBatches({ tokens: files.test, batch: 4, context: 7 })),
    UserError,
    "needs --context 8",
  );
  for (const file of Object.values(files)) await file.close();
  const uneven = join(folder.path, "uneven.jsonl");
  await Deno.writeTextFile(
    uneven,
    '{"prompt":"1+1=","completion":"2"}\n{"prompt":"11+1=","completion":"21"}\n',
  );
  await assertRejects(
    () => tokenise({ sources: [uneven], tokenizer, folder: join(folder.path, "u") }),
    UserError,
    "line 2",
  );
  const mixed = join(folder.path, "mixed.jsonl");
  await Deno.writeTextFile(mixed, '{"prompt":"1+1=","completion":"2"}\n{"text":"11"}\n');
  await assertRejects(
    () => tokenise({ sources: [mixed], tokenizer, folder: join(folder.path, "m") }),
    UserError,
    "cannot be mixed",
  );
});

Deno.test("windows of a token file are right across record batches, and views where they lie in one", async () => {
  await using folder = await temporaryFolder();
  for (const wide of [false, true]) {
    const path = join(folder.path, `${wide}.arrow`);
    const total = 600_000;
    const all = wide ? new Uint32Array(total) : new Uint16Array(total);
    for (let n = 0; n < total; n++) all[n] = (n * 2654435761) % 50000;
    const chunks = (async function* () {
      for (let at = 0; at < total; at += 70_001) yield { tokens: all.subarray(at, at + 70_001) };
    })();
    await writeTokenFile(path, { wide, counted: false }, { tokens: String(total) }, chunks);
    const file = await openTokenFile(path);
    for (const [start, length] of [[0, 10], [262_140, 10], [262_144, 5], [0, total], [599_999, 1]]) {
      assertEquals(await file.window(start, length), all.slice(start, start + length));
    }
    const [first, second] = [await file.window(0, 10), await file.window(5, 10)];
    assert(first.buffer === second.buffer, "zero-copy");
    assertEquals(first.BYTES_PER_ELEMENT, wide ? 4 : 2);
    await assertRejects(() => file.window(total, 1), RangeError, "holds 600000 tokens");
    await file.close();
  }
  const text = join(folder.path, "no.arrow");
  await Deno.writeTextFile(text, "not Arrow at all");
  await assertRejects(() => openTokenFile(text), UserError, "no.arrow");
});

/** Tokens 0, 1, 2, … in memory. */
function counting(length: number) {
  const all = Uint32Array.from({ length }, (_, n) => n);
  return {
    name: "counting",
    length,
    window: (start: number, count: number) => all.subarray(start, start + count),
  };
}

Deno.test("batches are a pure function of seed and position, and visit every window of an epoch once", async () => {
  const tokens = counting(1000);
  const options = { tokens, batch: 3, context: 8, seed: 4 };
  const batches = createBatches(options);
  const seen: number[] = [];
  // 124 windows of 8 fit behind the largest offset: 41 whole batches of 3 and a part.
  for (let position = 0; position < 41; position++) {
    const { inputs, targets } = await batches.at(position);
    for (let row = 0; row < 3; row++) {
      seen.push(inputs[8 * row]);
      for (let t = 0; t < 8; t++) {
        assertEquals(inputs[8 * row + t], inputs[8 * row] + t);
        assertEquals(targets[8 * row + t], inputs[8 * row + t] + 1);
      }
    }
  }
  assertEquals(new Set(seen).size, seen.length);
  assertEquals(new Set(seen.map((start) => start % 8)).size, 1, "one grid in one epoch");
  const later = await createBatches(options).at(40);
  assertEquals(later, await batches.at(40));
  assertEquals((await createBatches(options).at(100)).inputs, (await batches.at(100)).inputs);
  assert((await createBatches({ ...options, seed: 5 }).at(0)).inputs[0] !== (await batches.at(0)).inputs[0]);
});

Deno.test("sequential batches cover the tokens once; the last is filled up with rows that do not count", async () => {
  const batches = await Array.fromAsync(sequentialBatches({ tokens: counting(100), batch: 4, context: 9 }));
  assertEquals(batches.map(({ rows }) => rows), [4, 4, 3]);
  const counted = batches.flatMap(({ targets }) => Array.from(targets)).filter((target) =>
    target !== IGNORED
  );
  assertEquals(counted, Array.from({ length: 99 }, (_, n) => n + 1));
  const limited = await Array.fromAsync(
    sequentialBatches({ tokens: counting(100), batch: 4, context: 9, limit: 40 }),
  );
  assertEquals(limited.map(({ rows }) => rows), [4]);
  // As help says.
  const least = await Array.fromAsync(
    sequentialBatches({ tokens: counting(100), batch: 4, context: 9, limit: 1 }),
  );
  assertEquals(least.map(({ rows }) => rows), [1]);
});

Deno.test("too few tokens for one window are refused", async () => {
  assertThrows(
    () => createBatches({ tokens: counting(8), batch: 1, context: 8, seed: 0 }),
    UserError,
    "needs 9 tokens",
  );
  await assertRejects(
    () => Array.fromAsync(sequentialBatches({ tokens: counting(8), batch: 1, context: 8 })),
    UserError,
    "needs 9 tokens",
  );
});

Deno.test("a prompt with characters that the vocabulary has no token for is refused, naming the first", async () => {
  const tokenizer = await loadTokenizer(ADDITION.tokenizer);
  assertThrows(() => tokenizer.encode("12+3x=ä"), UserError, 'has no token for "x"');
  assertThrows(() => tokenizer.encode("1 2"), UserError, 'has no token for " "');
  assertThrows(() => tokenizer.encode("日"), UserError, 'has no token for "日"');
  assertEquals(tokenizer.encodeKnown("1x+ä2日x="), { tokens: [1, 10, 2, 11], lost: 4, firstLost: "x" });
  assertEquals(tokenizer.encodeKnown("12"), { tokens: [1, 2], lost: 0 });
  assertEquals(tokenizer.decode([1, 99, 2]), "12", "a row of padding has no text");
  const english = await loadTokenizer(ENGLISH);
  assertEquals(english.encodeKnown("naïve 日本 👩‍🚀").lost, 0);
});

Deno.test("a vocabulary of characters, not of bytes, tells what it lacks; one with an unknown token lacks nothing", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "tokenizer.json");
  const json = (unk_token: string | null) => ({
    added_tokens: [],
    normalizer: { type: "Lowercase" },
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: "Fuse" },
    model: { type: "BPE", unk_token, vocab: { "<eos>": 0, "<unk>": 1, a: 2, b: 3, ab: 4 }, merges: ["a b"] },
  });
  await Deno.writeTextFile(path, JSON.stringify(json(null)));
  const tokenizer = await loadTokenizer(path);
  assertEquals(tokenizer.encodeKnown("ABÄaxb"), { tokens: [4, 2, 3], lost: 2, firstLost: "Ä" });
  await Deno.writeTextFile(path, JSON.stringify(json("<unk>")));
  assertEquals((await loadTokenizer(path)).encode("abÄ"), [4, 1]);
});

Deno.test("characters of the data that are left out are counted and told with the place of the first; many are refused", async () => {
  await using folder = await temporaryFolder();
  const tokenizer = await loadTokenizer(ADDITION.tokenizer);
  const source = join(folder.path, "sums.jsonl");
  const told: string[] = [];
  let n = 0;
  const tokeniseText = (lines: string[]) => {
    Deno.writeTextFileSync(source, lines.map((text) => JSON.stringify({ text })).join("\n"));
    const to = join(folder.path, `tokens ${n++}`);
    return tokenise({ sources: [source], tokenizer, folder: to, onLoss: (message) => told.push(message) });
  };
  const sums = (count: number) => Array.from({ length: count }, () => "12+34=640");
  const files = await tokeniseText([...sums(60), "1 2+34=64ä", ...sums(60)]);
  assertEquals(told.length, 1);
  assertStringIncludes(told[0], "2 of 1090 characters");
  assertStringIncludes(told[0], `the first, " ", stands in ${source}, line 61`);
  assertEquals(files.train.metadata.get("lost_characters"), "2");
  for (const file of Object.values(files)) await file.close();

  for (const file of Object.values(await tokeniseText(sums(100)))) await file.close();
  assertEquals(told.length, 1, "nothing is lost, nothing is told");

  await assertRejects(
    () => tokeniseText([...sums(40), "1+ä日本語=x", ...sums(2)]),
    UserError,
    `Cannot use ${source}`,
  ).then((error) =>
    assertStringIncludes(
      error.message,
      `5 of 386 characters (1.3 %), of which the first, "ä", stands in ${source}, line 41`,
    )
  );
});

Deno.test("in one text the line of the first character without a token is told, in a later piece too", async () => {
  await using folder = await temporaryFolder();
  const json = JSON.parse(await Deno.readTextFile(ADDITION.tokenizer));
  json.model.vocab = { a: 0, Ġ: 1, Ċ: 2, [END_OF_TEXT]: 12 };
  await Deno.writeTextFile(join(folder.path, "tokenizer.json"), JSON.stringify(json));
  const source = join(folder.path, "letters.txt");
  await Deno.writeTextFile(source, "aaaa aaaa\n".repeat(150_000) + "aa b\nab");
  const told: string[] = [];
  const files = await tokenise({
    sources: [source],
    tokenizer: await loadTokenizer(folder.path),
    folder: join(folder.path, "tokens"),
    onLoss: (message) => told.push(message),
  });
  for (const file of Object.values(files)) await file.close();
  assertStringIncludes(told[0], "2 of 1500007 characters");
  assertStringIncludes(told[0], `the first, "b", stands in ${source}, line 150001`);
});

Deno.test("an example with a character that has no token is refused where it stands", async () => {
  await using folder = await temporaryFolder();
  const tokenizer = await loadTokenizer(ADDITION.tokenizer);
  const source = join(folder.path, "sums.jsonl");
  await Deno.writeTextFile(
    source,
    '{"prompt":"1+1=","completion":"2"}\n{"prompt":"1+ 1=","completion":"2"}\n',
  );
  await assertRejects(
    () => tokenise({ sources: [source], tokenizer, folder: join(folder.path, "tokens") }),
    UserError,
    `Cannot use ${source}, line 2`,
  ).then((error) => assertStringIncludes(error.message, `no token for " "`));
});

Deno.test("tokenising tells the bytes that it has read, of all of them, up to the last", async () => {
  await using folder = await temporaryFolder();
  const tokenizer = await loadTokenizer(ADDITION.tokenizer);
  const source = join(folder.path, "sums.txt");
  await Deno.writeTextFile(source, "12+34=46".repeat(40_000));
  const told: { done: number; of: number | undefined }[] = [];
  const files = await tokenise({
    sources: [source],
    tokenizer,
    folder: join(folder.path, "tokens"),
    onProgress: (read) => told.push({ ...read }),
  });
  for (const file of Object.values(files)) await file.close();
  assertEquals(told[0], { done: 0, of: 320_000 });
  assertEquals(told.at(-1), { done: 320_000, of: 320_000 });
});
