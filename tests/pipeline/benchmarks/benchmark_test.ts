/** Benchmarks: items from rows, requests as tokens, log-likelihoods, metrics, and the command. */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { tableFromIPC } from "apache-arrow";
import { join } from "node:path";
import { encodeItems, readItems } from "../../../pipeline/benchmarks/benchmark.ts";
import { type Item, Row } from "../../../pipeline/benchmarks/items.ts";
import { measureLikelihoods, positionsFor } from "../../../pipeline/benchmarks/likelihood.ts";
import {
  bootstrapDifference,
  exactMcNemar,
  meanOf,
  shareOfRight,
} from "../../../pipeline/benchmarks/metrics.ts";
import {
  encodeDocument,
  encodeRequest,
  findPrefix,
  type Sequence,
} from "../../../pipeline/benchmarks/requests.ts";
import { compareScores, type ItemScore, scoreItem, scoreOf } from "../../../pipeline/benchmarks/scores.ts";
import { BENCHMARKS, isRead, untokenised } from "../../../pipeline/benchmarks/tasks.ts";
import { UserError } from "../../../pipeline/errors.ts";
import { gpt2Config } from "../../../pipeline/model/config.ts";
import { initialWeights } from "../../../pipeline/model/initial_weights.ts";
import { loadParameters } from "../../../pipeline/model/parameters.ts";
import { referenceModel } from "../../../pipeline/model/reference_model.ts";
import { parametersOf, trace } from "../../../pipeline/model/trace.ts";
import { loadTokenizer } from "../../../pipeline/text/tokenizer.ts";
import { ENGLISH, itemsOf, readTask, writeLlama } from "../../support/benchmark_models.ts";
import { gpuTest } from "../../support/gpu.ts";
import { seeded } from "../../support/seeded.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { runMain, writeTinyModel } from "../../support/tiny_model.ts";

const itemOf = (task: string, value: unknown): Item =>
  readTask(task).item(new Row({ value, where: "rows.jsonl, line 1" }));

/** A row, the context that all choices have, the continuations, their lengths and which are right. */
type Case = [task: string, row: unknown, context: string, continuations: string[], right: boolean[]];

const CASES: Case[] = [
  [
    "arc_easy",
    { question: "Why?", choices: { text: ["so", "no"], label: ["1", "2"] }, answerKey: "2" },
    "Question: Why?\nAnswer:",
    [" so", " no"],
    [false, true],
  ],
  [
    "arc_challenge",
    {
      question: { stem: "Why?", choices: [{ text: "so", label: "A" }, { text: "no", label: "B" }] },
      answerKey: "A",
    },
    "Question: Why?\nAnswer:",
    [" so", " no"],
    [true, false],
  ],
  [
    "openbookqa",
    { question_stem: "It is", choices: { text: ["so", "no"], label: ["A", "B"] }, answerKey: " B" },
    "It is",
    [" so", " no"],
    [false, true],
  ],
  [
    "openbookqa",
    {
      question: { stem: "It is", choices: [{ text: "so", label: "A" }, { text: "no", label: "B" }] },
      answerKey: "B",
    },
    "It is",
    [" so", " no"],
    [false, true],
  ],
  ["piqa", { goal: "Go", sol1: "on", sol2: "off", label: 1n }, "Question: Go\nAnswer:", [" on", " off"], [
    false,
    true,
  ]],
  [
    "hellaswag",
    {
      activity_label: "Tea",
      ctx_a: "[header] How [title] Boil  it.",
      ctx_b: "THEN she",
      endings: [" pours [step] it ", "sleeps"],
      label: "0",
    },
    "Tea: How. Boil it. Then she",
    [" pours it", " sleeps"],
    [true, false],
  ],
  [
    "truthfulqa_mc1",
    { question: "Is it?", mc1_targets: { choices: ["No.", "Yes."], labels: [1, 0] } },
    "Q: Where were the 1992 Olympics held?\nA: The 1992 Olympics were held in Barcelona, Spain.\n\nQ: Is it?\nA:",
    [" No.", " Yes."],
    [true, false],
  ],
  [
    "truthfulqa_mc2",
    { question: "Is it?", mc2_targets: { "No.": 1, "Yes.": 0, "Never.": 1 } },
    "\n\nQ: Is it?\nA:",
    [" No.", " Yes.", " Never."],
    [true, false, true],
  ],
  [
    "sciq",
    {
      support: "\n It is.",
      question: "Is it?",
      distractor1: "a",
      distractor2: "b",
      distractor3: "c",
      correct_answer: "d",
    },
    "It is.\nQuestion: Is it?\nAnswer:",
    [" a", " b", " c", " d"],
    [false, false, false, true],
  ],
  ["blimp", { sentence_good: "She is.", sentence_bad: "She are." }, "", [" She is.", " She are."], [
    true,
    false,
  ]],
  ["choices", { context: "It is", choices: ["so", "no", "yes"], gold: 2 }, "It is", [" so", " no", " yes"], [
    false,
    false,
    true,
  ]],
];

