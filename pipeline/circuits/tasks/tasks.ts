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

/** Every task. */
export const TASKS: Readonly<Record<string, Task>> = {
  copy,
  ioi,
  "greater-than": greaterThan,
  docstring,
  addition,
};
