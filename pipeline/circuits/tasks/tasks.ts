/**
 * The tasks that circuits are looked for with, by name.
 *
 * @module
 */
import { addition } from "./addition.ts";
import { copy } from "./copy.ts";
import { docstring } from "./docstring.ts";
import { greaterThan } from "./greater_than.ts";
import { withStartToken } from "../prompts.ts";
import { ioi } from "./ioi.ts";
import type { Task } from "./task.ts";

/** A task whose prompts begin with the token that a model was trained with before every text, where there is one. */
function startingTexts(task: Task): Task {
  return {
    ...task,
    generate(options) {
      const { startOfText } = options.tokenizer;
      if (startOfText === undefined) return task.generate(options);
      const contextLength = options.contextLength - 1;
      return withStartToken(task.generate({ ...options, contextLength }), startOfText);
    },
  };
}

/**
 * Every task: copy, ioi, greater-than, docstring and addition. Prompts begin with the tokenizer's `startOfText`, where it
 * has one.
 *
 * @example Pairs of a prompt and its corruption for a model's tokenizer
 * ```ts
 * import assert from "node:assert/strict";
 * import { loadTokenizer, randomStream, TASKS } from "../../../mod.ts";
 *
 * const tokenizer = await loadTokenizer("data/addition");
 * const { pairs } = TASKS.addition.generate({
 *   tokenizer,
 *   contextLength: 8,
 *   prompts: 4,
 *   random: randomStream(1),
 * });
 * const [{ clean, places }] = pairs;
 * assert(/^\d\d\+\d\d=\d\d$/.test(tokenizer.decode(clean))); // of the answer all but the last digit is read
 * assert(places.length === 3 && places[0].right.length === 1);
 * ```
 */
export const TASKS: Readonly<Record<string, Task>> = {
  copy: startingTexts(copy),
  ioi: startingTexts(ioi),
  "greater-than": startingTexts(greaterThan),
  docstring: startingTexts(docstring),
  addition: startingTexts(addition),
};
