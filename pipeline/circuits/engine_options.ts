/**
 * Whether what an engine is asked for is of the names and types that there are: who does not have types checked learns
 * what was expected, and no name is taken for another.
 *
 * @module
 */
import { usageError } from "../errors.ts";
import { nearest } from "../nearest.ts";

const OPTIONS = ["set", "ablation", "maxBytes", "exchange"];
const ABLATIONS = ["resample", "mean", "zero"];
const METRICS = ["logit_difference", "probability_difference"];
const DIRECTIONS = ["noising", "denoising"];
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
  checkKeys("the options of an engine", options, OPTIONS);
  const { set, ablation, maxBytes } = options as Record<string, unknown>;
  if (!isObject(set) || !Array.isArray(set.pairs)) {
    throw refusal("`set` must be a set of pairs, as a task generates it or readPairs gives it", shown(set));
  }
  checkName("the set's metric", set.metric, METRICS);
  if (ablation !== undefined) checkAblation(ablation);
  if (maxBytes !== undefined && !(typeof maxBytes === "number" && maxBytes > 0)) {
    throw refusal("`maxBytes` must be a number above 0", shown(maxBytes));
  }
}

/**
 * Checks the name of an ablation.
 *
 * @throws {UserError} naming those that there are
 */
export function checkAblation(ablation: unknown): void {
  checkName("the ablation", ablation, ABLATIONS);
}

/**
 * Checks the name of a direction in which nodes are patched.
 *
 * @throws {UserError} naming those that there are
 */
export function checkDirection(direction: unknown): void {
  checkName("the direction of patching", direction, DIRECTIONS);
}

/**
 * Checks how edges are to be estimated.
 *
 * @throws {UserError} on another method's name or fields
 * @throws {RangeError} on a number of steps that there is not
 */
export function checkMethod(method: unknown): void {
  if (!isObject(method)) {
    throw refusal(
      'a method of attribution must be { name: "eap" } or { name: "eap-ig", steps }',
      shown(method),
    );
  }
  const { name, steps } = method;
  checkName("the method of attribution", name, Object.keys(OF_METHODS));
  checkKeys(`the method ${name}`, method, OF_METHODS[name as string]);
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
  if (!(kept instanceof Uint8Array)) {
    throw refusal("the edges that are kept must be a Uint8Array of 0 and 1", shown(kept));
  }
  if (kept.length !== edges) {
    throw new RangeError(`Cannot run a circuit as the graph has ${edges} edges: ${kept.length}`);
  }
  const at = kept.findIndex((one) => one > 1);
  if (at >= 0) {
    throw new RangeError(
      `Cannot run a circuit as an edge is kept by 1 and left out by 0: edge ${at} has ${kept[at]}`,
    );
  }
  return kept.slice();
}

/**
 * Checks which circuits are to be run, as {@link keptEdges}.
 *
 * @throws {UserError} when it is no list
 */
export function keptEdgesOfEach(circuits: unknown, edges: number): Uint8Array[] {
  if (!Array.isArray(circuits)) throw refusal("circuits must be an array of Uint8Arrays", shown(circuits));
  return circuits.map((kept: unknown) => keptEdges(kept, edges));
}

/**
 * Checks numbers of edges, and copies them.
 *
 * @param edges that the graph has
 * @throws {UserError} when it is no list
 * @throws {RangeError} on an edge that there is not
 */
export function edgeNumbers(numbers: unknown, edges: number): number[] {
  if (!Array.isArray(numbers)) throw refusal("edges must be an array of their numbers", shown(numbers));
  const outside = numbers.find((edge) => !(Number.isInteger(edge) && edge >= 0 && edge < edges));
  if (outside !== undefined) throw new RangeError(`Cannot patch edge ${outside} as the graph has ${edges}`);
  return [...numbers];
}

function checkName(what: string, name: unknown, known: readonly string[]): void {
  if (typeof name === "string" && known.includes(name)) return;
  const quoted = known.map((one) => JSON.stringify(one));
  const near = typeof name === "string" ? nearest(name, known) : undefined;
  throw refusal(
    `${what} must be ${quoted.slice(0, -1).join(", ")} or ${quoted.at(-1)}`,
    shown(name) + (near === undefined ? "" : ` (did you mean ${near}?)`),
  );
}

function checkKeys(what: string, value: unknown, known: readonly string[]): void {
  if (!isObject(value)) throw refusal(`${what} must be an object`, shown(value));
  const unknown = Object.keys(value).find((key) => !known.includes(key));
  if (unknown === undefined) return;
  const near = nearest(unknown, known);
  const meant = near === undefined ? `there are ${known.join(", ")}` : `did you mean ${near}?`;
  throw refusal(`${what} must have no unknown key`, `${unknown} (${meant})`);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function refusal(required: string, found: string): Error {
  return usageError(`Cannot find circuits as ${required}: ${found}`);
}

function shown(value: unknown): string {
  if (value === undefined) return "nothing";
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value !== "object" || value === null) return String(value);
  const name = value.constructor?.name ?? "Object";
  return Array.isArray(value) || ArrayBuffer.isView(value)
    ? `${name} of ${"length" in value ? value.length : value.byteLength}`
    : name;
}
