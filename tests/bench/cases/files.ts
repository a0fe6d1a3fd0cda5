/**
 * What stands before the first step: tokenising, loading weights, and the start of the command itself.
 *
 * @module
 */
import { join } from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { assertEquals } from "@std/assert";
import project from "../../../deno.json" with { type: "json" };
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { randomStream } from "../../../kernels/core/random.ts";
import { elementsOf } from "../../../kernels/core/tensor.ts";
import { readDocuments } from "../../../pipeline/text/documents.ts";
import { openWeights } from "../../../pipeline/model/load_weights.ts";
import { createMetricsReader } from "../../../pipeline/runs/metrics.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { createParameters, destroyParameters, uploadParameters } from "../../../pipeline/model/parameters.ts";
import { writeSafetensors } from "../../../pipeline/model/safetensors.ts";
import { loadTokenizer } from "../../../pipeline/text/tokenizer.ts";
import { fill } from "../data.ts";
import { type BenchCase, type BenchResult, candidate, median } from "../harness.ts";
import { GPT2 } from "../../support/gpt2.ts";

const SPARSIFY = project.tasks.sparsify.command;
const ROOT = new URL("../../../", import.meta.url).pathname;
const ENGLISH = join(ROOT, "data/english");
const CHARACTERS = 2 << 20;

/** The embedded tokenizer over the first 2 Mi characters of the embedded text. */
export async function tokenisingCase(): Promise<BenchCase> {
  const texts = await englishTexts(CHARACTERS);
  return tokenisingTexts(join(ENGLISH, "tokenizer.json"), texts, texts);
}

/**
 * A tokenizer over 1 MB: the embedded English text, this project's modules, and random characters of many scripts.
 *
 * @param path of a tokenizer.json
 */
export async function mixedTokenisingCase(path: string): Promise<BenchCase> {
  const texts = [...await englishTexts(500_000), ...await codeTexts(350_000), ...scriptTexts(60_000)];
  // The library knows no digits but ASCII's, other white space than Unicode's, and puts nothing for characters alone.
  const plain = texts.map((text) => text.replace(/[^\x20-\x7e\n]/g, ""));
  return tokenisingTexts(path, texts, plain);
}

/**
 * A tokenizer over texts, from reading its file on, since it remembers words. The peer is the library that does what ours
 * does not know.
 *
 * @param checked texts of which both have the same tokens
 */
function tokenisingTexts(path: string, texts: readonly string[], checked: readonly string[]): BenchCase {
  const open = () => loadTokenizer(path, { endOfText: 0 });
  const ours = async (of: readonly string[]): Promise<number[]> => {
    const { encode } = await open();
    return of.flatMap((text) => encode(text));
  };
  const theirs = async (of: readonly string[]): Promise<number[]> => {
    const tokenizer = new HuggingFaceTokenizer(JSON.parse(await Deno.readTextFile(path)), {});
    return of.flatMap((text) => tokenizer.encode(text, { add_special_tokens: false }).ids);
  };
  const bytes = texts.reduce((sum, text) => sum + new TextEncoder().encode(text).length, 0);
  const timed = (encode: (of: readonly string[]) => Promise<number[]>) =>
    candidate(async () => void await encode(texts), () => Promise.resolve());
  return {
    details: (ms) => ({ "MB/s": bytes / 1e3 / ms }),
    ours: timed(ours),
    peers: { "@huggingface/tokenizers": () => Promise.resolve(timed(theirs)) },
    check: async () => assertEquals(await ours(checked), await theirs(checked)),
  };
}

/** The embedded text's beginning, by documents. */
async function englishTexts(characters: number): Promise<string[]> {
  const texts: string[] = [];
  let length = 0;
  for await (const document of readDocuments([join(ENGLISH, "text.jsonl.gz")])) {
    if (length >= characters) break;
    if (document.kind !== "text") continue;
    texts.push(document.text.slice(0, characters - length));
    length += texts.at(-1)!.length;
  }
  return texts;
}

/** Modules of the pipeline, in the order of their paths. */
async function codeTexts(characters: number): Promise<string[]> {
  const paths: string[] = [];
  const visit = async (folder: string): Promise<void> => {
    for await (const { name, isDirectory } of Deno.readDir(folder)) {
      if (isDirectory) await visit(join(folder, name));
      else if (name.endsWith(".ts")) paths.push(join(folder, name));
    }
  };
  await visit(join(ROOT, "pipeline"));
  const texts: string[] = [];
  let length = 0;
  for (const path of paths.sort()) {
    if (length >= characters) break;
    texts.push((await Deno.readTextFile(path)).slice(0, characters - length));
    length += texts.at(-1)!.length;
  }
  return texts;
}

