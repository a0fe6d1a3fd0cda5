import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { encode as encodeR50k } from "gpt-tokenizer/encoding/r50k_base";
import { UserError } from "../../../pipeline/errors.ts";
import { createBpe } from "../../../pipeline/text/bpe.ts";
import { bpeTokenizerJson, byteCharacters, END_OF_TEXT } from "../../../pipeline/text/bpe_trainer.ts";
import { createDecoder } from "../../../pipeline/text/decoder.ts";
import { readDocuments } from "../../../pipeline/text/documents.ts";
import { createFastEncoder } from "../../../pipeline/text/fast_tokenizer.ts";
import { createCut, createNormalizer } from "../../../pipeline/text/pieces.ts";
import { loadTokenizer, withStart } from "../../../pipeline/text/tokenizer.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

const ROOT = new URL("../../../", import.meta.url).pathname;
const FIXTURES = join(ROOT, "tests/fixtures/tokenizers");

/** What Hugging Face's tokenizers made of the fixtures' texts; see make.py there. */
interface Expected {
  texts: string[];
  tokenizers: Record<string, {
    ids: number[][];
    /** Null where it is the text again. */
    decoded: (string | null)[];
    rows: { ids: number[]; text: string }[];
    /** Characters of each word, of a vocabulary of bytes. */
    words: number[][] | null;
    /** Of ids from 250 on. */
    singly: string[];
  }>;
}

const EXPECTED: Expected = JSON.parse(await Deno.readTextFile(join(FIXTURES, "expected.json")));
const { texts: TEXTS } = EXPECTED;
/** As a config.json would name one. */
const AN_END = { endOfText: 1 };

for (const [name, expected] of Object.entries(EXPECTED.tokenizers)) {
  const path = join(FIXTURES, `${name}.json`);

  Deno.test(`${name}: ids are those of Hugging Face's tokenizers, whatever the text, by our own encoder`, async () => {
    const own = createFastEncoder(JSON.parse(await Deno.readTextFile(path)));
    assert(own, "every part of it is known");
    const tokenizer = await loadTokenizer(path, AN_END);
    for (const [n, text] of TEXTS.entries()) {
      assertEquals(own(text, false), expected.ids[n], JSON.stringify(text));
      assertEquals(tokenizer.encode(text), expected.ids[n], JSON.stringify(text));
    }
  });

  if (expected.words) {
    Deno.test(`${name}: words are those of Hugging Face's tokenizers, whatever tokens they become`, async () => {
      const json = JSON.parse(await Deno.readTextFile(path));
      const normalize = createNormalizer(json.normalizer)!;
      const { cut, byteLevel } = createCut(json.pre_tokenizer)!;
      assert(byteLevel);
      for (const [n, text] of TEXTS.entries()) {
        const words = cut(normalize(text, "start"), "start");
        assertEquals(words.map((word) => [...word].length), expected.words![n], JSON.stringify(text));
      }
    });
  }

  Deno.test(`${name}: tokens are decoded as by Hugging Face's tokenizers, broken characters too`, async () => {
    assert(createDecoder(JSON.parse(await Deno.readTextFile(path)).decoder), "every part of it is known");
    const tokenizer = await loadTokenizer(path, AN_END);
    for (const [n, text] of TEXTS.entries()) {
      assertEquals(tokenizer.decode(expected.ids[n]), expected.decoded[n] ?? text);
    }
    for (const { ids, text } of expected.rows) assertEquals(tokenizer.decode(ids), text);
    assertEquals(expected.singly.map((_, n) => tokenizer.decode([250 + n])), expected.singly);
  });

  Deno.test(`${name}: a text that goes on after a word has the tokens that it has in one piece`, async () => {
    const tokenizer = await loadTokenizer(path, AN_END);
    // Where a token takes the white space before it, none is left for what goes on.
    for (const text of TEXTS.filter((text) => !text.includes("<left>"))) {
      for (const { index } of text.matchAll(/(?<=[A-Za-z0-9])\s/g)) {
        const tokens = tokenizer.encode(text.slice(0, index));
        const { tokens: rest } = tokenizer.encodeKnown(text.slice(index), { continued: true });
        assertEquals([...tokens, ...rest], tokenizer.encode(text), JSON.stringify([text, index]));
      }
    }
  });
}

