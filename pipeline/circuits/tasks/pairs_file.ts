/**
 * A user's own pairs: one JSON object a line,
 *
 *     {"clean": "…", "corrupted": "…", "answers": [" Mary"], "wrong": [" John"], "template": "…"}
 *
 * with answers of one token each, which follow the prompt. `template` may be left out. Prompts of a model that was trained
 * with a token before every text get it.
 *
 * @module
 */
import { inputError } from "../../errors.ts";
import { readText, shown } from "../../files.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { type PromptPair, type PromptSet, withStartToken } from "../prompts.ts";

/** What is looked at in a line. */
interface Line {
  clean?: unknown;
  corrupted?: unknown;
  answers?: unknown;
  wrong?: unknown;
  template?: unknown;
}

/** Bytes of the largest file of pairs: a hundred thousand of a page each. */
const MAX_PAIRS_BYTES = 256 << 20;

const isText = (value: unknown): value is string => typeof value === "string" && value.length > 0;
const areTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.length > 0 && value.every(isText);

/**
 * Reads pairs from a JSONL file.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { loadTokenizer, readPairs } from "../../../mod.ts";
 *
 * const path = await Deno.makeTempFile({ suffix: ".jsonl" });
 * const pairs = [["12+34=", "50+21=", "6", "1"], ["20+35=", "41+12=", "5", "3"]];
 * await Deno.writeTextFile(
 *   path,
 *   pairs.map(([clean, corrupted, right, wrong]) =>
 *     JSON.stringify({ clean, corrupted, answers: [right], wrong: [wrong] })
 *   ).join("\n"),
 * );
 * const tokenizer = await loadTokenizer("data/addition");
 * const set = await readPairs(path, { tokenizer, contextLength: 8, prompts: 100 });
 * assert(set.pairs.length === 2 && set.pairs[0].places[0].position === 5);
 * ```
 *
 * @param prompts how many to take at most, from the beginning
 * @throws {UserError} naming the file and the line: no JSON, a missing field, an answer of several tokens, prompts of
 * different or too great lengths
 */
export async function readPairs(
  path: string,
  { tokenizer, contextLength, prompts }: { tokenizer: Tokenizer; contextLength: number; prompts: number },
): Promise<PromptSet> {
  const text = await readText(path, MAX_PAIRS_BYTES);
  const { startOfText } = tokenizer;
  const started = startOfText === undefined ? 0 : 1;
  const pairs: PromptPair[] = [];
  /** The line that each pair of prompts stands on. */
  const seen = new Map<string, number>();
  for (const [n, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    if (pairs.length === prompts) break;
    const fail = (required: string): never => {
      throw inputError(`Cannot use ${path}, line ${n + 1}, as ${required}`);
    };
    const pair = parsePair(line, tokenizer, fail);
    const [length, wanted] = [pair.clean.length, pairs[0]?.clean.length ?? pair.clean.length];
    if (length !== wanted) fail(`all prompts must have the same number of tokens: ${length}, not ${wanted}`);
    if (length + started > contextLength) {
      fail(`the model has ${contextLength} positions: ${length + started} tokens`);
    }
    const key = `${pair.clean} ${pair.corrupted}`;
    const before = seen.get(key);
    if (before !== undefined) {
      fail(`it repeats the prompts of line ${before}, which would count twice`);
    }
    seen.set(key, n + 1);
    pairs.push(pair);
  }
  if (pairs.length === 0) throw inputError(`Cannot use ${path} as it has no pair`);
  if (pairs.length === 1) {
    throw inputError(`Cannot use ${path} as one pair tells nothing of another: it needs two at least`);
  }
  if (new Set(pairs.map(({ clean }) => clean.join())).size < 2) {
    throw inputError(
      `Cannot use ${path} as all pairs have one clean prompt, and a circuit chosen on one is scored on another`,
    );
  }
  const task = path.replace(/^.*[/\\]/, "").replace(/\.jsonl$/, "");
  const set: PromptSet = { task, metric: "logit_difference", pairs };
  return startOfText === undefined ? set : withStartToken(set, startOfText);
}

function parsePair(line: string, tokenizer: Tokenizer, fail: (required: string) => never): PromptPair {
  let json: Line | null = null;
  try {
    json = JSON.parse(line);
  } catch { /* told below */ }
  if (typeof json !== "object" || json === null) return fail("it must be a JSON object");
  const { clean, corrupted, answers, wrong, template = "pairs" } = json;
  if (!isText(clean) || !isText(corrupted)) return fail("clean and corrupted must be text");
  if (!areTexts(answers) || !areTexts(wrong)) return fail("answers and wrong must be lists of text");
  if (!isText(template)) return fail("template must be text");
  const encode = (text: string, continued = false): number[] => {
    const { tokens, lost, firstLost } = tokenizer.encodeKnown(text, { continued });
    if (lost > 0) fail(`the tokenizer has no token for ${shown(firstLost)}`);
    return tokens;
  };
  const tokensOf = (words: string[]): number[] =>
    words.map((word) => {
      const encoded = encode(word, true);
      if (encoded.length !== 1) {
        fail(`an answer must be one token: ${JSON.stringify(word)} is ${encoded.length}`);
      }
      return encoded[0];
    });
  const tokens = encode(clean);
  const other = encode(corrupted);
  if (tokens.length !== other.length) {
    fail(`both prompts must have the same number of tokens: ${tokens.length} and ${other.length}`);
  }
  if (tokens.every((token, n) => token === other[n])) {
    fail("clean and corrupted are the same prompt, so that nothing can be told by exchanging them");
  }
  const [right, against] = [tokensOf(answers), tokensOf(wrong)];
  const both = right.findIndex((token) => against.includes(token));
  if (both >= 0) fail(`an answer cannot be right and wrong: ${JSON.stringify(answers[both])} is both`);
  return {
    clean: tokens,
    corrupted: other,
    places: [{ position: tokens.length - 1, right, wrong: against }],
    template,
  };
}
