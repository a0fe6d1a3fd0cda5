/**
 * Whether what an engine is asked for is of the names and types that there are: who does not have types checked learns
 * what was expected, and no name is taken for another.
 *
 * @module
 */
import {
  check,
  checkGiven,
  checkKeys,
  checkName,
  isListOf,
  isObject,
  type Kind,
  KINDS,
} from "../option_checks.ts";

const DOING = "find circuits";
const OPTIONS = ["set", "ablation", "maxBytes", "exchange"];
const ABLATIONS = ["resample", "mean", "zero"];
const METRICS = ["logit_difference", "probability_difference"];
const DIRECTIONS = ["noising", "denoising"];
const SET: Kind = [
  "a set of pairs, as a task generates it or promptPairs and readPairs give it",
  (value) => isObject(value) && Array.isArray(value.pairs),
];
const METHOD: Kind = ['{ name: "eap" } or { name: "eap-ig", steps }', isObject];
const MASK: Kind = ["a Uint8Array of 0 and 1", (value) => value instanceof Uint8Array];

/** What each method of attribution has. */
const OF_METHODS: Readonly<Record<string, readonly string[]>> = {
  "eap": ["name"],
  "eap-ig": ["name", "steps"],
};

/**
 * Checks what an engine is to be made for, but for the pairs.
 *
 * @throws {UserError} naming the part that is of another name or type, what it must be and what it is
 */
export function checkEngineOptions(options: unknown): void {
  checkKeys("the options of an engine", options, OPTIONS, DOING);
  const { set, ablation, maxBytes } = options;
  check("`set`", set, SET, DOING);
  checkName("the set's metric", (set as Record<string, unknown>).metric, METRICS, DOING);
  if (ablation !== undefined) checkAblation(ablation);
  checkGiven("`maxBytes`", maxBytes, KINDS.number, DOING);
}

/**
 * Checks the name of an ablation.
 *
 * @throws {UserError} naming those that there are
 */
export function checkAblation(ablation: unknown): void {
  checkName("the ablation", ablation, ABLATIONS, DOING);
}

/**
 * Checks the name of a direction in which nodes are patched.
 *
 * @throws {UserError} naming those that there are
 */
export function checkDirection(direction: unknown): void {
  checkName("the direction of patching", direction, DIRECTIONS, DOING);
}

/**
 * Checks how edges are to be estimated.
 *
 * @throws {UserError} on another method's name or fields
 * @throws {RangeError} on a number of steps that there is not
 */
export function checkMethod(method: unknown): void {
  check("a method of attribution", method, METHOD, DOING);
  const { name, steps } = method as Record<string, unknown>;
  checkName("the method of attribution", name, Object.keys(OF_METHODS), DOING);
  checkKeys(`the method ${name}`, method, OF_METHODS[name as string], DOING);
  if (name === "eap-ig" && !(Number.isInteger(steps) && (steps as number) >= 1)) {
    throw new RangeError(`Cannot attribute as the number of steps must be a positive integer: ${steps}`);
  }
}

/**
 * Checks which edges are kept, and copies them: what is changed behind a call does not change what it runs.
 *
 * @param edges that the graph has
 * @throws {UserError} when it is no Uint8Array
 * @throws {RangeError} when it is not one number of 0 or 1 for each edge
 */
export function keptEdges(kept: unknown, edges: number): Uint8Array {
  check("what is kept of the edges", kept, MASK, DOING);
  const mask = kept as Uint8Array;
  if (mask.length !== edges) {
    throw new RangeError(`Cannot run a circuit as the graph has ${edges} edges: ${mask.length}`);
  }
  const at = mask.findIndex((one) => one > 1);
  if (at >= 0) {
    throw new RangeError(
      `Cannot run a circuit as an edge is kept by 1 and left out by 0: edge ${at} has ${mask[at]}`,
    );
  }
  return mask.slice();
}

/**
 * Checks which circuits are to be run, as {@link keptEdges}.
 *
 * @throws {UserError} when it is no list
 */
export function keptEdgesOfEach(circuits: unknown, edges: number): Uint8Array[] {
  check("`circuits`", circuits, ["an array of Uint8Arrays", Array.isArray], DOING);
  return (circuits as unknown[]).map((kept) => keptEdges(kept, edges));
}

/**
 * Checks numbers of edges, and copies them.
 *
 * @param edges that the graph has
 * @throws {UserError} when it is no list
 * @throws {RangeError} on an edge that there is not
 */
export function edgeNumbers(numbers: unknown, edges: number): number[] {
  check(
    "`edges`",
    numbers,
    ["an array of their numbers", isListOf((value) => typeof value === "number")],
    DOING,
  );
  const all = Array.from(numbers as number[]);
  const outside = all.find((edge) => !(Number.isInteger(edge) && edge >= 0 && edge < edges));
  if (outside !== undefined) throw new RangeError(`Cannot patch edge ${outside} as the graph has ${edges}`);
  return all;
}