Deno.test("GPT-2's ids are those of another implementation, special text as text", async () => {
  await using folder = await temporaryFolder();
  const characters = byteCharacters();
  const lines = (await Deno.readTextFile(join(ROOT, "node_modules/gpt-tokenizer/data/r50k_base.tiktoken")))
    .trim();
  const entries = lines.split("\n").map((line) =>
    Array.from(atob(line.split(" ")[0]), (byte) => characters[byte.charCodeAt(0)]).join("")
  );
  await Deno.writeTextFile(
    join(folder.path, "tokenizer.json"),
    JSON.stringify(bpeTokenizerJson(entries, mergesOf(entries))),
  );
  const tokenizer = await loadTokenizer(folder.path);
  assertEquals([tokenizer.vocabularySize, tokenizer.endOfText], [50257, 50256]);
  // GPT-2's published ids.
  assertEquals(tokenizer.encode("Hello world"), [15496, 995]);
  const asText = { allowedSpecial: new Set<string>(), disallowedSpecial: new Set<string>() };
  const texts = [END_OF_TEXT, `x ${END_OF_TEXT}`, ...TEXTS];
  for await (const document of readDocuments([join(ROOT, "data/english/text.jsonl.gz")])) {
    if (document.kind === "text") texts.push(document.text.slice(0, 20_000));
    if (texts.length === 50) break;
  }
  for (const text of texts) {
    // The other's white space is JavaScript's.
    if (/[\x85\ufeff]/.test(text)) continue;
    const tokens = tokenizer.encode(text);
    assertEquals(tokens, encodeR50k(text, asText));
    assert(!tokens.includes(tokenizer.endOfText));
    assertEquals(tokenizer.decode(tokens), text);
  }
});

/** Merges of a vocabulary whose ids are ranks: each entry of the two parts that earlier merges leave of it. */
function mergesOf(entries: readonly string[]): [string, string][] {
  const ranks = new Map(entries.map((entry, rank) => [entry, rank]));
  return entries.flatMap((entry, own): [string, string][] => {
    if (entry.length === 1) return [];
    const parts = [...entry];
    while (parts.length > 2) {
      const found = parts.slice(1).map((right, at) => ranks.get(parts[at] + right) ?? Infinity);
      const rank = Math.min(...found);
      assert(rank < own);
      const at = found.indexOf(rank);
      parts.splice(at, 2, parts[at] + parts[at + 1]);
    }
    return [[parts[0], parts[1]]];
  });
}

Deno.test("a word of any length is merged pair by pair in the order of ranks, the leftmost first", () => {
  const vocab = { a: 0, b: 1, aa: 2, ab: 3, aab: 4, aaaa: 5 };
  const merges = ["a a", "a b", "aa b", "aa aa"];
  const bpe = createBpe({ vocab, merges }, { byteLevel: false, never: new Set() })!;
  /** As the definition has it. */
  const naive = (word: string): string[] => {
    const parts = [...word];
    for (;;) {
      const ranks = parts.slice(1).map((right, at) => merges.indexOf(`${parts[at]} ${right}`));
      const lowest = Math.min(...ranks.filter((rank) => rank >= 0));
      if (lowest === Infinity) return parts;
      const at = ranks.indexOf(lowest);
      parts.splice(at, 2, parts[at] + parts[at + 1]);
    }
  };
  const entries = Object.keys(vocab);
  let state = 1;
  for (const length of [0, 1, 2, 3, 7, 63, 64, 65, 66, 200, 1000]) {
    const word = Array.from({ length }, () => "aab"[(state = state * 48271 % 0x7fffffff) % 3]).join("");
    assertEquals(bpe.encode(word).map((id) => entries[id]), naive(word));
  }
});

Deno.test("no text becomes a special token, though the vocabulary merges to it", async () => {
  await using folder = await temporaryFolder();
  const vocab = { "<": 0, ">": 1, s: 2, "/": 3, "</": 4, "s>": 5, "</s>": 6, "a": 7 };
  const merges = ["< /", "s >", "</ s>"];
  for (const ignore_merges of [false, true]) {
    const json = {
      added_tokens: [{ id: 6, content: "</s>", special: true }],
      normalizer: null,
      pre_tokenizer: null,
      post_processor: null,
      decoder: { type: "Fuse" },
      model: { type: "BPE", vocab, merges, ignore_merges },
    };
    await Deno.writeTextFile(join(folder.path, "tokenizer.json"), JSON.stringify(json));
    const tokenizer = await loadTokenizer(folder.path);
    assertEquals(tokenizer.encode("a</s>"), [7, 4, 5]);
    assertEquals(tokenizer.encode("</s>"), [4, 5]);
    assertEquals(tokenizer.decode([7, 4, 5, 6]), "a</s></s>");
  }
});