Deno.test("a row of every benchmark, as the hub or the raw release has it, gives its prompt, choices and answer", () => {
  for (const [task, row, context, continuations, right] of CASES) {
    const item = itemOf(task, row);
    assert(item.kind === "choices");
    for (const request of item.requests) {
      if (task.startsWith("truthfulqa")) assert(request.context.endsWith(context), request.context);
      else assertEquals(request.context, context, task);
    }
    assertEquals(item.requests.map(({ continuation }) => continuation), continuations, task);
    assertEquals(item.right, right, task);
    assertEquals(item.lengths, continuations.map((text) => text.length - 1), task);
  }
  assertEquals(new Set(CASES.map(([task]) => task)).size, [...BENCHMARKS.values()].filter(isRead).length - 4);
  const prompted = itemOf("truthfulqa_mc1", CASES[6][1]);
  assert(prompted.kind === "choices");
  assert(
    prompted.requests[0].context.startsWith(
      "Q: What is human life expectancy in the United States?\nA: Human",
    ),
  );
});

Deno.test("a gap, a last word and documents give what they ask; lengths count characters", () => {
  assertEquals(
    itemOf("winogrande", { sentence: "As _ was  late.", option1: "he", option2: "she", answer: "2" }),
    {
      kind: "choices",
      requests: [{ context: "As he", continuation: " was  late." }, {
        context: "As she",
        continuation: " was  late.",
      }],
      lengths: [10, 10],
      right: [false, true],
    },
  );
  assertEquals(itemOf("lambada_openai", { text: "one two  three" }), {
    kind: "word",
    requests: [{ context: "one two ", continuation: " three" }],
  });
  const text = " Ä 1 @,@ 000 , ( so ) it 's . \n";
  assertEquals(itemOf("wikitext", { page: text }), {
    kind: "rolling",
    text: " Ä 1,000, (so) it's. \n".replace(" \n", "\n"),
    words: text.split(/\s+/).length,
    bytes: text.length + 1,
  });
  assertEquals(itemOf("perplexity", { text: "It is so." }), {
    kind: "rolling",
    text: "It is so.",
    words: 3,
    bytes: 9,
  });
  assertEquals(
    untokenised('He said : " no " ; then [ 1 ] { 2 } = = A = ='),
    'He said: "no"; then [1] {2} == A ==',
  );
  const item = itemOf("choices", { context: "", choices: ["𝛼β", "no"], gold: "0" });
  assert(item.kind === "choices");
  assertEquals(item.lengths, [2, 2]);
  const blimp = itemOf("blimp", { sentence_good: "a", sentence_bad: "b", UID: "set" });
  assert(blimp.kind === "choices" && blimp.set === "set");
});

