/**
 * What a model answers: logits at the places of a batch's pairs alone, their metric, and its gradient on the way back.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import { rows as rowsOf, slicesOf, type Tensor } from "../../kernels/core/tensor.ts";
import { prepareMatmul } from "../../kernels/matmul/op.ts";
import type { Parameters } from "../model/parameters.ts";
import type { Model } from "../model/trace.ts";
import { type AnswerPlace, type MetricName, placeMetric, type PromptPair } from "./prompts.ts";

/** Positions of a batch whose logits are read, each with the places that are there. */
export interface AnswerRow {
  /** Index in the batch. */
  pair: number;
  position: number;
  places: AnswerPlace[];
}

/** The rows of a batch of pairs: one for each position that has a place, whatever number of places it has. */
export function answerRows(pairs: readonly PromptPair[]): AnswerRow[] {
  return pairs.flatMap(({ places }, pair) => {
    const byPosition = new Map<number, AnswerPlace[]>();
    for (const place of places) {
      byPosition.set(place.position, [...byPosition.get(place.position) ?? [], place]);
    }
    return [...byPosition].map(([position, places]) => ({ pair, position, places }));
  });
}

/** Means over the places of each pair of a batch. */
export interface AnswerValues {
  metric: Float64Array;
  /** Share of places at which the best right token beats every wrong one. */
  correct: Float64Array;
  /** Share at which no logit exceeds a right token's. */
  exact: Float64Array;
}

/** Compiled for a number of answers. */
export interface Answers {
  /** Copies what the answers are read from out of the final norm's output (row, width). */
  gather(recorder: Recorder, rows: readonly AnswerRow[], normalized: Tensor): void;
  /** Reads the answers that were gathered; with `gradients`, also works out what {@link Answers.scatter} writes. */
  measure(
    rows: readonly AnswerRow[],
    pairs: number,
    options?: { gradients?: boolean },
  ): Promise<AnswerValues>;
  /** Overwrites the gradient of the final norm's output by the sum of the pairs' metrics. */
  scatter(recorder: Recorder, rows: readonly AnswerRow[], gradient: Tensor): void;
}

/** Row `row` of a matrix, for copies, which may start where bindings may not. */
function rowOf(tensor: Tensor, row: number, width: number): Tensor {
  return {
    ...tensor,
    shape: [width],
    length: width,
    byteLength: 4 * width,
    offset: tensor.offset + 4 * row * width,
  };
}

/** Compiles the head for the rows of `tensors.answers`. */
export async function prepareAnswers(
  gpu: Gpu,
  { model, parameters, metric, positions, tensors }: {
    model: Model;
    parameters: Parameters;
    metric: MetricName;
    positions: number;
    tensors: Record<"answers" | "answerGradients" | "logits", Tensor>;
  },
): Promise<Answers> {
  const { vocabularySize, width } = model.config;
  const [count, stride] = tensors.logits.shape;
  const matrix = parameters.get(model.head.name)!;
  const slices = await Promise.all(
    slicesOf(vocabularySize, width, gpu.maxBindingBytes).map(async ({ start, count: tokens }, index) => ({
      weight: rowsOf(matrix, start, tokens),
      forward: await prepareMatmul(gpu, {
        layout: "nt",
        m: count,
        n: tokens,
        k: width,
        cStride: stride,
        cColumn: start,
      }),
      backward: await prepareMatmul(gpu, {
        layout: "nn",
        m: count,
        n: width,
        k: tokens,
        aStride: stride,
        aColumn: start,
        accumulate: index > 0,
      }),
    })),
  );
  return {
    gather(recorder, rows, normalized) {
      rows.forEach(({ pair, position }, index) =>
        recorder.copy(rowOf(normalized, pair * positions + position, width), tensors.answers, index * width)
      );
    },

    async measure(rows, pairs, { gradients = false } = {}) {
      const values = {
        metric: new Float64Array(pairs),
        correct: new Float64Array(pairs),
        exact: new Float64Array(pairs),
      };
      const placesOf = new Float64Array(pairs);
      for (const { pair, places } of rows) placesOf[pair] += places.length;
      for (let first = 0; first < rows.length; first += count) {
        const part = rows.slice(first, first + count);
        gpu.submit("logits of answers", (recorder) => {
          for (const { forward, weight } of slices) {
            forward.record(recorder, {
              a: rowsOf(tensors.answers, first, count),
              b: weight,
              c: tensors.logits,
            });
          }
        });
        const logits = await gpu.read(tensors.logits, 0, part.length * stride);
        const dlogits = new Float32Array(gradients ? count * stride : 0);
        part.forEach(({ pair, places }, index) => {
          const row = logits.subarray(index * stride, index * stride + vocabularySize);
          const highest = row.reduce((best, logit) => Math.max(best, logit), -Infinity);
          for (const place of places) {
            const share = 1 / placesOf[pair];
            const { value, gradient } = placeMetric(metric, row, place);
            const best = (tokens: readonly number[]) => Math.max(...tokens.map((token) => row[token]));
            values.metric[pair] += share * value;
            if (best(place.right) > best(place.wrong)) values.correct[pair] += share;
            if (best(place.right) === highest) values.exact[pair] += share;
            if (gradients) {
              gradient.forEach((slope, token) => dlogits[index * stride + token] += share * slope);
            }
          }
        });
        if (!gradients) continue;
        gpu.write(tensors.logits, dlogits);
        gpu.submit("gradient of answers", (recorder) => {
          for (const { backward, weight } of slices) {
            backward.record(recorder, {
              a: tensors.logits,
              b: weight,
              c: rowsOf(tensors.answerGradients, first, count),
            });
          }
        });
      }
      return values;
    },

    scatter(recorder, rows, gradient) {
      recorder.clear(gradient);
      rows.forEach(({ pair, position }, index) =>
        recorder.copy(
          rowOf(tensors.answerGradients, index, width),
          gradient,
          (pair * positions + position) * width,
        )
      );
    },
  };
}
