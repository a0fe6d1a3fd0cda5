/** Passkey: its items, their scores on a tiny model beside float64, and the command. */
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { tableFromIPC } from "apache-arrow";
import { join } from "node:path";
import { encodeItems, makeItems, scoreItems } from "../../../pipeline/benchmarks/benchmark.ts";
import type { Item, Needle, WordItem } from "../../../pipeline/benchmarks/items.ts";
import { lengthsFor, parseLengths, passkeyItems } from "../../../pipeline/benchmarks/passkey.ts";
import { meanOf } from "../../../pipeline/benchmarks/metrics.ts";
import { encodeRequest, type Encoding } from "../../../pipeline/benchmarks/requests.ts";
import { type ModelScores, resultsText } from "../../../pipeline/benchmarks/results.ts";
import { type ItemScore, scoreOf } from "../../../pipeline/benchmarks/scores.ts";
import { UserError } from "../../../pipeline/errors.ts";
import { gpt2Config } from "../../../pipeline/model/config.ts";
import { initialWeights } from "../../../pipeline/model/initial_weights.ts";
import { loadParameters } from "../../../pipeline/model/parameters.ts";
import { referenceModel } from "../../../pipeline/model/reference_model.ts";
import { parametersOf, trace } from "../../../pipeline/model/trace.ts";
import { loadTokenizer } from "../../../pipeline/text/tokenizer.ts";
import { ENGLISH, itemsOf } from "../../support/benchmark_models.ts";
import { gpuTest } from "../../support/gpu.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { runMain, writeTinyModel } from "../../support/tiny_model.ts";

const TASK = { name: "passkey", scoring: "word", make: passkeyItems } as const;

/** Tokens by the character. */
const CHARACTERS: Encoding = {
  tokenizer: {
    encode: (text) => [...text].map((character) => character.charCodeAt(0)),
    startOfText: undefined,
  },
  prefix: 0,
  contextLength: 500,
};

type PasskeyItem = WordItem & { needle: Needle; where: string };

function itemsWith(
  lengths: readonly number[],
  { limit = Infinity, seed = 1, encoding = CHARACTERS } = {},
): PasskeyItem[] {
  return makeItems(TASK, { lengths, limit, seed }, encoding).map((item) => {
    assert(item.kind === "word" && item.needle);
    return { ...item, needle: item.needle };
  });
}

/** The sentences of filler before and behind the needle of a text. */
function fillerOf(context: string): [before: string[], behind: string[]] {
  const sentences = context.split(/(?<=\.) /);
  const [first, second] = sentences.flatMap((sentence, n) => /\d/.test(sentence) ? [n] : []);
  assertEquals(second, first + 1, context);
  return [sentences.slice(1, first), sentences.slice(second + 1, -1)];
}

Deno.test("a text tells its number in one place, at its depth, and is filled to within a sentence", async () => {
  const english = await loadTokenizer(ENGLISH);
  const encodings: [Encoding, number[]][] = [
    [CHARACTERS, [300, 450, 1100]],
    [{ tokenizer: english, prefix: 4095, contextLength: 128 }, [100, 128, 500]],
    [{ tokenizer: { ...english, startOfText: 7 }, prefix: 4095, contextLength: 128 }, [100, 256]],
  ];
  for (const [encoding, lengths] of encodings) {
    const items = itemsWith(lengths, { encoding });
    const tokens = (text: string): number => encoding.tokenizer.encode(text).length;
    const filler = items.flatMap(({ requests: [{ context }] }) => fillerOf(context)).flat();
    const longest = Math.max(...filler.map((sentence) => tokens(` ${sentence}`)));
    assert(new Set(filler).size > 10 && !filler.some((sentence) => /\d|key/.test(sentence)));
    for (const { requests: [request], needle: { length, depth, distance } } of items) {
      const { context, continuation } = request;
      assert(/^ [1-9]\d{4}$/.test(continuation), continuation);
      const number = continuation.slice(1);
      assertEquals(context.match(/\d+/g), [number, number]);
      const [before, behind] = fillerOf(context);
      assertEquals(before.length, Math.round(depth / 100 * (before.length + behind.length)));
      const sequence = encodeRequest(request, { ...encoding, contextLength: length });
      assertEquals(sequence.cut, undefined);
      const free = length - (sequence.tokens.length - 1);
      assert(free >= 0 && free < longest, `${free} of ${length} are free`);
      const told = context.slice(0, context.lastIndexOf(number) + number.length);
      assertEquals(distance, tokens(context) - tokens(told), context);
    }
  }
});