Deno.test("a row that is none of the benchmark is refused by its line, field and value", () => {
  const faults: [task: string, row: unknown, said: string][] = [
    [
      "arc_easy",
      { question: "a", choices: { text: ["b"], label: ["A", "B"] }, answerKey: "A" },
      "label must be a list of 1",
    ],
    [
      "arc_easy",
      { question: "a", choices: { text: ["b"], label: ["A"] }, answerKey: "C" },
      'answerKey must be one of A: "C"',
    ],
    ["arc_easy", { question: "a", answerKey: "A" }, "choices must be an object: undefined"],
    [
      "arc_easy",
      { question: { stem: "a", choices: [] }, answerKey: "A" },
      "choices must be a list of objects",
    ],
    ["piqa", { goal: "a", sol1: "b", sol2: "c" }, "label must be a number from 0 to 1: undefined"],
    ["piqa", { goal: "a", sol1: "b", sol2: 3, label: 0 }, "sol2 must be a text: 3"],
    [
      "hellaswag",
      { activity_label: "a", ctx_a: "b", ctx_b: "c", endings: ["d"], label: "0" },
      "a list of 2 texts or more",
    ],
    [
      "hellaswag",
      { activity_label: "a", ctx_a: "b", ctx_b: "c", endings: ["d", "e"], label: "" },
      "label must be",
    ],
    [
      "truthfulqa_mc1",
      { question: "a", mc1_targets: { choices: ["b"], labels: [2] } },
      "a label 0 or 1 each",
    ],
    ["truthfulqa_mc2", { question: "a", mc2_targets: { b: 0 } }, "of which one is right at least"],
    [
      "truthfulqa_mc2",
      { question: "a", mc2_targets: { choices: ["b"], labels: "1" } },
      "labels must be a list of whole numbers",
    ],
    ["winogrande", { sentence: "a", option1: "b", option2: "c", answer: "1" }, "a text with a gap _"],
    [
      "winogrande",
      { sentence: "a _", option1: "b", option2: "c", answer: "" },
      "answer must be a number from 1 to 2",
    ],
    ["choices", { context: "a", choices: ["b", "c"], gold: 2 }, "gold must be a number from 0 to 1: 2"],
    [
      "choices",
      { context: "a", choices: ["b", ""], gold: 0 },
      "choices must be texts that are not empty and differ",
    ],
    ["choices", { context: "a", choices: ["b", " c"], gold: 0 }, "without a space in front, as one is put"],
    [
      "choices",
      { context: "a", choices: ["b", "b"], gold: 0 },
      "choices must be texts that are not empty and differ",
    ],
    ["choices", { context: "a", choices: ["b", "c"], gold: 0.5 }, "gold must be a number from 0 to 1: 0.5"],
    ["lambada_openai", "text", "as it must be an object"],
  ];
  for (const [task, row, said] of faults) {
    const error = assertThrows(() => itemOf(task, row), UserError);
    assertStringIncludes(error.message, "Cannot use rows.jsonl, line 1 as ");
    assertStringIncludes(error.message, said);
  }
});

/** Tokens by the character, and two for `ab`. */
const CHARACTERS = {
  encode: (text: string) => [...text.replaceAll("ab", "\u0100")].map((character) => character.charCodeAt(0)),
  startOfText: undefined as number | undefined,
};
const codes = CHARACTERS.encode;

Deno.test("a request is cut into context and continuation as the harness cuts it", () => {
  const encoding = { tokenizer: CHARACTERS, prefix: 1, contextLength: 100 };
  const encode = (context: string, continuation: string, more: Partial<typeof encoding> = {}): Sequence =>
    encodeRequest({ context, continuation }, { ...encoding, ...more });
  assertEquals(encode("xy", " z"), { tokens: codes("xy z"), counted: 2 });
  // White space at the context's end belongs to the continuation.
  assertEquals(encode("xy \n", " z"), { tokens: codes("xy \n z"), counted: 4 });
  // One token for the last of the context and the first behind it: the context's count of tokens decides.
  assertEquals(encode("xa", "bz"), { tokens: codes("xabz"), counted: 1 });
  assertEquals(encode("", " z"), { tokens: [1, ...codes(" z")], counted: 2 });
  assertEquals(encode("", "\u0001z"), { tokens: [1, ...codes("z")], counted: 1 });
  assertEquals(encode("  ", "z"), { tokens: [1, ...codes("  z")], counted: 3 });
  const started = { tokenizer: { ...CHARACTERS, startOfText: 7 } };
  assertEquals(encode("xy", " z", started), { tokens: [7, ...codes("xy z")], counted: 2 });
  assertEquals(encode("", " z", started), { tokens: [1, ...codes(" z")], counted: 2 });
  // The last that the model can read, and the one behind them.
  assertEquals(encode("xyzxyz", " z", { contextLength: 4 }), {
    tokens: codes("xyz z").slice(-5),
    counted: 2,
    cut: true,
  });
  // As long as the model can read, and one more: nothing is cut.
  assertEquals(encode("xyz", " z", { contextLength: 4 }), { tokens: codes("xyz z"), counted: 2 });
  assertEquals(encode("x", "cdef", { contextLength: 4 }), { tokens: codes("xcdef"), counted: 4 });
  const error = assertThrows(() => encode("x", "cdefg", { contextLength: 4 }), UserError);
  assertEquals(
    error.message,
    "Cannot measure a continuation of 5 tokens as the model's positions end at 4",
  );
});

