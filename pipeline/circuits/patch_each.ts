/**
 * Activation patching over many places: each is replaced by itself, by another prompt's activation, a mean or zero, and what
 * that does to the answer is told. Rows of one batch are patched at a place each.
 *
 * @module
 */
import type { ActivationAxis } from "../model/activation_names.ts";
import type { Prompts, Replacement } from "../model/replacement.ts";
import type { Interventions } from "./interventions.ts";

/** What an activation is patched by: one head, one position, both, or, of none of them, the whole at once. */
export type PatchAxis = "head" | "position";

/** A place that was patched, and what came of it. */
export interface PatchedPlace {
  /** Name of the activation. */
  activation: string;
  /** Left out: all heads, or there are none. */
  head?: number;
  /** Of scores, patterns and gates that of the query; left out: all positions. */
  position?: number;
  /** Logit of the answer, its difference from the wrong one's, or what a metric makes of the logits. */
  value: number;
  /** What `value` is above that of the prompt as it is. */
  change: number;
  /**
   * 0 as where nothing is patched, 1 as of the prompt that the activation is from; not finite where these say the same, or
   * where it is from no prompt.
   */
  effect: number;
}

/** What patching shows of one prompt. */
export interface PairEffects {
  /** Logit, difference or metric of the prompt as it is. */
  value: number;
  /** Of the prompt that activations are from; NaN where they are from none. */
  from: number;
  /** By activation in the order in which they were named, by head, by position. */
  places: PatchedPlace[];
}

/** What patching shows: means over the pairs, of which an effect is taken of the mean values, and each pair by itself. */
export interface PatchEffects extends PairEffects {
  /** In the order in which they were given; of one prompt it is one. */
  pairs: PairEffects[];
}

/** A place that is patched. */
export type Place = Omit<PatchedPlace, "value" | "change" | "effect">;

/** A prompt that is patched. */
export interface PatchedPrompt {
  /** Its tokens. */
  prompt: readonly number[];
  /** Those of the one that activations are from, as many; left out where they are from none. */
  from?: readonly number[];
  /** What the logits [V] are measured by. */
  measure(logits: Float32Array): number;
}

/** What is patched, and by what. */
export interface PatchTask {
  /** One at least; all have a `from`, or none has. */
  pairs: readonly PatchedPrompt[];
  /** What stands in where no prompt's activations do. */
  by?: "zero" | { meanOf: Prompts };
  /** Position of the logits, below 0 counted from each prompt's own end. */
  at: number;
}

/**
 * Where activations are patched, head by head and position by position as far as each is asked for.
 *
 * @throws {RangeError} on an activation without heads where these are asked for
 */
export function patchPlaces(
  axes: ReadonlyMap<string, readonly ActivationAxis[]>,
  shapes: ReadonlyMap<string, readonly number[]>,
  activations: readonly string[],
  each: readonly PatchAxis[],
): Place[] {
  return activations.flatMap((activation) => {
    const shape = shapes.get(activation)!;
    const indicesOf = (what: PatchAxis, ...names: ActivationAxis[]): (number | undefined)[] => {
      if (!each.includes(what)) return [undefined];
      const axis = axes.get(activation)!.findIndex((name) => names.includes(name));
      if (axis < 0) throw new RangeError(`Cannot patch ${activation} by ${what} as it has none`);
      return Array.from({ length: shape[axis] }, (_, index) => index);
    };
    const positions = indicesOf("position", "position", "query");
    return indicesOf("head", "head", "keyValueHead").flatMap((head) =>
      positions.map((position) => ({
        activation,
        ...(head === undefined ? {} : { head }),
        ...(position === undefined ? {} : { position }),
      }))
    );
  });
}

/** What patching does to one value, or to means. */
function effectsOf(
  value: number,
  from: number,
  places: readonly Place[],
  found: readonly number[],
): PairEffects {
  return {
    value,
    from,
    places: places.map((place, n) => ({
      ...place,
      value: found[n],
      change: found[n] - value,
      effect: (found[n] - value) / (from - value),
    })),
  };
}

/**
 * Patches each place by itself.
 *
 * @param runs compiled for at least two prompts of as many tokens as the longest has
 * @throws {RangeError} on what can be read only, on a token or a position that there is not, and on a prompt of another
 * length than the one that activations are from
 */
