/** Activations as files: what stands in them is what the library reads, and what float64 computes. */
import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { randomStream } from "../../../kernels/core/random.ts";
import { makeOutputFolder, MANIFEST } from "../../../pipeline/activations/output_folder.ts";
import { type ReadRow, readRows } from "../../../pipeline/activations/read_rows.ts";
import { rowsThatFit } from "../../../pipeline/activations/rows_that_fit.ts";
import { createShards, type Shard } from "../../../pipeline/activations/shards.ts";
import { storedForm } from "../../../pipeline/activations/stored_form.ts";
import { rowsOfDocuments } from "../../../pipeline/activations/texts.ts";
import { readWholeDocuments } from "../../../pipeline/activations/whole_documents.ts";
import type { Interventions } from "../../../pipeline/circuits/interventions.ts";
import { UserError } from "../../../pipeline/errors.ts";
import type { LoadedModel } from "../../../pipeline/loaded_model.ts";
import { loadModel } from "../../../pipeline/load_model.ts";
import { activationAxes } from "../../../pipeline/model/activation_names.ts";
import { gpt2Config } from "../../../pipeline/model/config.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { openWeights } from "../../../pipeline/model/load_weights.ts";
import { referenceModel } from "../../../pipeline/model/reference_model.ts";
import { openSafetensors } from "../../../pipeline/model/safetensors.ts";
import { stepIn, trace } from "../../../pipeline/model/trace.ts";
import { splitOf, tokenise } from "../../../pipeline/text/tokenise.ts";
import { loadTokenizer } from "../../../pipeline/text/tokenizer.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest } from "../../support/gpu.ts";
import { CHANGES, HELD_AT_CHANGE } from "../../support/holding.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import {
  ADDITION,
  type CommandOptions,
  runMain,
  writeTinyLlama,
  writeTinyModel,
} from "../../support/tiny_model.ts";

const ACTIVATIONS: CommandOptions = { script: "pipeline/activations/main.ts" };
const GATE = { bias: 0.3, temperature: 1 };
/** Ends a text; all else is a digit, +  or =. */
const END = 12;
const [CONTEXT, BATCH] = [7, 3];

/** Texts of digits, of which each is a token. */
function digits(count: number): string[] {
  const stream = randomStream(5, 0);
  return Array.from(
    { length: count },
    () => Array.from({ length: 3 + stream.below(30) }, () => stream.below(10)).join(""),
  );
}

async function writeTexts(path: string, texts: readonly string[]): Promise<void> {
  await Deno.writeTextFile(path, texts.map((text) => JSON.stringify({ text }) + "\n").join(""));
}

/** The tokens of a split, and which text each is of. */
function streamOf(texts: readonly string[], split: string): { token: number; document: number }[] {
  return texts.flatMap((text, document) =>
    splitOf(document) === split ? [...text, END].map((token) => ({ token: Number(token), document })) : []
  );
}

/** All tensors of a file, integers too. */
async function tensorsOf(
  path: string,
): Promise<Map<string, { shape: number[]; type: string; values: number[] }>> {
  const { entries, checked } = await openSafetensors(path);
  assert(checked);
  const bytes = await Deno.readFile(path);
  return new Map(Array.from(entries.values(), ({ name, type, shape, begin, end }) => {
    const { buffer } = bytes.slice(begin, end);
    const values = type === "I32"
      ? new Int32Array(buffer)
      : type === "F16"
      ? new Float16Array(buffer)
      : new Float32Array(buffer);
    return [name, { shape, type, values: [...values] }];
  }));
}

const namesIn = async (folder: string): Promise<string[]> =>
  (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name).toSorted();

/** Rows of some tensor of a shard, each of so many elements. */
const rowsOf = (values: readonly number[], count: number): number[][] =>
  Array.from(
    { length: count },
    (_, n) => values.slice(n * values.length / count, (n + 1) * values.length / count),
  );

