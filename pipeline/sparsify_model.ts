/**
 * Sparse post-training as one call, as `deno task sparsify` does it.
 *
 * @module
 */
import { completeRun } from "./complete_run.ts";
import { openRunModel, prepareRun } from "./training/prepare_run.ts";
import { SPARSIFY, type SparsifySettings } from "./settings.ts";
import { checkedSettings, resolveSettings } from "./settings/resolve.ts";
import { checkControl, sparsify, type SparsifySummary } from "./training/sparsify.ts";
import type { Reporter } from "./training/training_run.ts";

/**
 * How a model is made sparse. What is left out comes from the model folder's `sparsify.json`, else it is what
 * `deno task sparsify --help` shows.
 */
export interface SparsifyOptions {
  /** Files or folders of text for training; what the folder's sparsify.json names, where left out. */
  data?: string[];
  /** tokenizer.json or its folder; the model's where left out. */
  tokenizer?: string;
  /** Optimiser steps. */
  steps?: number;
  /** Rows of a micro-batch; `auto`: as many as fit. */
  batch?: number | "auto";
  /** Micro-batches to a step. */
  accumulate?: number;
  /** Tokens of a row. */
  context?: number;
  /** Keeps only the residual stream between forward and backward: less memory, a third more time, the same bits. */
  recompute?: boolean;
  /** Type in which products read weights and activations. */
  dtype?: "f32" | "f16";
  /** Peak learning rate. */
  lr?: number;
  /** What it is multiplied by for embeddings. */
  embeddingRate?: number;
  /** What it is multiplied by for the weights of queries, keys and values; not in the control. */
  attentionRate?: number;
  /** Steps over which it rises. */
  warmup?: number;
  /** Share of the steps, at the end, over which it falls to 0. */
  decay?: number;
  /** AdamW's, never on queries, keys, biases and layer norms. */
  weightDecay?: number;
  /** Largest global gradient norm. */
  clip?: number;
  /** Keys the order of batches and the gates' noise. */
  seed?: number;
  /** b in gate logit = score + b. */
  gateBias?: number;
  /** Of the straight-through relaxation. */
  temperature?: number;
  /** Held-out loss to stay at, nats; `auto`: the dense model's plus `slack`; `control`: the control's, which comes first. */
  targetLoss?: number | "auto" | "control";
  /** Nats above that loss, with `auto` and `control`. */
  slack?: number;
  /** Whether the trade-off is measured too: from half of the steps on the target rises, in levels. */
  front?: boolean;
  /** Nats that the target rises by, with `front`. */
  frontSlack?: number;
  /** Violation in nats at which the controller reacts fully. */
  constraintScale?: number;
  /** Steps between measurements of the constraint. */
  constraintEvery?: number;
  /** Moving average of the violation, 0 to 0.999. */
  average?: number;
  /** Multiplier λ at the start. */
  lambdaStart?: number;
  /** Its floor. */
  lambdaMin?: number;
  /** Its ceiling. */
  lambdaMax?: number;
  /** Its growth a step at a full violation, on a log scale. */
  lambdaRate?: number;
  /** What acts is λ times exp(gain times average violation). */
  lambdaGain?: number;
  /** Pull on saturated gates. */
  saturationWeight?: number;
  /** Gate logit beyond which it pulls. */
  saturationBound?: number;
  /** Power of 1 + distance by which an edge weighs less in the sparsity loss, 0 to 8; 0: all weigh alike. */
  distancePower?: number;
  /** What is trained; `auto`: adapters where there are any, else all. */
  train?: "auto" | "all" | "attention" | "lora";
  /** Rank of low-rank adapters, which alone are trained; 0: none. */
  lora?: number;
  /** α: what adapters make is multiplied by α / rank; `auto`: twice the rank. */
  loraAlpha?: number | "auto";
  /** Products that get adapters, with commas between them: `query,key,value,output`, `all-linear`. */
  loraTargets?: string;
  /** Whether it is α / the root of the rank instead. */
  rslora?: boolean;
  /** How matrices that are not trained lie on the device: `int8` with a scale for each column and block of 128 rows. */
  frozen?: "f32" | "f16" | "int8";
  /** Folder of an adapter to begin with. */
  adapter?: string;
  /** Whether the model is saved with its adapters merged into it, and these beside it. */
  merge?: boolean;
  /** Weight of KL(teacher || sparse) beside the loss. */
  distill?: number;
  /** Its teacher: the dense model, or its control, which then comes first; `auto`: the control where there is one. */
  teacher?: "dense" | "control" | "auto";
  /** Whether a dense control is fine-tuned with the same steps and data. */
  control?: boolean;
  /** Test tokens that the results come from, at most, or one row. */
  evalTokens?: number;
  /** Validation tokens of each evaluation, at most, or one row. */
  validationTokens?: number;
  /** Steps between evaluations. */
  evalEvery?: number;
  /** Steps between checkpoints. */
  checkpointEvery?: number;
  /** Checkpoints kept of each phase. */
  keepCheckpoints?: number;
  /** Gigabytes of device memory to stay within; `auto`: what can be had. */
  memory?: number | "auto";
  /** Which adapter: a part of its name, or its number; the fastest where left out. */
  gpu?: string;
  /** Whether variants of kernels are chosen by measuring them. */
  autotune?: boolean;
  /** Folder of runs; `runs` where left out. */
  runs?: string;
  /** The run's folder in it; named after the time where left out. */
  name?: string;
  /** Type of the saved weights. */
  saveType?: "F32" | "F16" | "BF16";
}

