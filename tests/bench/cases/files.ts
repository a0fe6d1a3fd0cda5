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
import { readDocuments } from "../../../pipeline/text/documents.ts";
import { openWeights } from "../../../pipeline/model/load_weights.ts";
import { createMetricsReader } from "../../../pipeline/runs/metrics.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { createParameters, destroyParameters, uploadParameters } from "../../../pipeline/model/parameters.ts";
import { writeSafetensors } from "../../../pipeline/model/safetensors.ts";
import { loadTokenizer } from "../../../pipeline/text/tokenizer.ts";
import { fill } from "../data.ts";
import { type BenchCase, type BenchResult, candidate, median } from "../harness.ts";
import { GPT2 } from "./training_step.ts";

const [, ...SPARSIFY] = project.tasks.sparsify.command.split(" ");
const ROOT = new URL("../../../", import.meta.url).pathname;
const ENGLISH = join(ROOT, "data/english");
const CHARACTERS = 2 << 20;

/**
 * The embedded tokenizer over the first 2 Mi characters of the embedded text, from reading its file on, since it
 * remembers words. The peer is what it calls: @huggingface/tokenizers without that memory.
 */
export async function tokenisingCase(): Promise<BenchCase> {
  const texts: string[] = [];
  let length = 0;
  for await (const document of readDocuments([join(ENGLISH, "text.jsonl.gz")])) {
    if (length >= CHARACTERS) break;
    if (document.kind !== "text") continue;
    texts.push(document.text.slice(0, CHARACTERS - length));
    length += texts.at(-1)!.length;
  }
  const ours = async (): Promise<number[]> => {
    const { encode } = await loadTokenizer(ENGLISH);
    return texts.flatMap((text) => Array.from(encode(text)));
  };
  const theirs = async (): Promise<number[]> => {
    const json = JSON.parse(await Deno.readTextFile(join(ENGLISH, "tokenizer.json")));
    const tokenizer = new HuggingFaceTokenizer(json, {});
    return texts.flatMap((text) => tokenizer.encode(text, { add_special_tokens: false }).ids);
  };
  const tokens = await ours();
  const bytes = texts.reduce((sum, text) => sum + new TextEncoder().encode(text).length, 0);
  const timed = (encode: () => Promise<number[]>) =>
    candidate(async () => void await encode(), () => Promise.resolve());
  return {
    tokens: tokens.length,
    details: (ms) => ({ "MB/s": bytes / 1e3 / ms }),
    ours: timed(ours),
    peers: { "@huggingface/tokenizers": () => Promise.resolve(timed(theirs)) },
    check: async () => assertEquals(tokens, await theirs()),
  };
}

/** A float32 safetensors file of GPT-2 124M's shape, as the system's cache has it, into the device. */
export async function loadingCase(gpu: Gpu): Promise<BenchCase> {
  const folder = await Deno.makeTempDir({ prefix: "bench-loading-" });
  const shapes = parametersOf(GPT2);
  const read = ({ shape }: typeof shapes[number]) =>
    Promise.resolve(fill(1, shape.reduce((product, axis) => product * axis, 1)));
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
    const child = new Deno.Command(Deno.execPath(), {
      args: [...SPARSIFY, "--runs", runs, "--name", "bench", "--no-control", "--quiet"],
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
