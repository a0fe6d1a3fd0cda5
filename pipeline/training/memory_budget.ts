/**
 * Whether a run fits the device, asked before it starts: what it will need, what can be had, the largest batch that
 * fits, and which setting to lower when it does not.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import { textureCapacity } from "../../kernels/core/textures.ts";
import { faultOfRanks } from "../../kernels/matmul/low_rank.ts";
import { usageError, type UserError } from "../errors.ts";
import { type MemoryNeeds, memoryNeeds, type NeedsShape, type TrainedParts } from "../model/needs.ts";
import { faultOfHalf, type ModelConfig } from "../model/config.ts";
import { stageShapes } from "../model/stage.ts";
import { shareOfStep } from "../parallel/share_of_step.ts";

/** The settings that decide what a run takes. */
export interface MemorySettings {
  batch: number | "auto";
  context: number;
  recompute: boolean;
  dtype: "f32" | "f16";
  /** In GB; `auto`: what can be had. */
  memory: number | "auto";
  /** Weight of the distillation term; above 0 a teacher is held too. */
  distill?: number;
  /** Whether ranks divide AdamW's moments among them. */
  shardOptimizer?: boolean;
  /** Ranks that the layers are divided among; left out: one. */
  stages?: number;
  /** Micro-batches to a step; left out: one. */
  accumulate?: number;
}

/** A run's batch, and what it takes. */
export interface MemoryBudget {
  batch: number;
  /** Rows that a rank has at once, where ranks have too few micro-batches for all of it. */
  rows?: number;
  /** Of stages those of the one that takes most. */
  needs: MemoryNeeds;
  /** How many there are; left out: one. */
  stages?: number;
}

/** Rows of a micro-batch of `auto`, at most: at some point a larger batch only trains worse. */
export const MOST_ROWS = 1024;

/** Bytes of a binding that every adapter has (WebGPU's default limit). */
export const PORTABLE_BINDING_BYTES = 128 << 20;

/** Share of the system's free memory that a CPU driver may take: the rest is the host's, which also holds batches. */
const SYSTEM_SHARE = 0.9;