Deno.test("however few there are, the items are spread over lengths and depths", () => {
  for (const count of [1, 2, 3, 4, 5, 7, 10]) {
    const lengths = Array.from({ length: count }, (_, n) => 300 + 10 * n);
    const places = itemsWith(lengths).map(({ needle: { length, depth } }) => ({ length, depth }));
    assertEquals(places.length, 20 * 5 * count);
    for (const [place, values] of [["length", lengths], ["depth", [0, 25, 50, 75, 100]]] as const) {
      const counts = new Map<number, number>(values.map((value) => [value, 0]));
      for (const each of places) {
        counts.set(each[place], counts.get(each[place])! + 1);
        const all = [...counts.values()];
        assert(Math.max(...all) - Math.min(...all) <= 1, `${place}: ${all}`);
      }
      assertEquals(counts.size, values.length);
    }
    for (let first = 0; first < places.length; first += 5 * count) {
      const cells = places.slice(first, first + 5 * count).map(({ length, depth }) => `${length} ${depth}`);
      assertEquals(new Set(cells).size, 5 * count);
    }
  }
});

Deno.test("the same seed makes the same items, whatever the limit and the other lengths, and another others", () => {
  const items = itemsWith([300, 400]);
  assertEquals(itemsWith([300, 400]), items);
  assertEquals(itemsWith([300, 400], { limit: 7 }), items.slice(0, 7));
  const textsOf = (items: readonly PasskeyItem[]): string[] =>
    items.filter(({ needle }) => needle.length === 400).map(({ requests: [{ context }] }) => context).sort();
  assertEquals(textsOf(itemsWith([400])), textsOf(items));
  assert(new Set(items.map(({ requests: [{ continuation }] }) => continuation)).size > 195);
  const others = itemsWith([300, 400], { seed: 2 });
  assert(others.every(({ requests: [{ context }] }, n) => context !== items[n].requests[0].context));
});

Deno.test("lengths are the powers of two that all models have, or what is given", () => {
  const models = (...positions: number[]) =>
    positions.map((contextLength) => ({ name: `of-${contextLength}`, contextLength }));
  assertEquals(lengthsFor(models(8192), undefined), [128, 256, 512, 1024]);
  assertEquals(lengthsFor(models(1023), undefined), [128, 256, 512]);
  assertEquals(lengthsFor(models(1024, 256), undefined), [128, 256]);
  assertEquals(lengthsFor(models(128), undefined), [128]);
  assertEquals(lengthsFor(models(96), undefined), [96]);
  assertEquals(lengthsFor(models(1000, 300), parseLengths("300, 100")), [100, 300]);
  const long = assertThrows(() => lengthsFor(models(1000, 300), [100, 301]), UserError);
  assertEquals(
    long.message,
    "Cannot make items of 301 tokens for passkey as the positions of of-300 end at 300",
  );
  for (const text of ["", "12x", "0", "-5", "1.5", "100,", "1e3"]) {
    const error = assertThrows(() => parseLengths(text), UserError);
    assertStringIncludes(error.message, "must be whole numbers of tokens with commas between them");
  }
  assertStringIncludes(
    assertThrows(() => parseLengths("64,128,64"), UserError).message,
    "64 is given twice",
  );
});

