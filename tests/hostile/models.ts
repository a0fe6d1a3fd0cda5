/**
 * Model folders and tokenizers that are broken in every way we know: each is refused in one sentence, or accepted with
 * weights that can be used.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { UserError } from "../../pipeline/errors.ts";
import { openWeights } from "../../pipeline/model/load_weights.ts";
import { readModelConfig } from "../../pipeline/model/config_file.ts";
import { loadTokenizer } from "../../pipeline/text/tokenizer.ts";
import { seeded } from "../support/seeded.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";
import { ADDITION, runMain, writeTinyModel } from "../support/tiny_model.ts";

/** A way to break a model's folder; the folder is a whole one before. */
export interface BrokenModel {
  name: string;
  breakIt(folder: string): Promise<void>;
}

type Json = Record<string, unknown>;

const VALUES: readonly [string, unknown][] = [
  ["nothing", undefined],
  ["null", null],
  ["a text", "12"],
  ["an empty text", ""],
  ["true", true],
  ["a list", [1]],
  ["an object", { a: 1 }],
  ["zero", 0],
  ["a negative number", -3],
  ["a fraction", 2.5],
  ["a huge number", 1e12],
  ["2³¹", 2 ** 31],
  ["2⁵³", 2 ** 53],
  ["1e308", 1e308],
  ["another small number", 5],
  ["a deep list", JSON.parse("[".repeat(500) + "]".repeat(500))],
];

const CONFIG_FIELDS = [
  "model_type",
  "vocab_size",
  "n_positions",
  "n_embd",
  "n_layer",
  "n_head",
  "n_inner",
  "layer_norm_epsilon",
  "activation_function",
  "tie_word_embeddings",
  "sparse_attention",
];

async function editJson(path: string, edit: (json: Json) => unknown): Promise<void> {
  const json = JSON.parse(await Deno.readTextFile(path));
  await Deno.writeTextFile(path, JSON.stringify(edit(json) ?? json));
}

/** The header of a safetensors file is changed, with its length; the data stays. */
async function editHeader(path: string, edit: (header: Json) => unknown): Promise<void> {
  const bytes = await Deno.readFile(path);
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const given = edit(header);
  const edited = given === undefined ? header : given;
  // Without checksums, as any program that writes such a file.
  if (edited === header) delete header.__metadata__;
  const text = new TextEncoder().encode(JSON.stringify(edited));
  const prefix = new Uint8Array(8);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(text.length), true);
  await Deno.writeFile(path, new Uint8Array([...prefix, ...text, ...bytes.subarray(8 + length)]));
}

async function fifo(path: string): Promise<void> {
  await Deno.remove(path).catch(() => {});
  await new Deno.Command("mkfifo", { args: [path] }).output();
}

