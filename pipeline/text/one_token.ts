/**
 * A text that must be one token, such as the answer to a prompt.
 *
 * @module
 */
import type { Tokenizer } from "./tokenizer.ts";

/**
 * The token of a text as it stands behind another. Or, where it is not one, for an error: the first character that the
 * tokenizer has no token for, or the tokens that it is, as `2 ("St", "ates"), but " States" is one`.
 */
export function oneToken(
  text: string,
  { encodeKnown, spell }: Pick<Tokenizer, "encodeKnown" | "spell">,
): { token: number } | { lost: string | undefined } | { tokens: string } {
  const { tokens, lost, firstLost } = encodeKnown(text, { continued: true });
  if (lost > 0) return { lost: firstLost };
  if (tokens.length === 1) return { token: tokens[0] };
  const pieces = tokens.map((token) => JSON.stringify(spell(token))).join(", ");
  const spaced = ` ${text}`;
  const behindSpace = text === "" ? undefined : encodeKnown(spaced, { continued: true });
  const isOne = behindSpace?.lost === 0 && behindSpace.tokens.length === 1;
  return {
    tokens: `${tokens.length} (${pieces})${isOne ? `, but ${JSON.stringify(spaced)} is one` : ""}`,
  };
}