Deno.test("a length without room for each of its items is refused with the least that any item has room in", async () => {
  const english = { tokenizer: await loadTokenizer(ENGLISH), prefix: 4095, contextLength: 128 };
  // Seeds of which the English models' numbers have three to five tokens.
  const seeds = [1, 2, 3, 7, 11];
  for (
    const [encoding, most, lengths] of [[CHARACTERS, 250, [10, 240]], [english, 93, [10, 80, 87]]] as const
  ) {
    for (const length of lengths) {
      for (const seed of seeds) {
        const { message } = assertThrows(() => itemsWith([length], { seed, encoding }), UserError);
        const refused =
          `Cannot make items of ${length} tokens for passkey as needle, question and a sentence of filler`;
        assertEquals(message, `${refused} take up to ${most}`);
      }
    }
    for (const seed of seeds) assertEquals(itemsWith([most], { seed, encoding }).length, 100);
    assertThrows(() => seeds.forEach((seed) => itemsWith([most - 1], { seed, encoding })), UserError);
  }
});

Deno.test("right answers are told by length and by depth, with how far back the number was", () => {
  const places: [length: number, depth: number, distance: number, acc: number][] = [
    [256, 0, 200, 0],
    [128, 100, 10, 1],
    [256, 100, 12, 1],
    [128, 0, 90, 1],
    [256, 0, 202, 1],
  ];
  const items = places.map(([length, depth, distance]): Item => ({
    kind: "word",
    requests: [{ context: "", continuation: "" }],
    needle: { length, depth, distance },
  }));
  const scores = places.map(([, , , acc], n): ItemScore => ({
    logLikelihoods: [-n],
    greedy: [acc === 1],
    acc,
    accNorm: NaN,
  }));
  // Two of three, whether those of 256 tokens or those at the beginning.
  const { value, error } = meanOf([0, 1, 1]);
  const { n, acc, by_length, by_depth } = scoreOf(items, "word", scores);
  assertEquals([n, acc], [5, 4 / 5]);
  assertEquals(by_length, [
    { length: 128, n: 2, acc: 1, acc_stderr: 0, distance: 50 },
    { length: 256, n: 3, acc: value, acc_stderr: error, distance: 414 / 3 },
  ]);
  assertEquals(by_depth, [
    { depth: 0, n: 3, acc: value, acc_stderr: error, distance: 492 / 3 },
    { depth: 100, n: 2, acc: 1, acc_stderr: 0, distance: 11 },
  ]);
  const read = scoreOf([{ kind: "word", requests: [{ context: "", continuation: "" }] }], "word", [
    scores[0],
  ]);
  assertEquals([read.by_length, read.by_depth], [undefined, undefined]);
});

Deno.test("a table has right answers by length and by depth, of each model", () => {
  const of = (model: string, accs: number[]): ModelScores => {
    const mean = (n: number) => ({ n: 2 + n, acc: accs[n], acc_stderr: n / 8, distance: 10.25 * n });
    const score = {
      n: 5,
      acc: 0,
      acc_stderr: 0,
      acc_norm: null,
      acc_norm_stderr: null,
      by_length: [{ length: 64, ...mean(0) }, { length: 128, ...mean(1) }],
      by_depth: [{ depth: 50, ...mean(2) }],
    };
    return { model, mode: "dense", cut: 0, items: [], score };
  };
  const [first, second] = [of("one", [0.5, 0.25, 1]), of("two", [0.75, 0, 0.125])];
  const tableOf = (models: ModelScores[]): string[][] => {
    const text = resultsText([{ task: "passkey", items: [], models }]);
    return text.slice(text.indexOf("\n\n") + 2).split("\n").slice(0, 4).map((line) => line.split(/  +/));
  };
  assertEquals(tableOf([first, second]), [
    ["passkey", "items", "distance", "one (dense)", "±", "two (dense)", "±"],
    ["length 64", "2", "0.0", "50.00", "0.00", "75.00", "0.00"],
    ["length 128", "3", "10.3", "25.00", "12.50", "0.00", "12.50"],
    ["depth 50 %", "4", "20.5", "100.00", "25.00", "12.50", "25.00"],
  ]);
  assertEquals(tableOf([second])[1], ["length 64", "2", "0.0", "75.00", "0.00"]);
});

