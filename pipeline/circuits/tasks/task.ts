/**
 * What every task's generator is made from, and checks that the words it needs are what the model's tokenizer makes of
 * them.
 *
 * @module
 */
import { inputError } from "../../errors.ts";
import type { RandomStream } from "../../../kernels/core/random.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import type { PromptPair, PromptSet } from "../prompts.ts";

/** What a generator is given. */
export interface TaskOptions {
  /** The model's. */
  tokenizer: Tokenizer;
  /** Positions that the model has; of a model that was trained with a token before every text one is that token's. */
  contextLength: number;
  /** How many pairs to make. */
  prompts: number;
  /** Draws the prompts. */
  random: RandomStream;
}

/** Makes a task's prompts. */
export interface Task {
  /** As `--task` takes it. */
  name: string;
  /** One line for people: what the model has to do, and what the corruption changes. */
  purpose: string;
  /**
   * Makes prompts, all of one number of tokens.
   *
   * @throws {UserError} when the tokenizer does not have the tokens that the task needs
   */
  generate(options: TaskOptions): PromptSet;
}

/** The words that are one token of the tokenizer, as they stand inside a text. */
export function singleTokens(tokenizer: Tokenizer, words: readonly string[]): Map<string, number> {
  const tokens = new Map<string, number>();
  for (const word of words) {
    const { tokens: encoded, lost } = tokenizer.encodeKnown(word, { continued: true });
    if (lost === 0 && encoded.length === 1) tokens.set(word, encoded[0]);
  }
  return tokens;
}

/**
 * The words that are one token, or the error that they are too few.
 *
 * @param what what they are, for the error, such as `names`
 */
export function needSingleTokens(
  task: string,
  tokenizer: Tokenizer,
  { what, words, least }: { what: string; words: readonly string[]; least: number },
): Map<string, number> {
  const tokens = singleTokens(tokenizer, words);
  if (tokens.size < least) {
    throw inputError(
      `Cannot make prompts of ${task} as at least ${least} ${what} must be one token each of ${tokenizer.path}: ` +
        `${tokens.size} of ${words.length} are`,
    );
  }
  return tokens;
}

/** `count` different elements. */
export function sample<Element>(random: RandomStream, from: readonly Element[], count: number): Element[] {
  const rest = [...from];
  return Array.from({ length: count }, () => rest.splice(random.below(rest.length), 1)[0]);
}

/**
 * Makes pairs until there are enough of one length: lengths follow from words and templates, and a batch has only one.
 *
 * @throws {UserError} when `make` does not give enough pairs of any length that fits the context
 */
export function pairsOfOneLength(
  task: string,
  { prompts, contextLength }: Pick<TaskOptions, "prompts" | "contextLength">,
  make: () => PromptPair | undefined,
): PromptPair[] {
  const byLength = new Map<number, PromptPair[]>();
  const seen = new Set<string>();
  for (let attempt = 0; attempt < 200 * prompts; attempt++) {
    const pair = make();
    if (!pair || pair.clean.length !== pair.corrupted.length || pair.clean.length > contextLength) continue;
    const key = pair.clean.join() + "|" + pair.corrupted.join();
    if (seen.has(key)) continue;
    seen.add(key);
    const length = pair.clean.length;
    if (!byLength.has(length)) byLength.set(length, []);
    const pairs = byLength.get(length)!;
    pairs.push(pair);
    if (pairs.length === prompts) return pairs;
  }
  const most = Math.max(0, ...[...byLength.values()].map(({ length }) => length));
  throw inputError(
    `Cannot make ${prompts} prompts of ${task} of one length within ${contextLength} tokens: ${most} made`,
  );
}
