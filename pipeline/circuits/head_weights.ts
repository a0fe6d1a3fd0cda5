/**
 * The weights of one attention head, in TransformerLens's shapes and under its names, whatever the family's files call them
 * and however they lie together.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import { stepIn, trace } from "../model/trace.ts";
import type { CircuitModel } from "./engine.ts";

/** Weights with their axes' sizes, the last axis the fastest. */
export interface WeightArray {
  /** All elements. */
  values: Float32Array;
  /** Sizes of the axes. */
  shape: readonly number[];
}

/**
 * What a head computes with: `hook_q` is x W_Q + b_Q, x being what its layer reads, and so with keys and values; to the
 * layer's output it adds z W_O. Nothing is folded or centred. A head of fewer key heads has those of the one that it reads,
 * and biases that a family has not are 0.
 */
export interface HeadWeights {
  /** (width, headSize) */
  W_Q: WeightArray;
  /** (width, headSize) */
  W_K: WeightArray;
  /** (width, headSize) */
  W_V: WeightArray;
  /** (headSize, width) */
  W_O: WeightArray;
  /** (headSize) */
  b_Q: WeightArray;
  /** (headSize) */
  b_K: WeightArray;
  /** (headSize) */
  b_V: WeightArray;
  /** (width), the layer's, which is added once for all its heads. */
  b_O: WeightArray;
}

/**
 * Reads the weights of a head from the device.
 *
 * @throws {RangeError} when there is no such layer or head
 */
export async function readHeadWeights(
  gpu: Gpu,
  { config, parameters }: CircuitModel,
  layer: number,
  head: number,
): Promise<HeadWeights> {
  const { layers, heads, keyValueHeads, headSize, width } = config;
  for (const [what, index, count] of [["layer", layer, layers], ["head", head, heads]] as const) {
    if (Number.isInteger(index) && index >= 0 && index < count) continue;
    throw new RangeError(`Cannot read the weights of ${what} ${index} as there are 0 to ${count - 1}`);
  }
  const branch = trace(config, { batch: 1, context: 1 }).branches
    .find((branch) => branch.kind === "attention" && branch.layer === layer)!;
  const [packed, out] = [stepIn(branch, "in").parameters, stepIn(branch, "out").parameters];
  const read = async (role: "weight" | "bias", rows: number): Promise<Float32Array> => {
    const parameter = packed[role];
    return parameter ? await gpu.read(parameters.get(parameter.name)!) : new Float32Array(rows * columns);
  };
  // Side by side: queries by head, keys by key head, values by key head.
  const columns = (heads + 2 * keyValueHeads) * headSize;
  const keyHead = Math.floor(head * keyValueHeads / heads);
  const places = { Q: head, K: heads + keyHead, V: heads + keyValueHeads + keyHead };
  const [weight, bias] = [await read("weight", width), await read("bias", 1)];
  /** The columns of one head out of rows of queries, keys and values. */
  const part = (of: Float32Array, rows: number, place: number): Float32Array => {
    const values = new Float32Array(rows * headSize);
    for (let row = 0; row < rows; row++) {
      const start = row * columns + place * headSize;
      values.set(of.subarray(start, start + headSize), row * headSize);
    }
    return values;
  };
  const matrix = (place: number): WeightArray => ({
    values: part(weight, width, place),
    shape: [width, headSize],
  });
  const vector = (place: number): WeightArray => ({ values: part(bias, 1, place), shape: [headSize] });
  const ofOut = parameters.get(out.weight.name)!;
  const length = headSize * width;
  return {
    W_Q: matrix(places.Q),
    W_K: matrix(places.K),
    W_V: matrix(places.V),
    W_O: { values: await gpu.read(ofOut, head * length, length), shape: [headSize, width] },
    b_Q: vector(places.Q),
    b_K: vector(places.K),
    b_V: vector(places.V),
    b_O: {
      values: out.bias ? await gpu.read(parameters.get(out.bias.name)!) : new Float32Array(width),
      shape: [width],
    },
  };
}
