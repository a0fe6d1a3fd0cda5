/**
 * A run's config.json: what it was begun with, sealed by a digest, since a run that goes on relies on every value of it.
 *
 * @module
 */
import { inputError } from "../errors.ts";
import { isObject, readSealedJson, writeSealedJson } from "../files.ts";
import { type Adapters, isAdapters, TRAINED, type Trained } from "../model/adapters.ts";
import type { ModelConfig } from "../model/config.ts";
import { modelConfigOf } from "../model/config_file.ts";

/** A run's config.json. */
export interface RunConfig {
  /** Tells the run from every other: its checkpoints, metrics and changes of slack carry it. */
  id: string;
  command: string;
  settings: Record<string, unknown>;
  adapter: string;
  versions: { project: string; deno: string };
  model: { config: ModelConfig; hash: string };
  /** What of the model is trained, where it is not all. */
  adaptation?: { train: Trained; adapters?: Adapters };
  /** Its hash, and the tokens that end and begin a text; earlier versions did not write these down. */
  tokenizer: { hash: string; endOfText?: number; startOfText?: number };
  /** SHA-256 over the hashes of the data's files in order, or `-` where standard input is among them. */
  data?: { hash: string };
  /** How many processes shared the rows of its steps when it last began or went on; left out: one. */
  ranks?: number;
  /** Settings that became others when the run was resumed, in order; `settings` holds the last. */
  changes?: SettingChange[];
}

/** A setting that became another when its run was resumed. */
export interface SettingChange {
  setting: string;
  phase: string;
  /** Steps of the phase that were done before. */
  step: number;
  before: number | string;
  now: number | string;
}

/** Writes a run's config.json. */
export async function writeRunConfig(path: string, config: RunConfig): Promise<void> {
  await writeSealedJson(path, config);
}

/**
 * Reads a run's config.json.
 *
 * @throws {UserError} when it is none, or damaged
 */
export async function readRunConfig(path: string): Promise<RunConfig> {
  const config = await readSealedJson(path);
  const { id, command, settings, adapter, versions, model, adaptation, tokenizer, data, ranks, changes } =
    config;
  const modelConfig = isObject(model) ? modelConfigOf(model.config) : undefined;
  const whole = typeof id === "string" && typeof command === "string" && isObject(settings) &&
    typeof adapter === "string" &&
    isObject(versions) && Object.values(versions).every((version) => typeof version === "string") &&
    isObject(model) && typeof model.hash === "string" && modelConfig !== undefined &&
    (adaptation === undefined || isAdaptation(adaptation)) &&
    isObject(tokenizer) && typeof tokenizer.hash === "string" &&
    (data === undefined || (isObject(data) && typeof data.hash === "string")) &&
    (ranks === undefined || Number.isSafeInteger(ranks)) &&
    (changes === undefined || (Array.isArray(changes) && changes.every(isSettingChange)));
  if (!whole) throw inputError(`Cannot use ${path} as it is no run's config.json`);
  return { ...config as unknown as RunConfig, model: { config: modelConfig, hash: model.hash as string } };
}

function isAdaptation(value: unknown): boolean {
  return isObject(value) && typeof value.train === "string" &&
    TRAINED.some((train) => train === value.train) &&
    (value.adapters === undefined || isAdapters(value.adapters));
}

function isSettingChange(value: unknown): boolean {
  return isObject(value) && typeof value.setting === "string" && typeof value.phase === "string" &&
    Number.isSafeInteger(value.step) &&
    [value.before, value.now].every((each) => typeof each === "number" || typeof each === "string");
}
