/**
 * peft's adapter_config.json: which modules of a model are adapted, of which rank and scale.
 *
 * Source: huggingface/peft 0.21, src/peft/tuners/lora/config.py, tuners/tuners_utils.py (check_target_module_exists),
 * utils/other.py (get_pattern_key).
 *
 * @module
 */
import { inputError } from "../errors.ts";
import { isObject, readJson, shown } from "../files.ts";
import { type Adapter, type Adapters, isMeant, type Module, modulesOf } from "./adapters.ts";
import type { ModelConfig } from "./config.ts";
import { familyOf } from "./families.ts";

/** Name of the file. */
export const ADAPTER_CONFIG = "adapter_config.json";

/** What would make of an adapter another computation than a product of low rank beside a product of the model. */
const REFUSED = [
  "use_dora",
  "use_qalora",
  "use_bdlora",
  "lora_bias",
  "modules_to_save",
  "alora_invocation_tokens",
  "trainable_token_indices",
  "target_parameters",
  "layer_replication",
  "megatron_config",
  "arrow_config",
  "kasa_config",
  "monteclora_config",
  "velora_config",
];
/** Beginnings that leave the base as it is; pissa, olora, corda and loftq change it. */
const BEGINNINGS = [true, false, "gaussian", "eva", "orthogonal"];

/** What an adapter's config says. */
export interface AdapterConfig {
  readonly adapters: Adapters;
  /** Folder or name of the model that it was made for, where it says so. */
  readonly base: string | undefined;
}

/**
 * Reads an adapter's config for a model.
 *
 * @throws {UserError} naming the field and its value, where the adapter is of another kind, means no product of the model, or
 * means something that is none
 */
export async function readAdapterConfig(path: string, config: ModelConfig): Promise<AdapterConfig> {
  const json = await readJson(path);
  if (!isObject(json)) throw inputError(`Cannot use ${path} as it must be a JSON object`);
  const fail = (field: string, required: string): never => {
    throw inputError(`Cannot use ${path} as ${field} must be ${required}: ${shown(json[field])}`);
  };
  if (json.peft_type !== "LORA") fail("peft_type", '"LORA"');
  for (const field of REFUSED) if (isSet(json[field])) fail(field, "left out");
  if ((json.bias ?? "none") !== "none") fail("bias", '"none"');
  if (!BEGINNINGS.some((beginning) => beginning === (json.init_lora_weights ?? true))) {
    fail("init_lora_weights", BEGINNINGS.map((beginning) => JSON.stringify(beginning)).join(", "));
  }
  const rank = json.r ?? 8;
  if (!isRank(rank)) fail("r", "a positive integer");
  const alpha = json.lora_alpha ?? 8;
  if (!isAlpha(alpha)) fail("lora_alpha", "a number");
  const rankStabilised = json.use_rslora ?? false;
  if (typeof rankStabilised !== "boolean") fail("use_rslora", "true or false");
  const rankOf = patterns(json, "rank_pattern", isRank, fail);
  const alphaOf = patterns(json, "alpha_pattern", isAlpha, fail);
  const meant = meaning(json, fail);
  const adapterOf = ({ path }: Module): Adapter => {
    return {
      rank: rankOf(path) ?? rank as number,
      alpha: alphaOf(path) ?? alpha as number,
      rankStabilised: rankStabilised as boolean,
    };
  };
  const modules = modulesOf(config).filter(({ path }) => meant(path));
  if (modules.length === 0) {
    fail("target_modules", `such that it names a product of a model of ${familyOf(config).type}`);
  }
  return {
    adapters: Object.fromEntries(modules.map((module) => [module.name, adapterOf(module)])),
    // A model that was made in memory has no name, or an empty one.
    base: typeof json.base_model_name_or_path === "string" && json.base_model_name_or_path !== ""
      ? json.base_model_name_or_path
      : undefined,
  };
}

const isRank = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) > 0;
const isAlpha = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value);

/** Whether a field says anything: false, null and what is empty do not. */
function isSet(value: unknown): boolean {
  if (value === undefined || value === null || value === false) return false;
  return typeof value !== "object" || Object.keys(value).length > 0;
}

type Fail = (field: string, required: string) => never;

/** A regular expression of Python's in JavaScript, as far as both have the same. */
function expression(source: string, field: string, fail: Fail): RegExp {
  try {
    return new RegExp(source);
  } catch {
    return fail(field, "of regular expressions that JavaScript has too");
  }
}

