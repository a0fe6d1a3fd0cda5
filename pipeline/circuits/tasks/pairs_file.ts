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
import { readText } from "../../files.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { type PromptPair, type PromptSet, withStartToken } from "../prompts.ts";
import { parsePair, type WrittenPair } from "./pair.ts";

/** Bytes of the largest file of pairs: a hundred thousand of a page each. */
const MAX_PAIRS_BYTES = 256 << 20;

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
 * @param prompts how many to take at most, from the beginning; all when left out. What is behind them is counted alone
 * @throws {UserError} naming the file and the line: no JSON, a missing field, an answer of several tokens, prompts of
 * different or too great lengths
 */
export async function readPairs(
  path: string,
  { tokenizer, contextLength, prompts }: { tokenizer: Tokenizer; contextLength: number; prompts?: number },
): Promise<PromptSet> {
  const text = await readText(path, MAX_PAIRS_BYTES);
  const { startOfText } = tokenizer;
  const started = startOfText === undefined ? 0 : 1;
  const pairs: PromptPair[] = [];
  let leftOut = 0;
  /** The line that each pair of prompts stands on. */
  const seen = new Map<string, number>();
  for (const [n, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    if (pairs.length === prompts) {
      leftOut++;
      continue;
    }
    const fail = (required: string): never => {
      throw inputError(`Cannot use ${path}, line ${n + 1}, as ${required}`);
    };
    let json: WrittenPair | null = null;
    try {
      json = JSON.parse(line);
    } catch { /* told below */ }
    if (typeof json !== "object" || json === null) return fail("it must be a JSON object");
    const pair = parsePair(json, tokenizer, fail);
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
  if (pairs.length > 1 && new Set(pairs.map(({ clean }) => clean.join())).size < 2) {
    throw inputError(
      `Cannot use ${path} as all pairs have one clean prompt, and a circuit chosen on one is scored on another`,
    );
  }
  const task = path.replace(/^.*[/\\]/, "").replace(/\.jsonl$/, "");
  const set: PromptSet = { task, metric: "logit_difference", pairs, leftOut };
  return startOfText === undefined ? set : withStartToken(set, startOfText);
}
