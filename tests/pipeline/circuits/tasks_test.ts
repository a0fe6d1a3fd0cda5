import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { decode, encode } from "gpt-tokenizer/encoding/r50k_base";
import { placeMetric, type PromptSet } from "../../../pipeline/circuits/prompts.ts";
import { readPairs } from "../../../pipeline/circuits/tasks/pairs_file.ts";
import { promptPairs, type TextPair } from "../../../pipeline/circuits/tasks/prompt_pairs.ts";
import { TASKS } from "../../../pipeline/circuits/tasks/tasks.ts";
import { UserError } from "../../../pipeline/errors.ts";
import { randomStream } from "../../../kernels/core/random.ts";
import { loadTokenizer, type Tokenizer } from "../../../pipeline/text/tokenizer.ts";
import { centralDifference } from "../../support/gradient_check.ts";
import { assertClose } from "../../support/compare.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { normals } from "../../support/seeded.ts";

const GPT2: Tokenizer = {
  path: "gpt2/tokenizer.json",
  vocabularySize: 50257,
  endOfText: 50256,
  endsOfText: [50256],
  hash: "",
  encode: (text) => encode(text),
  encodeKnown: (text) => ({ tokens: encode(text), lost: 0 }),
  decode: (tokens) => decode([...tokens]),
  spell: (token) => decode([token]),
};
const DATA = new URL("../../../data/", import.meta.url).pathname;

const make = (task: string, tokenizer: Tokenizer, contextLength = 1024, prompts = 16): PromptSet =>
  TASKS[task].generate({ tokenizer, contextLength, prompts, random: randomStream(7) });

/** What holds of every task: one length, both prompts alike, answers of which none is right and wrong. */
function assertSound({ pairs }: PromptSet, vocabularySize: number): void {
  const length = pairs[0].clean.length;
  for (const { clean, corrupted, places } of pairs) {
    assertEquals([clean.length, corrupted.length], [length, length]);
    assert(clean.some((token, n) => token !== corrupted[n]), "the corruption changes something");
    for (const token of [...clean, ...corrupted]) assert(token >= 0 && token < vocabularySize);
    for (const { position, right, wrong } of places) {
      assert(position >= 0 && position < length);
      assert(right.length > 0 && wrong.length > 0);
      assert(!right.some((token) => wrong.includes(token)));
    }
  }
}

for (const task of ["copy", "ioi", "greater-than", "docstring"]) {
  Deno.test(`${task}: prompts under GPT-2's tokenizer are sound, and the same for the same seed`, () => {
    const set = make(task, GPT2);
    assertEquals(set.pairs.length, 16);
    assertSound(set, 50257);
    assertEquals(make(task, GPT2), set);
  });
}

Deno.test("copy: what follows a word in the first half is right, what follows it in the corrupted one wrong", async () => {
  for (const tokenizer of [GPT2, await loadTokenizer(DATA + "english")]) {
    for (const { clean, corrupted, places } of make("copy", tokenizer).pairs) {
      const half = clean.length / 2;
      assertEquals(clean.slice(0, half), clean.slice(half));
      assertEquals(clean.slice(half), corrupted.slice(half));
      for (const { position, right, wrong } of places) {
        const token = clean[position];
        assertEquals(right, [clean[clean.indexOf(token) + 1]]);
        assertEquals(wrong, [corrupted[corrupted.indexOf(token) + 1]]);
      }
    }
  }
});

Deno.test("ioi: the subject stands twice, the answer once, in both orders; the corruption names three others", () => {
  const { pairs } = make("ioi", GPT2, 1024, 64);
  const orders = new Set(pairs.map(({ template }) => template.slice(-4)));
  assertEquals(orders, new Set(["ABBA", "BABA"]));
  for (const { clean, corrupted, places: [{ right, wrong }] } of pairs) {
    assertEquals(clean.filter((token) => token === right[0]).length, 1);
    assertEquals(clean.filter((token) => token === wrong[0]).length, 2);
    assert(!corrupted.includes(right[0]) && !corrupted.includes(wrong[0]));
  }
});

Deno.test("greater-than: all later years are right, all others wrong, and the corruption is 01", () => {
  for (const { clean, corrupted, places: [{ right, wrong }] } of make("greater-than", GPT2).pairs) {
    const year = Number(/17(\d\d)/.exec(decode([...clean]))![1]);
    assertEquals(/17(\d\d)/.exec(decode([...corrupted]))![1], "01");
    // GPT-2 has a token of its own for 1700: 01 to 99 are left.
    assertEquals([right.length, wrong.length], [99 - year, year]);
    for (const token of right) assert(Number(decode([token])) > year);
    for (const token of wrong) assert(Number(decode([token])) <= year);
  }
});

