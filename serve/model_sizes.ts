/**
 * Whether sizes can be a model's at all. A list of parameters, a network or a table of heads made of sizes beyond any
 * bound would take the server's memory before anything else could fail.
 *
 * @module
 */
import type { ModelConfig } from "../pipeline/model_config.ts";

/** GPT-3 has 96 of each: ten times that is beyond what this could look at. */
const MOST_LAYERS = 1000;
const MOST_HEADS = 1000;
/** 64 GB of float32: beyond any one device. */
const MOST_PARAMETERS = 2 ** 34;

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 1;

/** Whether layers, heads and positions are counts within bounds. */
export function hasShape(config: Partial<ModelConfig> | null | undefined): boolean {
  const { layers, heads, contextLength } = config ?? {};
  return isCount(layers) && layers <= MOST_LAYERS && isCount(heads) && heads <= MOST_HEADS &&
    isCount(contextLength);
}

/** Whether a network can be made of these sizes. */
export function isModel(config: Partial<ModelConfig> | null | undefined): config is ModelConfig {
  if (!hasShape(config)) return false;
  const { vocabularySize, contextLength, width, layers, heads, mlpWidth, layerNormEpsilon } = config!;
  if (!isCount(vocabularySize) || !isCount(width) || !isCount(mlpWidth) || width % heads! !== 0) return false;
  const parameters = (vocabularySize + contextLength!) * width +
    layers! * width * (4 * width + 2 * mlpWidth);
  return parameters <= MOST_PARAMETERS && Number.isFinite(layerNormEpsilon) && layerNormEpsilon! > 0;
}