export async function patchEach(
  runs: Interventions,
  { pairs, by, at }: PatchTask,
  places: readonly Place[],
): Promise<PatchEffects> {
  for (const [n, { prompt, from = prompt }] of pairs.entries()) {
    if (from.length === prompt.length) continue;
    throw new RangeError(
      `Cannot patch ${
        pairs.length > 1 ? `the prompt of pair ${n}` : "a prompt"
      } of ${prompt.length} tokens by another as it must have as many: ${from.length}`,
    );
  }
  const [[batch]] = runs.names.values();
  const activations = [...new Set(places.map(({ activation }) => activation))];
  const mean = by === undefined || by === "zero" ? undefined : await meansOf(runs, activations, by, pairs);
  const together = pairs[0].from ? Math.floor(batch / 2) : batch;
  const effects: PairEffects[] = [];
  for (let first = 0; first < pairs.length; first += together) {
    effects.push(
      ...await patchTogether(runs, pairs.slice(first, first + together), { by, at, mean }, places),
    );
  }
  const meanOf = (of: (one: PairEffects) => number): number =>
    effects.reduce((sum, one) => sum + of(one), 0) / effects.length;
  const found = places.map((_, n) => meanOf(({ places }) => places[n].value));
  return {
    ...effectsOf(meanOf(({ value }) => value), meanOf(({ from }) => from), places, found),
    pairs: effects,
  };
}

/** Means of activations over prompts, of as many positions as the longest pair has. */
async function meansOf(
  runs: Interventions,
  activations: readonly string[],
  by: { meanOf: Prompts },
  pairs: readonly PatchedPrompt[],
): Promise<Map<string, Float32Array>> {
  const { prompt } = pairs.reduce((longest, pair) =>
    pair.prompt.length > longest.prompt.length ? pair : longest
  );
  // An activation is read as it was replaced.
  const replace = activations.map((activation) => ({ activation, by }));
  return (await runs.run([prompt], { replace, read: activations, at: [] })).activations;
}

/** Patches pairs whose prompts are run at once, with those that activations are from. */
async function patchTogether(
  runs: Interventions,
  pairs: readonly PatchedPrompt[],
  { by, at, mean }: Pick<PatchTask, "by" | "at"> & { mean?: ReadonlyMap<string, Float32Array> },
  places: readonly Place[],
): Promise<PairEffects[]> {
  const [[batch]] = runs.names.values();
  const read = by === undefined ? [...new Set(places.map(({ activation }) => activation))] : [];
  // Behind each prompt the one that activations are from, if there is one.
  const prompts = pairs.flatMap(({ prompt, from }) => from ? [prompt, from] : [prompt]);
  const ofPair = prompts.length / pairs.length;
  const unpatched = await runs.run(prompts, { read, at: [at] });
  const measured = (logits: Float32Array, count: number, row: number, n: number): number => {
    const vocabulary = logits.length / count;
    return pairs[n].measure(logits.subarray(row * vocabulary, (row + 1) * vocabulary));
  };
  /** What stands in for an activation of a pair's prompt. */
  function sourceOf(activation: string, n: number): Float32Array {
    if (mean) return mean.get(activation)!;
    const values = unpatched.activations.get(activation)!;
    const ofRow = values.length / prompts.length;
    const row = n * ofPair + 1;
    return values.subarray(row * ofRow, (row + 1) * ofRow);
  }

  const jobs = pairs.flatMap((_, n) => places.map((place) => ({ n, place })));
  const found: number[] = [];
  for (let first = 0; first < jobs.length; first += batch) {
    const together = jobs.slice(first, first + batch);
    /** What stands in for each activation, of all rows: it is brought to the device once. */
    const sources = new Map<string, { values: Float32Array }>();
    const replace = together.map(({ n, place: { activation, head, position } }, row): Replacement => {
      const part = {
        activation,
        rows: [row],
        ...(head === undefined ? {} : { head }),
        ...(position === undefined ? {} : { positions: [position] }),
      };
      if (by === "zero") return { ...part, by };
      const source = sourceOf(activation, n);
      const ofAll = sources.get(activation) ?? { values: new Float32Array(together.length * source.length) };
      sources.set(activation, ofAll);
      ofAll.values.set(source, row * source.length);
      return { ...part, by: ofAll };
    });
    const { logits } = await runs.run(together.map(({ n }) => pairs[n].prompt), { replace, at: [at] });
    for (const [row, { n }] of together.entries()) found.push(measured(logits, together.length, row, n));
  }
  return pairs.map(({ from }, n) => {
    const valueOf = (row: number) => measured(unpatched.logits, prompts.length, n * ofPair + row, n);
    const ofPlaces = found.slice(n * places.length, (n + 1) * places.length);
    return effectsOf(valueOf(0), from ? valueOf(1) : NaN, places, ofPlaces);
  });
}