/** Cuts numbers as other tokenizers do: each match of `digits`, the space before them, and anything else by character. */
function cutting(digits: string): Tokenizer {
  const pieces = (text: string): string[] => text.match(new RegExp(`${digits}|\\D`, "gu")) ?? [];
  const known: string[] = [];
  const tokenOf = (piece: string): number => {
    if (!known.includes(piece)) known.push(piece);
    return known.indexOf(piece);
  };
  const encode = (text: string): number[] => pieces(text).map(tokenOf);
  return {
    ...GPT2,
    encode,
    encodeKnown: (text) => ({ tokens: encode(text), lost: 0 }),
    decode: (tokens) => Array.from(tokens, (token) => known[token]).join(""),
  };
}

for (
  const [how, digits, asked] of [["one by one", "\\d", "17"], ["by three", "\\d{1,3}", ""]] as const
) {
  Deno.test(`greater-than: where digits are cut ${how}, tokens that are later or not whatever follows are answers`, () => {
    const tokenizer = cutting(digits);
    for (const { clean, corrupted, places: [{ right, wrong }] } of make("greater-than", tokenizer).pairs) {
      const text = tokenizer.decode(clean);
      const year = Number(/17(\d\d)/.exec(text)![1]);
      assert(text.endsWith(`to the year ${asked}`), text);
      assertEquals(/17(\d\d)/.exec(tokenizer.decode(corrupted))![1], "01");
      const tens = (token: number) => Number(tokenizer.decode([token]).at(-1));
      const decade = Math.floor(year / 10);
      // Of the year's own decade only the last year is the end.
      const known = year % 10 === 9 ? 10 : 9;
      assertEquals(right.length + wrong.length, known);
      for (const token of right) assert(tens(token) > decade);
      for (const token of wrong) assert(tens(token) < decade || year % 10 === 9 && tens(token) === decade);
    }
  });
}

Deno.test("docstring: the third documented parameter is the signature's, which the corruption does not name", () => {
  for (const { clean, corrupted, places: [{ right }] } of make("docstring", GPT2).pairs) {
    assertEquals(clean.filter((token) => token === right[0]).length, 1);
    assert(!corrupted.includes(right[0]));
    assert(decode([...clean]).endsWith(":param"));
  }
});

Deno.test("addition: the answer's digits are right, low digit first, and those of the corrupted sum wrong", async () => {
  const tokenizer = await loadTokenizer(DATA + "addition");
  const set = make("addition", tokenizer, 8, 32);
  assertSound(set, 13);
  for (const { clean, corrupted, places } of set.pairs) {
    for (const [tokens, which] of [[clean, "right"], [corrupted, "wrong"]] as const) {
      const [, a, b, read] = /^(\d\d)\+(\d\d)=(\d\d)$/.exec(tokenizer.decode(tokens))!;
      const answer = places.map((place) => tokenizer.decode(place[which])).join("");
      assertEquals(Number([...answer].reverse().join("")), Number(a) + Number(b));
      assertEquals(answer.slice(0, 2), read);
    }
  }
});

Deno.test("a task whose words the tokenizer cuts is refused with what it needs and what was found", async () => {
  const english = await loadTokenizer(DATA + "english");
  assertThrows(() => make("ioi", english), UserError, "first names must be one token each");
  assertThrows(() => make("addition", english), UserError, "12+34=64 must be 8 tokens");
  assertThrows(() => make("ioi", GPT2, 8), UserError, "of one length within 8 tokens: 0 made");
});

Deno.test("pairs and words with a character that the model has no token for are refused, naming line and character", async () => {
  const addition = await loadTokenizer(DATA + "addition");
  await using folder = await temporaryFolder();
  const path = `${folder.path}/sums.jsonl`;
  const pair = { clean: "12+34=", corrupted: "21+43=", answers: ["6"], wrong: ["1"] };
  const read = async (line: object) => {
    await Deno.writeTextFile(
      path,
      [{ ...pair, clean: "11+34=" }, line].map((l) => JSON.stringify(l)).join("\n"),
    );
    return await readPairs(path, { tokenizer: addition, contextLength: 8, prompts: 8 });
  };
  assertEquals((await read(pair)).pairs.length, 2);
  for (
    const odd of [{ clean: "12 + 34 =" }, { corrupted: "21+ 43=" }, { answers: [" 6"] }, { wrong: ["1 "] }]
  ) {
    await assertRejects(
      () => read({ ...pair, ...odd }),
      UserError,
      'line 2, as the tokenizer has no token for " "',
    );
  }
  assertThrows(() => make("greater-than", addition), UserError, "0 of 100 are");
  assertThrows(() => make("ioi", addition), UserError, "0 of ");
});

