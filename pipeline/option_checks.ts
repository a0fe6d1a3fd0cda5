/**
 * Whether options are of the types that they must be: who does not have types checked learns what was expected, and not
 * what broke on the way.
 *
 * @module
 */
import { usageError } from "./errors.ts";
import { nearest } from "./nearest.ts";

/** What something must be, and whether it is that. */
export type Kind = readonly [required: string, is: (value: unknown) => boolean];

/** What cannot be done with options that are refused, as in "Cannot run a model as …". */
export type Doing = "run a model" | "load a model" | "continue a text" | "read attention" | "find circuits";

const isList = (value: unknown): value is readonly unknown[] =>
  Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));
const isText = (value: unknown): boolean => typeof value === "string";
const isTokens = isListOf((value) => typeof value === "number");
const isPrompt = (value: unknown): boolean => isText(value) || isTokens(value);

/** Whether something is an object, and no array. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !isList(value);
}

/** Whether something is an array of such. */
export function isListOf(is: (value: unknown) => boolean): (value: unknown) => boolean {
  return (value) => isList(value) && Array.from(value).every(is);
}

/** What options may have to be. */
export const KINDS = {
  object: ["an object", isObject],
  array: ["an array", isList],
  flag: ["true or false", (value) => typeof value === "boolean"],
  function: ["a function", (value) => typeof value === "function"],
  text: ["a text", isText],
  number: ["a number", (value) => typeof value === "number"],
  index: ["a whole number", Number.isInteger],
  values: ["a Float32Array", (value) => value instanceof Float32Array],
  name: ["an activation's name", isText],
  names: ["an array of activations' names", isListOf(isText)],
  prompt: ["a text or an array of tokens", isPrompt],
  prompts: [
    "a text, an array of tokens, or an array of such",
    (value) => isPrompt(value) || isListOf(isPrompt)(value),
  ],
  severalPrompts: ["an array of texts or of arrays of tokens", isListOf(isPrompt)],
  token: ["a text or a token", (value) => isText(value) || typeof value === "number"],
  positions: ["an array of positions", isTokens],
  rows: ["an array of places in the batch", isTokens],
} as const satisfies Record<string, Kind>;

/** What is patched by, and how much of it: each name that {@link checkPatch} knows. */
const OF_PATCH = ["activation", "rows", "head", "positions", "keys", "by"];
const OF_VALUES = ["values", "prompts", "meanOf"];

/**
 * Refuses what is of another type than it must be.
 *
 * @throws {UserError} naming it, what it must be and what it is
 */
export function check(
  what: string,
  value: unknown,
  [required, is]: Kind,
  doing: Doing = "run a model",
): void {
  if (!is(value)) throw usageError(`Cannot ${doing} as ${what} must be ${required}: ${shown(value)}`);
}

/**
 * As {@link check}, of what may be left out.
 *
 * @throws {UserError} as there
 */
export function checkGiven(what: string, value: unknown, kind: Kind, doing?: Doing): void {
  if (value !== undefined) check(what, value, kind, doing);
}

/**
 * Refuses what is no object, and keys that it has not: what is left out by a slip would change what is done.
 *
 * @throws {UserError} naming the key, and the nearest that there is, or all
 */
export function checkKeys(
  what: string,
  value: unknown,
  known: readonly string[],
  doing: Doing = "run a model",
): asserts value is Record<string, unknown> {
  check(what, value, KINDS.object, doing);
  const unknown = Object.keys(value as object).find((key) => !known.includes(key));
  if (unknown === undefined) return;
  const near = nearest(unknown, known);
  const meant = near === undefined ? `there are ${known.join(", ")}` : `did you mean ${near}?`;
  throw usageError(`Cannot ${doing} as ${what} must have no unknown key: ${unknown} (${meant})`);
}

/**
 * Refuses a name that there is not, which might be taken for another.
 *
 * @throws {UserError} naming it, those that there are and the nearest of them
 */
export function checkName(what: string, name: unknown, known: readonly string[], doing: Doing): void {
  if (known.some((one) => one === name)) return;
  const quoted = known.map((one) => JSON.stringify(one));
  const near = typeof name === "string" ? nearest(name, known) : undefined;
  const meant = near === undefined ? "" : ` (did you mean ${near}?)`;
  const required = `${quoted.slice(0, -1).join(", ")} or ${quoted.at(-1)}`;
  throw usageError(`Cannot ${doing} as ${what} must be ${required}: ${shown(name)}${meant}`);
}

/**
 * Checks the types of options that may each be left out, and that there is no other.
 *
 * @param kinds by name
 * @throws {UserError} as {@link check} and {@link checkKeys}
 */
export function checkOptions(
  what: string,
  options: unknown,
  kinds: Readonly<Record<string, Kind>>,
  doing?: Doing,
): asserts options is Record<string, unknown> {
  checkKeys(what, options, Object.keys(kinds), doing);
  for (const [name, kind] of Object.entries(kinds)) checkGiven(`\`${name}\``, options[name], kind, doing);
}

/**
 * Checks the types of replacements.
 *
 * @throws {UserError} as {@link check} and {@link checkKeys}
 */
export function checkPatches(patch: unknown, doing?: Doing): void {
  checkGiven("`patch`", patch, KINDS.array, doing);
  for (const [n, one] of Object.entries(patch ?? [])) checkPatch(`patch[${n}]`, one, doing);
}

function checkPatch(what: string, patch: unknown, doing?: Doing): void {
  checkKeys(what, patch, OF_PATCH, doing);
  const { activation, rows, head, positions, keys, by } = patch;
  check(`\`activation\` of ${what}`, activation, KINDS.name, doing);
  checkGiven(`\`rows\` of ${what}`, rows, KINDS.rows, doing);
  checkGiven(`\`head\` of ${what}`, head, KINDS.index, doing);
  checkGiven(`\`positions\` of ${what}`, positions, KINDS.positions, doing);
  checkGiven(`\`keys\` of ${what}`, keys, KINDS.positions, doing);
  if (by === "zero") return;
  const isOne = (value: unknown) =>
    isObject(value) && OF_VALUES.filter((name) => value[name] !== undefined).length === 1;
  check(`\`by\` of ${what}`, by, ['"zero", { values }, { prompts } or { meanOf }', isOne], doing);
  const { values, prompts, meanOf } = by as Record<string, unknown>;
  checkGiven(`\`values\` of ${what}`, values, KINDS.values, doing);
  checkGiven(`\`prompts\` of ${what}`, prompts, KINDS.prompts, doing);
  checkGiven(`\`meanOf\` of ${what}`, meanOf, KINDS.severalPrompts, doing);
}

function shown(value: unknown): string {
  if (value === undefined) return "nothing";
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "function") return "a function";
  if (typeof value !== "object" || value === null) return String(value);
  const name = value.constructor?.name ?? "Object";
  return isList(value) ? `${name} of ${value.length}` : `${name} { ${Object.keys(value).join(", ")} }`;
}
