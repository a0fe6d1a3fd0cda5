/**
 * One AdamW step in float64.
 *
 * @module
 */

/** What one parameter's step needs; arrays of one length, row by row. */
export interface AdamWReferenceInput {
  weight: ArrayLike<number>;
  gradient: ArrayLike<number>;
  first: ArrayLike<number>;
  second: ArrayLike<number>;
  columns: number;
  decayFrom: number;
  learningRate: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  weightDecay: number;
  /** From 1. */
  step: number;
  /** Factor that clips the gradient. */
  clipFactor: number;
}

/** The updated weight and moments. */
export function adamwReference(
  input: AdamWReferenceInput,
): { weight: Float64Array; first: Float64Array; second: Float64Array } {
  const { beta1, beta2, learningRate } = input;
  const weight = Float64Array.from(input.weight);
  const first = Float64Array.from(input.first);
  const second = Float64Array.from(input.second);
  for (let n = 0; n < weight.length; n++) {
    const gradient = input.gradient[n] * input.clipFactor;
    first[n] = beta1 * first[n] + (1 - beta1) * gradient;
    second[n] = beta2 * second[n] + (1 - beta2) * gradient ** 2;
    const decay = n % input.columns >= input.decayFrom ? input.weightDecay : 0;
    const m = first[n] / (1 - beta1 ** input.step);
    const v = second[n] / (1 - beta2 ** input.step);
    weight[n] -= learningRate * (decay * weight[n] + m / (Math.sqrt(v) + input.epsilon));
  }
  return { weight, first, second };
}
