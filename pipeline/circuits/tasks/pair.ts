/**
 * A pair of prompts as a user writes it, in a line of a file or by flags.
 *
 * @module
 */
import { shown } from "../../files.ts";
import { oneToken } from "../../text/one_token.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import type { PromptPair } from "../prompts.ts";

/** What is looked at of it. */
export interface WrittenPair {
  /** The prompt. */
  clean?: unknown;
  /** Its corruption, of as many tokens. */
  corrupted?: unknown;
  /** Texts of one token each that are right behind the prompt. */
  answers?: unknown;
  /** Texts that are wrong there. */
  wrong?: unknown;
  /** What the pair is counted with; `pairs` when left out. */
  template?: unknown;
}

/** Tokens of a prompt that a message shows. */
const MOST_PIECES = 8;

const isText = (value: unknown): value is string => typeof value === "string" && value.length > 0;
const areTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.length > 0 && value.every(isText);

/**
 * The pair in a model's tokens.
 *
 * @param fail throws that the pair cannot be used, told what it must be
 */
export function parsePair(
  { clean, corrupted, answers, wrong, template = "pairs" }: WrittenPair,
  tokenizer: Pick<Tokenizer, "encodeKnown" | "spell">,
  fail: (required: string) => never,
): PromptPair {
  if (!isText(clean) || !isText(corrupted)) return fail("clean and corrupted must be text");
  if (!areTexts(answers) || !areTexts(wrong)) return fail("answers and wrong must be lists of text");
  if (!isText(template)) return fail("template must be text");
  const failLost = (lost: string | undefined) => fail(`the tokenizer has no token for ${shown(lost)}`);
  const encode = (text: string): number[] => {
    const { tokens, lost, firstLost } = tokenizer.encodeKnown(text);
    return lost > 0 ? failLost(firstLost) : tokens;
  };
  const tokensOf = (words: string[]): number[] =>
    words.map((word) => {
      const found = oneToken(word, tokenizer);
      if ("lost" in found) return failLost(found.lost);
      return "token" in found
        ? found.token
        : fail(`an answer must be one token: ${JSON.stringify(word)} is ${found.tokens}`);
    });
  const tokens = encode(clean);
  const other = encode(corrupted);
  if (tokens.length !== other.length) {
    const said = parted(tokens, other).map((part) => {
      const pieces = part.slice(0, MOST_PIECES).map((token) => JSON.stringify(tokenizer.spell(token)));
      if (part.length > MOST_PIECES) pieces.push(`${part.length - MOST_PIECES} more`);
      return pieces.join(", ") || "nothing";
    });
    fail(
      `both prompts must have the same number of tokens: ${tokens.length} and ${other.length}, ` +
        `with ${said.join(" beside ")}`,
    );
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

/** What of two lists is between the beginning and the end that they share. */
function parted(one: readonly number[], other: readonly number[]): readonly number[][] {
  const least = Math.min(one.length, other.length);
  let first = 0;
  while (first < least && one[first] === other[first]) first++;
  let last = 0;
  while (last < least - first && one.at(-1 - last) === other.at(-1 - last)) last++;
  return [one, other].map((list) => list.slice(first, list.length - last));
}