const TINY = gpt2Config({ vocabularySize: 128, contextLength: 360, width: 16, layers: 2, heads: 2 });

for (const gate of [undefined, { bias: 0.3, temperature: 1 }]) {
  const what = gate ? "through hard gates" : "dense";
  gpuTest(`passkey's scores ${what} are those of float64`, async (gpu) => {
    const config = { ...TINY, gate };
    const shapes = parametersOf(config);
    const values = new Map(
      shapes.map((shape, index) => [shape.name, initialWeights(shape, { seed: 5, index }).map((x) => 8 * x)]),
    );
    const parameters = await loadParameters(gpu, shapes, (name) => Promise.resolve(values.get(name)!));
    const encoding = { ...CHARACTERS, contextLength: TINY.contextLength };
    const items = itemsWith([280, 360], { limit: 10, encoding });
    const { vocabularySize } = config;
    const logitsOf = (inputs: readonly number[]): Float64Array =>
      referenceModel(trace(config, { batch: 1, context: inputs.length }), values, inputs, {
        gateBias: gate?.bias,
      }).logits;
    /** What the model itself would say behind a text, so many characters. */
    const sayBehind = (context: string, characters: number): string => {
      const tokens = encoding.tokenizer.encode(context);
      for (let n = 0; n < characters; n++) {
        const logits = logitsOf(tokens).slice(-vocabularySize);
        tokens.push(logits.indexOf(Math.max(...logits)));
      }
      return String.fromCharCode(...tokens.slice(context.length));
    };
    // A random model finds no number: in one text what it says is put in its place, in another all but the last of it.
    for (const [n, characters] of [[2, 6], [7, 5]]) {
      const { context, continuation } = items[n].requests[0];
      const said = sayBehind(context, characters) + continuation.slice(characters);
      items[n] = { ...items[n], requests: [{ context, continuation: said }] };
    }
    const part = { task: TASK, items, encoded: encodeItems(items, encoding) };
    const [scores] = await scoreItems(gpu, { config, parameters }, [part], { batchTokens: 1024 });
    for (const [n, { requests: [{ context, continuation }] }] of items.entries()) {
      const tokens = encoding.tokenizer.encode(context + continuation);
      const logits = logitsOf(tokens.slice(0, -1));
      let logLikelihood = 0;
      for (let position = context.length - 1; position < tokens.length - 1; position++) {
        const row = logits.subarray(vocabularySize * position, vocabularySize * (position + 1));
        const most = Math.max(...row);
        const sum = row.reduce((sum, each) => sum + Math.exp(each - most), 0);
        logLikelihood += row[tokens[position + 1]] - most - Math.log(sum);
      }
      const difference = Math.abs(scores[n].logLikelihoods[0] - logLikelihood);
      assert(difference < 2e-5 * Math.max(1, Math.abs(logLikelihood)), `item ${n}: ${difference}`);
      assertEquals(scores[n].acc, n === 2 ? 1 : 0, `item ${n}`);
    }
    const { acc, by_length } = scoreOf(items, "word", scores);
    assertEquals([acc, by_length?.map(({ length, n, acc }) => [length, n, acc])], [
      1 / 10,
      [[280, 5, 1 / 5], [360, 5, 0]],
    ]);
  });
}

const script = "pipeline/benchmarks/main.ts";