/** Every way, in a fixed order; `seed` chooses the bits that are flipped. */
export function brokenModels(seed: number): BrokenModel[] {
  const random = seeded(seed);
  const broken: BrokenModel[] = [];
  const add = (name: string, breakIt: BrokenModel["breakIt"]): void => void broken.push({ name, breakIt });
  for (const field of CONFIG_FIELDS) {
    for (const [what, value] of VALUES) {
      add(
        `config.json whose ${field} is ${what}`,
        (folder) => editJson(join(folder, "config.json"), (json) => void (json[field] = value)),
      );
    }
  }
  const [TENSOR, OTHER] = ["transformer.wte.weight", "transformer.h.0.ln_1.weight"];
  for (const field of ["dtype", "shape", "data_offsets"]) {
    for (const [what, value] of VALUES) {
      add(
        `a tensor whose ${field} is ${what}`,
        (folder) =>
          editHeader(
            join(folder, "model.safetensors"),
            (header) => void ((header[TENSOR] as Json)[field] = value),
          ),
      );
    }
  }
  for (
    const [what, edit] of [
      ["a tensor that is missing", (header) => void delete header[TENSOR]],
      [
        "a tensor too many",
        (header) => void (header.more = { dtype: "F32", shape: [0], data_offsets: [0, 0] }),
      ],
      [
        "two tensors in one place",
        (header) => void ((header[OTHER] as Json).data_offsets = (header[TENSOR] as Json).data_offsets),
      ],
      ["a tensor of 34 GB", (header) => void ((header[TENSOR] as Json).shape = [2 ** 24, 512])],
      [
        "a shape whose product overflows",
        (header) => void ((header[TENSOR] as Json).shape = [2 ** 40, 2 ** 40]),
      ],
      ["a tensor of complex numbers", (header) => void ((header[TENSOR] as Json).dtype = "C64")],
      ["metadata that is a list", (header) => ({ ...header, __metadata__: [] })],
      ["metadata with a number", (header) => ({ ...header, __metadata__: { format: 1 } })],
      ["a header that is a list", () => []],
      ["a header that is null", () => null],
      [
        "a tensor called __proto__",
        (header) => JSON.parse(JSON.stringify(header).replace(OTHER, "__proto__")),
      ],
    ] as [string, (header: Json) => unknown][]
  ) add(`weights with ${what}`, (folder) => editHeader(join(folder, "model.safetensors"), edit));

  for (const file of ["config.json", "model.safetensors", "tokenizer.json"]) {
    const at = (folder: string): string => join(folder, file);
    add(`no ${file}`, (folder) => Deno.remove(at(folder)));
    add(`an empty ${file}`, (folder) => Deno.writeTextFile(at(folder), ""));
    add(`${file} that is a folder`, async (folder) => {
      await Deno.remove(at(folder));
      await Deno.mkdir(at(folder));
    });
    add(`${file} that is a pipe`, (folder) => fifo(at(folder)));
    for (const target of ["/dev/zero", "/dev/null", "/dev/random", "/proc/self/mem", ".", file, "nowhere"]) {
      add(`${file} linked to ${target}`, async (folder) => {
        await Deno.remove(at(folder));
        await Deno.symlink(target, at(folder));
      });
    }
    add(
      `${file} of random bytes`,
      (folder) => Deno.writeFile(at(folder), Uint8Array.from({ length: 4096 }, () => random.integer(256))),
    );
    add(`${file} of zeros`, (folder) => Deno.writeFile(at(folder), new Uint8Array(4096)));
    add(`${file} of 20 GB without content`, (folder) => Deno.truncate(at(folder), 20e9));
    add(`${file} with a line end in its middle`, async (folder) => {
      const text = await Deno.readTextFile(at(folder)).catch(() => "{}");
      await Deno.writeTextFile(at(folder), text.slice(0, 40) + "\n\n" + text.slice(41));
    });
    for (let part = 1; part <= 8; part++) {
      add(`${file} cut after ${part} of 9 parts`, async (folder) => {
        const { size } = await Deno.stat(at(folder));
        await Deno.truncate(at(folder), Math.floor(size * part / 9));
      });
    }
    for (let n = 0; n < 30; n++) {
      add(`${file} with flipped bits, ${n + 1}`, async (folder) => {
        const bytes = await Deno.readFile(at(folder));
        for (let bit = 0; bit <= n % 3; bit++) bytes[random.integer(bytes.length)] ^= 1 << random.integer(8);
        await Deno.writeFile(at(folder), bytes);
      });
    }
  }
  const tokenizer = (what: string, edit: (json: Json) => unknown): void =>
    add(`tokenizer.json with ${what}`, (folder) => editJson(join(folder, "tokenizer.json"), edit));
  const vocab = (json: Json): Json => (json.model as Json).vocab as Json;
  for (const [what, value] of VALUES) {
    tokenizer(`an id that is ${what}`, (json) => void (vocab(json)["1"] = value));
    tokenizer(`a vocabulary that is ${what}`, (json) => void ((json.model as Json).vocab = value));
    tokenizer(`merges that are ${what}`, (json) => void ((json.model as Json).merges = value));
    tokenizer(`a model that is ${what}`, (json) => void (json.model = value));
    tokenizer(`a type that is ${what}`, (json) => void ((json.model as Json).type = value));
    tokenizer(`added tokens that are ${what}`, (json) => void (json.added_tokens = value));
    tokenizer(
      `an added token whose id is ${what}`,
      (json) => void ((json.added_tokens as Json[])[0].id = value),
    );
    tokenizer(
      `an added token whose content is ${what}`,
      (json) => void ((json.added_tokens as Json[])[0].content = value),
    );
    tokenizer(`a pre-tokenizer that is ${what}`, (json) => void (json.pre_tokenizer = value));
    tokenizer(`a normalizer that is ${what}`, (json) => void (json.normalizer = value));
    tokenizer(`a decoder that is ${what}`, (json) => void (json.decoder = value));
  }
  tokenizer("a pre-tokenizer of unknown type", (json) => void (json.pre_tokenizer = { type: "Chess" }));
  tokenizer(
    "a pattern that is none",
    (json) => void (json.pre_tokenizer = { type: "Split", pattern: { Regex: "(" } }),
  );
  tokenizer(
    "a vocabulary that is a list",
    (json) => void ((json.model as Json).vocab = Object.keys(vocab(json))),
  );
  tokenizer("merges of what is not there", (json) => void ((json.model as Json).merges = ["q z", "zz"]));
  tokenizer("no end of text", (json) => void (json.added_tokens = []));
  return broken;
}

