/**
 * Copying a random sequence that came before (induction; Olsson et al., arXiv 2209.11895): … A B … A is followed by B.
 *
 * @module
 */
import { inputError } from "../../errors.ts";
import type { RandomStream } from "../../../kernels/core/random.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { sample, type Task, type TaskOptions } from "./task.ts";

/** Tokens of the sequence that stands twice. */
const LENGTH = 16;

/** Tokens that are a lower-case word with the space before it: any sequence of them is as likely as another. */
function words(tokenizer: Tokenizer): number[] {
  const tokens: number[] = [];
  for (let token = 0; token < tokenizer.vocabularySize; token++) {
    if (token !== tokenizer.endOfText && /^ [a-z]{2,}$/.test(tokenizer.spell(token))) tokens.push(token);
  }
  return tokens;
}

/** The same tokens in an order in which none is followed by the one that followed it before. */
function reordered(random: RandomStream, sequence: readonly number[]): number[] {
  const next = new Map(sequence.map((token, n) => [token, sequence[n + 1]]));
  for (;;) {
    const order = sample(random, sequence, sequence.length);
    // The last one's successor is the first of the second half.
    if (order.every((token, n) => next.get(token) !== (order[n + 1] ?? sequence[0]))) return order;
  }
}

/** The task. */
export const copy: Task = {
  name: "copy",
  purpose:
    "a random sequence of words stands twice: each word of the second is followed by the one that followed it in the " +
    "first; corrupted by another order of the first",
  generate({ tokenizer, contextLength, prompts, random }: TaskOptions) {
    const vocabulary = words(tokenizer);
    const length = Math.min(LENGTH, Math.floor(contextLength / 2));
    if (vocabulary.length < 2 * length || length < 4) {
      throw inputError(
        `Cannot make prompts of copy as ${
          2 * LENGTH
        } words of one token and a context of at least 8 are needed: ` +
          `${vocabulary.length} words and a context of ${contextLength}`,
      );
    }
    const pairs = Array.from({ length: prompts }, () => {
      const sequence = sample(random, vocabulary, length);
      const other = reordered(random, sequence);
      const places = sequence.slice(0, -1).map((token, n) => {
        const at = other.indexOf(token);
        return { position: length + n, right: [sequence[n + 1]], wrong: [other[at + 1] ?? sequence[0]] };
      });
      return {
        clean: [...sequence, ...sequence],
        corrupted: [...other, ...sequence],
        places,
        template: "words",
      };
    });
    return { task: "copy", metric: "logit_difference" as const, pairs };
  },
};
