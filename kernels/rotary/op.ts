/**
 * Rotary positions (Su et al. 2021, arXiv 2104.09864) by halves, as Hugging Face's files have them, on queries and keys
 * that lie packed with the values, forward and backward.
 *
 * Shapes: B batch, T positions, H query heads, K key heads and as many of values, D head size, R of it turned.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { elementwise } from "../core/elementwise.ts";
import { compile } from "../core/kernel.ts";
import { linearGrid, type Recorder } from "../core/recorder.ts";
import { destroyTensor, type Tensor } from "../core/tensor.ts";
import { createUniform } from "../core/uniform.ts";
import { type RotaryFrequencies, rotaryTable } from "./frequencies.ts";
import rotateSource from "./rotate.wgsl" with { type: "text" };

/** Shapes and angles; compiled in. */
export interface RotaryConfig extends RotaryFrequencies {
  batch: number;
  /** Positions T of each row. */
  positions: number;
  /** Heads H of queries. */
  heads: number;
  /** Heads K of keys, and of values. */
  keyValueHeads: number;
  /** Head size D. */
  headSize: number;
  /** Positions that there are angles for, T when left out; more where {@link Rotary.startAt} is to move on. */
  contextLength?: number;
  /** Whether x and y are f16, and the gradients not; R/2 and (D − R)/2 must then be multiples of 4. */
  half?: boolean;
}

/** Compiled rotary positions. Both directions overwrite their output. */
export interface Rotary {
  /** `x` and `y` are (batch, position, (H + 2 K) · D): heads of queries, then of keys, then of values. */
  forward(recorder: Recorder, tensors: Record<"x" | "y", Tensor>): void;
  /** `dx` and `dy` as `x` and `y`; one may not be the other. */
  backward(recorder: Recorder, tensors: Record<"dy" | "dx", Tensor>): void;
  /**
   * The position that the first of each row has in what is submitted from now on; 0 at first.
   *
   * @throws {RangeError} when there is no angle for the last of them
   */
  startAt(position: number): void;
  /** Frees what it holds on the device. */
  destroy(): void;
}

/**
 * Compiles rotary positions for one shape.
 *
 * @throws {RangeError} when R or D is odd, R is larger than D, or the context is shorter than T
 */
export async function prepareRotary(gpu: Gpu, config: RotaryConfig): Promise<Rotary> {
  const { batch, positions, heads, keyValueHeads, headSize, rotated, half = false } = config;
  const { contextLength = positions } = config;
  const isEven = (value: number) => Number.isInteger(value) && value >= 2 && value % 2 === 0;
  if (!isEven(rotated) || !isEven(headSize) || rotated > headSize) {
    throw new RangeError(
      `Cannot prepare rotary as an even part of heads of an even size must be turned: ${rotated} of ${headSize}`,
    );
  }
  if (contextLength < positions) {
    throw new RangeError(
      `Cannot prepare rotary as the context of ${contextLength} must hold the positions of a row: ${positions}`,
    );
  }
  const { alias, width } = elementwise(rotated / 2, headSize / 2);
  const rows = batch * positions;
  const pairs = headSize / 2 / width;
  const constants = {
    ROWS: rows,
    T: positions,
    HEADS: heads + 2 * keyValueHeads,
    TURNED: heads + keyValueHeads,
    HALF: rotated / 2 / width,
    REST: (headSize - rotated) / 2 / width,
  };
  const kernel = (label: string, direction: number) =>
    compile(gpu, {
      label: `rotary ${label}`,
      source: alias + rotateSource,
      constants: { ...constants, DIRECTION: { f32: direction } },
      half: half && direction > 0 ? ["x", "y"] : [],
      textures: ["table"],
    });
  const [forward, backward] = await Promise.all([kernel("forward", 1), kernel("backward", -1)]);
  const table = gpu.tensor("rotary table", [contextLength, 2, rotated / 2]);
  gpu.write(table, rotaryTable(contextLength, config));
  const place = createUniform(gpu, "rotary place", [["start", "u32"]]);
  place.set({ start: 0 });
  const grid = linearGrid(rows * constants.HEADS * pairs, 64);
  const both = { place: place.tensor, table };
  return {
    forward: (recorder, { x, y }) => recorder.dispatch(forward, { ...both, x, y }, grid),
    backward: (recorder, { dy, dx }) => recorder.dispatch(backward, { ...both, x: dy, y: dx }, grid),
    startAt(position) {
      if (!Number.isInteger(position) || position < 0 || position + positions > contextLength) {
        throw new RangeError(
          `Cannot start rows of ${positions} positions there as the context holds ${contextLength}: ${position}`,
        );
      }
      place.set({ start: position });
    },
    destroy() {
      destroyTensor(gpu, table);
      place.destroy();
    },
  };
}
