/**
 * How many rows of text can be read at once on a device.
 *
 * @module
 */
import { paddedPositions } from "../circuits/interventions.ts";
import type { ModelConfig } from "../model/config.ts";
import { memoryNeeds } from "../model/needs.ts";

/** Rows of so many tokens, at most those that are wanted: a binding holds any activation of them. 0 where not one fits. */
export function rowsThatFit(
  config: ModelConfig,
  { batch: wanted, context }: { batch: number; context: number },
  maxBindingBytes: number,
): number {
  const positions = paddedPositions(context, config.contextLength);
  const bytesOfMap = 4 * config.heads * positions ** 2;
  const fits = (batch: number): boolean => {
    const shape = { batch, context: positions, training: false };
    return batch * bytesOfMap <= maxBindingBytes &&
      memoryNeeds(config, shape, maxBindingBytes).largestBinding <= maxBindingBytes;
  };
  let batch = Math.min(wanted, Math.floor(maxBindingBytes / bytesOfMap));
  while (batch > 0 && !fits(batch)) batch--;
  return batch;
}