gpuTest(
  "every activation is what the library reads on the same rows, to the bit; shards, tokens, positions and documents are those of the text",
  async (gpu) => {
    await using folder = await temporaryFolder();
    const [model, data] = [join(folder.path, "model"), join(folder.path, "texts.jsonl")];
    await writeTinyModel(model, { gate: GATE });
    const texts = digits(120);
    await writeTexts(data, texts);
    using loaded = await loadModel(model, { gpu });
    const names = [...loaded.hooks.keys()];
    const output = join(folder.path, "activations");
    // deno-fmt-ignore
    const { code, stderr, stdout } = await runMain(["--model", model, "--data", data, "--split", "all",
      "--context", String(CONTEXT), "--batch", String(BATCH), "--tokens", "140", "--shard-size", "0.03",
      "--read", names.slice(0, 3).join(","), "--read", names.slice(3).join(), "--output", output, "--json"], ACTIVATIONS);
    assertEquals(code, 0, stderr);
    const manifest = JSON.parse(await Deno.readTextFile(join(output, MANIFEST)));
    const files = (await namesIn(output)).filter((name) => name !== MANIFEST);
    assertEquals(manifest.shards.map(({ file }: Shard) => file).toSorted(), files);
    assertEquals([manifest.mode, manifest.context, manifest.dtype], ["gated", CONTEXT, "f32"]);
    assertEquals(manifest.model_sha256, await (await openWeights(model, loaded.config)).hash());
    assertEquals(JSON.parse(stdout.trim().split("\n").at(-1)!).tokens, manifest.tokens);
    let tokens = 0;
    for (const split of ["train", "validation", "test"]) {
      const stream = streamOf(texts, split);
      const windows = Math.min(Math.floor((stream.length - 1) / CONTEXT), 140 / CONTEXT);
      const found: Awaited<ReturnType<typeof tensorsOf>>[] = [];
      for (const file of files.filter((file) => file.startsWith(split))) {
        found.push(await tensorsOf(join(output, file)));
        const { size } = await Deno.stat(join(output, file));
        assert(size < 36_000, `${file}: ${size}`);
      }
      const all = (name: string) => found.flatMap((shard) => shard.get(name)!.values);
      const seen = stream.slice(0, windows * CONTEXT);
      assertEquals(all("tokens"), seen.map(({ token }) => token), split);
      assertEquals(all("documents"), seen.map(({ document }) => document));
      assertEquals(all("positions"), seen.map((_, n) => n % CONTEXT));
      tokens += seen.length;
      await assertIsWhatIsRead(loaded, names, found);
    }
    assertEquals(manifest.tokens, tokens);
    assert(files.filter((file) => file.startsWith("train")).length > 1, "more than one shard");
  },
);

/** Asserts that shards hold what `model.run` gives on their rows, as many together as the command took. */
async function assertIsWhatIsRead(
  model: LoadedModel,
  names: readonly string[],
  shards: readonly Awaited<ReturnType<typeof tensorsOf>>[],
): Promise<void> {
  const inShards = shards.flatMap((shard) => {
    const { values } = shard.get("tokens")!;
    return rowsOf(values, values.length / CONTEXT).map((tokens, row) => ({ shard, row, tokens }));
  });
  for (let first = 0; first < inShards.length; first += BATCH) {
    const part = inShards.slice(first, first + BATCH);
    const prompts = Array.from(
      { length: BATCH },
      (_, n) => part[n]?.tokens ?? Array<number>(CONTEXT).fill(0),
    );
    const { activations } = await model.run(prompts, { read: names });
    for (const [n, { shard, row }] of part.entries()) {
      const count = shard.get("tokens")!.shape[0] / CONTEXT;
      for (const name of names) {
        const { values, shape } = activations.get(name)!;
        const own = rowsOf([...values], BATCH)[n];
        if (name.endsWith("hook_gates")) {
          const [query, key, head] = ["query", "key", "head"].map((of) => shard.get(`${name}.${of}`)!.values);
          const open = new Float32Array(own.length);
          query.forEach((q, edge) => {
            const at = (head[edge] * CONTEXT + q - row * CONTEXT) * CONTEXT + key[edge] - row * CONTEXT;
            if (Math.floor(q / CONTEXT) === row) open[at] = 1;
          });
          assertEquals([...open], own, name);
        } else if (model.hooks.get(name)!.includes("query")) {
          const [heads] = [shape[1]];
          assertEquals(shard.get(name)!.shape, [count * CONTEXT, heads, CONTEXT]);
          const stored = rowsOf(shard.get(name)!.values, count)[row];
          const expected = stored.map((_, at) => {
            const [query, head, key] = [
              Math.floor(at / CONTEXT / heads),
              Math.floor(at / CONTEXT) % heads,
              at % CONTEXT,
            ];
            return own[(head * CONTEXT + query) * CONTEXT + key];
          });
          assertEquals(stored, expected, name);
        } else {
          assertEquals(shard.get(name)!.shape, [count * CONTEXT, ...shape.slice(2)]);
          assertEquals(rowsOf(shard.get(name)!.values, count)[row], own, name);
        }
      }
    }
  }
}

