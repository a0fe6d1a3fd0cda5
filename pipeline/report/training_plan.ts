/**
 * The plan of a training run before anything of it is there but a config.json: bytes by what they are for, what must be
 * bound in slices, what fits a given memory, arithmetic, and hours at a rate that is given.
 *
 * @module
 */
import { textureCapacity } from "../../kernels/core/textures.ts";
import { elementBytes, elementsOf, slicesOf } from "../../kernels/core/tensor.ts";
import { usageError } from "../errors.ts";
import { countArithmetic, countStages, countStretches } from "../model/arithmetic.ts";
import { faultOfHalf, type ModelConfig } from "../model/config.ts";
import type { FrozenType, Parameter } from "../model/op.ts";
import type { MemoryPlan } from "../model/plan.ts";
import { hasSharedHead, layersOf, type StageShape, stageShapes } from "../model/stage.ts";
import { parametersOf, trace } from "../model/trace.ts";
import {
  planTrained,
  PROGRAM_BYTES,
  type TrainedParts,
  type TrainingNeeds,
  trainingNeeds,
} from "../model/needs.ts";
import { faultOfRanks } from "../../kernels/matmul/low_rank.ts";
import type { PlanSettings } from "../settings.ts";
import { adaptationOf, teacherIsAdapted } from "../training/adaptation.ts";
import { pipelinesOf, shareOfStep } from "../parallel/share_of_step.ts";
import { amount, MOST_ROWS, PORTABLE_BINDING_BYTES } from "../training/memory_budget.ts";
import { BUCKET_BYTES } from "../training/trainer.ts";
import { formatShare } from "./progress.ts";
import { type StagedTime, timeOfStages } from "./stage_time.ts";
import { HOST, type StepTime, timeOfStep } from "./step_time.ts";
import { formatTable } from "./table.ts";

/** Bytes that a binding holds at most wherever wgpu, which Deno's WebGPU is, runs: it computes offsets in 32 signed bits. */
export const LARGEST_BINDING_BYTES = 2 ** 31 - 1;

/** What is planned. */
export interface PlanAsked {
  /** Rows of a micro-batch; where ranks have too few micro-batches it is of fewer rows. */
  batch: number;
  /** Tokens of a row. */
  context: number;
  /** Micro-batches to a step. */
  accumulate: number;
  /** How products read weights and activations. */
  dtype: "f32" | "f16";
  /** Whether backward computes activations anew. */
  recompute: boolean;
  /** Whether a teacher is compared with. */
  distill: boolean;
  /** Steps between measurements of the constraint, each a further forward. */
  constraintEvery: number;
  /** What is trained, and how the rest is stored. */
  parts: TrainedParts;
  /** Bytes of device memory; left out, nothing is said of what fits. */
  memory?: number;
  /** Bytes that a binding of the device holds. */
  binding?: number;
  /** Tokens to train on, and how many of them one rank has in a second; 0: not said. */
  tokens?: number;
  rate?: number;
  /** Ranks that train together; left out: one. */
  ranks?: number;
  /** Bytes that each sends in a second; left out: not said. */
  network?: number;
  /** Whether they divide AdamW's moments among them. */
  shardOptimizer?: boolean;
  /** How many of them the layers are divided among; left out: one. */
  stages?: number;
}

/** What a rank of one stage takes and sends. */
export interface StagePlan {
  /** Its layers: the first, and the one behind its last. */
  layers: [first: number, end: number];
  /** Micro-batches whose activations stand at once, at most. */
  in_flight: number;
  weights: number;
  gradients: number;
  moments: number;
  activations: number;
  total: number;
  /** Bytes that it sends in a step. */
  sent_per_step: number;
}

/** What fits a memory with or without recomputing. */
export interface Fit {
  recompute: boolean;
  /** Rows of the largest micro-batch at the context asked for, up to 1,024; 0: not one. */
  batch: number;
  /** Tokens of the longest row of a micro-batch of one, up to the model's positions; 0: not one. */
  context: number;
  /** What a micro-batch of one row at the context asked for takes. */
  least: number;
  /** Why there is no larger micro-batch: memory, what a binding holds, or that no more is asked for. */
  bound: "memory" | "binding" | "rows";
}