/** Bytes, for people. */
export function amount(bytes: number): string {
  if (bytes < 1e3) return `${bytes} bytes`;
  if (bytes < 1e5) return `${(bytes / 1e3).toFixed(bytes < 1e4 ? 1 : 0)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

/**
 * Bytes that can be allocated, as far as anyone says: a CPU driver has what the system has free and would be killed past
 * that; a GPU tells no number, only refuses.
 */
function freeMemory(gpu: Gpu): number {
  if (!gpu.adapter.software) return Infinity;
  try {
    return SYSTEM_SHARE * Deno.systemMemoryInfo().available;
  } catch {
    return Infinity;
  }
}

/**
 * Which settings make a run smaller, for the error that it does not fit.
 *
 * @param resumed whether it has begun: then only what changes none of its bits can be given
 */
export function whatToLower(
  { batch, context, recompute, dtype, distill = 0 }: MemorySettings,
  resumed = false,
): string {
  if (resumed) {
    return recompute
      ? "free memory on the device, or begin another run with a smaller --batch"
      : "give --recompute";
  }
  return [
    ...(batch !== 1 ? [`lower --batch ${batch} and raise --accumulate`] : []),
    `lower --context ${context}`,
    ...(recompute ? [] : ["give --recompute"]),
    ...(dtype === "f16" ? [] : ["give --dtype f16"]),
    ...(distill > 0 ? ["leave out --distill"] : []),
  ].join(", or ");
}

/** What a micro-batch of so many rows takes, of so many micro-batches to a step of each rank. */
type NeedsOfRows = (batch: number, microBatches?: number) => MemoryNeeds;

/** What a run takes on a device whose bindings and textures hold so many bytes. */
function needsOn(
  { maxBindingBytes, textures }: { maxBindingBytes: number; textures: number },
  { config, settings, trained, ranks }: {
    config: ModelConfig;
    settings: MemorySettings;
    trained: Partial<TrainedParts>;
    ranks: number;
  },
): NeedsOfRows {
  const { context, recompute, dtype, distill = 0, stages = 1, accumulate = 1 } = settings;
  return (batch, microBatches = Math.ceil(accumulate / ranks)) => {
    const shape: NeedsShape = {
      batch,
      context,
      recompute,
      half: dtype === "f16",
      training: true,
      distill: distill > 0,
      shards: settings.shardOptimizer && ranks > 1 ? ranks : undefined,
      ...trained,
    };
    return stageShapes(stages, microBatches)
      .map((stage) => memoryNeeds(config, { ...shape, stage }, maxBindingBytes, textures))
      .reduce((most, needs) => needs.total > most.total ? needs : most);
  };
}

/** What the rows take that are asked for, of `auto` one. */
function needsAsAsked(needsOf: NeedsOfRows, { batch, accumulate = 1 }: MemorySettings, ranks: number) {
  const asked = batch === "auto" ? 1 : batch;
  // Of a batch that is chosen the rows are not known before it is: its micro-batches are taken to be no smaller.
  const step = batch === "auto" ? undefined : shareOfStep({ batch: asked, accumulate }, ranks);
  const ofAsked = step ? needsOf(step.batch, step.accumulate / ranks) : needsOf(asked);
  return { asked, step, ofAsked };
}

/** @throws {UserError} where what products read cannot be stored in half precision as it is asked */
function checkHalf(
  config: ModelConfig,
  { dtype }: Pick<MemorySettings, "dtype">,
  { adapters = {} }: Partial<TrainedParts>,
): void {
  const fault = dtype === "f16" ? faultOfHalf(config) ?? faultOfRanks(Object.values(adapters)) : undefined;
  if (fault) throw usageError(`Cannot train with --dtype f16 as ${fault}`);
}

function tooLarge(batch: number, problem: string, settings: MemorySettings, resumed: boolean): UserError {
  return usageError(
    `Cannot train with a batch of ${batch} as ${problem}: ${whatToLower({ ...settings, batch }, resumed)}`,
  );
}

/**
 * Refuses a run that would not fit its `--memory` on any device, or cannot be stored as asked, before its data is read.
 *
 * @throws {UserError} as {@link budgetMemory}
 */
export function checkLeastMemory(
  config: ModelConfig,
  settings: MemorySettings,
  resumed = false,
  trained: Partial<TrainedParts> = {},
  ranks = 1,
): void {
  checkHalf(config, settings, trained);
  if (settings.memory === "auto") return;
  const limit = settings.memory * 1e9;
  // Of the smallest bindings that there are what is cut by them is smallest, and textures are an extra.
  const least = { maxBindingBytes: PORTABLE_BINDING_BYTES, textures: 0 };
  const needsOf = needsOn(least, { config, settings, trained, ranks });
  const { asked, ofAsked: { total } } = needsAsAsked(needsOf, settings, ranks);
  if (total <= limit) return;
  const problem = `it needs ${amount(total)} at least and there are ${amount(limit)}`;
  throw tooLarge(asked, problem, settings, resumed);
}

/**
 * Chooses the batch where it is `auto`, and makes sure that the run fits.
 *
 * @param resumed whether it has begun
 * @param trained what of the model is trained; left out: all
 * @param ranks that share the rows of a step
 * @throws {UserError} when it cannot be stored as asked, its steps cannot be divided among the ranks, or it does not fit: what
 * it needs, what there is, and which settings to lower
 */
export async function budgetMemory(
  gpu: Gpu,
  config: ModelConfig,
  settings: MemorySettings,
  resumed = false,
  trained: Partial<TrainedParts> = {},
  ranks = 1,
): Promise<MemoryBudget> {
  checkHalf(config, settings, trained);
  const limit = settings.memory === "auto" ? freeMemory(gpu) : settings.memory * 1e9;
  const { stages = 1 } = settings;
  const needsOf = needsOn({ maxBindingBytes: gpu.maxBindingBytes, textures: textureCapacity(gpu) }, {
    config,
    settings,
    trained,
    ranks,
  });
  const problemOf = async (needs: MemoryNeeds): Promise<string | undefined> => {
    if (needs.largestBinding > gpu.maxBindingBytes) {
      return `one activation takes ${amount(needs.largestBinding)} and a binding holds ${
        amount(gpu.maxBindingBytes)
      }`;
    }
    if (needs.total > limit) {
      return `it needs ${amount(needs.total)} and there are ${amount(limit)}`;
    }
    // A CPU driver grants anything and pays when it is touched.
    if (gpu.adapter.software || await gpu.canHold(needs.buffers)) return undefined;
    return `it needs ${amount(needs.total)} and the device refused to hold that`;
  };
  const { asked, step, ofAsked } = needsAsAsked(needsOf, settings, ranks);
  const problem = await problemOf(ofAsked);
  if (problem) throw tooLarge(asked, problem, settings, resumed);
  let [batch, needs] = [asked, ofAsked];
  if (settings.batch === "auto") {
    for (let high = MOST_ROWS; batch < high;) {
      const middle = Math.ceil((batch + high) / 2);
      if (await problemOf(needsOf(middle))) high = middle - 1;
      else batch = middle;
    }
    needs = needsOf(batch);
  }
  return {
    batch,
    ...(step && step.batch < batch ? { rows: step.batch } : {}),
    needs,
    ...(stages > 1 ? { stages } : {}),
  };
}

/** One line for people: what a run takes, by what it is for. */
export function describeNeeds({ batch, rows, needs, stages = 1 }: MemoryBudget): string {
  const parts = (["weights", "copies", "teacher", "gradients", "moments", "activations", "textures"] as const)
    .filter((part) => needs[part] > 0)
    .map((part) => `${part} ${amount(needs[part])}`);
  const where = stages === 1 ? "" : ` at the one of ${stages} stages that takes most`;
  const at = rows === undefined ? "" : `, ${rows} rows of it at once`;
  return `device memory ${amount(needs.total)} with a batch of ${batch}${at}${where}: ${parts.join(", ")}`;
}
