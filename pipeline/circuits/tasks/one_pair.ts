/**
 * The pair of prompts that a user gives by flags.
 *
 * @module
 */
import { inputError } from "../../errors.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { type PromptSet, withStartToken } from "../prompts.ts";
import { parsePair } from "./pair.ts";

/** The flags' values. */
export interface PairFlags {
  /** The prompt. */
  prompt: string;
  /** Its corruption. */
  corrupted: string;
  /** What is right behind it, one token. */
  answer: string;
  /** What is wrong there, one token. */
  wrong: string;
}

/**
 * The set of one pair. Prompts of a model that was trained with a token before every text get it.
 *
 * @throws {UserError} as a line of a file of pairs would be refused
 */
export function onePair(
  { prompt, corrupted, answer, wrong }: PairFlags,
  { tokenizer, contextLength }: { tokenizer: Tokenizer; contextLength: number },
): PromptSet {
  const fail = (required: string): never => {
    throw inputError(`Cannot use the pair of --prompt as ${required}`);
  };
  const pair = parsePair({ clean: prompt, corrupted, answers: [answer], wrong: [wrong] }, tokenizer, fail);
  const one: PromptSet = { task: "prompt", metric: "logit_difference", pairs: [pair] };
  const { startOfText } = tokenizer;
  const set = startOfText === undefined ? one : withStartToken(one, startOfText);
  const { length } = set.pairs[0].clean;
  if (length > contextLength) fail(`the model has ${contextLength} positions: ${length} tokens`);
  return set;
}
