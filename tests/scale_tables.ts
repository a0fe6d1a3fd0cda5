/**
 * The tables of docs/scale.md, computed anew: `deno task scale-tables` writes them there.
 *
 * @module
 */
import { elementsOf } from "../kernels/core/tensor.ts";
import { join } from "node:path";
import { adaptersFor } from "../pipeline/model/adapters.ts";
import { readModelConfig } from "../pipeline/model/config_file.ts";
import { parametersOf } from "../pipeline/model/trace.ts";
import type { TrainedParts } from "../pipeline/model/needs.ts";
import {
  ActivationPlans,
  LARGEST_BINDING_BYTES,
  largestBatch,
  needsOf,
} from "../pipeline/report/training_plan.ts";

const ROOT = join(import.meta.dirname!, "..");

/** The document, and the lines between which its tables stand. */
const DOCUMENT = join(ROOT, "docs/scale.md");
const [BEGIN, END] = ["<!-- tables -->", "<!-- end of the tables -->"];

/** Folders of tests/fixtures/configs, the smallest first, and what the tables call them. */
const MODELS = [
  ["gpt2", "GPT-2 124M"],
  ["Llama-3.2-1B", "Llama-3.2-1B"],
  ["OLMo-7B-hf", "OLMo-7B"],
  ["OLMo-2-1124-13B", "OLMo-2-13B"],
  ["OLMo-2-0325-32B", "OLMo-2-32B"],
  ["Llama-3.1-70B", "Llama-3.1-70B"],
] as const;

/** Of each card, in units of 10⁹ bytes. */
const MEMORIES = [24, 48, 80, 141];

/** What is trained, and how the rest is stored. */
const WAYS: readonly (readonly [name: string, parts: Omit<TrainedParts, "adapters">])[] = [
  ["everything", { train: "all", frozen: "f32" }],
  ["attention", { train: "attention", frozen: "f32" }],
  ["LoRA 64, f32", { train: "lora", frozen: "f32" }],
  ["LoRA 64, f16", { train: "lora", frozen: "f16" }],
  ["LoRA 64, int8", { train: "lora", frozen: "int8" }],
];

/** Of a run with --lora 64. */
const LORA = {
  rank: 64,
  alpha: 128,
  rankStabilised: false,
  targets: ["query", "key", "value", "output"],
} as const;

const CONTEXT = 1024;

/** GB of a size, with as many digits as a reader can use. */
const gigabytes = (bytes: number): string => (bytes / 1e9).toFixed(bytes < 10e9 ? 2 : bytes < 100e9 ? 1 : 0);

/** A table of Markdown as deno fmt leaves it: two columns of names, and figures to the right. */
function markdown(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, column) => Math.max(3, ...rows.map((row) => [...row[column]].length)));
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, n) => n < 2 ? cell.padEnd(widths[n]) : cell.padStart(widths[n])).join(" | ")} |`;
  const rule = widths.map((width, n) => n < 2 ? "-".repeat(width) : "-".repeat(width - 1) + ":");
  return [rows[0], rule, ...rows.slice(1)].map(line).join("\n");
}

/** Both tables. */
export async function scaleTables(): Promise<string> {
  const needs = [[
    "model",
    "trained",
    "parameters",
    "trained ones",
    "weights, gradients, moments",
    "1 × 1024",
    "with --recompute",
  ]];
  const fits = [["model", "trained", ...MEMORIES.map((memory) => `${memory} GB`)]];
  for (const [folder, name] of MODELS) {
    const config = await readModelConfig(join(ROOT, "tests/fixtures/configs", folder));
    const plans = new ActivationPlans(config, LARGEST_BINDING_BYTES);
    const parameters = parametersOf(config)
      .reduce((sum, { shape }) => sum + elementsOf(shape), 0);
    WAYS.forEach(([way, { train, frozen }], n) => {
      const parts = { train, frozen, adapters: train === "lora" ? adaptersFor(config, LORA) : undefined };
      const asked = { context: CONTEXT, dtype: "f32", distill: false, parts } as const;
      const of = (recompute: boolean) => needsOf(plans, { ...asked, recompute, batch: 1 });
      const [kept, again] = [of(false), of(true)];
      const millions = (count: number): string => `${(count / 1e6).toFixed(count < 1e7 ? 1 : 0)} M`;
      const [called, all] = n === 0 ? [name, millions(parameters)] : ["", ""];
      const standing = kept.weights + kept.gradients + kept.moments;
      needs.push([
        called,
        way,
        all,
        millions(kept.trained / 4),
        ...[standing, kept.total, again.total].map(gigabytes),
      ]);
      fits.push([
        called,
        way,
        ...MEMORIES.map((memory) => {
          const [without, withRecompute] = [false, true]
            .map((recompute) => largestBatch(plans, { ...asked, recompute }, memory * 1e9));
          return withRecompute === 0 ? "–" : `${without || "–"} / ${withRecompute}`;
        }),
      ]);
    });
  }
  return `GB of device memory:\n\n${
    markdown(needs)
  }\n\nRows of ${CONTEXT} tokens in the largest micro-batch, without / with ` +
    `\`--recompute\`; – stands for not one:\n\n${markdown(fits)}`;
}

/** The document with these tables. */
export function withTables(document: string, tables: string): string {
  const [before, rest] = document.split(BEGIN);
  const [, after] = rest.split(END);
  return `${before}${BEGIN}\n\n${tables}\n\n${END}${after}`;
}

/** The document as it stands. */
export const readDocument = (): Promise<string> => Deno.readTextFile(DOCUMENT);

if (import.meta.main) {
  await Deno.writeTextFile(DOCUMENT, withTables(await readDocument(), await scaleTables()));
}