Deno.test("pairs of several lengths: they are told, and of one length those alone are taken", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/colours.jsonl`;
  const pair = (sky: string, sea: string): TextPair => ({
    clean: sky,
    corrupted: sea,
    answers: [" blue"],
    wrong: [" green"],
  });
  const [three, four] = [pair("The sky is", "The sea is"), pair("A sky so is", "A sea so is")];
  const [again, more] = [pair("My sky so is", "My sea so is"), pair("Our sky so is", "Our sea so is")];
  const pairs = [three, four, again, more];
  await Deno.writeTextFile(path, pairs.map((pair) => JSON.stringify(pair)).join("\n"));
  const options = { tokenizer: GPT2, contextLength: 4 };
  const read = (
    change: { length?: number; prompts?: number; tokenizer?: Tokenizer; contextLength?: number },
  ) => readPairs(path, { ...options, ...change });
  await assertRejects(
    () => read({}),
    UserError,
    "colours.jsonl as all prompts must have the same number of tokens: 4 in 3 pairs, such as line 2; 3 in line 1; " +
      "--pairs-length 4 leaves the others out",
  );
  assertThrows(
    () => promptPairs(pairs, options),
    UserError,
    "Cannot use pairs as all prompts must have the same number of tokens: 4 in 3 pairs, such as pairs[1]; 3 in pairs[0]; " +
      "length: 4 leaves the others out",
  );
  assertThrows(
    () => promptPairs(pairs, { ...options, lenght: 3 } as typeof options),
    UserError,
    "no unknown key: lenght (did you mean length?)",
  );
  assertEquals(promptPairs(pairs, { ...options, length: 3 }), {
    ...promptPairs([three], options),
    otherLengths: 3,
  });
  const ofFour = promptPairs([four, again, more], { ...options, task: "colours" });
  assertEquals(await read({ length: 4 }), { ...ofFour, otherLengths: 1 });
  // Of these the first; what is behind them is not looked at.
  assertEquals(await read({ length: 4, prompts: 2 }), {
    ...ofFour,
    pairs: ofFour.pairs.slice(0, 2),
    otherLengths: 1,
    leftOut: 1,
  });
  // A length that no pair has, and one that the model has not.
  await assertRejects(
    () => read({ length: 7 }),
    UserError,
    "no pair has 7 tokens: 4 in 3 pairs, such as line 2; 3",
  );
  assertEquals((await read({ length: 3, contextLength: 3 })).pairs.length, 1);
  await assertRejects(
    () => read({ length: 4, contextLength: 3 }),
    UserError,
    "line 2, as the model has 3 positions",
  );
  // With a token before every text it counts.
  const begun = { ...GPT2, startOfText: 50256 };
  const { pairs: [{ clean }] } = await read({ length: 4, tokenizer: begun });
  assertEquals(clean, [50256, ...promptPairs([three], options).pairs[0].clean]);
  const many = Array.from({ length: 6 }, (_, n) => pair("so ".repeat(n) + "sky", "so ".repeat(n) + "sea"));
  assertThrows(
    () => promptPairs(many, { ...options, contextLength: 16 }),
    UserError,
    "1 in pairs[0]; 2 in pairs[1]; 3 in pairs[2]; 4 in pairs[3]; and 2 other lengths; length: 1 leaves",
  );
});

Deno.test("a user's pairs are read, and what is wrong with a line is told", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/colours.jsonl`;
  const good = {
    clean: "The sky is",
    corrupted: "The sea is",
    answers: [" blue"],
    wrong: [" green", " red"],
  };
  const read = async (...lines: unknown[]) => {
    await Deno.writeTextFile(
      path,
      lines.map((line) => typeof line === "string" ? line : JSON.stringify(line)).join("\n"),
    );
    return await readPairs(path, { tokenizer: GPT2, contextLength: 16, prompts: 8 });
  };
  const sun = { ...good, clean: "The sun is", template: "again" };
  const set = await read(good, "", sun);
  assertEquals(set.task, "colours");
  assertEquals(set.pairs.map(({ template }) => template), ["pairs", "again"]);
  assertSound(set, 50257);
  assertEquals(set.pairs[0].places[0].position, 2);
  // What is behind those that are taken is counted, not looked at.
  const many = Array.from({ length: 40 }, (_, n) => ({ ...good, clean: `The ${n} is` }));
  const eight = await read(...many, "", "{");
  assertEquals([eight.pairs.length, eight.leftOut], [8, 33]);
  await read(...many);
  const all = await readPairs(path, { tokenizer: GPT2, contextLength: 16 });
  assertEquals([all.pairs.length, all.leftOut], [40, 0]);
  const refused: [unknown, string][] = [
    ["{", "line 2, as it must be a JSON object"],
    [{ ...good, clean: "" }, "clean and corrupted must be text"],
    [{ ...good, wrong: [] }, "answers and wrong must be lists of text"],
    [{ ...good, answers: [" unfathomable"] }, 'must be one token: " unfathomable" is'],
    [{ ...good, wrong: ["mosquito"] }, '"mosquito" is 3 ("mos", "qu", "ito"), but " mosquito" is one'],
    [{ ...good, corrupted: "The deep sea is" }, 'tokens: 3 and 4, with " sky" beside " deep", " sea"'],
    [
      { ...good, corrupted: "so ".repeat(12) + "is" },
      'with "The", " sky" beside "so", " so", " so", " so", " so", " so", " so", " so", 4 more',
    ],
    [{ ...good, corrupted: "The is" }, 'tokens: 3 and 2, with " sky" beside nothing'],
    [good, "it repeats the prompts of line 1"],
    [{ ...good, corrupted: good.clean }, "clean and corrupted are the same prompt"],
    [{ ...good, clean: "The sun is", answers: [" blue", " red"] }, 'right and wrong: " red" is both'],
  ];
  for (const [line, message] of refused) await assertRejects(() => read(good, line), UserError, message);
  await assertRejects(() => read(""), UserError, "it has no pair");
  // The same in memory, and as one array.
  const inMemory = (list: unknown[]) =>
    promptPairs(list as TextPair[], { tokenizer: GPT2, contextLength: 16, task: "colours" });
  assertEquals(inMemory([good, sun]), set);
  const array = `${folder.path}/colours.json`;
  const readArray = async (text: string, prompts?: number) => {
    await Deno.writeTextFile(array, text);
    return await readPairs(array, { tokenizer: GPT2, contextLength: 16, prompts });
  };
  assertEquals(await readArray(`\n ${JSON.stringify([good, sun], null, 2)}`), set);
  assertEquals(await readArray([good, sun].map((pair) => JSON.stringify(pair)).join("\n")), set);
  const first = await readArray(JSON.stringify([good, sun, 3]), 1);
  assertEquals([first.pairs, first.leftOut], [set.pairs.slice(0, 1), 2]);
  for (const [line, message] of refused.slice(1)) {
    const told = message.replace("line 1", "element 1");
    const list = [good, line];
    await assertRejects(() => readArray(JSON.stringify(list)), UserError, told);
    assertThrows(() => inMemory(list), UserError, message.replace("line 1", "pairs[0]"));
  }
  await assertRejects(
    () => readArray(`[${JSON.stringify(good)}, 3]`),
    UserError,
    "json, element 2, as it must be",
  );
  assertThrows(() => inMemory([good, 3]), UserError, "Cannot use pairs[1] as it must be");
  await assertRejects(() => readArray("[]"), UserError, "colours.json as it has no pair");
  assertThrows(() => inMemory([]), UserError, "Cannot use pairs as it has no pair");
  await assertRejects(() => readArray("[{"), UserError, "colours.json as it is no JSON");
  await assertRejects(
    () => read([good, sun]),
    UserError,
    "colours.jsonl, line 1, as it must be a JSON object",
  );
  assertEquals((await read(good)).pairs.length, 1, "one pair alone");
  const another = { ...good, corrupted: "The sun is" };
  await assertRejects(() => read(good, another), UserError, "all pairs have one clean prompt");
  await Deno.remove(path);
  await assertRejects(
    () => readPairs(path, { tokenizer: GPT2, contextLength: 16, prompts: 8 }),
    UserError,
    "no such file",
  );
});

Deno.test("both metrics' gradients agree with central differences", () => {
  const logits = Float64Array.from(normals(1, 9));
  const place = { position: 0, right: [2, 5], wrong: [1, 3, 8] };
  for (const metric of ["logit_difference", "probability_difference"] as const) {
    const numeric = centralDifference((x) => placeMetric(metric, x, place).value, logits);
    assertClose(placeMetric(metric, logits, place).gradient, numeric, { tolerance: 1e-8, name: metric });
  }
});