/** A plan, as `--json` prints it. */
export interface TrainingPlan {
  parameters: number;
  trained_parameters: number;
  train: TrainedParts["train"];
  rank: number;
  frozen: FrozenType;
  dtype: "f32" | "f16";
  recompute: boolean;
  /** The micro-batches of a run: of several ranks smaller ones than were asked for, where these are too few. */
  batch: number;
  context: number;
  accumulate: number;
  /** Bytes by what they are for. */
  weights: number;
  frozen_weights: number;
  trained_weights: number;
  copies: number;
  teacher: number;
  gradients: number;
  moments: number;
  activations: number;
  total: number;
  /** The largest activation, which is bound whole. */
  largest_binding: number;
  largest_binding_of: string;
  /** What every adapter's binding holds. */
  portable_binding: number;
  /** Largest micro-batch at this context whose activations are bound by every adapter; 0: none. */
  portable_batch: number;
  /** Weights that are larger than that and bound in slices, and in how many at most. */
  sliced: { count: number; largest: string; bytes: number; slices: number } | undefined;
  /** Where a memory was given. */
  memory?: number;
  fits?: Fit[];
  /** FLOP. */
  arithmetic: {
    forward: number;
    recomputed: number;
    backward: number;
    /** Of a step of the sparse phase: micro-batches, a teacher's forward, its share of measurements of the constraint. */
    step: number;
    token: number;
  };
  tokens_per_step: number;
  /** Where there are several; bytes are those of the rank that holds most. */
  ranks?: number;
  /** Bytes that a rank sends in a step: gradients, and where moments are divided weights, or sums; of stages the most. */
  sent_per_step?: number;
  /** Where layers are divided; bytes above are those of the stage that takes most. */
  stages?: StagePlan[];
  /** Share of a step that each stage waits, were all as fast and the link without end. */
  waiting?: number;
  /** Seconds of a step, and tokens a second of all ranks; where a network and a rate were given. */
  time?: StepTime & { tokens_per_second: number };
  /** The same of stages. */
  staged_time?: StagedTime & { tokens_per_second: number };
  /** Where tokens were given. */
  tokens?: number;
  steps?: number;
  total_flop?: number;
  /** Where a rate was given too, and of several ranks a network. */
  rate?: number;
  hours?: number;
  flop_per_second?: number;
}

