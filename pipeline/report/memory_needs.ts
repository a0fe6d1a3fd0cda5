/**
 * What a model will need on a device, told from its config.json alone: no weights are read and no device is opened.
 *
 * @module
 */
import { textureCapacity } from "../../kernels/core/textures.ts";
import { faultOfRanks } from "../../kernels/matmul/low_rank.ts";
import { elementsOf } from "../../kernels/core/tensor.ts";
import { faultOfHalf, type ModelConfig } from "../model/config.ts";
import { type MemoryNeeds, memoryNeeds, PROGRAM_BYTES, type TrainedParts } from "../model/needs.ts";
import { layersOf, stageShapes } from "../model/stage.ts";
import { parametersOf } from "../model/trace.ts";
import { amount, PORTABLE_BINDING_BYTES } from "../training/memory_budget.ts";
import { formatTable } from "./table.ts";

const PARTS = ["weights", "copies", "teacher", "gradients", "moments", "activations", "total"] as const;

/** What is asked about; of what is trained what is left out is everything, and what is not lies there as f32. */
export interface NeedsAsked extends Partial<TrainedParts> {
  /** Rows of a micro-batch. */
  batch: number;
  /** Tokens of a row. */
  context: number;
  /** Whether it is trained, or only evaluated. */
  training: boolean;
  /** Whether a teacher is held too. */
  distill?: boolean;
  /** Ranks that the layers are divided among; left out: one. */
  stages?: number;
  /** Micro-batches to a step of each pipeline of these; left out: one. */
  microBatches?: number;
  /** Ranks among which AdamW's moments are divided; left out: each has all. */
  shards?: number;
}

/** What a stage takes in one of the ways. */
export interface StageNeeds extends Pick<MemoryNeeds, (typeof PARTS)[number]> {
  /** Its layers: the first, and the one behind its last. */
  layers: [first: number, end: number];
  /** Micro-batches whose activations stand at once, at most. */
  in_flight: number;
}

/** One way to store and compute it, and its bytes by what they are for. */
export type NeedsOf = Pick<MemoryNeeds, (typeof PARTS)[number]> & {
  dtype: "f32" | "f16";
  recompute: boolean;
  /** The largest buffer that is bound whole: an adapter whose bindings hold less cannot run this. */
  largest_binding: number;
  /** Where layers are divided; bytes above are those of the stage that takes most. */
  stages?: StageNeeds[];
};

/** A model's needs, as `--json` prints them. */
export interface ToldNeeds {
  parameters: number;
  batch: number;
  context: number;
  needs: NeedsOf[];
}

/**
 * Needs of a model: in training with every choice of `--dtype` and `--recompute` that it can be stored by.
 *
 * @param maxBindingBytes larger matrices are bound in slices
 */
export function tellNeeds(
  config: ModelConfig,
  asked: NeedsAsked,
  maxBindingBytes: number = PORTABLE_BINDING_BYTES,
): ToldNeeds {
  const parameters = parametersOf(config, asked)
    .reduce((sum, { shape }) => sum + elementsOf(shape), 0);
  const fault = faultOfHalf(config) ?? faultOfRanks(Object.values(asked.adapters ?? {}));
  const { stages: count = 1, microBatches = 1, ...shape } = asked;
  const shapes = stageShapes(count, microBatches);
  const partsOf = (of: MemoryNeeds) =>
    Object.fromEntries(PARTS.map((part) => [part, of[part]])) as Pick<MemoryNeeds, (typeof PARTS)[number]>;
  const dtypes = asked.training && fault === undefined ? ["f32", "f16"] as const : ["f32"] as const;
  const needs = dtypes.flatMap((dtype) =>
    (asked.training ? [false, true] : [false]).map((recompute): NeedsOf => {
      const half = dtype === "f16";
      const each = shapes.map((stage) =>
        memoryNeeds(config, { ...shape, stage, recompute, half }, maxBindingBytes)
      );
      const most = each.reduce((a, b) => b.total > a.total ? b : a);
      const stages = each.map((of, index): StageNeeds => {
        const { first, end } = layersOf(config.layers, { index, count });
        return { layers: [first, end], in_flight: shapes[index]?.inFlight ?? 1, ...partsOf(of) };
      });
      return {
        dtype,
        recompute,
        ...partsOf(most),
        largest_binding: most.largestBinding,
        ...(count > 1 ? { stages } : {}),
      };
    })
  );
  return { parameters, batch: asked.batch, context: asked.context, needs };
}

/** The same for people. */
export function needsText(
  { parameters, batch, context, needs }: ToldNeeds,
  { training }: NeedsAsked,
): string {
  const title = ({ dtype, recompute }: NeedsOf): string => recompute ? `${dtype} --recompute` : dtype;
  const rows = PARTS.filter((part) => needs.some((of) => of[part] > 0))
    .map((part) => [part, ...needs.map((of) => of[part] > 0 ? amount(of[part]) : "0")]);
  const largest = Math.max(...needs.map((of) => of.largest_binding));
  const [{ stages }] = needs;
  const lines = [
    `${parameters.toLocaleString("en-US")} parameters; device memory to ${
      training ? "train" : "evaluate"
    } with a batch of ${batch} of ${context} tokens:`,
    "",
    formatTable([["", ...needs.map(title)], ...rows]),
    "",
    ...(stages ? [stagesText(stages, needs.map((of) => [title(of), of.stages!])), ""] : []),
    `A CPU driver takes up to ${
      amount(textureCapacity({ adapter: { software: true } }))
    } more, and the program some ${amount(PROGRAM_BYTES)} of the same memory.`,
  ];
  if (largest > PORTABLE_BINDING_BYTES) {
    lines.push(
      `One activation takes ${amount(largest)}: where a binding holds no more than the ${
        amount(PORTABLE_BINDING_BYTES)
      } that every adapter has, a smaller --batch is needed.`,
    );
  }
  return lines.join("\n");
}

/** What each stage takes in each way. */
function stagesText(
  stages: readonly StageNeeds[],
  ways: readonly (readonly [title: string, stages: readonly StageNeeds[]])[],
): string {
  return [
    `Of ${stages.length} stages the bytes above are those of the one that takes most; each takes:`,
    formatTable([
      ["stage", "layers", "in flight", ...ways.map(([title]) => title)],
      ...stages.map(({ layers: [first, end], in_flight }, index) => [
        String(index),
        `${first} to ${end - 1}`,
        String(in_flight),
        ...ways.map(([, of]) => amount(of[index].total)),
      ]),
    ]),
  ].join("\n");
}