Deno.test("values and open edges are those of float64; with --dense there are no gates", async () => {
  await using folder = await temporaryFolder();
  const [model, data] = [join(folder.path, "model"), join(folder.path, "texts.jsonl")];
  await writeTinyLlama(model);
  const json = JSON.parse(await Deno.readTextFile(join(model, "config.json")));
  await Deno.writeTextFile(
    join(model, "config.json"),
    JSON.stringify({ ...json, sparse_attention: { gate: { ...GATE, bias: -0.1 } } }),
  );
  await writeTexts(data, digits(120));
  const config = await readModelConfig(model);
  const source = await openWeights(model, config);
  const weights = new Map<string, Float32Array>();
  for (const { name } of source.parameters) weights.set(name, await source.read(name));
  const values = [
    "blocks.1.hook_resid_pre",
    "blocks.1.hook_resid_mid",
    "blocks.0.attn.hook_z",
    "blocks.1.mlp.hook_post",
  ];
  const gates = "blocks.1.attn.hook_gates";
  for (const flags of [[], ["--dense"]]) {
    const output = join(folder.path, `activations${flags.length}`);
    const read = flags.length === 0 ? [...values, gates] : values;
    // deno-fmt-ignore
    const { code, stderr } = await runMain(["--model", model, "--data", data, "--context", "8", "--batch", "4",
      "--tokens", "40", "--read", read.join(), "--output", output, ...flags], ACTIVATIONS);
    assertEquals(code, 0, stderr);
    assertEquals(
      JSON.parse(await Deno.readTextFile(join(output, MANIFEST))).mode,
      flags.length ? "dense" : "gated",
    );
    const shard = await tensorsOf(join(output, "test-000000.safetensors"));
    const tokens = shard.get("tokens")!.values;
    const batch = tokens.length / 8;
    const traced = trace(flags.length ? { ...config, gate: undefined } : config, { batch, context: 8 });
    const run = referenceModel(traced, weights, tokens, flags.length ? {} : { gateBias: -0.1 });
    for (const name of values) {
      // Measured: 8e-8 of the stream behind a layer.
      assertClose(shard.get(name)!.values, [...run.values.get(name)!], { tolerance: 1e-6, name });
    }
    if (flags.length > 0) continue;
    const branch = traced.branches.find(({ kind, layer }) => kind === "attention" && layer === 1)!;
    const { heads, keyValueHeads, headSize: size } = config;
    const qkv = run.values.get(stepIn(branch, "attention").reads.x.name)!;
    const expected: number[][] = [];
    const width = (heads + 2 * keyValueHeads) * size;
    for (const [query] of tokens.entries()) {
      for (let head = 0; head < heads; head++) {
        for (let key = query - query % 8; key <= query; key++) {
          const keyHead = heads + Math.floor(head * keyValueHeads / heads);
          let score = 0;
          for (let d = 0; d < size; d++) {
            score += qkv[query * width + head * size + d] * qkv[key * width + keyHead * size + d];
          }
          if (score / Math.sqrt(size) - 0.1 > 0) expected.push([query, key, head]);
        }
      }
    }
    const [query, key, head] = ["query", "key", "head"].map((of) => shard.get(`${gates}.${of}`)!.values);
    assertEquals(query.map((q, n) => [q, key[n], head[n]]), expected);
    assert(expected.length > 20 && expected.length < 0.9 * batch * 36 * heads, String(expected.length));
  }
});

