/**
 * Replacements while a text is continued: what a run of the whole text would replace, at each position as it is read.
 *
 * @module
 */
import { allOrNothing } from "../../kernels/core/all_or_nothing.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import { destroyTensor, elementsOf, type Tensor } from "../../kernels/core/tensor.ts";
import {
  isSquare,
  isSummedIn,
  type Location,
  locationsOf,
  noActivation,
  placesOf,
} from "../model/activation_names.ts";
import type { ModelConfig } from "../model/config.ts";
import type { Decoder } from "../model/decoder.ts";
import type { Parameters } from "../model/parameters.ts";
import {
  assertNoTwins,
  fromStart,
  type Prompts,
  type ReplacedPart,
  replacedParts,
  type Replacement,
  span,
} from "../model/replacement.ts";
import type { ActivationHook } from "../model/runner.ts";
import { trace } from "../model/trace.ts";

/** What replaces activations in a decoder. */
export interface PreparedPatches {
  /** Replaces what there is to replace among the rows that are read together. */
  hook: ActivationHook;
  /** Frees what is held. */
  destroy(): void;
}

/** What is replaced at one position: elements of the tensor's row, and where they stand among the values. */
type ByPosition = Map<number, ReplacedPart[]>;

/**
 * Prepares replacements for a prompt that a decoder is to read and continue. Values, and activations of other prompts, are of
 * the prompt's positions, and stand in there alone; zero stands in at all positions, also behind the prompt, unless it is
 * told which. Positions below 0 are counted from the prompt's end.
 *
 * Other prompts are read by the decoder itself, which then must begin another text.
 *
 * @param options `gateBias`: of the gates through which other prompts are read; left out: dense attention
 * @throws {RangeError} on a name, a head or a position that there is not, on scores, patterns and gates, which a decoder does
 * not lay out, on values of another length, and on other prompts of another number of tokens
 */
export function preparePatches(
  model: { gpu: Gpu; config: ModelConfig; parameters: Parameters },
  decoder: Decoder,
  prompt: readonly number[],
  patches: readonly Replacement[],
  options: { gateBias?: number; signal?: AbortSignal },
): Promise<PreparedPatches> {
  return allOrNothing(() => prepare(model, decoder, prompt, patches, options));
}

