/**
 * What sources write, and what the residual stream holds, where nothing of a prompt is kept.
 *
 * @module
 */
import { prepareBlend } from "../../kernels/blend/op.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Tensor } from "../../kernels/core/tensor.ts";
import { prepareMatmul } from "../../kernels/matmul/op.ts";
import type { Value } from "../model/op.ts";
import type { Parameters } from "../model/parameters.ts";
import { type Model, stepIn } from "../model/trace.ts";
import type { EngineTensor } from "./layout.ts";

/** Fills `minusAblated` and `base`. Each begins with what an unpatched run left in `delta` and `base`. */
export interface AblationValues {
  /** As these prompts have it. */
  resample(): void;
  /** Between the two, {@link AblationValues.addToMean} after each batch's run. */
  beginMean(): void;
  /** Counts the batch's first `pairs` pairs. */
  addToMean(pairs: number): void;
  /** As the mean over what was added has it, at each position. */
  endMean(): void;
  /** Nothing but the biases that no source owns, whatever was run. */
  zero(): Promise<void>;
  /** Frees what it holds beside the engine's tensors. */
  destroy(): void;
}

/** Compiles the ablations of a batch; `pairs` is the number in all batches. */
export async function prepareAblation(
  gpu: Gpu,
  { model, parameters, batch, positions, rows, pairs, tensors }: {
    model: Model;
    parameters: Parameters;
    batch: number;
    positions: number;
    rows: number;
    pairs: number;
    tensors: Record<EngineTensor, Tensor>;
  },
): Promise<AblationValues> {
  const { branches, config: { width } } = model;
  const { delta, minusAblated, base, meanOutputs, meanStreams, shares, negativeShares } = tensors;
  const length = positions * width;
  const stride = delta.shape[1];
  const negation = await prepareBlend(gpu, { length: delta.length });
  negation.configure({ a: -1, b: 0 });
  /** Weighted sums over the pairs of a batch, for each row of `delta` or `base`. */
  const sumOver = (count: number) =>
    prepareMatmul(gpu, {
      layout: "nn",
      m: 1,
      n: length,
      k: batch,
      aStride: shares.length,
      accumulate: true,
      batches: { count, aStep: 0, bStep: stride, cStep: length },
    });
  const sums = { outputs: await sumOver(delta.shape[0]), streams: await sumOver(base.shape[0]) };

  return {
    resample() {
      gpu.submit(
        "ablated values",
        (recorder) => negation.forward(recorder, { a: delta, b: delta, sum: minusAblated }),
      );
    },

    beginMean() {
      gpu.submit("ablated values", (recorder) => {
        recorder.clear(meanOutputs);
        recorder.clear(meanStreams);
      });
    },

    addToMean(count) {
      const share = Float32Array.from({ length: shares.length }, (_, pair) => pair < count ? 1 / pairs : 0);
      gpu.write(shares, share);
      gpu.write(negativeShares, share.map((value) => -value));
      gpu.submit("ablated values", (recorder) => {
        sums.outputs.record(recorder, { a: negativeShares, b: delta, c: meanOutputs });
        sums.streams.record(recorder, { a: shares, b: base, c: meanStreams });
      });
    },

    endMean() {
      gpu.submit("ablated values", (recorder) => {
        for (const [means, target] of [[meanOutputs, minusAblated], [meanStreams, base]]) {
          for (let row = 0; row < means.shape[0]; row++) {
            // For copies, which may start where bindings may not.
            const ofRow = { ...means, length, byteLength: 4 * length, offset: 4 * row * length };
            for (let pair = 0; pair < batch; pair++) {
              recorder.copy(ofRow, target, row * stride + pair * length);
            }
          }
        }
      });
    },

    async zero() {
      gpu.submit("ablated values", (recorder) => recorder.clear(minusAblated));
      // No head owns the bias that an attention layer ends in; an MLP writes its own.
      const unowned = new Map([[model.embed.writes.y, new Float32Array(width)]]);
      const write = (n: number, stream: Value): void => {
        const one = unowned.get(stream)!;
        gpu.write(base, Float32Array.from({ length: rows * width }, (_, n) => one[n % width]), n * stride);
      };
      for (const [n, branch] of branches.entries()) {
        write(n, branch.stream);
        const { reads, writes } = stepIn(branch, "add");
        const { bias } = stepIn(branch, "out").parameters;
        const own = bias && branch.kind === "attention" ? await gpu.read(parameters.get(bias.name)!) : [];
        unowned.set(writes.y, unowned.get(reads.stream)!.map((value, n) => value + (own[n] ?? 0)));
      }
      write(branches.length, model.final.reads.x);
    },

    destroy: () => negation.destroy(),
  };
}
