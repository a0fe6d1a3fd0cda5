/**
 * Text that comes token by token: a token may be a part of a character, and what it spells may depend on the tokens before
 * it, as a space that only the first of a text has not.
 *
 * @module
 */
import type { Tokenizer } from "../text/tokenizer.ts";

/** What stands where bytes are no whole character. */
const NOT_YET = "\uFFFD";
/** Tokens before a text that are looked at for how it begins. */
const BEFORE = 8;

/** Turns tokens to text as they come. */
export interface TextStream {
  /** What is known of the text with one token more: whole characters, and nothing where the token is a part of one. */
  push(token: number): string;
  /** What is left: nothing, or what a part of a character is shown as. */
  end(): string;
}

/**
 * Creates a stream of text.
 *
 * @param before tokens that the text goes on from, which are not a part of it
 */
export function createTextStream(
  { decode }: Pick<Tokenizer, "decode">,
  before: readonly number[],
): TextStream {
  /** The last tokens whose text is told, and those whose is not. */
  let told = before.slice(-BEFORE);
  let open: number[] = [];
  const next = (): string => decode([...told, ...open]).slice(decode(told).length);
  function tell(text: string): string {
    if (open.length > 0) told = open;
    open = [];
    return text;
  }
  return {
    push(token) {
      open.push(token);
      const text = next();
      return text === "" || text.endsWith(NOT_YET) ? "" : tell(text);
    },
    end: () => tell(open.length > 0 ? next() : ""),
  };
}
