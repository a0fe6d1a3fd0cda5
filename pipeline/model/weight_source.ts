/**
 * Where a model's weights are read from.
 *
 * @module
 */
import type { Parameter } from "./op.ts";

/** The weights of one model, read one tensor at a time. */
export interface WeightSource {
  /** Names and shapes, in the order of the model. */
  readonly parameters: readonly Parameter[];
  /** Values of a parameter by its bare name, as float32. */
  read(name: string): Promise<Float32Array>;
  /** The files that they lie in. */
  readonly files: readonly string[];
  /**
   * Reads every tensor once.
   *
   * @throws {UserError} naming the first tensor that is damaged, or the first element that is not finite
   */
  verify(): Promise<void>;
  /** SHA-256 over the hashes of the weight files. */
  hash(): Promise<string>;
}