gpuTest(
  "a row for each document: what is written is what the library reads of it, without what pads it",
  async (gpu) => {
    await using folder = await temporaryFolder();
    const [model, data] = [join(folder.path, "model"), join(folder.path, "texts.jsonl")];
    await writeTinyModel(model, { gate: GATE });
    using loaded = await loadModel(model, { gpu });
    const names = [...loaded.hooks.keys()];
    const texts = ["12", "3456", "", "7", "123456789012", "98765432", "4+5=9"];
    await writeTexts(data, texts);
    const output = join(folder.path, "activations");
    // deno-fmt-ignore
    const { code, stderr, stdout } = await runMain(["--model", model, "--data", data, "--each-document", "--batch", "4",
    "--context", "7", "--shard-size", "0.04", "--read", "all", "--output", output, "--json"], ACTIVATIONS);
    assertEquals(code, 0, stderr);
    assertStringIncludes(stderr, "1 document has no token: left out");
    assertStringIncludes(stderr, "longer than 7 tokens, of which the first 7 are read: 2 of 6 documents");
    const kept = texts.map((text) => text.slice(0, 7)).filter((text) => text !== "");
    const count = kept.join("").length;
    const told = JSON.parse(stdout);
    assertEquals([told.documents, told.cut, told.tokens], [6, 2, count]);
    const manifest = JSON.parse(await Deno.readTextFile(join(output, MANIFEST)));
    assertEquals([manifest.split, manifest.documents, manifest.cut, manifest.context], [
      "documents",
      6,
      2,
      7,
    ]);
    assertEquals(manifest.tokens, count);
    const files = manifest.shards.length;
    assert(files > 1 && files < 6, `${files} files: several, and one of several documents`);
    const shards: Awaited<ReturnType<typeof tensorsOf>>[] = [];
    for (const { file } of manifest.shards) {
      assertMatch(file, /^documents-\d{6}\.safetensors$/);
      shards.push(await tensorsOf(join(output, file)));
    }
    const all = (name: string) => shards.flatMap((shard) => shard.get(name)!.values);
    assertEquals(all("tokens"), kept.flatMap((text) => loaded.tokenizer.encode(text)));
    assertEquals(all("positions"), kept.flatMap((text) => [...text].map((_, n) => n)));
    const places = texts.flatMap((text, place) => text === "" ? [] : [place]);
    assertEquals(all("documents"), kept.flatMap((text, n) => [...text].map(() => places[n])));

    /** What stands of a document: its shard, and the first of its rows there. */
    const found = places.map((place) => {
      const shard = shards.find((shard) => shard.get("documents")!.values.includes(place))!;
      return { shard, first: shard.get("documents")!.values.indexOf(place) };
    });
    for (let start = 0; start < kept.length; start += 4) {
      const part = kept.slice(start, start + 4).map((text) => loaded.tokenizer.encode(text));
      const prompts = Array.from(
        { length: 4 },
        (_, n) => [...(part[n] ?? []), ...Array<number>(7).fill(0)].slice(0, 7),
      );
      const { activations } = await loaded.run(prompts, { read: names });
      for (const [n, { length }] of part.entries()) {
        const { shard, first } = found[start + n];
        const alone = (await loaded.run(part[n], { read: names })).activations;
        for (const name of names) {
          const axes = loaded.hooks.get(name)!;
          const own = rowsOf([...activations.get(name)!.values], 4)[n];
          const ofOne = [...alone.get(name)!.values];
          if (name.endsWith("hook_gates")) {
            const [query, key, head] = ["query", "key", "head"].map((of) =>
              shard.get(`${name}.${of}`)!.values
            );
            const edges = query.flatMap((q, edge) =>
              q >= first && q < first + length ? [[q - first, key[edge] - first, head[edge]].join()] : []
            );
            const open = ofOne.flatMap((gate, at) =>
              gate === 1
                ? [[Math.floor(at / length) % length, at % length, Math.floor(at / length ** 2)].join()]
                : []
            );
            assertEquals(edges.toSorted(), open.toSorted(), name);
            continue;
          }
          const { shape, values } = shard.get(name)!;
          assertEquals(shape[0], shard.get("tokens")!.shape[0], name);
          const inner = values.length / shape[0];
          const stored = values.slice(first * inner, (first + length) * inner);
          if (!axes.includes("query")) {
            assertEquals(stored, own.slice(0, length * inner), name);
            // Measured: 0; a batch of another size may be computed by other kernels.
            assertClose(stored, ofOne, { tolerance: 1e-6, name });
            continue;
          }
          const heads = shape[1];
          assertEquals(shape.slice(1), [heads, 7], name);
          for (let at = 0; at < stored.length; at++) {
            const [query, head, key] = [Math.floor(at / 7 / heads), Math.floor(at / 7) % heads, at % 7];
            assertEquals(stored[at], own[(head * 7 + query) * 7 + key], name);
            if (key < length) {
              const expected = ofOne[(head * length + query) * length + key];
              assert(stored[at] === expected || Math.abs(stored[at] - expected) < 1e-6, name);
            }
          }
        }
      }
    }
  },
);