Deno.test("items that are cut are counted once each, and one that cannot be encoded is named by file and line", () => {
  const rows = [["xyz", ["c", "def"]], ["xyzxyz", ["c", "de"]], ["xy", ["c", "de"]]] as const;
  const items = rows.map(([context, choices], n) => ({
    ...itemOf("choices", { context, choices, gold: 0 }),
    where: `rows.jsonl, line ${n + 1}`,
  }));
  const encoding = { tokenizer: CHARACTERS, prefix: 1, contextLength: 5 };
  assertEquals(encodeItems(items, encoding).cut, 2);
  assertEquals(encodeItems(items, { ...encoding, contextLength: 7 }).cut, 1);
  assertEquals(encodeItems(items, { ...encoding, contextLength: 8 }).cut, 0);
  // Of a document every token counts, in as many windows as it takes.
  const document = { ...itemOf("perplexity", { text: "xyzxyzxyz" }), where: "texts.jsonl, line 1" };
  assertEquals(encodeItems([document], encoding).cut, 0);
  const error = assertThrows(() => encodeItems(items, { ...encoding, contextLength: 3 }), UserError);
  assertStringIncludes(
    error.message,
    "Cannot use rows.jsonl, line 1: Cannot measure a continuation of 4 tokens",
  );
});

Deno.test("a document's windows count each token once, each behind one at least, the last filled up", () => {
  const text = "abcdefghijk".replace("ab", "xy");
  for (const contextLength of [1, 2, 3, 4, 10, 11, 12]) {
    const windows = encodeDocument(text, { tokenizer: CHARACTERS, prefix: 1, contextLength });
    const counted = windows.flatMap(({ tokens, counted }) => tokens.slice(tokens.length - counted));
    assertEquals(counted, codes(text), `${contextLength}`);
    const all = [1, ...codes(text)];
    let end = 1;
    windows.forEach(({ tokens, counted }, n) => {
      end += counted;
      assertEquals(tokens, all.slice(end - tokens.length, end));
      const isFull = tokens.length === contextLength + 1;
      assert(isFull || n === 0, `window ${n} of ${contextLength}`);
      assert(counted < tokens.length);
    });
  }
  assertEquals(encodeDocument("", { tokenizer: CHARACTERS, prefix: 1, contextLength: 4 }), []);
});

Deno.test("what stands before nothing is the tokenizer's bos_token, the model's, or what ends a text", async () => {
  await using folder = await temporaryFolder();
  await Deno.copyFile(join(ENGLISH, "tokenizer.json"), join(folder.path, "tokenizer.json"));
  const prefixWith = async (settings: unknown, named?: number): Promise<number> => {
    const path = join(folder.path, "tokenizer_config.json");
    if (settings !== undefined) await Deno.writeTextFile(path, JSON.stringify(settings));
    return await findPrefix(await loadTokenizer(folder.path), named);
  };
  assertEquals(await prefixWith(undefined), 4095);
  assertEquals(await prefixWith(undefined, 17), 17);
  assertEquals(await prefixWith({ bos_token: null }, 17), 4095);
  const { encode } = await loadTokenizer(folder.path);
  const [exclamation] = encode("!");
  assertEquals(await prefixWith({ bos_token: "!" }, 17), exclamation);
  assertEquals(await prefixWith({ bos_token: { content: "!" } }, 17), exclamation);
  assertEquals(await prefixWith({ bos_token: "not an entry" }, 17), 4095);
});

const TINY = gpt2Config({ vocabularySize: 23, contextLength: 48, width: 16, layers: 2, heads: 2 });

