/**
 * The values that training starts from.
 *
 * @module
 */
import { randomStream } from "../../kernels/core/random.ts";
import { elementsOf } from "../../kernels/core/tensor.ts";
import type { Parameter } from "./op.ts";

/** The initial values of one parameter; `index` tells its stream of random numbers from the others'. */
export function initialWeights(
  { shape, initial }: Parameter,
  { seed, index }: { seed: number; index: number },
): Float32Array {
  const values = new Float32Array(elementsOf(shape));
  if ("all" in initial) return values.fill(initial.all);
  const stream = randomStream(seed, index);
  const next = "within" in initial
    ? () => initial.within * (2 * stream.uniform() - 1)
    : () => initial.deviation * stream.normal();
  for (let n = 0; n < values.length; n++) values[n] = next();
  return values;
}