Deno.test("documents are read as prompts are: examples whole, a file of text without its last line end, as far as --tokens says", async () => {
  await using folder = await temporaryFolder();
  const tokenizer = await loadTokenizer(ADDITION.tokenizer);
  const write = async (name: string, text: string): Promise<string> => {
    const path = join(folder.path, name);
    await Deno.writeTextFile(path, text);
    return path;
  };
  const options = { textColumn: "text", tokenizer, context: 8, limit: 100 };
  const read = async (sources: string[], change = {}) => {
    const { documents, ...counts } = await readWholeDocuments(sources, { ...options, ...change });
    return { ...counts, documents: documents.map(({ place, tokens }) => [place, tokenizer.decode(tokens)]) };
  };
  const text = await write("a.txt", "12+3\r\n");
  const example = await write(
    "b.jsonl",
    '{"prompt":"1+2=","completion":"3"}\n{"text":""}\n{"text":"123456789"}',
  );
  const whole = [[0, "12+3"], [1, "1+2=3"], [3, "12345678"]];
  assertEquals(await read([text, example]), { documents: whole, cut: 1, empty: 1, more: false });
  // Those that the limit holds, and the first in any case.
  assertEquals(await read([text, example], { limit: 17 }), {
    documents: whole,
    cut: 1,
    empty: 1,
    more: false,
  });
  assertEquals(await read([text, example], { limit: 16 }), {
    documents: whole.slice(0, 2),
    cut: 0,
    empty: 1,
    more: true,
  });
  assertEquals((await read([text, example], { limit: 1 })).documents, whole.slice(0, 1));
  const begun = { ...tokenizer, startOfText: 10 };
  assertEquals(await read([text], { tokenizer: begun, context: 3 }), {
    documents: [[0, "+12"]],
    cut: 1,
    empty: 0,
    more: false,
  });
  const told: string[] = [];
  const tell = { onMessage: (text: string) => told.push(text), onWarning: (text: string) => told.push(text) };
  const rows = async (
    change = {},
  ) => (await rowsOfDocuments([text, example], ["a"], { ...options, ...tell, ...change }));
  const [all, some] = [await rows(), await rows({ limit: 9 })];
  assertEquals([all.rows, all.context, all.told], [3, 8, { documents: 3, cut: 1 }]);
  assertEquals([some.rows, some.context, some.told], [2, 5, { documents: 2, cut: 0 }]);
  assertEquals([1, 2, 4].map((batch) => all.parts[0].batches(batch)), [3, 2, 1]);
  assertEquals(told, [
    "1 document has no token: left out",
    "longer than 8 tokens, of which the first 8 are read: 1 of 3 documents",
    "2 documents are read: --tokens 9 holds no more",
    "1 document has no token: left out",
  ]);
  const letter = await write("c.jsonl", '{"text":"12"}\n{"text":"1x"}');
  await assertRejects(
    () => read([letter]),
    UserError,
    'c.jsonl, line 2 as the tokenizer has no token for "x"',
  );
  const none = await write("d.jsonl", '{"text":""}');
  await assertRejects(() => read([none]), UserError, "d.jsonl as no document has a token");
});

Deno.test("all activations are read by one word, of a model without gates all but these", async () => {
  await using folder = await temporaryFolder();
  const model = join(folder.path, "model");
  await writeTinyModel(model, { gate: GATE });
  const all = [...activationAxes(await readModelConfig(model)).keys()];
  for (const [flags, left] of [[[], []], [["--dense"], ["hook_gates", "hook_gate_logits"]]] as const) {
    const output = join(folder.path, `activations${flags.length}`);
    // deno-fmt-ignore
    const { code, stderr } = await runMain(["--model", model, "--data", ADDITION.data, "--context", "8", "--batch", "2",
      "--tokens", "16", "--read", "all", "--output", output, ...flags], ACTIVATIONS);
    assertEquals(code, 0, stderr);
    const expected = all.filter((name) => !left.some((end) => name.endsWith(end)));
    const { activations } = JSON.parse(await Deno.readTextFile(join(output, MANIFEST)));
    assertEquals(Object.keys(activations), expected);
    const stored = expected.flatMap((name) =>
      name.endsWith("hook_gates") ? ["query", "key", "head"].map((of) => `${name}.${of}`) : [name]
    );
    const written = await tensorsOf(join(output, "test-000000.safetensors"));
    assertEquals(new Set(written.keys()), new Set([...stored, "tokens", "positions", "documents"]));
  }
});

