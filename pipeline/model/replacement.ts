/**
 * What stands in for activations, and which elements of a tensor that is.
 *
 * @module
 */
import { elementsOf, type Tensor } from "../../kernels/core/tensor.ts";
import { isScale, isSquare, type Location } from "./activation_names.ts";

/** Tokens of some prompts. */
export type Prompts = readonly (readonly number[])[];

/** A prompt: text, or its tokens. */
export type Prompt = string | readonly number[];

/** What stands in for an activation. */
export type ReplacementValue =
  | "zero"
  /** In the activation's own shape, whatever part of it is replaced. */
  | { values: Float32Array }
  /** The same activation of other prompts, one for each of the batch and of as many tokens. */
  | { prompts: Prompts }
  /** Its mean over any number of prompts, at each position over those that reach it. */
  | { meanOf: Prompts };

/** One activation, or a part of it, and what replaces it. */
export interface Replacement {
  /** A name of {@link Interventions.names}. */
  activation: string;
  /** Only of these prompts, by their places in the batch; of all, where left out. */
  rows?: readonly number[];
  /** Only of this head; of all, where left out. */
  head?: number;
  /**
   * Only at these positions, for patterns and gates those of the query; at all, where left out. Below 0 they are counted
   * from each prompt's own end, −1 being its last, here and in `keys`.
   */
  positions?: readonly number[];
  /** Of patterns and gates, only at these keys. */
  keys?: readonly number[];
  /** What replaces it. */
  by: ReplacementValue;
}

/** What stands in for an activation, as {@link ReplacementValue}, with prompts as text or tokens. */
export type Patch = Omit<Replacement, "by"> & {
  /**
   * - `"zero"`
   * - `values`, in the activation's own shape, whatever part of it is replaced
   * - `prompts`: the same activation of other prompts, one for each that is run and of as many tokens
   * - `meanOf`: its mean over any number of prompts, at each position over those that reach it
   */
  by: "zero" | { values: Float32Array } | { prompts: Prompt | readonly Prompt[] } | {
    meanOf: readonly Prompt[];
  };
};

/** Elements that lie together, and are replaced. */
export interface ReplacedPart {
  /** Position in its prompt, of squares that of the query. */
  position: number;
  /** First element in the tensor. */
  at: number;
  /** First element in values of the activation's own shape. */
  from: number;
  length: number;
}

/** One prompt as a list of prompts. */
export function promptList(prompts: Prompt | readonly Prompt[]): readonly Prompt[] {
  if (typeof prompts === "string") return [prompts];
  return prompts.every((part) => typeof part === "number") ? [prompts as number[]] : prompts as Prompt[];
}

/**
 * Refuses what can be read and not replaced.
 *
 * @throws {RangeError} on such a name
 */
export function assertReplaceable(name: string): void {
  if (isScale(name)) {
    throw new RangeError(`Cannot replace ${name} as it can only be read: replace what the norm gives`);
  }
}

/**
 * Refuses two names of one place, such as a block's `hook_resid_post` and the `hook_resid_pre` of the next.
 *
 * @param places where activations lie, by name
 * @throws {RangeError} when two of those that are replaced are of one
 */
export function assertNoTwins(names: readonly string[], places: ReadonlyMap<string, string>): void {
  for (const name of names) {
    const twin = names.find((other) => other !== name && places.get(other) === places.get(name));
    if (twin === undefined) continue;
    throw new RangeError(
      `Cannot replace both ${name} and ${twin} as they are one activation: name one of them`,
    );
  }
}

/** Positions counted from the start, of such that below 0 are counted from the end; `fail` is told one that there is not. */
export function fromStart(
  chosen: readonly number[],
  positions: number,
  fail: (position: number) => never,
): number[] {
  return chosen.map((position) => {
    const found = position < 0 ? positions + position : position;
    return Number.isInteger(found) && found >= 0 && found < positions ? found : fail(position);
  });
}

/** A run of elements of a tensor, for copies, which may start where bindings may not. */
export function span(tensor: Tensor, start: number, length: number): Tensor {
  return { ...tensor, shape: [length], length, byteLength: 4 * length, offset: tensor.offset + 4 * start };
}

/**
 * Which elements a replacement is of. Behind a prompt's end there are none.
 *
 * @param lengths tokens of each prompt that is run, from whose end positions below 0 are counted
 * @throws {RangeError} on what can only be read, and on a head, a position, keys or a prompt that the activation has not
 */
export function replacedParts(
  { activation, rows, head, positions, keys }: Omit<Replacement, "by">,
  { shape, runs, length, start, placeOf }: Location,
  lengths: readonly number[],
): ReplacedPart[] {
  assertReplaceable(activation);
  const isMap = isSquare(activation);
  const fail = (what: string, required: string, found: unknown): never => {
    throw new RangeError(`Cannot replace ${what} of ${activation} as ${required}: ${found}`);
  };
  const heads = isMap ? shape[1] : shape[2];
  if (head !== undefined && (runs.length < 3 || !(head >= 0 && head < heads))) {
    fail("a head", runs.length < 3 ? "it has none" : `it has ${heads}`, head);
  }
  if (keys && !isMap) fail("keys", "it has none", keys);
  const absent = rows?.find((row) => !(Number.isInteger(row) && row >= 0 && row < lengths.length));
  if (absent !== undefined) fail("a prompt", `there are ${lengths.length}`, absent);
  const isOneLength = lengths.every((other) => other === lengths[0]);
  const parts: ReplacedPart[] = [];
  const ofPrompt = elementsOf(runs.slice(1));
  for (const [row, tokens] of lengths.entries()) {
    if (rows && !rows.includes(row)) continue;
    const outside = (position: number) =>
      fail("a position", isOneLength ? `it has ${tokens}` : `prompt ${row} has ${tokens}`, position);
    const [chosen, ofKeys] = [positions, keys].map((list) => list && fromStart(list, tokens, outside));
    for (let run = row * ofPrompt; run < (row + 1) * ofPrompt; run++) {
      const { position, head: ofHead } = placeOf(run);
      if (position >= tokens || (head !== undefined && ofHead !== head)) continue;
      if (chosen && !chosen.includes(position)) continue;
      const [at, from] = [start(run), run * length];
      if (ofKeys) {
        for (const key of ofKeys) parts.push({ position, at: at + key, from: from + key, length: 1 });
      } else parts.push({ position, at, from, length });
    }
  }
  return parts;
}
