/**
 * GPT-2's initial weights: normal with deviation 0.02, residual projections smaller by √(2 · layers), biases 0, layer
 * norms 1 (Radford et al. 2019).
 *
 * @module
 */
import type { ParameterShape } from "./parameters.ts";
import { randomStream } from "./random.ts";

/** The initial values of one parameter; `index` tells its stream of random numbers from the others'. */
export function initialWeights(
  { name, shape }: ParameterShape,
  { layers, seed, index }: { layers: number; seed: number; index: number },
): Float32Array {
  const values = new Float32Array(shape.reduce((product, axis) => product * axis, 1));
  if (name.endsWith(".bias")) return values;
  if (/\bln_\w+\.weight$/.test(name)) return values.fill(1);
  const deviation = name.endsWith("c_proj.weight") ? 0.02 / Math.sqrt(2 * layers) : 0.02;
  const stream = randomStream(seed, index);
  for (let n = 0; n < values.length; n++) values[n] = deviation * stream.normal();
  return values;
}
