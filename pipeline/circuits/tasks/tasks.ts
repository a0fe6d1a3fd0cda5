/**
 * The tasks that circuits are looked for with, by name.
 *
 * @module
 */
import { addition } from "./addition.ts";
import { copy } from "./copy.ts";
import { docstring } from "./docstring.ts";
import { greaterThan } from "./greater_than.ts";
import { ioi } from "./ioi.ts";
import type { Task } from "./task.ts";

/**
 * Every task: copy, ioi, greater-than, docstring and addition.
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
  copy,
  ioi,
  "greater-than": greaterThan,
  docstring,
  addition,
};
