/**
 * Whether what a model is loaded with, and is to run, is of the types that it must be.
 *
 * @module
 */
import {
  check,
  checkGiven,
  checkKeys,
  checkOptions,
  checkPatches,
  isListOf,
  isObject,
  type Kind,
  KINDS,
} from "./option_checks.ts";

const WEIGHT: Kind = [
  "a number from 0 to 1",
  (value) => typeof value === "number" && value >= 0 && value <= 1,
];
const OPTIONS = ["read", "patch", "hooks", "at"];
const OF_PATCHES = ["from", "activations", "each", "answer", "wrong", "at"];

/** What a model is loaded with; a device is what {@link Gpu.open} gives, of this release or another. */
const OF_LOADING = {
  gpu: ["an open device", isObject],
  adapter: KINDS.text,
  tokenizer: KINDS.text,
  adapterFolder: KINDS.text,
  dense: KINDS.flag,
  batch: KINDS.index,
  context: KINDS.index,
} as const;

/**
 * Checks the types of what a model is loaded with.
 *
 * @throws {UserError} naming the part that is of another, what it must be and what it is
 */
export function checkLoad(options: unknown): void {
  checkOptions("the options of loading", options, OF_LOADING, "load a model");
}

/**
 * Checks the types of what a model is to run.
 *
 * @throws {UserError} as {@link checkLoad}
 */
export function checkRun(prompts: unknown, options: unknown): void {
  check("prompts", prompts, KINDS.prompts);
  checkKeys("the options of a run", options, OPTIONS);
  const { read, patch, hooks, at } = options;
  if (read !== "all") {
    checkGiven("`read`", read, ['"all" or an array of activations\' names', KINDS.names[1]]);
  }
  checkAt(at);
  checkPatches(patch);
  checkHooks(hooks);
}

function checkAt(at: unknown): void {
  if (at !== "all") checkGiven("`at`", at, ['"all" or an array of positions', KINDS.positions[1]]);
}

function checkHooks(hooks: unknown): void {
  checkGiven("`hooks`", hooks, ["an object of functions by activations' names", isObject]);
  for (const [name, hook] of Object.entries(hooks ?? {})) check(`the hook of ${name}`, hook, KINDS.function);
}

/**
 * Checks the types of what a logit is to be taken apart by.
 *
 * @throws {UserError} as {@link checkLoad}
 */
export function checkAttribution(prompt: unknown, options: unknown): void {
  check("the prompt", prompt, KINDS.prompt);
  checkKeys("the options of an attribution", options, ["answer", "wrong", "at", "patch", "hooks"]);
  checkPatches(options.patch);
  checkHooks(options.hooks);
  check("`answer`", options.answer, KINDS.token);
  checkGiven("`wrong`", options.wrong, KINDS.token);
  checkGiven("`at`", options.at, KINDS.index);
}

/**
 * Checks the types of what is to be patched one by one.
 *
 * @throws {UserError} as {@link checkLoad}
 */
export function checkPatchEach(prompt: unknown, options: unknown): void {
  check("the prompt", prompt, KINDS.prompt);
  checkKeys("the options of patches", options, OF_PATCHES);
  const { from, activations, each, answer, wrong, at } = options;
  check("`from`", from, KINDS.prompt);
  check("`activations`", activations, KINDS.names);
  checkGiven("`each`", each, [
    'an array of "head" and "position"',
    isListOf((value) => value === "head" || value === "position"),
  ]);
  check("`answer`", answer, KINDS.token);
  checkGiven("`wrong`", wrong, KINDS.token);
  checkGiven("`at`", at, KINDS.index);
}

/**
 * Checks the types of which open edges are to be listed.
 *
 * @throws {UserError} as {@link checkRun}
 */
export function checkOpenEdges(prompt: unknown, options: unknown): void {
  check("the prompt", prompt, KINDS.prompt);
  checkOptions("the options of open edges", options, { answers: KINDS.positions, leastWeight: WEIGHT });
}

/**
 * Checks the types of what a logit lens is to show.
 *
 * @throws {UserError} as {@link checkLoad}
 */
export function checkLens(prompt: unknown, options: unknown): void {
  check("the prompt", prompt, KINDS.prompt);
  checkKeys("the options of a lens", options, ["top", "at", "patch", "hooks"]);
  checkPatches(options.patch);
  checkHooks(options.hooks);
  checkGiven("`top`", options.top, KINDS.index);
  checkAt(options.at);
}

/**
 * Checks what a hook gave back.
 *
 * @throws {UserError} when it is neither values nor nothing
 */
export function checkGivenBack(activation: string, values: unknown): void {
  checkGiven(`what the hook of ${activation} gives back`, values, KINDS.values);
}
