/**
 * Which of a model's parameters are trained, and what those that are not take where they are kept smaller: counted from
 * shapes alone.
 *
 * @module
 */
import { INT8_BLOCK } from "../../kernels/core/int8.ts";
import { elementBytes } from "../../kernels/core/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { familyOf } from "./families.ts";
import type { Parameter } from "./op.ts";
import { type Model, trace } from "./trace.ts";

/** What is trained: everything, the products of attention, or low-rank matrices beside products. */
export type Train = "all" | "attention" | "lora";

/** Which products have low-rank matrices beside them: those of attention, or also those of the MLP. */
export type LoraTargets = "attention" | "all-linear";

/** How parameters are stored that are not trained. */
export type FrozenType = "f32" | "f16" | "int8";

/** What of a model is trained, and how the rest is stored. */
export interface TrainedParts {
  /** What is trained. */
  train: Train;
  /** r of low-rank matrices. */
  rank: number;
  /** Where they stand. */
  targets: LoraTargets;
  /** How everything else is stored. */
  frozen: FrozenType;
}

/** One tensor W [in, out] that y += s (x A) B goes beside, with A [in, r] and B [r, out]. */
export interface LoraTarget {
  /** From 0. */
  layer: number;
  /** Of the tensor in files, without the prefix and `.weight`. */
  name: string;
  /** Rows of A. */
  inputs: number;
  /** Columns of B. */
  outputs: number;
}

const lengthOf = (shape: readonly number[]): number => shape.reduce((product, axis) => product * axis, 1);

/** The linear weights of a model's branches, each with its layer. */
function* products(
  { branches }: Model,
  kinds: readonly ("attention" | "mlp")[],
): Generator<{ layer: number; weight: Parameter; bias?: Parameter }> {
  for (const { kind, layer, steps } of branches) {
    if (!kinds.includes(kind)) continue;
    for (const { op, parameters: { weight, bias } } of steps) {
      if (op.kind === "linear") yield { layer, weight, bias };
    }
  }
}

/**
 * The tensors that have low-rank matrices, as files hold them: where query, key and value are three tensors there, each has
 * its own (Hu et al. 2021, arXiv 2106.09685; peft).
 */
export function loraTargets(config: ModelConfig, targets: LoraTargets): LoraTarget[] {
  const model = trace(config, { batch: 1, context: 1 });
  const kinds = targets === "attention" ? ["attention"] as const : ["attention", "mlp"] as const;
  return [...products(model, kinds)].flatMap(({ layer, weight: { name, shape: [inputs, outputs], parts } }) =>
    (parts ?? [{ name, columns: outputs }]).map((part) => ({
      layer,
      name: part.name.replace(/\.weight$/, ""),
      inputs,
      outputs: part.columns,
    }))
  );
}

/** The parameters that are trained, in the order of the model's, and behind them A and B of each target. */
export function trainedParameters(
  config: ModelConfig,
  { train, rank, targets }: Pick<TrainedParts, "train" | "rank" | "targets">,
): { own: readonly Parameter[]; adapters: readonly { name: string; shape: readonly number[] }[] } {
  const model = trace(config, { batch: 1, context: 1 });
  if (train === "all") return { own: model.parameters, adapters: [] };
  if (train === "attention") {
    const own = [...products(model, ["attention"])].flatMap(({ weight, bias }) =>
      bias ? [weight, bias] : [weight]
    );
    return { own, adapters: [] };
  }
  const adapters = loraTargets(config, targets).flatMap(({ name, inputs, outputs }) => [
    { name: `${name}.lora_A`, shape: [inputs, rank] },
    { name: `${name}.lora_B`, shape: [rank, outputs] },
  ]);
  return { own: [], adapters };
}

/**
 * Bytes of a parameter that is not trained. Vectors stay float32, they are few. As int8 each output of a matrix has a float32
 * scale for every {@link INT8_BLOCK} of its inputs; tables of tokens are float16 then, and that of positions is float32.
 */
export function frozenBytes(
  config: Pick<ModelConfig, "family">,
  { name, kind, shape }: Pick<Parameter, "name" | "kind" | "shape">,
  type: FrozenType,
): number {
  const length = lengthOf(shape);
  const isOfPositions = name === `${familyOf(config).names.position}.weight`;
  if (type === "f32" || kind === "vector" || isOfPositions) return elementBytes("f32") * length;
  if (type === "f16" || kind === "table") return elementBytes("f16") * length;
  const [inputs, outputs] = shape;
  return length + elementBytes("f32") * Math.ceil(inputs / INT8_BLOCK) * outputs;
}