/** Blocks of Unicode, from and to. */
const SCRIPTS = [
  [0x20, 0x7f],
  [0xa0, 0x250],
  [0x370, 0x530],
  [0x590, 0x700],
  [0x900, 0xd00],
  [0xe00, 0xe80],
  [0x1e00, 0x2070],
  [0x3040, 0x3100],
  [0x4e00, 0x9fff],
  [0xac00, 0xd7a3],
  [0x1f300, 0x1faff],
] as const;

/** Words of random characters of one script each, a few characters to a space. */
function scriptTexts(characters: number): string[] {
  const random = randomStream(1);
  let text = "";
  while (text.length < characters) {
    const [from, to] = SCRIPTS[random.below(SCRIPTS.length)];
    const word = Array.from({ length: 1 + random.below(9) }, () => from + random.below(to - from));
    text += String.fromCodePoint(...word) + [" ", "\n", ". ", "  "][random.below(4)];
  }
  return [text];
}

/** A float32 safetensors file of GPT-2 124M's shape, as the system's cache has it, into the device. */
export async function loadingCase(gpu: Gpu): Promise<BenchCase> {
  const folder = await Deno.makeTempDir({ prefix: "bench-loading-" });
  const shapes = parametersOf(GPT2);
  const read = ({ shape }: typeof shapes[number]) => Promise.resolve(fill(1, elementsOf(shape)));
  await writeSafetensors(
    join(folder, "model.safetensors"),
    shapes.map((shape) => ({ ...shape, read: () => read(shape) })),
  );
  const parameters = createParameters(gpu, shapes);
  const bytes = [...parameters.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
  const load = async (): Promise<void> => {
    const weights = await openWeights(folder, GPT2);
    await uploadParameters(gpu, parameters, (name) => weights.read(name));
  };
  return {
    details: (ms) => ({ "GB/s": bytes / 1e6 / ms }),
    ours: candidate(load, () => gpu.sync()),
    async check() {
      await load();
      const last = shapes.findLast(({ shape }) => shape.length === 2)!;
      assertEquals(await gpu.read(parameters.get(last.name)!), await read(last));
    },
    async destroy() {
      destroyParameters(gpu, parameters);
      await Deno.remove(folder, { recursive: true });
    },
  };
}

/** What keeps drivers from taking shaders out of a cache: Mesa's variable and NVIDIA's. */
const NO_SHADER_CACHE = { MESA_SHADER_CACHE_DISABLE: "true", __GL_SHADER_DISK_CACHE: "0" };
const POLL_MS = 20;

/**
 * `deno task sparsify` on the embedded model and text, from its start until the first row of its metrics can be read:
 * tokenising, compiling and measuring the dense model included.
 *
 * @param shaders `cold`: no cache of compiled shaders; `warm`: they were compiled before
 */
export async function firstStepTime(shaders: "cold" | "warm"): Promise<BenchResult> {
  const once = async (): Promise<number> => {
    const runs = await Deno.makeTempDir({ prefix: "bench-first-step-" });
    const started = performance.now();
    // A shell, since the task's permissions are put together by one; it becomes the command, which can so be killed.
    const child = new Deno.Command("sh", {
      args: [
        "-c",
        `exec ${SPARSIFY} "$@"`,
        "sh",
        "--runs",
        runs,
        "--name",
        "bench",
        "--no-control",
        "--quiet",
      ],
      cwd: ROOT,
      env: shaders === "cold" ? NO_SHADER_CACHE : {},
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    let ended: number | undefined;
    child.status.then(({ code }) => ended = code);
    const metrics = createMetricsReader(join(runs, "bench", "metrics.arrows"));
    try {
      while (true) {
        const rows = await metrics.read().catch(() => []);
        if (rows.length > 0) return performance.now() - started;
        if (ended !== undefined) {
          throw new Error(`Cannot time the first step as the command ended with ${ended}`);
        }
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      }
    } finally {
      if (ended === undefined) child.kill("SIGKILL");
      await child.status;
      await Deno.remove(runs, { recursive: true });
    }
  };
  if (shaders === "cold") return { median_ms: await once(), peers: {} };
  await once();
  return { median_ms: median([await once(), await once(), await once()]), peers: {} };
}
