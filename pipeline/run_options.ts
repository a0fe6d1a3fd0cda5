/**
 * Whether what a model is to run is of the types that it must be: who does not have types checked learns what was
 * expected, and not what broke on the way.
 *
 * @module
 */
import { usageError } from "./errors.ts";
import { nearest } from "./nearest.ts";

const OPTIONS = ["read", "patch", "hooks", "at"];
const OF_PATCH = ["activation", "rows", "head", "positions", "keys", "by"];
const OF_PATCHES = ["from", "activations", "each", "answer", "wrong", "at"];
const OF_VALUES = ["values", "prompts", "meanOf"];

/** What something must be, and whether it is that. */
type Kind = readonly [required: string, is: (value: unknown) => boolean];

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !isList(value);
const isList = (value: unknown): value is readonly unknown[] =>
  Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));
const isListOf = (is: (value: unknown) => boolean) => (value: unknown): boolean =>
  isList(value) && Array.from(value).every(is);
const isText = (value: unknown): boolean => typeof value === "string";
const isTokens = isListOf((value) => typeof value === "number");
const isPrompt = (value: unknown): boolean => isText(value) || isTokens(value);

const NAME: Kind = ["an activation's name", isText];
const PROMPT: Kind = ["a text or an array of tokens", isPrompt];
const TOKEN: Kind = ["a text or a token", (value) => isText(value) || typeof value === "number"];
const INDEX: Kind = ["a whole number", Number.isInteger];
const POSITIONS: Kind = ["an array of positions", isTokens];
const ROWS: Kind = ["an array of places in the batch", isTokens];
const PROMPTS: Kind = [
  "a text, an array of tokens, or an array of such",
  (value) => isPrompt(value) || isListOf(isPrompt)(value),
];
const SEVERAL_PROMPTS: Kind = ["an array of texts or of arrays of tokens", isListOf(isPrompt)];
const VALUES: Kind = ["a Float32Array", (value) => value instanceof Float32Array];
const ARRAY: Kind = ["an array", isList];

/**
 * Checks the types of what a model is to run.
 *
 * @throws {UserError} naming the part that is of another, what it must be and what it is
 */
export function checkRun(prompts: unknown, options: unknown): void {
  check("prompts", prompts, PROMPTS);
  if (!checkKeys("the options of a run", options, OPTIONS)) return;
  const { read, patch, hooks, at } = options;
  if (read !== "all") {
    checkGiven("`read`", read, ['"all" or an array of activations\' names', isListOf(isText)]);
  }
  if (at !== "all") checkGiven("`at`", at, ['"all" or an array of positions', isTokens]);
  checkGiven("`patch`", patch, ARRAY);
  for (const [n, one] of Object.entries(patch ?? [])) checkPatch(`patch[${n}]`, one);
  checkGiven("`hooks`", hooks, ["an object of functions by activations' names", isObject]);
  for (const [name, hook] of Object.entries(hooks ?? {})) {
    check(`the hook of ${name}`, hook, ["a function", (value) => typeof value === "function"]);
  }
}

/**
 * Checks the types of what a logit is to be taken apart by.
 *
 * @throws {UserError} as {@link checkRun}
 */
export function checkAttribution(prompt: unknown, options: unknown): void {
  check("the prompt", prompt, PROMPT);
  if (!checkKeys("the options of an attribution", options, ["answer", "wrong", "at"])) return;
  check("`answer`", options.answer, TOKEN);
  checkGiven("`wrong`", options.wrong, TOKEN);
  checkGiven("`at`", options.at, INDEX);
}

/**
 * Checks the types of what is to be patched one by one.
 *
 * @throws {UserError} as {@link checkRun}
 */
export function checkPatches(prompt: unknown, options: unknown): void {
  check("the prompt", prompt, PROMPT);
  if (!checkKeys("the options of patches", options, OF_PATCHES)) return;
  const { from, activations, each, answer, wrong, at } = options;
  check("`from`", from, PROMPT);
  check("`activations`", activations, ["an array of activations' names", isListOf(isText)]);
  checkGiven("`each`", each, [
    'an array of "head" and "position"',
    isListOf((value) => value === "head" || value === "position"),
  ]);
  check("`answer`", answer, TOKEN);
  checkGiven("`wrong`", wrong, TOKEN);
  checkGiven("`at`", at, INDEX);
}

/**
 * Checks the types of what a logit lens is to show.
 *
 * @throws {UserError} as {@link checkRun}
 */
export function checkLens(prompt: unknown, options: unknown): void {
  check("the prompt", prompt, PROMPT);
  if (!checkKeys("the options of a lens", options, ["top", "at"])) return;
  checkGiven("`top`", options.top, INDEX);
  if (options.at !== "all") checkGiven("`at`", options.at, ['"all" or an array of positions', isTokens]);
}

/**
 * Checks what a hook gave back.
 *
 * @throws {UserError} when it is neither values nor nothing
 */
export function checkGivenBack(activation: string, values: unknown): void {
  checkGiven(`what the hook of ${activation} gives back`, values, VALUES);
}

function checkPatch(what: string, patch: unknown): void {
  if (!checkKeys(what, patch, OF_PATCH)) return;
  const { activation, rows, head, positions, keys, by } = patch;
  check(`\`activation\` of ${what}`, activation, NAME);
  checkGiven(`\`rows\` of ${what}`, rows, ROWS);
  checkGiven(`\`head\` of ${what}`, head, INDEX);
  checkGiven(`\`positions\` of ${what}`, positions, POSITIONS);
  checkGiven(`\`keys\` of ${what}`, keys, POSITIONS);
  if (by === "zero") return;
  check(`\`by\` of ${what}`, by, [
    '"zero", { values }, { prompts } or { meanOf }',
    (value) => isObject(value) && OF_VALUES.filter((name) => value[name] !== undefined).length === 1,
  ]);
  const { values, prompts, meanOf } = by as Record<string, unknown>;
  checkGiven(`\`values\` of ${what}`, values, VALUES);
  checkGiven(`\`prompts\` of ${what}`, prompts, PROMPTS);
  checkGiven(`\`meanOf\` of ${what}`, meanOf, SEVERAL_PROMPTS);
}

function check(what: string, value: unknown, [required, is]: Kind): void {
  if (!is(value)) throw usageError(`Cannot run a model as ${what} must be ${required}: ${shown(value)}`);
}

function checkGiven(what: string, value: unknown, kind: Kind): void {
  if (value !== undefined) check(what, value, kind);
}

/** Refuses what is no object, and keys that it has not: what is left out by a slip would change what is run. */
function checkKeys(
  what: string,
  value: unknown,
  known: readonly string[],
): value is Record<string, unknown> {
  check(what, value, ["an object", isObject]);
  const unknown = Object.keys(value as object).find((key) => !known.includes(key));
  if (unknown === undefined) return true;
  const near = nearest(unknown, known);
  const meant = near === undefined ? `there are ${known.join(", ")}` : `did you mean ${near}?`;
  throw usageError(`Cannot run a model as ${what} must have no unknown key: ${unknown} (${meant})`);
}

function shown(value: unknown): string {
  if (value === undefined) return "nothing";
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "function") return "a function";
  if (typeof value !== "object" || value === null) return String(value);
  const name = value.constructor?.name ?? "Object";
  return isList(value) ? `${name} of ${value.length}` : `${name} { ${Object.keys(value).join(", ")} }`;
}
