/**
 * A run with its inputs open, made of tokens in memory: whole phases in the test's own process, every weight and every
 * row of which can be looked at.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Batch, TokenSource } from "../../pipeline/text/batches.ts";
import { sequentialBatches } from "../../pipeline/text/batches.ts";
import { checkpointPath, readCheckpoint } from "../../pipeline/runs/checkpoint.ts";
import type { RunControl } from "../../pipeline/runs/control.ts";
import { openMetrics } from "../../pipeline/runs/metrics.ts";
import { gpt2Config, type ModelConfig } from "../../pipeline/model/config.ts";
import { parametersOf } from "../../pipeline/model/trace.ts";
import { findResumePoint } from "../../pipeline/runs/resume.ts";
import { createRun, type RunFolder } from "../../pipeline/runs/run_folder.ts";
import { createRunState } from "../../pipeline/runs/run_state.ts";
import type { PreparedRun, Reporter } from "../../pipeline/training/training_run.ts";
import type { Weights } from "./reference_training.ts";
import { seeded } from "./seeded.ts";
import { ADDITION } from "./tiny_model.ts";

/** Each split has tokens of its own, so that a batch tells where it was read; 0 is padding. */
const TOKENS = { train: [1, 2, 3, 4], validation: [5, 6, 7, 8], test: [9, 10, 11, 12] } as const;
/** The parts of the data. */
export type Split = keyof typeof TOKENS;

/** Two layers of three heads, with a vocabulary of the three splits' tokens. */
export const RUN_CONFIG: ModelConfig = gpt2Config({
  vocabularySize: 13,
  contextLength: 8,
  width: 12,
  layers: 2,
  heads: 3,
  mlpWidth: 20,
});
/** Rows of a micro-batch, and T. */
export const RUN_SHAPE = { batch: 2, context: 7 } as const;

function tokenSource(split: Split, length: number): TokenSource {
  const random = seeded(length);
  const tokens = Uint32Array.from({ length }, () => TOKENS[split][random.integer(4)]);
  return { name: split, length, window: (start, count) => tokens.subarray(start, start + count) };
}

/** Fifty rows to learn from; five and three held out, which leaves a row of padding in the last batch of each. */
export function splitTokens(): Record<Split, TokenSource> {
  const { context } = RUN_SHAPE;
  return {
    train: tokenSource("train", 50 * context + 1),
    validation: tokenSource("validation", 5 * context + 1),
    test: tokenSource("test", 3 * context + 1),
  };
}

/** The batches of a split as evaluations see them, without their padding. */
export async function heldOut(split: Split): Promise<Batch[]> {
  const batches = await Array.fromAsync(sequentialBatches({ tokens: splitTokens()[split], ...RUN_SHAPE }));
  return batches.map(({ inputs, targets, rows }) => {
    const length = rows * RUN_SHAPE.context;
    return { inputs: inputs.slice(0, length), targets: targets.slice(0, length), rows };
  });
}

/** A run in a folder of runs: a new one, or one that goes on in its folder. */
export async function prepareTestRun(
  gpu: Gpu,
  { runs, weights, slackAt = () => undefined, goesOnIn }: {
    runs: string;
    weights: ReadonlyMap<string, Float32Array>;
    slackAt?: RunControl["slackAt"];
    goesOnIn?: RunFolder;
  },
): Promise<PreparedRun> {
  const folder = goesOnIn ?? await createRun(runs, "test", "run");
  const resume = await findResumePoint(folder.checkpoints, Infinity, goesOnIn ? "a run" : undefined);
  return {
    id: "a run",
    gpu,
    batch: RUN_SHAPE.batch,
    folder,
    config: RUN_CONFIG,
    weights: {
      parameters: parametersOf(RUN_CONFIG),
      read: (name) => Promise.resolve(weights.get(name)!),
    },
    tokens: splitTokens(),
    tokenizerPath: ADDITION.tokenizer,
    metrics: await openMetrics(folder.metrics, goesOnIn && resume.lastRow),
    resume,
    control: { beforeStep: () => Promise.resolve({ stop: false }), slackAt },
    state: await createRunState(folder.state),
  };
}

/** The weights in a checkpoint. */
export async function checkpointWeights(
  run: PreparedRun,
  of: { phase: string; step: number },
): Promise<Weights> {
  const checkpoint = await readCheckpoint(checkpointPath(run.folder.checkpoints, of));
  const weights = new Map<string, Float32Array>();
  for (const { name, shape } of run.weights.parameters) {
    weights.set(name, await checkpoint.read(`weight.${name}`, shape));
  }
  return weights;
}

/** Takes every message and shows none. */
export const SILENT: Reporter = { plan() {}, activity() {}, message() {}, warning() {}, row() {} };

/** What is run on a device from now on, each with the split of the tokens it sees: `evaluation of validation`. */
export function watchSplits(gpu: Gpu): string[] {
  const seen: string[] = [];
  let split = "nothing";
  const { write, submit } = gpu;
  gpu.write = (tensor, data, start) => {
    if (tensor.label === "tokens") {
      const splits = Object.keys(TOKENS).filter((name) =>
        data.some((token) => (TOKENS[name as Split] as readonly number[]).includes(token))
      );
      split = splits.join(" and ");
    }
    return write.call(gpu, tensor, data, start);
  };
  gpu.submit = (operation, record, timestampWrites) => {
    const what = /^(step|evaluation|measuring)/.exec(operation)?.[0];
    if (what) seen.push(`${what} of ${split}`);
    return submit.call(gpu, operation, record, timestampWrites);
  };
  return seen;
}