/** What came of the models. */
export interface ModelsPlayed {
  refused: number;
  accepted: string[];
  /** The longest that one took, in seconds. */
  slowest: number;
}

/** Reads a folder as a command does before it opens the device. */
async function read(folder: string): Promise<void> {
  const config = await readModelConfig(folder);
  const weights = await openWeights(folder, config);
  await weights.verify();
  await weights.hash();
  const tokenizer = await loadTokenizer(folder);
  tokenizer.encodeKnown("12+34=46<|endoftext|> naïve");
}

/** What a command says of a model that its reading accepted: an answer, or one sentence. */
async function evaluateByCommand(name: string, model: string): Promise<void> {
  // deno-fmt-ignore
  const { code, stderr } = await runMain(["evaluate", "--model", model, "--data", ADDITION.data, "--split", "test",
    "--batch", "16", "--eval-tokens", "64", "--quiet"]);
  const errors = stderr.split("\n").filter((line) => line.startsWith("error: Cannot"));
  const holds = code === 0 || (code === 3 && errors.length === 1);
  assert(holds && !/this is a bug|\n {4}at /.test(stderr), `${name}: exit ${code}: ${stderr}`);
}

/**
 * Breaks a model in each of these ways and reads it.
 *
 * @param options `evaluate` has those that are accepted evaluated by the command
 *
 * @throws {AssertionError} when one is refused in another way than by one sentence and exit code 3
 */
export async function playModels(
  broken: readonly BrokenModel[],
  { evaluate = false }: { evaluate?: boolean } = {},
): Promise<ModelsPlayed> {
  await using folder = await temporaryFolder();
  const whole = join(folder.path, "whole");
  await writeTinyModel(whole);
  const played: ModelsPlayed = { refused: 0, accepted: [], slowest: 0 };
  for (const [n, { name, breakIt }] of broken.entries()) {
    const model = join(folder.path, String(n));
    await Deno.mkdir(model);
    for await (const file of Deno.readDir(whole)) {
      await Deno.copyFile(join(whole, file.name), join(model, file.name));
    }
    await breakIt(model);
    const started = performance.now();
    try {
      await read(model);
      played.accepted.push(name);
    } catch (error) {
      assert(error instanceof UserError, `${name}: ${(error as Error).stack}`);
      assertEquals([error.exitCode, error.message.includes("\n")], [3, false], `${name}: ${error.message}`);
      assert(error.message.length < 500, `${name}: ${error.message}`);
      played.refused++;
    }
    played.slowest = Math.max(played.slowest, (performance.now() - started) / 1000);
    if (evaluate && played.accepted.at(-1) === name) await evaluateByCommand(name, model);
    await Deno.remove(model, { recursive: true });
  }
  return played;
}