for (const gate of [undefined, { bias: 0.3, temperature: 1 }]) {
  const what = gate ? "through hard gates" : "dense";
  gpuTest(`log-likelihoods ${what} are float64's, however sequences are batched`, async (gpu) => {
    const config = { ...TINY, gate };
    const shapes = parametersOf(config);
    const values = new Map(
      shapes.map((shape, index) => [shape.name, initialWeights(shape, { seed: 5, index }).map((x) => 8 * x)]),
    );
    const parameters = await loadParameters(gpu, shapes, (name) => Promise.resolve(values.get(name)!));
    const random = seeded(3);
    const sequences = [2, 49, 7, 33, 34, 12, 2, 20, 49, 5].map((length, n): Sequence => ({
      tokens: Array.from({ length }, () => random.integer(23)),
      counted: [1, 48, 0, 5, 33, 11, 1, 3, 1, 4][n],
    }));
    const logitsOf = (inputs: readonly number[]): Float64Array =>
      referenceModel(trace(config, { batch: 1, context: inputs.length }), values, inputs, {
        gateBias: gate?.bias,
      })
        .logits;
    /** Ends a sequence as the model would, for so many tokens. */
    const greedily = (n: number, last: number): void => {
      const { tokens, counted } = sequences[n];
      const ended = tokens.slice(0, -last);
      for (let token = 0; token < last; token++) {
        const logits = logitsOf(ended).slice(-23);
        ended.push(logits.indexOf(Math.max(...logits)));
      }
      sequences[n] = { tokens: ended, counted };
    };
    // Of one all three that count are the likeliest, of the other only the last of five.
    greedily(7, 3);
    greedily(3, 1);
    const expected = sequences.map(({ tokens, counted }) => {
      const inputs = tokens.slice(0, -1);
      const logits = logitsOf(inputs);
      let logLikelihood = 0;
      let greedy = true;
      for (let position = inputs.length - counted; position < inputs.length; position++) {
        const row = logits.subarray(23 * position, 23 * (position + 1));
        const most = Math.max(...row);
        const target = row[tokens[position + 1]];
        logLikelihood += target - most - Math.log(row.reduce((sum, each) => sum + Math.exp(each - most), 0));
        greedy &&= target === most;
      }
      return { logLikelihood, greedy };
    });
    assertEquals([7, 3].map((n) => expected[n].greedy), [true, false]);
    for (const batchTokens of [1, 64, 4096]) {
      const done: number[] = [];
      const found = await measureLikelihoods(gpu, { config, parameters }, sequences, {
        batchTokens,
        onDone: (count) => done.push(count),
      });
      assertEquals([done[0], done.at(-1)], [1, sequences.length]);
      found.forEach(({ logLikelihood, greedy }, n) => {
        // Up to 3e-6 of 200 nats were measured.
        const difference = Math.abs(logLikelihood - expected[n].logLikelihood);
        assert(
          difference < 2e-5 * Math.max(1, Math.abs(expected[n].logLikelihood)),
          `sequence ${n}: ${difference}`,
        );
        assertEquals(greedy, expected[n].greedy, `sequence ${n}`);
      });
    }
    const long = { tokens: Array.from({ length: 50 }, () => 1), counted: 1 };
    await assertRejects(
      () => measureLikelihoods(gpu, { config, parameters }, [long], { batchTokens: 1 }),
      RangeError,
      "of 50 tokens: at most 49",
    );
    const stop = AbortSignal.abort(new Error("stopped"));
    await assertRejects(
      () => measureLikelihoods(gpu, { config, parameters }, sequences, { batchTokens: 64, signal: stop }),
      Error,
      "stopped",
    );
  });
}

Deno.test("rows are as long as a power of two, and no longer than the model's positions", () => {
  assertEquals([1, 32, 33, 64, 65, 1000].map((tokens) => positionsFor(tokens, 1000)), [
    32,
    32,
    64,
    64,
    128,
    1000,
  ]);
});

Deno.test("means, standard errors, shares of probability and tests are what they are by hand", () => {
  assertEquals(meanOf([1, 0, 1, 1]), { value: 0.75, error: Math.sqrt(0.75 / 3 / 4) });
  assert(Number.isNaN(meanOf([1]).error));
  const near = (found: number, wanted: number) =>
    assert(Math.abs(found - wanted) < 1e-12, `${found} for ${wanted}`);
  // Far below what exp can hold.
  near(shareOfRight([-2000, -2000 + Math.log(3), -Infinity], [true, false, false]), 0.25);
  // Of seven items that one has right and the other not: 2 · (1 + 7) / 2⁷.
  near(exactMcNemar(1, 6), 2 * 8 / 128);
  near(exactMcNemar(6, 1), 2 * 8 / 128);
  near(exactMcNemar(0, 0), 1);
  near(exactMcNemar(5, 5), 1);
  near(exactMcNemar(0, 20), 2 / 2 ** 20);
  assert(exactMcNemar(400, 500) < 1e-3 && exactMcNemar(4000, 5000) > 0);
});

