/**
 * Activation patching over many places: each is taken by itself from another prompt's run, and what that does to the answer
 * is told. Rows of one batch are patched at a place each.
 *
 * @module
 */
import type { ActivationAxis } from "../model/activation_names.ts";
import type { Replacement } from "../model/replacement.ts";
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
  /** Logit of the answer, or its difference from the wrong one's. */
  value: number;
  /** 0 as where nothing is patched, 1 as of the prompt that the activation is from; not finite where these say the same. */
  effect: number;
}

/** What patching shows. */
export interface PatchEffects {
  /** Logit, or difference, of the prompt that is patched. */
  value: number;
  /** Of the prompt that activations are from. */
  from: number;
  /** By activation in the order in which they were named, by head, by position. */
  places: PatchedPlace[];
}

/** A place that is patched. */
export type Place = Omit<PatchedPlace, "value" | "effect">;

/** Two prompts of equal length, and which logit is looked at. */
export interface PatchTask {
  /** The prompt that is patched. */
  prompt: readonly number[];
  /** The one that activations are from. */
  from: readonly number[];
  /** Token whose logit is meant. */
  answer: number;
  /** Token whose logit is taken away. */
  wrong?: number;
  /** Position of the logits, below 0 counted from the end. */
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

/**
 * Patches each place by itself.
 *
 * @param runs compiled for at least two prompts of as many tokens
 * @throws {RangeError} on what can be read only, and on a token or a position that there is not
 */
export async function patchEach(
  runs: Interventions,
  { prompt, from, answer, wrong, at }: PatchTask,
  places: readonly Place[],
): Promise<PatchEffects> {
  const [[batch]] = runs.names.values();
  const measured = (logits: Float32Array, row: number): number => {
    const vocabulary = logits.length / batch;
    const logitOf = (token: number): number => logits[row * vocabulary + token];
    return logitOf(answer) - (wrong === undefined ? 0 : logitOf(wrong));
  };
  const activations = [...new Set(places.map(({ activation }) => activation))];
  // All rows but the first are the other prompt, whose activations are so at hand for any row.
  const both = Array.from({ length: batch }, (_, row) => row === 0 ? prompt : from);
  const unpatched = await runs.run(both, { read: activations, at: [at] });
  const [value, ofFrom] = [0, 1].map((row) => measured(unpatched.logits, row));
  const sources = new Map(
    [...unpatched.activations].map(([name, values]) => {
      const ofRow = values.length / batch;
      return [name, { values: values.copyWithin(0, ofRow, 2 * ofRow) }];
    }),
  );
  const prompts = both.map(() => prompt);
  const patched: PatchedPlace[] = [];
  for (let first = 0; first < places.length; first += batch) {
    const together = places.slice(first, first + batch);
    const replace = together.map(({ activation, head, position }, row): Replacement => ({
      activation,
      rows: [row],
      ...(head === undefined ? {} : { head }),
      ...(position === undefined ? {} : { positions: [position] }),
      by: sources.get(activation)!,
    }));
    const { logits } = await runs.run(prompts, { replace, at: [at] });
    for (const [row, place] of together.entries()) {
      const found = measured(logits, row);
      patched.push({ ...place, value: found, effect: (found - value) / (ofFrom - value) });
    }
  }
  return { value, from: ofFrom, places: patched };
}
