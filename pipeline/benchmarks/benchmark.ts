/**
 * Benchmarks of a model, or of two on the same items.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import { inputError, UserError } from "../errors.ts";
import { filesOf, type Source, sourceName } from "../text/data_files.ts";
import { readRecords } from "../text/documents.ts";
import { type Item, type Making, type PlacedItem, Row } from "./items.ts";
import { type LikelihoodOptions, measureLikelihoods, type ScoredModel } from "./likelihood.ts";
import { encodeDocument, encodeRequest, type Encoding, type Sequence } from "./requests.ts";
import { type ItemScore, scoreItem } from "./scores.ts";
import type { BenchmarkTask, MadeTask, ReadTask } from "./tasks.ts";

/** Items as one model reads them. */
export interface EncodedItems {
  /** Of all items, one behind the other. */
  sequences: readonly Sequence[];
  /** How many of them are each item's. */
  counts: readonly number[];
  /** Items of which one at least is longer than the model, and was cut at its beginning. */
  cut: number;
}

/**
 * Reads the items of a benchmark.
 *
 * @param limit of items; the first that there are
 * @throws {UserError} naming file and line of a row that is none of this benchmark, and when there is no item
 */
export async function readItems(
  task: ReadTask,
  sources: readonly Source[],
  limit: number,
): Promise<PlacedItem[]> {
  const items: PlacedItem[] = [];
  for await (const file of filesOf(sources)) {
    for await (const record of readRecords([file], task)) {
      if (items.length === limit) return items;
      items.push({ ...task.item(new Row(record)), where: record.where });
    }
    // A further file may have to be fetched.
    if (items.length === limit) return items;
  }
  if (items.length > 0) return items;
  throw inputError(`Cannot run ${task.name} as there is no item in ${sources.map(sourceName).join(", ")}`);
}

/**
 * Makes the items of a benchmark that needs no data.
 *
 * @param encoding of the model by whose tokens they are as long as they are
 * @throws {UserError} when they cannot be made so short, or have a character without a token
 */
export function makeItems(
  task: MadeTask,
  making: Omit<Making, "encode">,
  encoding: Encoding,
): PlacedItem[] {
  const whole = { ...encoding, contextLength: Infinity };
  const encode: Making["encode"] = (request) =>
    naming(`make items of ${task.name}`, () => encodeRequest(request, whole));
  const items = task.make({ ...making, encode });
  return items.map((item, n) => ({ ...item, where: `${task.name}, item ${n + 1}` }));
}

/**
 * Items as tokens.
 *
 * @throws {UserError} naming file and line of an item that has a character without a token, or a continuation that is longer
 * than the model
 */
export function encodeItems(items: readonly PlacedItem[], encoding: Encoding): EncodedItems {
  const encoded = items.map((item) => naming(`use ${item.where}`, () => encodeItem(item, encoding)));
  return {
    sequences: encoded.flat(),
    counts: encoded.map(({ length }) => length),
    cut: encoded.filter((sequences) => sequences.some(({ cut }) => cut)).length,
  };
}

/** What `perform` gives, whose errors of the user's say what it was for. */
function naming<Result>(purpose: string, perform: () => Result): Result {
  try {
    return perform();
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    throw inputError(`Cannot ${purpose}: ${error.message}`, { cause: error });
  }
}

function encodeItem(item: Item, encoding: Encoding): Sequence[] {
  return item.kind === "rolling"
    ? encodeDocument(item.text, encoding)
    : item.requests.map((request) => encodeRequest(request, encoding));
}

/** A benchmark's items, as they are and as one model reads them. */
export interface Part {
  task: Pick<BenchmarkTask, "scoring">;
  items: readonly Item[];
  encoded: EncodedItems;
}

/**
 * Scores the items of benchmarks by a model. All are run together, so that rows of like length share a batch.
 *
 * @returns of each part the scores of its items
 */
export async function scoreItems(
  gpu: Gpu,
  model: ScoredModel,
  parts: readonly Part[],
  options: LikelihoodOptions,
): Promise<ItemScore[][]> {
  const sequences = parts.flatMap(({ encoded }) => encoded.sequences);
  const likelihoods = await measureLikelihoods(gpu, model, sequences, options);
  let first = 0;
  return parts.map(({ task: { scoring }, items, encoded: { counts } }) =>
    items.map((item, n) => scoreItem(item, scoring, likelihoods.slice(first, first += counts[n])))
  );
}