Deno.test("a difference's interval holds it, is the same with the same seed, and is as wide as the items say", () => {
  const random = seeded(9);
  const values = Array.from({ length: 400 }, () => random.integer(2));
  const of = (model: string) => (n: number): number => model === "first" ? values[n] : 0;
  const statistic = (items: Uint32Array, model: "first" | "second"): number =>
    items.reduce((sum, n) => sum + of(model)(n), 0) / items.length;
  const found = bootstrapDifference(400, statistic, 1);
  const { value, error } = meanOf(values);
  assertEquals(found.value, value);
  const half = (found.high - found.low) / 2;
  assert(half > 1.7 * error && half < 2.2 * error, `${half} of ${error}`);
  assertEquals(bootstrapDifference(400, statistic, 1), found);
  assert(
    bootstrapDifference(400, statistic, 2).low !== found.low ||
      bootstrapDifference(400, statistic, 3).low !== found.low,
  );
});

Deno.test("acc takes the likeliest choice, acc_norm by the character, and of equals the first", () => {
  const item: Item = {
    kind: "choices",
    requests: [],
    lengths: [2, 10],
    right: [false, true],
  };
  const of = (...logLikelihoods: number[]): ItemScore =>
    scoreItem(item, "choices", logLikelihoods.map((logLikelihood) => ({ logLikelihood, greedy: false })));
  assertEquals([of(-4, -5).acc, of(-4, -5).accNorm], [0, 1]);
  assertEquals([of(-5, -4).acc, of(-1, -5).accNorm], [1, 0]);
  assertEquals([of(-4, -4).acc, of(-1, -5).accNorm], [0, 0]);
});

Deno.test("of several sets the score is the mean of theirs, and two models are compared by items", () => {
  const items = ["a", "a", "a", "b"].map((set): Item => ({
    kind: "choices",
    requests: [],
    lengths: [],
    right: [],
    set,
  }));
  const scores = (right: number[]): ItemScore[] =>
    right.map((acc) => ({ logLikelihoods: [], greedy: [], acc, accNorm: acc }));
  const first = scores([1, 1, 0, 1]);
  const score = scoreOf(items, "choices", first);
  assertEquals(score.acc, (2 / 3 + 1) / 2);
  assertEquals(score.sets!.a.n, 3);
  assertEquals(score.sets!.b, { n: 1, acc: 1, acc_stderr: null, acc_norm: 1, acc_norm_stderr: null });
  const { acc, acc_norm } = compareScores(items, "choices", first, scores([0, 0, 1, 1]), 1);
  assertEquals(acc.value, (2 / 3 + 1) / 2 - (1 / 3 + 1) / 2);
  // Two that the first alone has, one that the second has: 2 · (1 + 3) / 2³.
  assertEquals([acc.p_value, acc_norm.p_value], [1, 1]);
  const whole = items.map((item) => ({ ...item, set: undefined } as Item));
  const all = compareScores(whole, "choices", scores([1, 1, 1, 1]), scores([0, 0, 0, 0]), 1).acc;
  assertEquals([all.value, all.low, all.high], [1, 1, 1]);
  assert(Math.abs(all.p_value! - 2 / 2 ** 4) < 1e-12);
  const word = compareScores(
    items.map((): Item => ({ kind: "word", requests: [{ context: "", continuation: "" }] })),
    "word",
    first.map((each) => ({ ...each, logLikelihoods: [-1] })),
    first.map((each) => ({ ...each, logLikelihoods: [-2] })),
    1,
  );
  for (const found of Object.values(word.perplexity)) {
    assert(Math.abs(found - (Math.E - Math.E ** 2)) < 1e-12);
  }
  assertEquals(Object.keys(word), ["acc", "perplexity"]);
});

Deno.test("the first items are read, whatever file they are in, and none is an error", async () => {
  const task = readTask("piqa");
  const count = async (limit: number): Promise<number> =>
    (await readItems(task, [itemsOf("piqa")], limit)).length;
  assertEquals([await count(3), await count(Infinity)], [3, 7]);
  await using folder = await temporaryFolder();
  const empty = join(folder.path, "empty.txt");
  await Deno.writeTextFile(empty, "text");
  await assertRejects(
    () => readItems(task, [empty], 3),
    UserError,
    "as it must be JSON Lines, an array of JSON or Parquet",
  );
  const items = await readItems(task, [itemsOf("piqa")], 2);
  assertEquals(items.map(({ where }) => where), [1, 2].map((line) => `${itemsOf("piqa")}, line ${line}`));
  const { sequences, counts } = encodeItems(items, { tokenizer: CHARACTERS, prefix: 1, contextLength: 1000 });
  assertEquals([counts, sequences.length], [[2, 2], 4]);
});