Deno.test("a word is cut before ▁ only where no merge reaches over it", () => {
  const json = (merges: string[]) => ({
    normalizer: { type: "Replace", pattern: { String: " " }, content: "▁" },
    pre_tokenizer: null,
    model: { type: "BPE", vocab: { a: 0, "▁": 1, "a▁": 2, "▁a": 3 }, merges },
  });
  assertEquals(createFastEncoder(json(["a ▁", "▁ a"]))!("a a", false), [2, 0]);
  assertEquals(createFastEncoder(json(["▁ a"]))!("a a", false), [0, 3]);
});

Deno.test("where the library comes to something else at loading, it is what encodes, which is said", async () => {
  await using folder = await temporaryFolder();
  const json = {
    added_tokens: [],
    normalizer: null,
    // The library takes this for a cut on both sides of each space.
    pre_tokenizer: { type: "Split", pattern: { String: " " }, behavior: "MergedWithNext", invert: false },
    post_processor: null,
    decoder: { type: "Fuse" },
    model: { type: "BPE", vocab: { "<eos>": 0, a: 1, " ": 2, " a": 3 }, merges: ["  a"] },
  };
  json.model.merges = [[" ", "a"]] as never;
  assertEquals(createFastEncoder(json as never)!("a a", false), [1, 3]);
  await Deno.writeTextFile(join(folder.path, "tokenizer.json"), JSON.stringify(json));
  const said: string[] = [];
  const tell = (message: string): void => void said.push(message);
  assertEquals((await loadTokenizer(folder.path, {}, tell)).encode("a a"), [1, 2, 1]);
  const path = join(folder.path, "tokenizer.json");
  const slowly = `${path} is encoded by Hugging Face's JavaScript library, several times as slowly, as`;
  assertEquals(said.splice(0), [`${slowly} our own encoder and the library come to other tokens`]);
  // Words by what is the likeliest to come of them are none of ours.
  const unigram = { type: "Unigram", unk_id: 0, vocab: [["<eos>", 0], ["a", -1], [" ", -2]] };
  await Deno.writeTextFile(path, JSON.stringify({ ...json, pre_tokenizer: null, model: unigram }));
  await loadTokenizer(folder.path, {}, tell);
  assertEquals(said.splice(0), [`${slowly} a part of it is not known here`]);
  await loadTokenizer(join(FIXTURES, "gpt2.json"), {}, tell);
  assertEquals(said, []);
});

Deno.test("what a token spells inside a text has its space, which decoding takes from the first", async () => {
  for (const name of ["llama2", "mistral"]) {
    const tokenizer = await loadTokenizer(join(FIXTURES, `${name}.json`));
    const tokens = tokenizer.encode("the people");
    assertEquals(tokens.map(tokenizer.spell).join(""), " the people", name);
    assertEquals([tokenizer.decode(tokens), tokenizer.decode(tokens.slice(0, 1))[0]], ["the people", "t"]);
  }
  const bytes = await loadTokenizer(join(FIXTURES, "llama3.json"), AN_END);
  const tokens = bytes.encode("the people");
  assertEquals(tokens.map(bytes.spell).join(""), "the people");
});