/** A run that came to its end. */
export interface SparsifiedModel {
  /** The run's folder: `model` in it is the sparse model, `report.html` the report. */
  folder: string;
  /** Loss, open edges and live heads, dense and sparse; as in summary.json. */
  summary: SparsifySummary;
}

const SILENT: Reporter = { plan() {}, activity() {}, message() {}, warning() {}, row() {} };

/**
 * Makes the attention of the model in a folder sparse, in a new run below `options.runs`.
 *
 * @example The toy that adds two numbers, for a few steps
 * ```ts
 * import assert from "node:assert/strict";
 * import { loadModel, sparsify } from "../mod.ts";
 *
 * const runs = await Deno.makeTempDir();
 * const { folder, summary } = (await sparsify("data/addition", {
 *   runs,
 *   steps: 4,
 *   batch: 32,
 *   control: false,
 *   autotune: false,
 *   evalTokens: 512,
 *   validationTokens: 512,
 * }))!;
 * assert(summary.sparse.open_fraction <= 1 && summary.dense.ce < 0.001);
 * using model = await loadModel(`${folder}/model`);
 * assert(model.config.gate !== undefined);
 * ```
 *
 * @param options.reporter is told what is done, and every step's metrics, by functions of its own; any may be left out
 * @param options.signal stops the run with a checkpoint, from which `deno task sparsify --resume NAME` goes on
 * @returns undefined when it was stopped
 * @throws {UserError} on a bad setting, model or data, when of the run nothing is left behind, and after repeated
 * non-finite gradients
 * @throws {AdapterError} when there is no adapter
 * @throws {DeviceError} when the device fails
 */
export async function sparsifyModel(
  model: string,
  { reporter: told, signal = new AbortController().signal, ...options }: SparsifyOptions & {
    reporter?: Partial<Reporter>;
    signal?: AbortSignal;
  } = {},
): Promise<SparsifiedModel | undefined> {
  const reporter = { ...SILENT, ...told };
  // Whatever an option may be is what the command's setting may be.
  const chosen: Partial<SparsifySettings> = options;
  const named = Object.fromEntries(
    Object.entries({ ...chosen, model }).filter(([, value]) => value !== undefined),
  );
  const given = checkedSettings(SPARSIFY, named, "the options");
  const settings = await resolveSettings(SPARSIFY, { given, config: undefined });
  checkControl(settings);
  const run = await prepareRun(
    "sparsify",
    settings,
    await openRunModel(settings.model, { tokenizer: settings.tokenizer, adaptation: settings }),
    reporter,
  );
  const summary = await completeRun(run, () => sparsify(settings, run, reporter, signal));
  return summary && { folder: run.folder.path, summary };
}
