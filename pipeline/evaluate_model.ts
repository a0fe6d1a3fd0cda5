/**
 * The measurement that `evaluate` makes of a model, by one process or by several that share its batches.
 *
 * @module
 */
import type { Gpu } from "../kernels/core/gpu.ts";
import { usageError } from "./errors.ts";
import type { ModelConfig } from "./model/config.ts";
import { memoryNeeds } from "./model/needs.ts";
import { prepareNetwork } from "./model/network.ts";
import { type HeldShape, loadHeld } from "./model/held_weights.ts";
import type { ParameterShape } from "./model/parameters.ts";
import { atFirst, type Exchange } from "./parallel/exchange.ts";
import { evaluate, type Evaluation } from "./training/evaluate.ts";
import { amount } from "./training/memory_budget.ts";
import type { Reporter } from "./training/training_run.ts";
import type { Batch } from "./text/batches.ts";

/** What is measured, as every rank knows it. */
export interface EvaluatedModel {
  config: ModelConfig;
  parameters: readonly ParameterShape[];
  /** How its weights lie on the device. */
  shape: HeldShape;
  /** Rows at a time, and tokens of each. */
  batch: number;
  context: number;
  /** Whether its gates are left out, if it has any. */
  dense: boolean;
  /** How many batches there are. */
  of: number;
}

/** Where the first rank has weights and tokens from. */
export interface MeasuredFrom {
  read(name: string): Promise<Float32Array>;
  batches: AsyncIterable<Batch>;
}

/**
 * Measures a model.
 *
 * @param from at rank 0, which gives weights and batches to all
 * @param exchange the other ranks, all of which call this; left out: there are none
 * @throws {UserError} when an activation of so many rows is larger than a binding holds
 */
export async function evaluateModel(
  gpu: Gpu,
  { config, parameters: shapes, shape, batch, context, dense, of }: EvaluatedModel,
  from: MeasuredFrom | undefined,
  { reporter, signal, exchange }: {
    reporter: Pick<Reporter, "activity" | "message">;
    signal: AbortSignal;
    exchange?: Exchange;
  },
): Promise<Omit<Evaluation, "batchCe">> {
  const sizes = { batch, context, training: false, ...shape };
  const { largestBinding } = memoryNeeds(config, sizes, gpu.maxBindingBytes);
  if (largestBinding > gpu.maxBindingBytes) {
    throw usageError(
      `Cannot measure with a batch of ${batch} as one activation takes ${
        amount(largestBinding)
      } and a binding ` +
        `holds ${amount(gpu.maxBindingBytes)}: give a lower --batch or --context`,
    );
  }
  reporter.activity({ name: "compiling kernels" });
  const network = await prepareNetwork(gpu, config, sizes);
  const read = async (name: string): Promise<Float32Array> => await atFirst(exchange, () => from!.read(name));
  const parameters = await loadHeld(gpu, { parameters: shapes, shape, read }, reporter.message);
  const reading = from?.batches[Symbol.asyncIterator]();
  async function* batches(): AsyncGenerator<Batch> {
    try {
      for (;;) {
        const next = await atFirst(exchange, async () => {
          const { done, value } = await reading!.next();
          return done ? undefined : value;
        });
        if (!next) return;
        yield next;
      }
    } finally {
      await reading?.return?.();
    }
  }
  const gated = config.gate !== undefined && !dense;
  const { batchCe: _, ...result } = await evaluate(gpu, network, parameters, {
    mode: gated ? "deterministic" : "dense",
    gateBias: config.gate?.bias,
    batches: batches(),
    signal: exchange?.signal ?? signal,
    exchange,
    onBatch: (done) => reporter.activity({ name: "evaluating", done, of }),
  });
  return result;
}