/** A model that gives of each prompt its tokens as the only activation. */
const ECHO: Pick<Interventions, "run"> = {
  run: (prompts) =>
    Promise.resolve({
      logits: new Float32Array(),
      activations: new Map([["blocks.0.hook_resid_pre", Float32Array.from(prompts.flat())]]),
    }),
};

/** The rows of a text's test split. */
async function rowsOfText(data: string, tokenizer: string, context: number): Promise<ReadRow[]> {
  await using folder = await temporaryFolder();
  const loaded = await loadTokenizer(tokenizer);
  const tokens = await tokenise({ sources: [data], tokenizer: loaded, folder: join(folder.path, "tokens") });
  const options = { batch: 2, context, limit: 1e6, endOfText: loaded.endOfText, split: "test" } as const;
  const { signal } = new AbortController();
  const done: number[] = [];
  const runs = ECHO as Interventions;
  const rows = await Array.fromAsync(
    readRows(runs, ["blocks.0.hook_resid_pre"], { ...options, tokens, signal, onBatch: (n) => done.push(n) }),
  );
  assertEquals(done, Array.from({ length: Math.ceil(rows.length / 2) + 1 }, (_, n) => n));
  for (const { tokens, activations } of rows) {
    assertEquals([...activations.get("blocks.0.hook_resid_pre")!], [...tokens]);
  }
  for (const split of ["train", "validation", "test"] as const) await tokens[split].close();
  return rows;
}

Deno.test("a token that stands before every window is of the document that the window begins in", async () => {
  await using folder = await temporaryFolder();
  const [tokenizer, data] = [join(folder.path, "tokenizer.json"), join(folder.path, "texts.jsonl")];
  await Deno.copyFile(ADDITION.tokenizer, tokenizer);
  const settings = { add_bos_token: true, bos_token: { content: "+" } };
  await Deno.writeTextFile(join(folder.path, "tokenizer_config.json"), JSON.stringify(settings));
  const texts = digits(120);
  await writeTexts(data, texts);
  const rows = await rowsOfText(data, tokenizer, CONTEXT);
  const stream = texts.flatMap((text, document) =>
    splitOf(document) === "test"
      ? [10, ...text, END].map((token) => ({ token: Number(token), document }))
      : []
  );
  for (const [n, { tokens, documents }] of rows.entries()) {
    const window = stream.slice(n * CONTEXT, (n + 1) * CONTEXT);
    const seen = window[0].token === 10 ? window : [{ ...window[0], token: 10 }, ...window.slice(0, -1)];
    assertEquals([...tokens], seen.map(({ token }) => token));
    assertEquals([...documents], seen.map(({ document }) => document));
  }
});

Deno.test("documents are counted from the data's beginning where a split is a part of all tokens, and examples by themselves", async () => {
  await using folder = await temporaryFolder();
  const data = join(folder.path, "texts.jsonl");
  const texts = ["12", "3".repeat(500), "4567", "8".repeat(40), "99"];
  await writeTexts(data, texts);
  const stream = texts.flatMap((text, document) =>
    [...text, END].map((token) => ({ token: Number(token), document }))
  );
  const test = stream.slice(Math.floor(stream.length * (1 - 0.05)));
  const rows = await rowsOfText(data, ADDITION.tokenizer, 4);
  assertEquals(
    rows.flatMap(({ documents }) => [...documents]),
    test.slice(0, 4 * rows.length).map(({ document }) => document),
  );
  const examples = await rowsOfText(ADDITION.data, ADDITION.tokenizer, 8);
  const places = Array.from({ length: 1500 }, (_, n) => n).filter((n) => splitOf(n) === "test");
  assertEquals(examples.map(({ documents }) => [...documents]), places.map((place) => Array(8).fill(place)));
});

const row = (values: readonly number[]): ReadRow => ({
  tokens: Int32Array.from(values, (_, n) => n),
  documents: new Int32Array(values.length),
  positions: values.length,
  activations: new Map([["blocks.0.hook_resid_pre", Float32Array.from(values)]]),
});
const FORM = storedForm("blocks.0.hook_resid_pre", ["batch", "position", "width"]);