/** The value of the first pattern that a module's path ends with. */
function patterns(
  json: Readonly<Record<string, unknown>>,
  field: string,
  isValue: (value: unknown) => value is number,
  fail: Fail,
): (path: string) => number | undefined {
  const found = json[field] ?? {};
  if (!isObject(found) || !Object.values(found).every(isValue)) fail(field, "an object of numbers");
  const all = Object.entries(found as Record<string, number>)
    .map(([pattern, value]) => [expression(`^(.*\\.)?(${pattern})$`, field, fail), value] as const);
  return (path) => all.find(([pattern]) => pattern.test(path))?.[1];
}

const isNames = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((name) => typeof name === "string");

/** Whether a module is adapted, by its path. */
function meaning(json: Readonly<Record<string, unknown>>, fail: Fail): (path: string) => boolean {
  const listed = (field: string): (path: string) => boolean => {
    const value = json[field];
    if (typeof value === "string") {
      const pattern = expression(`^(?:${value})$`, field, fail);
      return (path) => pattern.test(path);
    }
    if (!isNames(value)) return fail(field, "a list of names, or a regular expression");
    return (path) => value.some((name) => isMeant(path, name));
  };
  const target = json.target_modules === "all-linear" ? () => true : listed("target_modules");
  const excluded = isSet(json.exclude_modules) ? listed("exclude_modules") : () => false;
  const layers = isSet(json.layers_to_transform) ? [json.layers_to_transform].flat() : undefined;
  if (layers && !layers.every((layer) => Number.isSafeInteger(layer))) {
    fail("layers_to_transform", "a list of layers, from 0");
  }
  const of = json.layers_pattern;
  const names = isSet(of) && of !== "" ? [of].flat() : ["[^.]*"];
  if (!isNames(names)) fail("layers_pattern", "a name, or a list of names");
  const inLayers = (names as string[]).map((name) =>
    expression(`^(?:.*?\\.)?${name}\\.(\\d+)\\.`, "layers_pattern", fail)
  );
  const layerOf = (path: string): number | undefined => {
    const found = inLayers.map((pattern) => pattern.exec(path)?.[1]).find((layer) => layer !== undefined);
    return found === undefined ? undefined : Number(found);
  };
  return (path) => target(path) && !excluded(path) && (!layers || layers.includes(layerOf(path)));
}

/**
 * The fields of the config of some adapters.
 *
 * @param base folder or name of the model that they were made for
 */
export function adapterConfigToJson(
  config: ModelConfig,
  adapters: Adapters,
  { base, revision }: { base: string; revision?: string },
): Record<string, unknown> {
  const modules = modulesOf(config).filter(({ name }) => adapters[name]);
  const { rank, alpha, rankStabilised } = adapters[modules[0].name];
  // Whole paths match only themselves; of a regular expression's characters they have but the dot.
  const pattern = (of: "rank" | "alpha"): Record<string, number> =>
    Object.fromEntries(
      modules.filter(({ name }) => adapters[name][of] !== { rank, alpha }[of])
        .map(({ name, path }) => [path.replaceAll(".", "\\."), adapters[name][of]]),
    );
  return {
    peft_type: "LORA",
    task_type: "CAUSAL_LM",
    base_model_name_or_path: base,
    revision: revision ?? null,
    inference_mode: true,
    r: rank,
    lora_alpha: alpha,
    use_rslora: rankStabilised,
    use_dora: false,
    lora_dropout: 0,
    bias: "none",
    fan_in_fan_out: !familyOf(config).transposed,
    init_lora_weights: true,
    target_modules: targetsOf(config, modules),
    exclude_modules: null,
    layers_to_transform: null,
    layers_pattern: null,
    rank_pattern: pattern("rank"),
    alpha_pattern: pattern("alpha"),
    modules_to_save: null,
  };
}

/** Names of modules: of their ends, where those mean no others. */
function targetsOf(config: ModelConfig, modules: readonly Module[]): string[] {
  const layer = new RegExp(`^.*?\\b${familyOf(config).names.layers}\\.\\d+\\.`);
  const ends = [...new Set(modules.map(({ path }) => path.replace(layer, "")))];
  const meant = modulesOf(config).filter(({ path }) => ends.some((end) => isMeant(path, end)));
  return meant.length === modules.length ? ends : modules.map(({ path }) => path);
}
