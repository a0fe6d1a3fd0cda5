/**
 * Token embedding, plus that of positions where there is one, and its gradient as a deterministic scatter. The token
 * embedding may be larger than a binding: it is read and added to in slices of the vocabulary.
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { elementwise } from "../core/elementwise.ts";
import { compile } from "../core/kernel.ts";
import { lanesOf } from "../core/lanes.ts";
import { linearGrid, MAX_WORKGROUPS, type Recorder } from "../core/recorder.ts";
import { destroyTensor, rows as rowsOf, slicesOf, type Tensor } from "../core/tensor.ts";
import { createUniform } from "../core/uniform.ts";
import backwardPositionSource from "./backward_position.wgsl" with { type: "text" };
import backwardTokenSource from "./backward_token.wgsl" with { type: "text" };
import forwardSource from "./forward.wgsl" with { type: "text" };

/** Shapes; compiled in. */
export interface EmbeddingConfig {
  batch: number;
  /** Positions T of each row. */
  positions: number;
  vocabularySize: number;
  width: number;
  /** Whether positions have an embedding, as they have when left out. */
  positionEmbedding?: boolean;
  /** Whether the token embedding is f16, and then frozen: it has no gradient. The width must be a multiple of 4. */
  half?: boolean;
}

/** A compiled embedding. */
export interface Embedding {
  /**
   * Uploads one micro-batch's tokens (batch × positions) and the order in which their gradients are summed.
   *
   * @throws {RangeError} when a token is not in the vocabulary, or there are too many or too few
   */
  upload(tokens: Uint32Array): void;
  /**
   * Overwrites `x` (batch, position, width). Positions' embedding, here and in backward, only where there is one.
   *
   * @throws {RangeError} when it has no row for the last position
   */
  forward(
    recorder: Recorder,
    tensors: Record<"tokenEmbedding" | "x", Tensor> & { positionEmbedding?: Tensor },
  ): void;
  /** Adds to `dtokenEmbedding` (vocabulary, width) and `dpositionEmbedding` (≥ positions, width). */
  backward(
    recorder: Recorder,
    tensors: Record<"dx" | "dtokenEmbedding", Tensor> & { dpositionEmbedding?: Tensor },
  ): void;
  /**
   * The position that the first of each row has in what is submitted from now on; 0 at first. Backward is of rows that
   * begin at 0.
   *
   * @throws {RangeError} when it is no whole number from 0
   */
  startAt(position: number): void;
  /** Frees what it holds on the device. */
  destroy(): void;
}

/** Positions sorted by token, and the runs of equal tokens as (token, first, end, number of runs in the first). */
export function sortByToken(tokens: Uint32Array): { order: Uint32Array; runs: Uint32Array } {
  const order = Uint32Array.from(tokens.keys()).sort((a, b) => tokens[a] - tokens[b] || a - b);
  const runs = new Uint32Array(4 * tokens.length);
  let count = 0;
  for (let at = 0; at < order.length; at++) {
    const token = tokens[order[at]];
    if (at === 0 || token !== tokens[order[at - 1]]) runs.set([token, at, at], 4 * count++);
    runs[4 * count - 2] = at + 1;
  }
  runs[3] = count;
  return { order, runs };
}

/** Compiles the embedding for one shape. */
export async function prepareEmbedding(gpu: Gpu, config: EmbeddingConfig): Promise<Embedding> {
  const {
    batch,
    positions,
    vocabularySize,
    width,
    positionEmbedding: embedsPositions = true,
    half = false,
  } = config;
  const rows = batch * positions;
  const tokens = gpu.tensor("tokens", [rows], "u32");
  const order = gpu.tensor("token order", [rows], "u32");
  const runs = gpu.tensor("token runs", [rows, 4], "u32");
  const place = createUniform(gpu, "place of the embedding", [["start", "u32"]]);
  let firstPosition = 0;
  place.set({ start: firstPosition });
  const { alias, elements } = elementwise(width);
  const shape = { ROWS: rows, T: positions, ELEMENTS: elements };
  const slices = await Promise.all(
    slicesOf(vocabularySize, width, gpu.maxBindingBytes, { smallest: half ? 2 : 4, largest: half ? 2 : 4 })
      .map(
        async ({ start, count }) => {
          const constants = { ...shape, START: start, COUNT: count };
          return {
            start,
            count,
            forward: await compile(gpu, {
              label: "embedding forward",
              source: alias + forwardSource,
              constants,
              flags: { POSITIONS: embedsPositions },
              half: half ? ["token_embedding"] : [],
            }),
            backward: await compile(gpu, {
              label: "embedding backward token",
              source: alias + backwardTokenSource,
              constants: { ...constants, LANES: lanesOf(gpu, 64) },
              textures: ["order", "dx"],
            }),
          };
        },
      ),
  );
  const backwardPosition = embedsPositions
    ? await compile(gpu, {
      label: "embedding backward position",
      source: alias + backwardPositionSource,
      constants: shape,
    })
    : undefined;
  return {
    upload(values) {
      if (values.length !== rows) {
        throw new RangeError(`Cannot upload tokens as the batch holds ${rows}: ${values.length}`);
      }
      const outside = values.find((token) => token >= vocabularySize);
      if (outside !== undefined) {
        throw new RangeError(
          `Cannot upload tokens as the vocabulary has ${vocabularySize} entries: token ${outside}`,
        );
      }
      const sorted = sortByToken(values);
      gpu.write(tokens, values);
      gpu.write(order, sorted.order);
      gpu.write(runs, sorted.runs);
    },
    forward(recorder, { tokenEmbedding, positionEmbedding, x }) {
      const rowsThere = embedsPositions ? positionEmbedding!.shape[0] : Infinity;
      if (firstPosition + positions > rowsThere) {
        throw new RangeError(
          `Cannot embed ${positions} positions from ${firstPosition} on as there are embeddings for ${rowsThere}`,
        );
      }
      for (const { start, count, forward } of slices) {
        const slice = rowsOf(tokenEmbedding, start, count);
        const ofPositions = embedsPositions &&
          { position_embedding: positionEmbedding!, place: place.tensor };
        const bindings = { tokens, token_embedding: slice, ...ofPositions, x };
        recorder.dispatch(forward, bindings, linearGrid(rows * elements, 64));
      }
    },
    backward(recorder, { dx, dtokenEmbedding, dpositionEmbedding }) {
      for (const { start, count, backward } of slices) {
        const slice = rowsOf(dtokenEmbedding, start, count);
        const bindings = { order, runs, dx, dtoken_embedding: slice };
        recorder.dispatch(backward, bindings, [Math.min(rows, MAX_WORKGROUPS)]);
      }
      if (!backwardPosition) return;
      const bindings = { dx, dposition_embedding: dpositionEmbedding! };
      recorder.dispatch(backwardPosition, bindings, linearGrid(positions * elements, 64));
    },
    startAt(position) {
      if (!Number.isInteger(position) || position < 0) {
        throw new RangeError(`Cannot start rows there as positions count from 0: ${position}`);
      }
      firstPosition = position;
      place.set({ start: position });
    },
    destroy() {
      for (const tensor of [tokens, order, runs]) destroyTensor(gpu, tensor);
      place.destroy();
    },
  };
}