const BYTES: Readonly<Record<string, number>> = {
  "": 1e9,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/**
 * Bytes of a size of memory: a number, and MB, GB, TB or MiB, GiB, TiB behind it; GB where there is nothing.
 *
 * @param flag that it is the value of
 * @throws {UserError} on anything else
 */
export function parseMemory(flag: string, text: string): number {
  const [, number, unit = ""] = /^\s*([\d.]+(?:e\d+)?)\s*([a-z]*)\s*$/i.exec(text) ?? [];
  const bytes = Math.floor(Number(number) * BYTES[unit.toLowerCase()]);
  if (!Number.isSafeInteger(bytes) || bytes <= 0) {
    throw usageError(
      `Cannot use ${flag} as it must be a size such as 24GB, 80GiB or 512MB (a number alone is GB): ${text}`,
    );
  }
  return bytes;
}

/**
 * Bytes a second of a network's rate: a number, and MB/s, GB/s or TB/s behind it, or Mbit/s, Gbit/s or Tbit/s.
 *
 * @throws {UserError} on anything else
 */
export function parseNetwork(text: string): number {
  const [, number, prefix, unit] = /^\s*([\d.]+(?:e\d+)?)\s*([MGT])(B|bit)\/s\s*$/.exec(text) ?? [];
  const rate = Number(number) * BYTES[`${prefix}b`.toLowerCase()] / (unit === "bit" ? 8 : 1);
  if (Number.isFinite(rate) && rate > 0) return rate;
  throw usageError(`Cannot use --network as it must be a rate such as 25GB/s or 200Gbit/s: ${text}`);
}

/**
 * What a command is asked to plan.
 *
 * @throws {UserError} on a size or a rate that cannot be read, on a network of one rank, on stages that ranks and layers
 * do not make up, and as {@link adaptationOf}
 */
export async function planAsked(settings: PlanSettings, config: ModelConfig): Promise<PlanAsked> {
  const { frozen, gpuMemory, binding, distill } = settings;
  const adaptation = { ...settings, loraAlpha: "auto", rslora: false, merge: false } as const;
  const { train, adapters, from } = await adaptationOf(adaptation, config);
  const { batch, context, accumulate, dtype, recompute, constraintEvery, tokens, rate } = settings;
  const { shardOptimizer, network, stages } = settings;
  // Stages alone are one pipeline.
  const ranks = settings.ranks === 1 ? stages : settings.ranks;
  pipelinesOf({ ranks, stages, layers: config.layers }, "--ranks gives it");
  if (network !== undefined && ranks === 1) {
    throw usageError("Cannot use --network where one rank trains: give --ranks N");
  }
  return {
    batch,
    context,
    accumulate,
    dtype,
    recompute,
    constraintEvery,
    tokens,
    rate,
    ranks,
    network: network === undefined ? undefined : parseNetwork(network),
    shardOptimizer,
    stages,
    distill: distill > 0,
    parts: { train, adapters, frozen, teacherAdapted: teacherIsAdapted(settings, { adapters, from }) },
    memory: gpuMemory === undefined ? undefined : parseMemory("--gpu-memory", gpuMemory),
    binding: binding === undefined ? undefined : parseMemory("--binding", binding),
  };
}

/** The plans of activations, each made once: they do not depend on how what is frozen is stored. */
export class ActivationPlans {
  readonly #plans = new Map<string, MemoryPlan>();

  constructor(readonly config: ModelConfig, readonly binding: number) {}

  /** The plan of a micro-batch. */
  of(
    shape: {
      batch: number;
      context: number;
      recompute: boolean;
      half: boolean;
      distill: boolean;
      stage?: StageShape;
    },
    { train, adapters }: TrainedParts,
  ): MemoryPlan {
    const key = JSON.stringify([shape, train, adapters]);
    const found = this.#plans.get(key);
    if (found) return found;
    const plan = planTrained(this.config, shape, { train, adapters }, this.binding);
    this.#plans.set(key, plan);
    return plan;
  }
}

/** The largest whole number up to `most` of which `holds` is true, where it is for all below one of which it is; 0: none. */
function largest(most: number, holds: (n: number) => boolean): number {
  if (!holds(1)) return 0;
  // By doubling: of small ones, which are asked for again and again, fewer are tried.
  let [low, high] = [1, 1];
  while (high < most && low === high) {
    high = Math.min(2 * low, most);
    if (holds(high)) low = high;
  }
  if (low < high) high--;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (holds(middle)) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** How many pipelines ranks form: as many as they are, where layers are not divided. */
const pipelineCount = ({ ranks = 1, stages = 1 }: Pick<Sought, "ranks" | "stages">): number => ranks / stages;

/**
 * What is asked for with the micro-batches in which a run does a step: smaller ones where there are too few for the ranks.
 *
 * @throws {UserError} when the rows of a step cannot be divided among them
 */
const askedOfRun = (asked: PlanAsked): PlanAsked => ({
  ...asked,
  ...shareOfStep(asked, pipelineCount(asked)),
});

/** What a micro-batch takes at each stage. */
function needsOfStages(
  plans: ActivationPlans,
  asked: Sought & { batch: number },
): { stage: StageShape | undefined; needs: TrainingNeeds; planned: MemoryPlan }[] {
  const { batch, context, recompute, dtype, distill, parts, shardOptimizer } = asked;
  const pipelines = pipelineCount(asked);
  const { stages = 1, accumulate = pipelines } = asked;
  const shards = shardOptimizer && pipelines > 1 ? pipelines : undefined;
  return stageShapes(stages, accumulate / pipelines).map((stage) => {
    const shape = { batch, context, recompute, half: dtype === "f16", distill, stage };
    const planned = plans.of(shape, parts);
    const needs = trainingNeeds(plans.config, { ...shape, shards }, parts, plans.binding, planned);
    return { stage, needs, planned };
  });
}

/** The stage that takes most, or the whole model. */
function largestOfStages(of: ReturnType<typeof needsOfStages>): ReturnType<typeof needsOfStages>[number] {
  return of.reduce((most, each) => each.needs.total > most.needs.total ? each : most);
}

/** What a micro-batch takes; of stages at the one that takes most. */
export function needsOf(plans: ActivationPlans, asked: Sought & { batch: number }): TrainingNeeds {
  return largestOfStages(needsOfStages(plans, asked)).needs;
}

/** What each stage takes and sends. */
function planOfStages(
  { config }: ActivationPlans,
  asked: PlanAsked,
  of: ReturnType<typeof needsOfStages>,
): StagePlan[] {
  const pipelines = pipelineCount(asked);
  const microBatches = asked.accumulate / pipelines;
  const stream = 4 * asked.batch * asked.context * config.width * microBatches;
  const model = trace(config, { batch: 1, context: 1, ...asked.parts });
  const ofHead = hasSharedHead(model, of.length) ? 4 * config.vocabularySize * config.width : 0;
  return of.map(({ stage, needs, planned }) => {
    const { index, count, inFlight } = stage!;
    const { first, end } = layersOf(config.layers, stage!);
    const [isFirst, isLast] = [index === 0, index === count - 1];
    // What each block of logits adds to the embedding's gradient, and the new weights.
    const head = (isLast ? planned.blocks.length * microBatches * ofHead : 0) + (isFirst ? ofHead : 0);
    const { weights, gradients, moments, activations, total } = needs;
    const trained = needs.trained - (isLast ? ofHead : 0);
    return {
      layers: [first, end],
      in_flight: inFlight!,
      weights,
      gradients,
      moments,
      activations,
      total,
      sent_per_step: (isLast ? 0 : stream * (asked.distill ? 2 : 1)) + (isFirst ? 0 : stream) + head +
        2 * trained * (pipelines - 1) / pipelines,
    };
  });
}

/** What is asked of a micro-batch whose rows or tokens are to be found. */
type Sought =
  & Pick<
    PlanAsked,
    "context" | "recompute" | "dtype" | "distill" | "parts" | "ranks" | "shardOptimizer" | "stages"
  >
  & {
    /** Those of all ranks together, as many of each pipeline; left out: one of each. */
    accumulate?: number;
  };

/** Whether a micro-batch fits a memory, and its largest activation a binding. */
function fits(plans: ActivationPlans, asked: Sought & { batch: number }, memory: number): boolean {
  const { total, largestBinding } = needsOf(plans, asked);
  return total <= memory && largestBinding <= plans.binding;
}

/** Rows of the largest micro-batch that fits a memory, up to 1,024; 0: not one. */
export function largestBatch(plans: ActivationPlans, asked: Sought, memory: number): number {
  return largest(MOST_ROWS, (batch) => fits(plans, { ...asked, batch }, memory));
}

/** What fits a memory. */
function fitOf(plans: ActivationPlans, asked: Sought, memory: number): Fit {
  const batch = largestBatch(plans, asked, memory);
  const needs = (batch: number): number => needsOf(plans, { ...asked, batch }).total;
  return {
    recompute: asked.recompute,
    batch,
    context: largest(
      plans.config.contextLength,
      (context) => fits(plans, { ...asked, batch: 1, context }, memory),
    ),
    least: needs(1),
    bound: batch === MOST_ROWS ? "rows" : needs(batch + 1) > memory ? "memory" : "binding",
  };
}

/** How a model's weights, and their gradients, are bound where a binding holds what every adapter's does. */
function slicesIn(config: ModelConfig, { parts }: Pick<PlanAsked, "parts">): TrainingPlan["sliced"] {
  const bytes = ({ shape, stored }: Parameter): number => elementBytes(stored) * elementsOf(shape);
  const found = parametersOf(config, parts).filter((parameter) =>
    parameter.shape.length === 2 && bytes(parameter) > PORTABLE_BINDING_BYTES
  );
  if (found.length === 0) return undefined;
  const largest = found.reduce((a, b) => bytes(b) > bytes(a) ? b : a);
  const [rows, columns] = largest.shape;
  return {
    count: found.length,
    largest: largest.name,
    bytes: bytes(largest),
    // What is trained is cut as its gradient is; what is frozen as it is stored. Tables, which are the largest, are no int8.
    slices: slicesOf(rows, columns, PORTABLE_BINDING_BYTES, { largest: elementBytes(largest.stored) }).length,
  };
}

/** The name of the largest activation. */
function largestOf({ tensors }: MemoryPlan): string {
  const bytes = (name: string): number => {
    const { shape, type } = tensors.get(name)!;
    return elementBytes(type) * elementsOf(shape);
  };
  return [...tensors.keys()].reduce((a, b) => bytes(b) > bytes(a) ? b : a);
}

/** The largest rank of a plan's adapters; 0 where it has none. */
const rankOf = ({ adapters = {} }: TrainedParts): number =>
  Math.max(0, ...Object.values(adapters).map(({ rank }) => rank));

/**
 * The time of a step of several ranks; undefined where no network or no rate was given.
 *
 * @param flop of a step
 */
function timeOf(
  config: ModelConfig,
  { ranks = 1, network, rate = 0, shardOptimizer = false, parts, context, recompute, batch, accumulate }:
    PlanAsked,
  flop: number,
): TrainingPlan["time"] {
  if (ranks === 1 || network === undefined || rate === 0) return undefined;
  const tokens = batch * accumulate * context;
  const time = timeOfStep({
    ranks,
    compute: tokens / ranks / rate,
    flop: flop / ranks,
    stretches: countStretches(config, { batch, context, recompute }, parts, BUCKET_BYTES),
    network,
    host: HOST,
    isApart: true,
    shardOptimizer,
  });
  return { ...time, tokens_per_second: tokens / time.step };
}

/** The time of a step of stages; undefined where no network or no rate was given. */
function timeOfStaged(
  { config }: ActivationPlans,
  asked: PlanAsked,
  of: ReturnType<typeof needsOfStages>,
): TrainingPlan["staged_time"] {
  const { batch, accumulate, context, recompute, distill, parts, network, rate = 0 } = asked;
  if (network === undefined || rate === 0) return undefined;
  const pipelines = pipelineCount(asked);
  const microBatches = accumulate / pipelines;
  const { vocabularySize, width } = config;
  const isShared = hasSharedHead(trace(config, { batch: 1, context: 1, ...parts }), of.length);
  const embedding = isShared ? 4 * vocabularySize * width : 0;
  const stream = 4 * batch * context * width;
  const counted = countStages(config, { batch, context, recompute }, parts, of.length);
  // One rank's rate tells what all of it takes; a teacher's forward and the constraint's go by the same shares.
  const perFlop = batch * context / rate /
    counted.reduce((sum, { forward, backward }) => sum + forward + backward, 0);
  const time = timeOfStages({
    stages: counted.map(({ forward, backward }, index) => ({
      forward: perFlop * forward,
      backward: perFlop * backward,
      gradients: of[index].needs.trained - (index === of.length - 1 ? embedding : 0),
    })),
    microBatches,
    pipelines,
    stream: { forward: stream * (distill ? 2 : 1), backward: stream },
    embedding,
    blocks: of.at(-1)!.planned.blocks.length,
    network,
    host: HOST,
  });
  return { ...time, tokens_per_second: microBatches * pipelines * batch * context / time.step };
}

/**
 * Plans a run.
 *
 * @throws {UserError} when the model cannot be stored as asked, or its steps be divided among the ranks
 */
export function planTraining(config: ModelConfig, wanted: PlanAsked): TrainingPlan {
  const asked = askedOfRun(wanted);
  const { batch, context, accumulate, dtype, recompute, distill, constraintEvery, parts, memory } = asked;
  const { tokens = 0, rate = 0, binding = LARGEST_BINDING_BYTES, ranks = 1 } = asked;
  const fault = dtype === "f16"
    ? faultOfHalf(config) ?? faultOfRanks(Object.values(parts.adapters ?? {}))
    : undefined;
  if (fault) throw usageError(`Cannot plan with --dtype f16 as ${fault}`);
  const plans = new ActivationPlans(config, binding);
  const byStage = needsOfStages(plans, asked);
  const { needs, planned } = largestOfStages(byStage);
  const ofStages = byStage.length > 1 ? planOfStages(plans, asked, byStage) : undefined;
  const microBatches = accumulate / pipelineCount(asked);
  const portable = new ActivationPlans(config, PORTABLE_BINDING_BYTES);
  const portableBatch = largest(
    MOST_ROWS,
    (rows) => needsOf(portable, { ...asked, batch: rows }).largestBinding <= PORTABLE_BINDING_BYTES,
  );
  const elements = (of: readonly Parameter[]): number =>
    of.reduce((sum, { shape }) => sum + elementsOf(shape), 0);
  const { forward, recomputed, backward } = countArithmetic(config, { batch, context, recompute }, parts);
  const dense = countArithmetic(config, { batch, context }).forward;
  const step = accumulate * (forward + recomputed + backward + (distill ? dense : 0)) +
    wanted.batch / batch * forward / constraintEvery;
  const perStep = accumulate * batch * context;
  const steps = Math.ceil(tokens / perStep);
  const time = ofStages ? undefined : timeOf(config, asked, step);
  const staged = ofStages && timeOfStaged(plans, asked, byStage);
  /** Tokens a second of all ranks, where that can be told. */
  const speed = ranks === 1 ? rate : (time ?? staged)?.tokens_per_second ?? 0;
  return {
    parameters: elements(parametersOf(config)),
    trained_parameters: elements(parametersOf(config, parts).filter(({ trainable }) => trainable)),
    train: parts.train,
    rank: rankOf(parts),
    frozen: parts.train === "all" ? "f32" : parts.frozen,
    dtype,
    recompute,
    batch,
    context,
    accumulate,
    weights: needs.weights,
    frozen_weights: needs.frozen,
    trained_weights: needs.trained,
    copies: needs.copies,
    teacher: needs.teacher,
    gradients: needs.gradients,
    moments: needs.moments,
    activations: needs.activations,
    total: needs.total,
    largest_binding: needs.largestBinding,
    largest_binding_of: largestOf(planned),
    portable_binding: PORTABLE_BINDING_BYTES,
    portable_batch: portableBatch,
    sliced: slicesIn(config, asked),
    ...(memory === undefined ? {} : {
      memory,
      fits: [false, true].map((recompute) => fitOf(plans, { ...asked, recompute }, memory)),
    }),
    arithmetic: { forward, recomputed, backward, step, token: step / perStep },
    tokens_per_step: perStep,
    // Twice: to be summed, and what was made of the sums.
    ...(ranks === 1 ? {} : {
      ranks,
      sent_per_step: ofStages
        ? Math.max(...ofStages.map(({ sent_per_step }) => sent_per_step))
        : 2 * needs.gradients * (ranks - 1) / ranks,
    }),
    ...(ofStages
      ? { stages: ofStages, waiting: (ofStages.length - 1) / (microBatches + ofStages.length - 1) }
      : {}),
    ...(time ? { time } : {}),
    ...(staged ? { staged_time: staged } : {}),
    ...(tokens === 0 ? {} : { tokens, steps, total_flop: steps * step }),
    ...(tokens === 0 || speed === 0 ? {} : { rate, hours: tokens / speed / 3600 }),
    ...(rate === 0 ? {} : { flop_per_second: rate * step / perStep }),
  };
}

/** Floating-point operations, for people. */
export function flopText(flop: number): string {
  const [unit, of] =
    ([["EFLOP", 1e18], ["PFLOP", 1e15], ["TFLOP", 1e12], ["GFLOP", 1e9], ["MFLOP", 1e6]] as const)
      .find(([, of]) => flop >= of) ?? ["kFLOP", 1e3];
  return `${(flop / of).toPrecision(3)} ${unit}`;
}

const count = (number: number): string => number.toLocaleString("en-US");

const PARTS = ["weights", "copies", "teacher", "gradients", "moments", "activations", "total"] as const;

/** One line on what fits with or without recomputing. */
function fitText(
  { recompute, batch, context, least, bound }: Fit,
  asked: PlanAsked,
  positions: number,
): string {
  const how = recompute ? "with --recompute" : "without --recompute";
  const long = context === 0
    ? "and no shorter row does"
    : `and rows of ${count(context)} tokens at most do one at a time${
      context === positions ? ", all of the model's positions" : ""
    }`;
  if (batch === 0) {
    const why = bound === "memory"
      ? `one row of ${count(asked.context)} tokens takes ${amount(least)}`
      : "an activation of one row is larger than a binding";
    return `${how}: nothing of ${count(asked.context)} tokens fits, as ${why}, ${long}`;
  }
  const more = bound === "rows"
    ? ", more is not asked for"
    : bound === "binding"
    ? ", where an activation fills a binding"
    : "";
  return `${how}: micro-batches of up to ${count(batch)} × ${count(asked.context)}${more}, ${long}`;
}

/** A plan for people. */
export function planText(config: ModelConfig, plan: TrainingPlan, asked: PlanAsked): string {
  const { parts, memory } = asked;
  const what = parts.train === "all"
    ? "all of them trained"
    : `${count(plan.trained_parameters)} trained (${
      parts.train === "lora" ? `LoRA of rank ${plan.rank}` : "products of attention"
    }), the others frozen as ${plan.frozen}`;
  const rows = PARTS.filter((part) => plan[part] > 0).map((part) => [part, amount(plan[part])]);
  const [frozen, trained] = [plan.frozen_weights, plan.trained_weights];
  const { sliced, largest_binding, largest_binding_of: of, portable_batch: portable } = plan;
  const lines = [
    `${count(plan.parameters)} parameters, ${what}`,
    "",
    `Device memory for micro-batches of ${plan.batch} × ${count(plan.context)} in ${plan.dtype}${
      plan.recompute ? " with --recompute" : ""
    }:`,
    formatTable([["", "bytes"], ...rows]),
    ...(frozen > 0 ? [`Of the weights ${amount(frozen)} are frozen and ${amount(trained)} trained.`] : []),
    `A CPU driver takes up to ${
      amount(textureCapacity({ adapter: { software: true } }))
    } more, and the program some ${amount(PROGRAM_BYTES)} of the same memory.`,
    "",
    `Largest activation: ${amount(largest_binding)} (${of}), bound whole; every adapter binds ${
      amount(PORTABLE_BINDING_BYTES)
    }: ${
      largest_binding <= PORTABLE_BINDING_BYTES
        ? "any will do"
        : portable > 0
        ? `on one with no more, micro-batches of up to ${portable} rows`
        : `on one with no more, not one row of ${count(plan.context)} tokens`
    }.`,
    sliced
      ? `Larger than that: ${count(sliced.count)} ${
        sliced.count === 1 ? "weight, which is" : "weights, which are"
      } bound in slices, ${sliced.largest} (${
        amount(sliced.bytes)
      }) in ${sliced.slices} where a binding holds no more.`
      : "No weight is larger than that: each is bound whole.",
  ];
  if (memory !== undefined) {
    lines.push(
      "",
      `In ${amount(memory)}:`,
      ...plan.fits!.map((fit) => `  ${fitText(fit, asked, config.contextLength)}`),
    );
  }
  const { forward, recomputed, backward, step, token } = plan.arithmetic;
  lines.push(
    "",
    `Products of a micro-batch: forward ${flopText(forward)}, backward ${flopText(backward)}${
      recomputed > 0 ? `, computed anew ${flopText(recomputed)}` : ""
    }; a step of ${count(plan.tokens_per_step)} tokens ${flopText(step)}, ${flopText(token)} a token.`,
  );
  if (plan.stages) {
    lines.push(
      "",
      `Of ${plan.stages.length} stages the bytes above are those of the one that takes most:`,
      formatTable([
        ["stage", "layers", "in flight", "weights", "activations", "total", "sent a step"],
        ...plan.stages.map((stage, index) => [
          String(index),
          `${stage.layers[0]} to ${stage.layers[1] - 1}`,
          String(stage.in_flight),
          ...[stage.weights, stage.activations, stage.total, stage.sent_per_step].map(amount),
        ]),
      ]),
      `Were all as fast, each would wait ${
        formatShare(plan.waiting!)
      } of a step for the others; more --accumulate makes it less.`,
    );
  } else if (plan.ranks !== undefined) {
    lines.push(
      `Each of ${count(plan.ranks)} ranks sends and receives ${amount(plan.sent_per_step!)} in a step${
        asked.shardOptimizer ? "; the moments are those of the rank that has most" : ""
      }.`,
    );
  }
  const missing = missingForTime(plan, asked);
  // Tokens tell it in their own line.
  if (missing !== undefined && plan.tokens === undefined && plan.ranks !== undefined) {
    if (asked.network !== undefined || asked.rate) lines.push(`Give ${missing}, for the time of a step.`);
  }
  if (plan.time !== undefined) lines.push(timeText(plan.time, plan.ranks!, asked));
  if (plan.staged_time !== undefined) lines.push(stagedTimeText(plan.staged_time, plan.ranks!, asked));
  if (plan.tokens !== undefined) {
    const speed = (plan.time ?? plan.staged_time)?.tokens_per_second ?? plan.rate;
    lines.push(
      `${count(plan.tokens)} tokens: ${count(plan.steps!)} steps, ${flopText(plan.total_flop!)}${
        plan.hours === undefined
          ? `; give ${missing}, for the hours`
          : `, ${hoursText(plan.hours)} at ${
            count(Math.round(speed!))
          } tokens/s, without evaluations; a dense control as many again`
      }.`,
    );
  }
  if (plan.flop_per_second !== undefined) {
    lines.push(`${count(plan.rate ?? asked.rate!)} tokens/s are ${flopText(plan.flop_per_second)}/s.`);
  }
  return lines.join("\n");
}

/** What a plan is to be given before it can tell a time; undefined where there is nothing. */
function missingForTime({ ranks }: TrainingPlan, { network, rate = 0 }: PlanAsked): string | undefined {
  const missing = [
    ...(ranks !== undefined && network === undefined ? ["--network RATE"] : []),
    ...(rate === 0 ? ["--rate TOKENS_PER_SECOND, as a run of one device tells it of this model"] : []),
  ];
  return missing.length === 0 ? undefined : missing.join(" and ");
}

/** Seconds, for people. */
const secondsText = (seconds: number): string =>
  seconds < 1 ? `${Number((1000 * seconds).toPrecision(3))} ms` : `${Number(seconds.toPrecision(3))} s`;

function timeText(
  { compute, exchange, network, hidden, step, tokens_per_second: all }: NonNullable<TrainingPlan["time"]>,
  ranks: number,
  { rate, network: bytes }: PlanAsked,
): string {
  return `A step takes ${secondsText(step)}: computing ${secondsText(compute)}, and of ${
    secondsText(exchange)
  } of exchange all but ${secondsText(exchange - hidden)} lies behind backward. The network has ${
    secondsText(network)
  } of it at ${amount(bytes!)}/s; the rest is reading and adding on the host, at ${
    amount(HOST.bytesPerSecond)
  }/s, as measured on two slow cores. All ranks together: ${count(Math.round(all))} tokens/s, ${
    (100 * all / (ranks * rate!)).toFixed(1)
  } % of ${count(ranks)} times one's.`;
}

function stagedTimeText(
  { compute, passes, exchange, step, tokens_per_second: all }: NonNullable<TrainingPlan["staged_time"]>,
  ranks: number,
  { rate }: PlanAsked,
): string {
  return `A step takes ${secondsText(step)}: ${
    secondsText(passes)
  } until every stage has gone backward, of which the busiest computes ${secondsText(compute)}, and ${
    secondsText(exchange)
  } of exchange behind it. What passes is read by the host at ${
    amount(HOST.bytesPerSecond)
  }/s, as measured on two slow cores. All ranks together: ${count(Math.round(all))} tokens/s, ${
    (100 * all / (ranks * rate!)).toFixed(1)
  } % of ${count(ranks)} times one's.`;
}

function hoursText(hours: number): string {
  if (hours < 0.1) return `${Number((3600 * hours).toPrecision(2))} seconds`;
  return `${hours < 10 ? hours.toPrecision(2) : count(Math.round(hours))} hours`;
}