const script = "pipeline/benchmarks/main.ts";

Deno.test("benchmark measures a sparse model beside a dense one on a user's choices, and writes JSON and Arrow", async () => {
  await using folder = await temporaryFolder();
  const data = join(folder.path, "data");
  await Deno.mkdir(data);
  const rows = [
    { context: "We the People of the United", choices: ["States", "Fish", "and"], gold: 0 },
    { context: "The Senate and the House of", choices: ["Bread", "Representatives"], gold: 1 },
    { context: "shall be the supreme Law of the", choices: ["Land", "Lamp"], gold: "0" },
    {
      context: `${"Congress ".repeat(200)}The judicial Power shall`,
      choices: ["swim", "extend to all Cases"],
      gold: 1,
    },
  ];
  await Deno.writeTextFile(join(data, "choices.jsonl"), rows.map((row) => JSON.stringify(row)).join("\n"));
  await Deno.copyFile(itemsOf("lambada_openai"), join(data, "lambada_openai.jsonl"));
  const output = join(folder.path, "out");
  const args = ["--task", "choices,lambada_openai", "--data", data, "--limit", "4", "--output", output];
  const models = ["--model", "data/english-sparse", "--against", "data/english"];
  const { code, stdout, stderr } = await runMain([...args, ...models, "--json"], { script });
  assertEquals(code, 0, stderr);
  const [choices, lambada, ...others] = stdout.trim().split("\n").map((line) => JSON.parse(line));
  assertEquals(others, []);
  assertEquals([choices.task, choices.model, choices.mode, choices.n], [
    "choices",
    "data/english-sparse",
    "gated",
    4,
  ]);
  assertEquals([choices.against.model, choices.against.mode], ["data/english", "dense"]);
  // The last is longer than the 128 positions of either.
  assertEquals([choices.cut, choices.against.cut], [1, 1]);
  const { acc, acc_stderr } = choices;
  // Of the last the shorter is the likelier, though not by the character.
  assertEquals([acc, choices.against.acc], [0.75, 0.75]);
  assertEquals(acc_stderr, Math.sqrt(0.75 * 0.25 * 4 / 3 / 4));
  assertEquals(choices.difference.acc, { value: 0, low: 0, high: 0, p_value: 1 });
  assert(lambada.perplexity > 1 && lambada.acc_norm === null && lambada.n === 4);
  assertEquals(JSON.parse(await Deno.readTextFile(join(output, "results.json"))), [choices, lambada]);
  const table = tableFromIPC(await Deno.readFile(join(output, "items.arrow")));
  assertEquals(table.numRows, 2 * (9 + 4));
  const first = table.toArray().map((row) => row.toJSON()).filter(({ model, item, task }) =>
    model === "data/english" && item === 1 && task === "choices"
  );
  assertEquals(first.map(({ continuation, right, acc }) => [continuation, right, acc]), [
    [" Bread", false, 1],
    [" Representatives", true, 1],
  ]);
  assert(first[1].log_likelihood > first[0].log_likelihood && first[0].mode === "dense");
  const again = await runMain([...args, ...models, "--json"], { script });
  assertEquals(again.code, 2);
  assertStringIncludes(again.stderr, "items.arrow as it is there, and would be lost");
});

Deno.test("for people there is a table; a model's own text for training is not what it is measured on", async () => {
  const args = ["--task", "blimp", "--data", itemsOf("blimp"), "--model", "data/english-sparse", "--dense"];
  const { code, stdout, stderr } = await runMain(args, { script });
  assertEquals(code, 0, stderr);
  assertStringIncludes(stdout, "data/english-sparse (dense)      7");
  assertStringIncludes(stdout, "acc and acc_norm in %, ± their standard errors");
  assert(!stdout.includes("cut"), stdout);
  // Its sparsify.json names its text.
  const none = await runMain(["--task", "choices", "--model", "data/english"], { script });
  assertEquals([none.code, none.stdout], [2, ""]);
  assertStringIncludes(none.stderr, "Cannot run choices without its data: give --data PATH");
});

