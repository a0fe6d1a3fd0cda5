/**
 * Low-rank adapters of a model (LoRA, arXiv 2106.09685), as data of its trace: which products have one, of which rank.
 *
 *     y = x W + b + s (x A) B,   A [in, r], B [r, out], s = α / r, or α / √r with rank stabilisation (arXiv 2312.03732)
 *
 * Where a product's columns stand in files as several tensors, each is adapted by itself, as in peft.
 *
 * @module
 */
import type { ModelConfig } from "./config.ts";
import { familyOf } from "./families.ts";
import { nearest } from "../nearest.ts";
import { usageError } from "../errors.ts";
import { isObject } from "../files.ts";

/** One adapter. */
export interface Adapter {
  /** r. */
  readonly rank: number;
  /** α. */
  readonly alpha: number;
  /** Whether s is α / √r rather than α / r. */
  readonly rankStabilised: boolean;
}

/**
 * Adapters by the module that each stands beside, as its family's files call it without the prefix: `h.0.attn.c_attn`,
 * `layers.0.self_attn.q_proj`.
 */
export type Adapters = Readonly<Record<string, Adapter>>;

/** What training can move: everything, the products of attention, or adapters alone. */
export const TRAINED: readonly Trained[] = ["all", "attention", "lora"];

/** What training moves. */
export type Trained = "all" | "attention" | "lora";

/** Whether a value, as it comes from JSON, is of adapters. */
export function isAdapters(value: unknown): value is Adapters {
  return isObject(value) &&
    Object.values(value).every((adapter) =>
      isObject(adapter) && Number.isSafeInteger(adapter.rank) && adapter.rank as number > 0 &&
      typeof adapter.alpha === "number" && typeof adapter.rankStabilised === "boolean"
    );
}

/** What a product's columns are. */
export const TARGETS = ["query", "key", "value", "output", "gate", "up", "down"] as const;

/** A product of a model that an adapter can stand beside. */
export interface Module {
  /** Without the prefix. */
  readonly name: string;
  /** With it, as other programs call it. */
  readonly path: string;
  /** What it computes: of GPT-2 one gives queries, keys and values. */
  readonly targets: readonly (typeof TARGETS)[number][];
  /** Rows of its weight. */
  readonly inputs: number;
  /** Its columns. */
  readonly outputs: number;
}

/** Every product of a model but its head, in order. */
export function modulesOf(config: ModelConfig): Module[] {
  const { layers, width, heads, keyValueHeads, headSize, mlpWidth, mlp } = config;
  const { names, prefix } = familyOf(config);
  const [queries, keys] = [heads * headSize, keyValueHeads * headSize];
  const module = (
    layer: number,
    name: string,
    targets: Module["targets"],
    inputs: number,
    outputs: number,
  ): Module => {
    const inLayer = `${names.layers}.${layer}.${name}`;
    return { name: inLayer, path: `${prefix}.${inLayer}`, targets, inputs, outputs };
  };
  return Array.from({ length: layers }, (_, layer) => {
    const [query, key, value] = names.qkv.parts ?? [];
    const [gate, up] = mlp === "swiglu" ? names.mlpIn.parts ?? [] : [];
    return [
      ...(names.qkv.parts
        ? [
          module(layer, query, ["query"], width, queries),
          module(layer, key, ["key"], width, keys),
          module(layer, value, ["value"], width, keys),
        ]
        : [module(layer, names.qkv.name, ["query", "key", "value"], width, queries + 2 * keys)]),
      module(layer, names.attentionOut, ["output"], queries, width),
      ...(gate
        ? [module(layer, gate, ["gate"], width, mlpWidth), module(layer, up, ["up"], width, mlpWidth)]
        : [module(layer, names.mlpIn.name, ["up"], width, mlpWidth)]),
      module(layer, names.mlpOut, ["down"], mlpWidth, width),
    ];
  }).flat();
}

/** s, what an adapter's product is multiplied by. */
export function scaleOf({ rank, alpha, rankStabilised }: Adapter): number {
  return alpha / (rankStabilised ? Math.sqrt(rank) : rank);
}

/** Whether a module's path is meant by the end of it, or by all of it, as peft's lists of modules mean them. */
export function isMeant(path: string, name: string): boolean {
  return path === name || path.endsWith(`.${name}`);
}

/**
 * The adapters that settings describe.
 *
 * @param targets what the adapted products compute, of {@link TARGETS}; or the ends of their names in the family's files,
 * `q_proj` or `attn.c_proj`; or `all-linear`
 * @throws {UserError} on a target that the model has no product for
 */
export function adaptersFor(
  config: ModelConfig,
  { targets, ...adapter }: Adapter & { targets: readonly string[] },
): Adapters {
  const modules = modulesOf(config);
  const meant = (module: Module, target: string): boolean =>
    target === "all-linear" || module.targets.some((each) => each === target) || isMeant(module.path, target);
  const unknown = targets.find((target) => !modules.some((module) => meant(module, target)));
  if (unknown !== undefined || targets.length === 0) {
    const ends = modules.map(({ path }) => path.split(".").at(-1)!);
    const known = [...new Set([...modules.flatMap((module) => module.targets), ...ends, "all-linear"])];
    const near = unknown === undefined ? undefined : nearest(unknown, known);
    throw usageError(
      `Cannot use --lora-targets as each must be of ${known.join(", ")}: ${unknown || "nothing given"}` +
        (near === undefined ? "" : ` (did you mean ${near}?)`),
    );
  }
  return Object.fromEntries(
    modules.filter((module) => targets.some((target) => meant(module, target))).map((
      { name },
    ) => [name, adapter]),
  );
}

/** Which of queries and keys no adapter reaches in some layer: gates are decided by both, and have no other weights. */
export function unreachedByGates(config: ModelConfig, adapters: Adapters): ("query" | "key")[] {
  return (["query", "key"] as const).filter((target) =>
    modulesOf(config).some(({ name, targets }) => targets.includes(target) && !adapters[name])
  );
}
