/**
 * The two models that lm-evaluation-harness was run on (tests/fixtures/benchmarks/make.py).
 *
 * @module
 */
import { join } from "node:path";
import { BENCHMARKS, isRead, type ReadTask } from "../../pipeline/benchmarks/tasks.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

/** The embedded English model. */
export const ENGLISH = `${ROOT}data/english`;

/** What the harness made of the items, of either model by task. */
export interface Expected {
  acc?: number;
  acc_stderr?: number;
  acc_norm?: number;
  acc_norm_stderr?: number;
  perplexity?: number;
  word_perplexity?: number;
  byte_perplexity?: number;
  bits_per_byte?: number;
  /** Of each choice its log-likelihood, and whether it is the likeliest; of a document its log-likelihood alone. */
  items: readonly (readonly (readonly [logLikelihood: number, greedy: boolean] | number)[])[];
}

/** What the harness made of the items. */
export async function readExpected(): Promise<Record<"english" | "llama", Record<string, Expected>>> {
  return JSON.parse(await Deno.readTextFile(`${ROOT}tests/fixtures/benchmarks/expected.json`));
}

/** A task whose items are read. */
export function readTask(name: string): ReadTask {
  const task = BENCHMARKS.get(name);
  if (!task || !isRead(task)) throw new Error(`Cannot read items of ${name}`);
  return task;
}

/** Path of the items of a task. */
export const itemsOf = (task: string): string => `${ROOT}tests/fixtures/benchmarks/items/${task}.jsonl`;

/** Writes the random Llama's folder: its tokenizer.json is the English model's with a token before every text. */
export async function writeLlama(folder: string): Promise<void> {
  const from = `${ROOT}tests/fixtures/benchmarks/llama`;
  for (const name of ["config.json", "model.safetensors", "tokenizer_config.json"]) {
    await Deno.copyFile(join(from, name), join(folder, name));
  }
  const tokenizer = JSON.parse(await Deno.readTextFile(join(ENGLISH, "tokenizer.json")));
  const end = "<|endoftext|>";
  const start = { SpecialToken: { id: end, type_id: 0 } };
  const text = { Sequence: { id: "A", type_id: 0 } };
  const template = {
    type: "TemplateProcessing",
    single: [start, text],
    pair: [start, text, text],
    special_tokens: { [end]: { id: end, ids: [4095], tokens: [end] } },
  };
  await Deno.writeTextFile(
    join(folder, "tokenizer.json"),
    JSON.stringify({ ...tokenizer, post_processor: template }),
  );
}
