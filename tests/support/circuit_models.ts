/**
 * Small models for circuit tests, on the device and in float64.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import { elementsOf } from "../../kernels/core/tensor.ts";
import type { CircuitModel } from "../../pipeline/circuits/engine.ts";
import type { AnswerPlace, PromptSet } from "../../pipeline/circuits/prompts.ts";
import { placeMetric } from "../../pipeline/circuits/prompts.ts";
import { type ReferenceModel, type ReferencePatch, referenceRun } from "./reference_run.ts";
import { initialWeights } from "../../pipeline/model/initial_weights.ts";
import { gpt2Config, type ModelConfig } from "../../pipeline/model/config.ts";
import { parametersOf } from "../../pipeline/model/trace.ts";
import { readModelConfig } from "../../pipeline/model/config_file.ts";
import { openWeights } from "../../pipeline/model/load_weights.ts";
import { createParameters, loadParameters } from "../../pipeline/model/parameters.ts";
import { normals, seeded } from "./seeded.ts";

/** Two layers of two heads. */
export const TINY: ModelConfig = gpt2Config({
  vocabularySize: 13,
  contextLength: 8,
  width: 16,
  layers: 2,
  heads: 2,
  mlpWidth: 32,
});

/** A model that knows its weights on both sides. */
export interface TwoSidedModel extends CircuitModel {
  reference: ReferenceModel;
}

/** Puts weights on the device; what `weights` does not name is zero, but for layer norms' weights, which are 1. */
export function uploadModel(
  gpu: Gpu,
  config: ModelConfig,
  weights: ReadonlyMap<string, Float32Array>,
): TwoSidedModel {
  const shapes = parametersOf(config);
  const parameters = createParameters(gpu, shapes);
  const all = new Map(shapes.map(({ name, shape }) => {
    const length = elementsOf(shape);
    const fallback = new Float32Array(length).fill(/ln_\w+\.weight$/.test(name) ? 1 : 0);
    return [name, weights.get(name) ?? fallback];
  }));
  for (const [name, values] of all) gpu.write(parameters.get(name)!, values);
  return { config, parameters, reference: { ...config, weights: all } };
}

/** Random weights, large enough that every part of the model matters; biases too. */
export function randomModel(gpu: Gpu, config: ModelConfig, scale = 12): TwoSidedModel {
  const weights = new Map(
    parametersOf(config).map((shape, index) => {
      const length = elementsOf(shape.shape);
      const values = /bias$/.test(shape.name)
        ? normals(100 + index, length, 0.1)
        : initialWeights(shape, { seed: 3, index })
          .map((value) => /ln_/.test(shape.name) ? value : scale * value);
      return [shape.name, values];
    }),
  );
  return uploadModel(gpu, config, weights);
}

const FAMILIES = new URL("../fixtures/families/", import.meta.url).pathname;

/** Names of tiny models, one of every family but GPT-2. */
export const FAMILY_MODELS = Array.from(Deno.readDirSync(FAMILIES)).filter(({ isDirectory }) => isDirectory)
  .map(({ name }) => name).toSorted();

/** One of {@link FAMILY_MODELS} on both sides, with gates of one's own. */
export async function familyModel(
  gpu: Gpu,
  name: string,
  gate?: ModelConfig["gate"],
): Promise<TwoSidedModel> {
  const config = { ...await readModelConfig(FAMILIES + name), gate };
  const source = await openWeights(FAMILIES + name, config);
  const weights = new Map<string, Float32Array>();
  for (const { name } of source.parameters) weights.set(name, await source.read(name));
  const parameters = await loadParameters(gpu, source.parameters, source.read);
  return { config, parameters, reference: { ...config, weights } };
}

/** Random pairs of prompts, with one or two places each. */
export function randomSet(
  { vocabularySize }: ModelConfig,
  { pairs, positions, metric = "logit_difference", seed = 1 }: {
    pairs: number;
    positions: number;
    metric?: PromptSet["metric"];
    seed?: number;
  },
): PromptSet {
  const random = seeded(seed);
  const token = () => random.integer(vocabularySize);
  const place = (position: number): AnswerPlace => {
    const right = token();
    return { position, right: [right], wrong: [(right + 1) % vocabularySize, (right + 2) % vocabularySize] };
  };
  return {
    task: "random",
    metric,
    pairs: Array.from({ length: pairs }, (_, pair) => {
      const clean = Array.from({ length: positions }, token);
      return {
        clean,
        // The last token stays, as in most tasks.
        corrupted: clean.map((same, position) => position === positions - 1 ? same : token()),
        places: [place(positions - 1), ...(pair % 2 ? [place(positions - 1), place(1)] : [])],
        template: "random",
      };
    }),
  };
}

/** The metric of a pair in float64, its logits being those of the reference. */
export function referenceMetric(
  model: ReferenceModel,
  metric: PromptSet["metric"],
  tokens: ArrayLike<number>,
  places: readonly AnswerPlace[],
  patch?: ReferencePatch,
): number {
  const { logits } = referenceRun(model, tokens, patch);
  const V = model.vocabularySize;
  const values = places.map((place) =>
    placeMetric(metric, logits.subarray(place.position * V, (place.position + 1) * V), place).value
  );
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