async function prepare(
  { gpu, config, parameters }: { gpu: Gpu; config: ModelConfig; parameters: Parameters },
  decoder: Decoder,
  prompt: readonly number[],
  patches: readonly Replacement[],
  { gateBias, signal }: { gateBias?: number; signal?: AbortSignal },
): Promise<PreparedPatches> {
  const { positions } = decoder;
  const model = trace(config, { batch: 1, context: 1 });
  const locations = locationsOf(model, { batch: 1, positions, padded: positions });
  for (const { activation } of patches) {
    if (!locations.has(activation)) throw noActivation(activation, locations.keys());
    if (isSquare(activation) || isSummedIn(model, activation)) {
      throw new RangeError(
        `Cannot replace ${activation} while a text is continued as it does not stand by itself there: replace ` +
          (isSquare(activation) ? "hook_z" : "blocks.0.hook_resid_pre"),
      );
    }
  }
  assertNoTwins(patches.map(({ activation }) => activation), placesOf(config));

  /** Elements of an activation of the prompt. */
  const lengthOf = ({ shape }: Location): number => prompt.length * elementsOf(shape.slice(2));

  /** What a replacement is of, position by position. */
  function partsOf(
    replacement: Omit<Replacement, "by">,
    location: Location,
    ofPromptAlone: boolean,
  ): ByPosition {
    const { activation, positions: chosen } = replacement;
    const outside = (position: number): never => {
      throw new RangeError(
        `Cannot replace a position of ${activation} as the prompt has ${prompt.length} tokens: ${position}`,
      );
    };
    const all = ofPromptAlone ? [...prompt.keys()] : undefined;
    const within = chosen ? fromStart(chosen, prompt.length, outside) : all;
    const parts = replacedParts({ ...replacement, positions: within }, location, [positions]);
    return Map.groupBy(parts, ({ position }) => position);
  }

  /** Calls for each part among the rows that are read, with where it begins among them. */
  function eachRead(
    { row }: Location,
    parts: ByPosition,
    tensor: Tensor,
    call: (part: ReplacedPart, at: number) => void,
  ): void {
    const first = decoder.filled;
    for (let position = first; position < first + tensor.length / row; position++) {
      for (const part of parts.get(position) ?? []) call(part, part.at - first * row);
    }
  }

  /** An activation of another prompt, in its own shape. */
  async function valuesAt(activation: string, other: readonly number[]): Promise<Float32Array> {
    if (other.length !== prompt.length) {
      throw new RangeError(
        `Cannot replace ${activation} by another prompt's as the prompt has ${prompt.length} tokens: ${other.length}`,
      );
    }
    const location = locations.get(activation)!;
    const parts = partsOf({ activation }, location, true);
    const copy = gpu.tensor(`${activation} of another prompt`, [lengthOf(location)]);
    try {
      decoder.begin(parameters, {
        gateBias,
        hook(name, tensor, recorder) {
          if (name !== location.hook) return;
          eachRead(location, parts, tensor, ({ from, length }, at) => {
            recorder.copy(span(tensor, at, length), copy, from);
          });
        },
      });
      await decoder.read(other, signal);
      return await gpu.read(copy);
    } finally {
      destroyTensor(gpu, copy);
    }
  }

  async function meanOf(activation: string, prompts: Prompts): Promise<Float32Array> {
    if (prompts.length === 0) throw new RangeError(`Cannot take the mean of ${activation} over no prompts`);
    const mean = new Float64Array(lengthOf(locations.get(activation)!));
    for (const other of prompts) {
      if (other.length !== prompt.length) {
        throw new RangeError(
          `Cannot take the mean of ${activation} as each of its prompts must have the ${prompt.length} tokens of the one ` +
            `that is continued: ${other.length}`,
        );
      }
      const values = await valuesAt(activation, other);
      for (const [n, value] of values.entries()) mean[n] += value / prompts.length;
    }
    return Float32Array.from(mean);
  }

  /** The values of a replacement in its activation's shape; undefined for zeros. */
  async function valuesOf({ activation, by }: Replacement): Promise<Float32Array | undefined> {
    if (by === "zero") return undefined;
    if ("meanOf" in by) return await meanOf(activation, by.meanOf);
    if ("prompts" in by) {
      if (by.prompts.length === 1) return await valuesAt(activation, by.prompts[0]);
      throw new RangeError(`Cannot replace ${activation} as one prompt is continued: ${by.prompts.length}`);
    }
    const length = lengthOf(locations.get(activation)!);
    if (by.values.length === length) return by.values;
    throw new RangeError(
      `Cannot replace ${activation} as it has ${length} elements: ${by.values.length} values`,
    );
  }

  const prepared = patches.map((patch) => {
    const location = locations.get(patch.activation)!;
    return { patch, location, parts: partsOf(patch, location, patch.by !== "zero") };
  });
  const replaced: { location: Location; parts: ByPosition; values?: Tensor }[] = [];
  for (const { patch, location, parts } of prepared) {
    const values = await valuesOf(patch);
    const tensor = values && gpu.tensor(`values for ${patch.activation}`, [values.length]);
    if (tensor) gpu.write(tensor, values);
    replaced.push({ location, parts, values: tensor });
  }
  return {
    hook(name, tensor, recorder) {
      for (const { location, parts, values } of replaced.filter((one) => one.location.hook === name)) {
        eachRead(location, parts, tensor, ({ from, length }, at) => {
          if (values) recorder.copy(span(values, from, length), tensor, at);
          else recorder.clear(span(tensor, at, length));
        });
      }
    },
    destroy() {
      for (const { values } of replaced) if (values) destroyTensor(gpu, values);
    },
  };
}