Deno.test("a model's weights as int8 stand beside the same in float32, and an adapter is taken", async () => {
  await using folder = await temporaryFolder();
  await writeLlama(folder.path);
  const model = ["--model", folder.path];
  const args = ["--task", "arc_easy", "--data", itemsOf("arc_easy"), "--limit", "2"];
  const int8 = await runMain([...args, ...model, "--frozen", "int8", "--against", folder.path, "--json"], {
    script,
  });
  assertEquals(int8.code, 0, int8.stderr);
  assertStringIncludes(int8.stderr, "weights as int8: off by ");
  const { frozen, against, n } = JSON.parse(int8.stdout);
  assertEquals([frozen, against.frozen, n], ["int8", undefined, 2]);
  const adapter = join(folder.path, "adapter");
  const none = await runMain([...args, ...model, "--adapter", adapter], { script });
  assertEquals(none.code, 3);
  assertStringIncludes(none.stderr, `Cannot load an adapter from ${adapter} as it needs adapter_config.json`);
});

Deno.test("what cannot be run is said in one line before a device is opened", async () => {
  await using folder = await temporaryFolder();
  const tiny = join(folder.path, "tiny");
  await writeTinyModel(tiny);
  const long = join(folder.path, "long.jsonl");
  const rows = [1, 200].map((times) => ({ context: "We", choices: ["so", "no".repeat(times)], gold: 0 }));
  await Deno.writeTextFile(long, rows.map((row) => JSON.stringify(row)).join("\n"));
  const english = ["--model", "data/english"];
  const faults: [args: string[], code: number, said: string][] = [
    [[], 2, "Cannot run a benchmark without its name: give --task with some of arc_easy, arc_challenge"],
    [["--task", "arc_eazy"], 2, "Cannot run arc_eazy as there is no such benchmark (did you mean arc_easy?)"],
    [["--task", "piqa,"], 2, "Cannot run a benchmark without a name"],
    [["--task", "piqa,piqa"], 2, "Cannot run piqa twice"],
    [["--task", "piqa", ...english, "--data", join(folder.path, "no.jsonl")], 3, "no.jsonl"],
    [["--task", "piqa,sciq", ...english, "--data", folder.path], 3, "Cannot find the data of piqa in"],
    [
      ["--task", "piqa,sciq,blimp", ...english, "--data", itemsOf("piqa"), "--data", itemsOf("sciq")],
      2,
      "3 tasks need one --data each in their order, or a folder with a file for each: 2 given",
    ],
    [
      ["--task", "piqa", ...english, "--data", itemsOf("sciq")],
      3,
      "sciq.jsonl, line 1 as sol1 must be a text",
    ],
    [
      ["--task", "piqa", "--model", tiny, "--data", itemsOf("piqa")],
      3,
      "piqa.jsonl, line 1: Cannot encode as the tokenizer",
    ],
    [
      ["--task", "choices", ...english, "--data", long],
      3,
      "long.jsonl, line 2: Cannot measure a continuation of",
    ],
    [
      ["--task", "piqa", ...english, "--against", join(folder.path, "none"), "--data", itemsOf("piqa")],
      3,
      "no folder",
    ],
    [["--task", "piqa", ...english, "--limit", "-1"], 2, "--limit as it must be at least 0"],
  ];
  for (const [args, code, said] of faults) {
    const result = await runMain([...args, "--gpu", "Voodoo 2"], { script });
    assertEquals([result.code, result.stdout], [code, ""], `${args.join(" ")}: ${result.stderr}`);
    assertStringIncludes(result.stderr, said);
    assertEquals(result.stderr.trim().split("\n").filter((line) => line.startsWith("error: ")).length, 1);
  }
});

Deno.test("plain text is one document of perplexity, whole, and of no other benchmark", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "text.txt");
  await Deno.writeTextFile(path, "It is so.\n\nAnd so on.\n");
  const [item, ...more] = await readItems(readTask("perplexity"), [path], Infinity);
  assert(item.kind === "rolling");
  assertEquals([item.text, item.where, more], ["It is so.\n\nAnd so on.\n", path, []]);
  await assertRejects(() => readItems(readTask("piqa"), [path], Infinity), UserError, "it is text");
  await Deno.writeTextFile(path, "");
  await assertRejects(() => readItems(readTask("perplexity"), [path], Infinity), UserError);
});
