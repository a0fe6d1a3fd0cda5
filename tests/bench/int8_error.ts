/**
 * What int8 costs, family by family: `deno task int8-error [model folder …]`, without one the tiny models of
 * tests/fixtures. In float64 on the processor: no device is opened. That kernels compute with what is stored is
 * tests/pipeline/model/frozen_test.ts's.
 *
 * @module
 */
import { join } from "node:path";
import { dequantise, quantise } from "../../kernels/core/int8.ts";
import type { ModelConfig } from "../../pipeline/model/config.ts";
import { readModelConfig } from "../../pipeline/model/config_file.ts";
import { openWeights } from "../../pipeline/model/load_weights.ts";
import type { Parameter } from "../../pipeline/model/op.ts";
import { referenceModel, referenceRoles } from "../../pipeline/model/reference_model.ts";
import { parametersOf, stepIn, trace } from "../../pipeline/model/trace.ts";
import { formatTable } from "../../pipeline/report/table.ts";
import { readDocuments } from "../../pipeline/text/documents.ts";
import { loadTokenizer, withStart } from "../../pipeline/text/tokenizer.ts";
import { relativeError } from "../support/compare.ts";
import { seeded } from "../support/seeded.ts";

const ROOT = join(import.meta.dirname!, "../..");
const FIXTURES = join(ROOT, "tests/fixtures");
/** A model of every family with random weights. */
export const TINY_MODELS: readonly string[] = [
  join(FIXTURES, "tiny_gpt2"),
  ...Array.from(Deno.readDirSync(join(FIXTURES, "families"))).filter(({ isDirectory }) => isDirectory)
    .map(({ name }) => join(FIXTURES, "families", name)).toSorted(),
];
const TEXT = join(ROOT, "data/english/text.jsonl.gz");
const TOKENS = 64;

/** The products of a layer by what they compute, and the branch and the place that each stands at. */
const PRODUCTS = {
  "queries, keys, values": ["attention", "in"],
  "attention's output": ["attention", "out"],
  "into the MLP": ["mlp", "in"],
  "out of the MLP": ["mlp", "out"],
} as const;

/** A layer's product. */
export type Product = keyof typeof PRODUCTS;

/** Errors of a model, each ‖ŷ − y‖ / ‖y‖. */
export interface Int8Errors {
  /** Of a product with its weight as int8 and its input as it is: the largest of all layers. */
  products: Record<Product, number>;
  /** Of the logits, with all matrices as int8 and the tables of tokens as f16. */
  logits: number;
}

/** Values as they are read from where they are stored. */
function asStored({ stored, shape: [rows, columns] }: Parameter, values: Float32Array): Float32Array {
  if (stored === "f16") return Float32Array.from(Float16Array.from(values));
  if (stored !== "int8") return values;
  const { values: integers, scales } = quantise(values, rows, columns);
  return dequantise(integers, scales, columns);
}

/**
 * Measures a model on tokens.
 *
 * @param folder of its weights
 * @param tokens of one row
 */
export async function int8Errors(
  folder: string,
  config: ModelConfig,
  tokens: readonly number[],
): Promise<Int8Errors> {
  const source = await openWeights(folder, config);
  const exact = new Map<string, Float32Array>();
  const rounded = new Map<string, Float32Array>();
  for (const parameter of parametersOf(config, { train: "lora", frozen: "int8" })) {
    const values = await source.read(parameter.name);
    exact.set(parameter.name, values);
    rounded.set(parameter.name, asStored(parameter, values));
  }
  const model = trace(config, { batch: 1, context: tokens.length });
  const { values, logits } = referenceModel(model, exact, tokens);
  const products = Object.entries(PRODUCTS).map(([product, [kind, place]]) => {
    const errors = model.branches.filter((branch) => branch.kind === kind).map((branch) => {
      const step = stepIn(branch, place);
      const roles = referenceRoles(step, ({ name }) => values.get(name)!, rounded);
      return relativeError(step.op.reference!.forward(roles, { tokens }), values.get(step.writes.y.name)!);
    });
    return [product, Math.max(...errors)];
  });
  return {
    products: Object.fromEntries(products),
    logits: relativeError(referenceModel(model, rounded, tokens).logits, logits),
  };
}

/** Tokens of the embedded English text, as a model reads them. */
async function tokensOfText(folder: string, config: ModelConfig): Promise<number[]> {
  const tokenizer = await loadTokenizer(folder, config);
  for await (const document of readDocuments([TEXT])) {
    if (document.kind === "text") {
      return withStart(tokenizer, tokenizer.encode(document.text)).slice(0, TOKENS);
    }
  }
  throw new Error(`${TEXT} holds no text`);
}

/** Tokens by chance, of a model without a tokenizer. */
export function tokensByChance({ vocabularySize, contextLength }: ModelConfig): number[] {
  const random = seeded(5);
  return Array.from({ length: Math.min(TOKENS, contextLength) }, () => random.integer(vocabularySize));
}

if (import.meta.main) {
  const rows = [["", ...Object.keys(PRODUCTS), "logits"]];
  for (const folder of Deno.args.length > 0 ? Deno.args : TINY_MODELS) {
    const config = await readModelConfig(folder);
    const tokens = Deno.args.length > 0 ? await tokensOfText(folder, config) : tokensByChance(config);
    const { products, logits } = await int8Errors(folder, config, tokens);
    const errors = [...Object.values(products), logits];
    rows.push([folder.split("/").at(-1)!, ...errors.map((error) => `${(100 * error).toFixed(2)} %`)]);
  }
  console.log(formatTable(rows));
}
