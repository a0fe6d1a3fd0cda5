/**
 * A user's own pairs in a file: one JSON object a line, or an array of them,
 *
 *     {"clean": "…", "corrupted": "…", "answers": [" Mary"], "wrong": [" John"], "template": "…"}
 *
 * with answers of one token each, which follow the prompt. `template` may be left out. Prompts of a model that was trained
 * with a token before every text get it.
 *
 * @module
 */
import { inputError } from "../../errors.ts";
import { parseJson, readText } from "../../files.ts";
import type { PromptSet } from "../prompts.ts";
import { type FoundPair, gatherPairs, type PairsOptions } from "./prompt_pairs.ts";

/** Bytes of the largest file of pairs: a hundred thousand of a page each. */
const MAX_PAIRS_BYTES = 256 << 20;

/**
 * Reads pairs from a file of JSON Lines, or of one array of JSON.
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
 * @throws {UserError} naming the file and the line, or the element from 1: no JSON, a missing field, an answer of several tokens, prompts of
 * different or too great lengths
 */
export async function readPairs(
  path: string,
  { prompts, ...options }: PairsOptions & { prompts?: number },
): Promise<PromptSet> {
  return gatherPairs(pairsIn(await readText(path, MAX_PAIRS_BYTES), path), {
    task: path.replace(/^.*[/\\]/, "").replace(/\.jsonl?$/, ""),
    ...options,
    prompts,
    lengthName: "--pairs-length",
    fail: (required, name) => {
      throw inputError(`Cannot use ${path}${name === undefined ? "" : `, ${name},`} as ${required}`);
    },
  });
}

function* pairsIn(text: string, path: string): Generator<FoundPair> {
  if (!/\.(jsonl|ndjson)$/i.test(path) && text.trimStart().startsWith("[")) {
    const values = parseJson(text, path) as unknown[];
    for (const [n, value] of values.entries()) yield { name: `element ${n + 1}`, value: () => value };
    return;
  }
  for (const [n, line] of text.split("\n").entries()) {
    if (line.trim() !== "") yield { name: `line ${n + 1}`, value: () => valueOf(line) };
  }
}

function valueOf(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