Deno.test("a file is full before it is larger than it may be, one of f16 holds half the bytes, and what f16 cannot hold is refused", async () => {
  await using folder = await temporaryFolder();
  for (const [type, tokens] of [["F32", [4, 4, 2]], ["F16", [6, 4]]] as const) {
    const shards: Shard[] = [];
    const writer = createShards(folder.path, {
      split: "test",
      forms: [FORM],
      shapes: new Map([["blocks.0.hook_resid_pre", [1, 2, 1]]]),
      type,
      // Of a row of two tokens 32 bytes, or 28.
      bytes: type === "F32" ? 64 : 84,
      metadata: { model: "m" },
      onShard: (shard) => shards.push(shard),
    });
    for (const n of type === "F32" ? [1, 2, 3, 4, 5] : [5, 1, 2, 3, 4].slice(0, 5)) {
      await writer.add(row([n, 0.1]));
    }
    await writer.end();
    await writer.end();
    assertEquals(shards.map(({ tokens }) => tokens), [...tokens]);
    const { metadata } = await openSafetensors(join(folder.path, shards[0].file));
    assertEquals([metadata.model, metadata.split], ["m", "test"]);
    const { type: stored, values } = (await tensorsOf(join(folder.path, shards[0].file))).get(FORM.name)!;
    assertEquals([stored, values[1]], [type, type === "F16" ? Math.f16round(0.1) : Math.fround(0.1)]);
  }
  const writer = createShards(folder.path, {
    split: "train",
    forms: [FORM],
    shapes: new Map([["blocks.0.hook_resid_pre", [1, 2, 1]]]),
    type: "F16",
    bytes: 1e6,
    metadata: {},
    onShard: () => assert(false, "none is written"),
  });
  await writer.add(row([1, 70000]));
  await assertRejects(() => writer.end(), UserError, "F16, which ends at 65504: element 1 is 70000");
  assertEquals((await namesIn(folder.path)).filter((name) => name.startsWith("train")), []);
});

Deno.test("what fails leaves nothing, what a killed process left is taken over, and nothing else is touched", async () => {
  await using folder = await temporaryFolder();
  const output = join(folder.path, "out");
  const shard = "test-000000.safetensors";
  const failing = makeOutputFolder(output + "/", async (partial) => {
    assertEquals(await namesIn(folder.path), ["out.partial"]);
    await Deno.writeTextFile(join(partial, shard), "half");
    const second = await assertRejects(() => makeOutputFolder(output, () => Promise.resolve()), UserError);
    assertStringIncludes(second.message, "another process is writing it");
    throw new Error("No space");
  });
  await assertRejects(() => failing, Error, "No space");
  assertEquals(await namesIn(folder.path), []);
  await Deno.mkdir(output + ".partial");
  await Deno.writeTextFile(join(output + ".partial", shard), "left by one that was killed");
  await makeOutputFolder(output, async (partial) => {
    assertEquals(await namesIn(partial), [".lock"]);
    await Deno.writeTextFile(join(partial, MANIFEST), "{}");
  });
  assertEquals([await namesIn(folder.path), await namesIn(output)], [["out"], [MANIFEST]]);
  const nothing = (): Promise<void> => Promise.reject(new Error("it was begun"));
  const again = await assertRejects(() => makeOutputFolder(output, nothing), UserError);
  assertEquals([again.exitCode, again.message.includes("use another --output")], [2, true]);
  await Deno.mkdir(join(folder.path, "two.partial"));
  await Deno.writeTextFile(join(folder.path, "two.partial", "thesis.txt"), "mine");
  await assertRejects(() => makeOutputFolder(join(folder.path, "two"), nothing), UserError, "left as it is");
  assertEquals(await namesIn(join(folder.path, "two.partial")), ["thesis.txt"]);
  const below = await assertRejects(() => makeOutputFolder(join(output, MANIFEST, "x"), nothing), UserError);
  assertEquals(below.exitCode, 2);
});