Deno.test("passkey needs no data, beside a task that does, and is told by length and depth in JSON and Arrow", async () => {
  await using folder = await temporaryFolder();
  const output = join(folder.path, "out");
  const models = ["--model", `${ENGLISH}-sparse`, "--against", ENGLISH];
  const args = [...models, "--lengths", "128,96", "--limit", "6", "--seed", "3"];
  const both = ["--task", "passkey,lambada_openai", "--data", itemsOf("lambada_openai")];
  const { code, stdout, stderr } = await runMain([...both, ...args, "--output", output, "--json"], {
    script,
  });
  assertEquals(code, 0, stderr);
  const [passkey, lambada, ...others] = stdout.trim().split("\n").map((line) => JSON.parse(line));
  assertEquals(others, []);
  assertEquals([passkey.task, passkey.mode, passkey.n, passkey.cut], ["passkey", "gated", 6, 0]);
  assertEquals([passkey.against.mode, passkey.difference.acc.p_value], ["dense", 1]);
  for (const score of [passkey, passkey.against]) {
    assertEquals(score.by_length.map(({ length, n }: Needle & { n: number }) => [length, n]), [[96, 3], [
      128,
      3,
    ]]);
    assertEquals(
      score.by_depth.map(({ depth, n }: Needle & { n: number }) => [depth, n]),
      [[0, 2], [25, 1], [50, 1], [75, 1], [100, 1]],
    );
  }
  assertEquals([lambada.task, lambada.n, lambada.by_length], ["lambada_openai", 6, undefined]);
  assertEquals(JSON.parse(await Deno.readTextFile(join(output, "results.json"))), [passkey, lambada]);
  const rows = tableFromIPC(await Deno.readFile(join(output, "items.arrow"))).toArray().map((row) =>
    row.toJSON()
  );
  const encoding = { tokenizer: await loadTokenizer(ENGLISH), prefix: 4095, contextLength: 128 };
  const items = itemsWith([96, 128], { limit: 6, seed: 3, encoding });
  for (const model of [`${ENGLISH}-sparse`, ENGLISH]) {
    const own = rows.filter((row) => row.model === model);
    assertEquals(
      own.filter(({ task }) => task === "passkey").map((
        row,
      ) => [row.context, row.length, row.depth, row.distance]),
      items.map(({ requests: [{ context }], needle: { length, depth, distance } }) => [
        context,
        length,
        depth,
        distance,
      ]),
    );
    const read = own.filter(({ task }) => task === "lambada_openai");
    assertEquals(
      read.map(({ length, depth, distance }) => [length, depth, distance]),
      Array(6).fill(Array(3).fill(null)),
    );
  }
});

Deno.test("what of passkey cannot be is said in one line before a device is opened", async () => {
  await using folder = await temporaryFolder();
  const tiny = join(folder.path, "tiny");
  await writeTinyModel(tiny);
  const english = ["--task", "passkey", "--model", ENGLISH];
  const faults: [args: string[], code: number, said: string][] = [
    [
      [...english, "--data", itemsOf("piqa")],
      2,
      "Cannot use --data with passkey as its items are made, not read",
    ],
    // Before the model is looked for.
    [
      ["--task", "passkey", "--model", join(folder.path, "none"), "--lengths", "128,12k"],
      2,
      "Cannot use --lengths as they must be whole numbers",
    ],
    [
      ["--task", "sciq,piqa", "--lengths", "128"],
      2,
      "Cannot use --lengths with sciq, piqa as only passkey has items of a length",
    ],
    [
      [...english, "--lengths", "256"],
      3,
      "data/english end at 128",
    ],
    [[...english, "--lengths", "64"], 3, "of 64 tokens for passkey as needle, question and a sentence"],
    [
      ["--task", "passkey", "--model", tiny],
      3,
      "Cannot make items of passkey: Cannot encode as the tokenizer",
    ],
    [[...english, "--against", tiny], 3, "Cannot make items of 8 tokens for passkey as needle"],
  ];
  for (const [args, code, said] of faults) {
    const result = await runMain([...args, "--gpu", "Voodoo 2"], { script });
    assertEquals([result.code, result.stdout], [code, ""], `${args.join(" ")}: ${result.stderr}`);
    assertStringIncludes(result.stderr, said);
    assertEquals(result.stderr.trim().split("\n").filter((line) => line.startsWith("error: ")).length, 1);
  }
});
