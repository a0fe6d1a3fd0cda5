/**
 * A set of a user's own pairs of prompts.
 *
 * @module
 */
import { inputError } from "../../errors.ts";
import { isObject } from "../../files.ts";
import { checkKeys } from "../../option_checks.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { type PromptPair, type PromptSet, withStartToken } from "../prompts.ts";
import { parsePair } from "./pair.ts";

/** A pair of prompts as text. */
export interface TextPair {
  /** The prompt. */
  clean: string;
  /** Its corruption, of as many tokens. */
  corrupted: string;
  /** Texts of one token each that are right behind the prompt. */
  answers: readonly string[];
  /** Texts of one token each that are wrong there. */
  wrong: readonly string[];
  /** What the pair is counted with: circuits are compared across templates. */
  template?: string;
}

/** What pairs are made for. */
export interface PairsOptions {
  /** The model's. */
  tokenizer: Tokenizer;
  /** Positions that the model has; of a model that was trained with a token before every text one is that token's. */
  contextLength: number;
  /** Tokens of the prompts of pairs that are taken, with one before every text; left out: all pairs must have as many. */
  length?: number;
}

/** Lengths of prompts that a message names. */
const MOST_LENGTHS = 4;

/** A pair as it was found: what it is called, and its value, looked at only where it is taken. */
export interface FoundPair {
  /** `line 3`. */
  name: string;
  /** Its value, or undefined where it is none of JSON. */
  value(): unknown;
}

/**
 * Pairs of a user's own, for `createCircuitEngine` and `analyse`. Prompts of a model that was trained with a token before
 * every text get it.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { loadTokenizer, promptPairs } from "../../../mod.ts";
 *
 * const tokenizer = await loadTokenizer("data/addition");
 * const set = promptPairs([
 *   { clean: "12+34=", corrupted: "50+21=", answers: ["6"], wrong: ["1"] },
 *   { clean: "20+35=", corrupted: "41+12=", answers: ["5"], wrong: ["3"] },
 * ], { tokenizer, contextLength: 8 });
 * assert(set.pairs.length === 2 && set.pairs[0].places[0].position === 5);
 * ```
 *
 * @param options `task`: what the set is called, `pairs` when left out
 * @throws {UserError} naming the pair: a missing field, an answer of several tokens, prompts of different or too great
 * lengths
 */
export function promptPairs(
  pairs: readonly TextPair[],
  { task = "pairs", ...options }: PairsOptions & { task?: string },
): PromptSet {
  checkKeys("options", options, ["tokenizer", "contextLength", "length"], "find circuits");
  const found = pairs.map((pair, n): FoundPair => ({ name: `pairs[${n}]`, value: () => pair }));
  return gatherPairs(found, {
    ...options,
    task,
    lengthName: "length:",
    fail: (required, name) => {
      throw inputError(`Cannot use ${name ?? "pairs"} as ${required}`);
    },
  });
}

/**
 * The set of pairs that were found.
 *
 * @param options `prompts`: how many to take at most, from the beginning; all when left out. `lengthName`: what `length` is
 * set by. `fail` throws that a pair cannot be used, told what it must be and its name, or all of them, without a name
 */
export function gatherPairs(
  found: Iterable<FoundPair>,
  { task, tokenizer, contextLength, length: wanted, prompts, lengthName, fail }: PairsOptions & {
    task: string;
    prompts?: number;
    lengthName: string;
    fail: (required: string, name?: string) => never;
  },
): PromptSet {
  const { startOfText } = tokenizer;
  const started = startOfText === undefined ? 0 : 1;
  const pairs: PromptPair[] = [];
  let leftOut = 0;
  /** By their length, how many pairs there are, and what the first is called. */
  const lengths = new Map<number, { count: number; first: string }>();
  /** What each pair of prompts is called. */
  const seen = new Map<string, string>();
  for (const { name, value } of found) {
    if (pairs.length === prompts) {
      leftOut++;
      continue;
    }
    const failHere = (required: string): never => fail(required, name);
    const written = value();
    if (!isObject(written)) return failHere("it must be a JSON object");
    const pair = parsePair(written, tokenizer, failHere);
    const length = pair.clean.length + started;
    const { count, first } = lengths.get(length) ?? { count: 0, first: name };
    lengths.set(length, { count: count + 1, first });
    if (wanted !== undefined && length !== wanted) continue;
    if (length > contextLength) failHere(`the model has ${contextLength} positions: ${length} tokens`);
    const key = `${pair.clean} ${pair.corrupted}`;
    const before = seen.get(key);
    if (before !== undefined) failHere(`it repeats the prompts of ${before}, which would count twice`);
    seen.set(key, name);
    pairs.push(pair);
  }
  const byCount = [...lengths].sort(([, a], [, b]) => b.count - a.count);
  const ofLengths = byCount.slice(0, MOST_LENGTHS)
    .map(([length, { count, first }]) =>
      `${length} in ${count === 1 ? first : `${count} pairs, such as ${first}`}`
    )
    .join("; ") +
    (byCount.length > MOST_LENGTHS ? `; and ${byCount.length - MOST_LENGTHS} other lengths` : "");
  if (pairs.length === 0) {
    fail(lengths.size === 0 ? "it has no pair" : `no pair has ${wanted} tokens: ${ofLengths}`);
  }
  if (wanted === undefined && lengths.size > 1) {
    fail(
      `all prompts must have the same number of tokens: ${ofLengths}; ${lengthName} ${
        byCount[0][0]
      } leaves the others out`,
    );
  }
  if (pairs.length > 1 && new Set(pairs.map(({ clean }) => clean.join())).size < 2) {
    fail("all pairs have one clean prompt, and a circuit chosen on one is scored on another");
  }
  const otherLengths = byCount.reduce((sum, [, { count }]) => sum + count, 0) - pairs.length;
  const set: PromptSet = { task, metric: "logit_difference", pairs, leftOut, otherLengths };
  return startOfText === undefined ? set : withStartToken(set, startOfText);
}
