/**
 * A step that a run has kept as a model's folder: what the run itself would save, had it chosen that step. No device is
 * needed.
 *
 * @module
 */
import { join } from "node:path";
import { inputError } from "../errors.ts";
import { digestOf, exists, isObject } from "../files.ts";
import { hubModel } from "../hub/names.ts";
import { mergedWeights, openAdapter, type ReadValues } from "../model/adapter_files.ts";
import type { ModelConfig } from "../model/config.ts";
import { openWeights } from "../model/load_weights.ts";
import { type SavedAdapter, saveModel } from "../model/save_weights.ts";
import { parametersOf } from "../model/trace.ts";
import type { WeightSource } from "../model/weight_source.ts";
import { readCheckpoint } from "../runs/checkpoint.ts";
import { PRETRAIN, type PretrainSettings, SPARSIFY, type SparsifySettings } from "../settings.ts";
import { defaultsOf, type Locate } from "../settings/resolve.ts";
import { loadTokenizer } from "../text/tokenizer.ts";
import { nameOfBase } from "../training/prepare_run.ts";
import { gatesFrom } from "../training/pretrain.ts";
import type { KeptStep, StoredRun } from "./kept_steps.ts";

/**
 * Saves a step's weights; of a run that trains adapters, these.
 *
 * @param locate finds the model that the run began with, where its weights or its name are needed
 * @throws {UserError} when the checkpoint is damaged or another run's, what is needed of the run's folder or its model is not
 * what it was, or the folder cannot be written
 */
export async function exportStep(
  run: StoredRun,
  { step, paths: [path] }: KeptStep,
  output: string,
  locate: Locate,
): Promise<void> {
  const { model: { config: model }, tokenizer: began, adaptation = { train: "all" } } = run.config;
  const checkpoint = await readCheckpoint(path);
  if (checkpoint.run !== run.config.id) throw inputError(`Cannot export ${path} as it is another run's`);
  // Before anything is written.
  await checkpoint.verify();
  const tokenizerPath = join(run.path, "tokenizer.json");
  const tokenizer = await loadTokenizer(tokenizerPath, model);
  if (tokenizer.hash !== began.hash) {
    throw inputError(`Cannot export ${run.name} as ${tokenizerPath} is not the tokenizer that it began with`);
  }
  // A run of an earlier version did not write down which tokens end and begin a text.
  const { endOfText, startOfText } = began.endOfText === undefined ? tokenizer : began;
  const { adapters } = adaptation;
  const parameters = parametersOf(model, adaptation).filter(({ adapter }) => !adapters || adapter);
  const rest = parameters.every(({ name }) => checkpoint.has(`weight.${name}`))
    ? undefined
    : await beginningOf(run, locate);
  const read = (name: string, shape: readonly number[]): ReturnType<ReadValues> =>
    rest && !checkpoint.has(`weight.${name}`) ? rest.read(name) : checkpoint.read(`weight.${name}`, shape);
  await saveModel(output, {
    config: {
      ...model,
      endOfText,
      ...(startOfText === undefined ? {} : { startOfText }),
      ...gateOf(run, step),
    },
    tensors: parameters.map(({ name, shape }) => ({ name, shape, read: () => read(name, shape) })),
    type: run.config.settings.saveType as SparsifySettings["saveType"] | undefined ?? SPARSIFY.saveType.value,
    tokenizer: tokenizerPath,
    sparseAttention: measuredAt(run, step),
    ...(adapters ? { adapter: { adapters, ...await baseOf(run, locate) } } : {}),
  });
}

/** The gates that the model of a step has; those that it began with where it was not trained for others. */
function gateOf({ config: { command, settings } }: StoredRun, step: number): Pick<ModelConfig, "gate"> {
  if (command === "sparsify") {
    const { gateBias, temperature } = { ...defaultsOf(SPARSIFY), ...settings } as SparsifySettings;
    return { gate: { bias: gateBias, temperature } };
  }
  const own = { ...defaultsOf(PRETRAIN), ...settings } as PretrainSettings;
  if (!own.sparse || step <= gatesFrom(own)) return {};
  return { gate: { bias: own.gateBias, temperature: own.temperature } };
}

/** What the run has measured of a step on its test tokens, as its own model says it. */
function measuredAt({ phase, summary }: StoredRun, step: number): Record<string, unknown> | undefined {
  if (phase !== "sparse" || !summary || !isObject(summary.dense)) return undefined;
  const { sparse, front = [] } = summary;
  const measured = [sparse, ...Array.isArray(front) ? front : []].find((of) =>
    isObject(of) && of.step === step
  );
  if (!isObject(measured)) return undefined;
  const { open_fraction, ce: test_ce } = measured;
  return { open_fraction, test_ce, dense_test_ce: summary.dense.ce };
}

/** The weights that a run began with: its own copy of the model's files, or these. */
async function beginningOf(run: StoredRun, locate: Locate): Promise<WeightSource> {
  const { model, adapter } = run.config.settings as Partial<SparsifySettings>;
  const { config, hash } = run.config.model;
  for (const place of [join(run.path, "dense"), (await locate(model!)).folder]) {
    if (!await exists(join(place, "config.json"))) continue;
    const base = await openWeights(place, config);
    const weights = adapter === undefined ? base : mergedWeights(base, await openAdapter(adapter, config));
    if (await weights.hash() !== hash) {
      throw inputError(
        `Cannot export ${run.name} as the weights in ${place} are not those that it began with`,
      );
    }
    await weights.verify();
    return weights;
  }
  throw inputError(`Cannot export ${run.name} as the model that it began with is not there: ${model}`);
}

/** What an adapter says of the model that it is for. */
async function baseOf(run: StoredRun, locate: Locate): Promise<Omit<SavedAdapter, "adapters">> {
  const { model = "", adapter } = run.config.settings as Partial<SparsifySettings>;
  const { config, hash } = run.config.model;
  const { folder } = await locate(model);
  const isThere = await exists(join(folder, "config.json"));
  const hub = hubModel(model);
  // The run's own copy, where the model has moved.
  const place = isThere ? folder : join(run.path, "dense");
  const { model: base, revision } = isThere || await exists(join(place, "config.json"))
    ? await nameOfBase(place, model)
    : { model: hub?.name ?? model, revision: hub?.revision };
  // Where it began with an adapter, the run's digest is of both.
  if (adapter === undefined) return { base, revision, hash };
  if (!isThere) {
    throw inputError(`Cannot export ${run.name} as the model that it began with is not there: ${model}`);
  }
  const ofBase = await (await openWeights(folder, config)).hash();
  const ofAdapter = await (await openAdapter(adapter, config)).hash();
  if (digestOf([ofBase, ofAdapter].join("\n")) !== hash) {
    throw inputError(
      `Cannot export ${run.name} as ${model} and ${adapter} are not the model and the adapter that it began with`,
    );
  }
  return { base, revision, hash: ofBase };
}