Deno.test("a process that is killed at a file leaves none that looks whole, and the next one is", async () => {
  await using folder = await temporaryFolder();
  const [model, output] = [join(folder.path, "model"), join(folder.path, "out")];
  await writeTinyModel(model);
  // deno-fmt-ignore
  const args = ["--model", model, "--data", ADDITION.data, "--context", "8", "--batch", "16", "--tokens", "320",
    "--read", "blocks.1.hook_resid_pre", "--shard-size", "0.005", "--output"];
  const counted = await runMain([...args, join(folder.path, "other")], {
    ...ACTIVATIONS,
    hold: { change: 1e9, meanwhile: () => Promise.resolve() },
  });
  assertEquals(counted.code, 0, counted.stderr);
  const changes = Number(CHANGES.exec(counted.stderr)![1]);
  const whole = await namesIn(join(folder.path, "other"));
  assert(whole.length > 2, whole.join());
  // Before the manifest is there, and the folder gets its name.
  const killed = await runMain([...args, output], {
    ...ACTIVATIONS,
    hold: {
      change: changes - 9,
      async meanwhile(send) {
        assertEquals((await namesIn(folder.path)).filter((name) => name.startsWith("out")), ["out.partial"]);
        send("SIGKILL");
      },
    },
  });
  assertStringIncludes(killed.stderr, HELD_AT_CHANGE);
  const left = await namesIn(output + ".partial");
  assert(!left.includes(MANIFEST), left.join());
  const again = await runMain([...args, output], ACTIVATIONS);
  assertEquals([again.code, await namesIn(output)], [0, whole], again.stderr);
  assertEquals((await namesIn(folder.path)).filter((name) => name.startsWith("out")), ["out"]);
  for (const file of whole) {
    if (file === MANIFEST) continue;
    const bytes = (of: string): Promise<Uint8Array> => Deno.readFile(join(folder.path, of, file));
    assertEquals(await bytes("out"), await bytes("other"));
  }
});

Deno.test("as many rows are read at once as a binding holds the patterns of, and any other activation", () => {
  const sizes = { vocabularySize: 50257, contextLength: 4096, width: 768, layers: 12, mlpWidth: 3072 };
  const rows = (heads: number, context: number, bytes: number): number =>
    rowsThatFit(gpt2Config({ ...sizes, heads }), { batch: 8, context }, bytes);
  const pattern = 4 * 12 * 1024 ** 2;
  assertEquals([2 * pattern - 1, 2 * pattern, 20 * pattern].map((bytes) => rows(12, 1024, bytes)), [1, 2, 8]);
  // Positions are rounded up.
  assertEquals(rows(12, 1009, 2 * pattern - 1), 1);
  const ofMlp = 4 * 1024 * 3072;
  assertEquals([3 * ofMlp - 1, 3 * ofMlp].map((bytes) => rows(2, 1024, bytes)), [2, 3]);
  assertEquals(rows(12, 4096, 128 << 20), 0);
});

Deno.test("what cannot be done is one sentence before a device is opened", async () => {
  await using folder = await temporaryFolder();
  const [model, there] = [join(folder.path, "model"), join(folder.path, "there")];
  await writeTinyModel(model);
  await Deno.mkdir(there);
  const gates = "blocks.0.attn.hook_gates";
  const read = ["--read", "blocks.1.hook_resid_pre"];
  const output = ["--output", join(folder.path, "out")];
  const data = ["--data", ADDITION.data];
  const cases: [args: string[], code: number, message: RegExp][] = [
    [[...data, ...output], 2, /give --read NAME/],
    [[...data, ...read], 2, /give --output FOLDER/],
    [[...data, ...read, "--output", there], 2, /there as it is there, and would be lost/],
    [
      [...data, ...output, "--read", "blocks.1.hook_resid_prae"],
      2,
      /did you mean blocks.1.hook_resid_pre\?\)/,
    ],
    [[...data, ...output, "--read", "all,nonsense"], 2, /none is named nonsense/],
    [
      [...data, ...output, "--read", `blocks.0.hook_resid_pre,${gates}`],
      2,
      /model has no gates: all are open/,
    ],
    [[...read, ...output], 2, /give --data/],
    [
      [...data, ...read, ...output, "--each-document", "--split", "all"],
      2,
      /--split with --each-document, which reads all documents/,
    ],
    [[...data, ...read, ...output, "--context", "9"], 3, /context of 9/],
    [[...data, ...read, ...output, "--dtype", "f64"], 2, /one of f32, f16/],
    [["--data", join(folder.path, "none.txt"), ...read, ...output], 3, /no such file/],
    [[...data, ...read, ...output, "--gpu", "Voodoo 2"], 4, /Voodoo 2/],
    [[...data, ...read, "--output", join(model, "config.json", "x")], 2, /Cannot write \S+config.json/],
  ];
  await Promise.all(cases.map(async ([args, code, message]) => {
    const result = await runMain(["--model", model, ...args], ACTIVATIONS);
    const errors = result.stderr.split("\n").filter((line) => line.startsWith("error: C"));
    assertEquals([result.code, errors.length, result.stdout], [code, 1, ""], result.stderr);
    assertMatch(errors[0], message);
  }));
  assertEquals(await namesIn(folder.path), ["model", "there"]);
});