/** Tokens that begin and end a text, by what stands in a folder. */
const FOLDERS: {
  what: string;
  tokenizer: keyof Expected["tokenizers"];
  files?: Record<string, unknown>;
  /** What the model's own config.json names, where it stands elsewhere. */
  named?: { endOfText?: number; startOfText?: number };
  start: number | undefined;
  ends: number[];
}[] = [
  { what: "a template", tokenizer: "llama2", start: 1, ends: [2] },
  {
    what: "a template in a sequence, and a list in config.json",
    tokenizer: "llama3",
    files: { "config.json": { bos_token_id: 0, eos_token_id: [1, 7, 9] } },
    start: 0,
    ends: [1, 7, 9],
  },
  {
    what: "a list in generation_config.json after config.json's",
    tokenizer: "qwen",
    files: {
      "config.json": { bos_token_id: 0, eos_token_id: 2 },
      "generation_config.json": { bos_token_id: 0, eos_token_id: [2, 0] },
      "tokenizer_config.json": { add_bos_token: false, bos_token: null, eos_token: "<|im_end|>" },
    },
    start: undefined,
    ends: [2, 0],
  },
  {
    what: "no token that begins a text, though config.json names one",
    tokenizer: "neox",
    files: { "config.json": { bos_token_id: 0, eos_token_id: 0 } },
    start: undefined,
    ends: [0],
  },
  {
    what: "add_bos_token and a bos_token that is an object",
    tokenizer: "smollm2",
    files: {
      "tokenizer_config.json": {
        add_bos_token: true,
        bos_token: { content: "<|im_start|>", special: true },
        eos_token: { content: "<|im_end|>", special: true },
      },
    },
    start: 1,
    ends: [2],
  },
  {
    what: "add_bos_token and the id in config.json",
    tokenizer: "gpt2",
    files: { "tokenizer_config.json": { add_bos_token: true }, "config.json": { bos_token_id: 5 } },
    start: 5,
    ends: [0],
  },
  {
    what: "add_bos_token and the id that the model's config names",
    tokenizer: "gpt2",
    files: { "tokenizer_config.json": { add_bos_token: true }, "config.json": { bos_token_id: 5 } },
    named: { startOfText: 6, endOfText: 8 },
    start: 6,
    ends: [8],
  },
  {
    what: "a template that add_bos_token: false takes back",
    tokenizer: "llama2",
    files: { "tokenizer_config.json": { add_bos_token: false } },
    start: undefined,
    ends: [2],
  },
  {
    what: "only generation_config.json",
    tokenizer: "llama3",
    files: { "generation_config.json": { eos_token_id: 1 } },
    start: 0,
    ends: [1],
  },
  {
    what: "ids that are no entries",
    tokenizer: "gpt2",
    files: { "config.json": { eos_token_id: [100_000, -1, "2", 3] } },
    start: undefined,
    ends: [3],
  },
];

for (const { what, tokenizer, files = {}, named, start, ends } of FOLDERS) {
  Deno.test(`the tokens that begin and end a text: ${what}`, async () => {
    await using folder = await temporaryFolder();
    await Deno.copyFile(join(FIXTURES, `${tokenizer}.json`), join(folder.path, "tokenizer.json"));
    for (const [name, json] of Object.entries(files)) {
      await Deno.writeTextFile(join(folder.path, name), JSON.stringify(json));
    }
    const found = await loadTokenizer(folder.path, named);
    assertEquals([found.startOfText, found.endOfText, found.endsOfText], [start, ends[0], ends]);
    assertEquals(withStart(found, [9]), start === undefined ? [9] : [start, 9]);
    // No text has them by itself.
    const { tokens } = found.encodeKnown("a text");
    assert(!tokens.includes(ends[0]) && tokens[0] !== start);
  });
}

Deno.test("a template's last token ends a text for want of anything else", async () => {
  await using folder = await temporaryFolder();
  const json = JSON.parse(await Deno.readTextFile(join(FIXTURES, "llama3.json")));
  const path = join(folder.path, "tokenizer.json");
  await Deno.writeTextFile(path, JSON.stringify(json));
  await assertRejects(() => loadTokenizer(path), UserError, "to separate documents");
  const end = { SpecialToken: { id: "<|end_of_text|>", type_id: 0 } };
  json.post_processor.processors[1].single.push(end);
  await Deno.writeTextFile(path, JSON.stringify(json));
  assertEquals((await loadTokenizer(path)).endOfText, 1);
});

Deno.test("what says how a tokenizer is used is refused in one sentence where it cannot be followed", async () => {
  await using folder = await temporaryFolder();
  await Deno.copyFile(join(FIXTURES, "gpt2.json"), join(folder.path, "tokenizer.json"));
  const settings = join(folder.path, "tokenizer_config.json");
  for (
    const [content, message] of [
      ['{"add_bos_token": true, "bos_token": "<s>"}', 'bos_token must name an entry: "<s>"'],
      ['{"add_bos_token": true}', "bos_token must name an entry: undefined"],
      ["[]", "tokenizer_config.json as it must be a JSON object"],
      ["{", "tokenizer_config.json as it is no JSON"],
    ]
  ) {
    await Deno.writeTextFile(settings, content);
    await assertRejects(() => loadTokenizer(folder.path), UserError, message);
  }
});
