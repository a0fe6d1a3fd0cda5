/**
 * Every setting of every command, in one table each, from which flags, `--help`, config files and types follow.
 *
 * A value comes from the flag, else from `--config FILE`, else from the model folder's `sparsify.json` (settings that a
 * model recommends for itself), else from the table.
 *
 * @module
 */
import { MOST_DISTANCE_POWER } from "../kernels/gated_attention/distance.ts";
import { DEFAULT_RUNS } from "./runs/run_folder.ts";
import { flagName } from "./flags.ts";
import { TEXT_COLUMN } from "./text/documents.ts";
import type { Need, SettingsOf, SettingsTable } from "./settings/table.ts";

const integer = (value: number, lowest: number, help: string, group: string) =>
  ({ kind: "number", value, lowest, integer: true, help, group }) as const;
const positive = (value: number, help: string, group: string) =>
  ({ kind: "number", value, lowest: 0, above: true, help, group }) as const;
const share = (value: number, help: string, group: string) =>
  ({ kind: "number", value, lowest: 0, highest: 1, help, group }) as const;
const atLeastZero = (value: number, help: string, group: string) =>
  ({ kind: "number", value, lowest: 0, help, group }) as const;
const flag = (value: boolean, help: string, group: string) => ({ kind: "flag", value, help, group }) as const;

/** A setting that has an effect beside a flag alone. */
const withFlag = (setting: string): Need => ({
  setting,
  holds: (other) => other === true,
  told: () => `without --${flagName(setting)}`,
});
/** A setting that has an effect where tokens are drawn. */
const DRAWN: Need = {
  setting: "temperature",
  holds: (temperature) => temperature !== 0,
  told: () => "with --temperature 0, at which nothing is drawn: give --temperature 1",
};
/** A setting that another bounds. */
const within = (setting: string): Need => ({
  setting,
  holds: (other, own) => Number(own) <= Number(other),
  told: (other, own) => `${own} as it must be at most --${flagName(setting)} ${other}`,
});

const OUTPUT = {
  json: flag(false, "end with the summary as one line of JSON on standard output", "Output"),
  quiet: flag(false, "no progress", "Output"),
  debug: flag(false, "stack traces for errors", "Output"),
} as const;

/** Which adapter a command opens. */
const GPU = {
  gpu: {
    kind: "name",
    value: undefined,
    placeholder: "NAME",
    help: "adapter by part of its name or its number; another lists them (default: fastest)",
    group: "Run",
  },
} as const;

const FILES_OF_TEXT = "text, .jsonl, .parquet, a folder of these, or - for standard input";
const TEXT = "text, .jsonl, .parquet, a folder, - or hf:owner/name[:part][/split]";

const DATA = {
  data: {
    kind: "paths",
    value: [],
    placeholder: "PATH",
    hub: true,
    help: `${TEXT}; repeatable`,
    group: "Model and data",
  },
  textColumn: {
    kind: "name",
    value: TEXT_COLUMN,
    placeholder: "NAME",
    help: "where JSON and Parquet have their text",
    group: "Model and data",
  },
  tokenizer: {
    kind: "path",
    value: undefined,
    placeholder: "PATH",
    help: "tokenizer.json, or a folder with one (default: the model's)",
    group: "Model and data",
  },
} as const;

const TRAINING = {
  steps: integer(300, 1, "optimiser steps", "Training"),
  batch: {
    kind: "numberOrAuto",
    value: 8,
    lowest: 1,
    integer: true,
    help: "rows of a micro-batch; auto: as many as --memory holds, to 1024",
    group: "Training",
  },
  recompute: flag(
    false,
    "less memory, a third more time, the same bits: activations computed anew",
    "Training",
  ),
  accumulate: integer(1, 1, "micro-batches to a step", "Training"),
  dtype: {
    kind: "choice",
    value: "f32",
    choices: ["f32", "f16"],
    help: "type in which products read weights and activations; sums and training are f32",
    group: "Training",
  },
  context: integer(128, 1, "tokens of a row", "Training"),
  lr: positive(1e-3, "peak learning rate", "Training"),
  embeddingRate: atLeastZero(1, "what it is multiplied by for embeddings", "Training"),
  attentionRate: atLeastZero(1, "what it is multiplied by for weights of queries, keys, values", "Training"),
  warmup: {
    ...integer(20, 0, "steps over which the learning rate rises", "Training"),
    needs: within("steps"),
  },
  decay: share(0.3, "share of the steps, at the end, over which it falls to 0", "Training"),
  weightDecay: atLeastZero(0.01, "AdamW's; never on queries, keys, biases and layer norms", "Training"),
  clip: positive(1, "largest global gradient norm", "Training"),
  seed: {
    kind: "number",
    value: 1,
    lowest: 0,
    // The device's counter-based noise is keyed by 32 bits.
    highest: 2 ** 32 - 1,
    integer: true,
    help: "keys the order of batches and the gates' noise",
    group: "Training",
  },
} as const;

const GATES = {
  gateBias: { kind: "number", value: 3, lowest: -100, help: "b in gate logit = score + b", group: "Gates" },
  temperature: positive(1, "of the straight-through relaxation", "Gates"),
  targetLoss: {
    kind: "numberOrAuto",
    or: "control",
    value: "auto",
    lowest: 0,
    help: "loss to stay at; auto: the dense model's, control: the control's, plus --slack",
    group: "Gates",
  },
  slack: {
    kind: "number",
    value: 0,
    lowest: -100,
    highest: 100,
    help: "nats above that loss, with auto or control",
    group: "Gates",
    needs: {
      setting: "targetLoss",
      holds: (target: unknown) => typeof target !== "number",
      told: (target: unknown) => `with --target-loss ${target}, which is the target itself`,
    },
  },
  constraintScale: positive(0.03, "violation in nats at which the controller reacts fully", "Gates"),
  constraintEvery: integer(4, 1, "steps between measurements of the constraint", "Gates"),
  // At 1 the average would never move.
  average: { ...share(0.9, "moving average of the violation", "Gates"), highest: 0.999 },
  lambdaStart: { ...positive(0.3, "multiplier at the start", "Gates"), needs: within("lambdaMax") },
  lambdaMin: { ...positive(0.02, "its floor", "Gates"), atMost: "lambdaMax" },
  lambdaMax: positive(5, "its ceiling", "Gates"),
  lambdaRate: positive(0.015, "its growth a step at a full violation (log scale)", "Gates"),
  lambdaGain: atLeastZero(1.5, "what acts is lambda times exp(gain x average violation)", "Gates"),
  saturationWeight: atLeastZero(0.01, "pull on saturated gates", "Gates"),
  saturationBound: atLeastZero(6, "gate logit beyond which it pulls", "Gates"),
  distancePower: {
    ...atLeastZero(0, "in the sparsity loss an edge weighs by (1 + distance)^-N; 0: all alike", "Gates"),
    highest: MOST_DISTANCE_POWER,
  },
} as const;

/**
 * What is recommended for a model that others have trained to its end, as all are that have no sparsify.json: learning
 * rates that its other weights bear, a higher one where gates are decided, and gates that begin half open. Chosen between
 * short runs of SmolLM2-135M's twin (docs/log.md), and met its target in the one run of 120 steps (docs/results.md).
 */
const PRETRAINED = {
  lr: { ...TRAINING.lr, value: 5e-5 },
  embeddingRate: { ...TRAINING.embeddingRate, value: 0.3 },
  attentionRate: { ...TRAINING.attentionRate, value: 8 },
  warmup: { ...TRAINING.warmup, value: 10 },
  decay: { ...TRAINING.decay, value: 0.9 },
  gateBias: { ...GATES.gateBias, value: 0 },
  constraintEvery: { ...GATES.constraintEvery, value: 8 },
  lambdaStart: { ...GATES.lambdaStart, value: 0.4 },
  lambdaGain: { ...GATES.lambdaGain, value: 0 },
  // The scores of such a model go far below the bound, and the pull would take closed gates back up as well.
  saturationWeight: { ...GATES.saturationWeight, value: 1e-3 },
} as const;

const RUN = {
  evalTokens: integer(65536, 1, "test tokens that the results come from, at most, or one row", "Run"),
  validationTokens: integer(16384, 1, "validation tokens of each evaluation, at most, or one row", "Run"),
  evalEvery: integer(50, 1, "steps between evaluations", "Run"),
  checkpointEvery: integer(100, 1, "steps between checkpoints", "Run"),
  keepCheckpoints: integer(2, 1, "checkpoints kept of each phase", "Run"),
  memory: {
    kind: "numberOrAuto",
    value: "auto",
    lowest: 0,
    above: true,
    help: "GB of device memory to stay within; auto: what can be had",
    group: "Run",
  },
  ...GPU,
  autotune: flag(true, "choose kernels by measuring them at the first start; the bits are the same", "Run"),
  runs: { kind: "path", value: DEFAULT_RUNS, placeholder: "DIR", help: "folder of runs", group: "Run" },
  name: {
    kind: "name",
    value: undefined,
    placeholder: "NAME",
    help: "the run's folder (default: from the time)",
    group: "Run",
  },
  saveType: {
    kind: "choice",
    value: "F32",
    choices: ["F32", "F16", "BF16"],
    help: "type of the saved weights",
    group: "Run",
  },
} as const;

const RANKS = {
  mpi: {
    kind: "name",
    value: undefined,
    placeholder: "PATH",
    help: "MPI's library, under mpirun or srun (default: Open MPI's or MPICH's usual name)",
    group: "Several GPUs",
  },
  rankLimit: positive(15, "minutes that ranks wait for one that does not come", "Several GPUs"),
  shareAdapter: flag(
    false,
    "ranks may share a GPU, or have their own though nothing tells so",
    "Several GPUs",
  ),
} as const;

const SHARDS = {
  shardOptimizer: flag(
    false,
    "each rank keeps AdamW's moments of its share alone: less memory, the same bits",
    "Several GPUs",
  ),
  stages: integer(
    1,
    1,
    "ranks that the layers are divided among: less memory of each, the same bits",
    "Several GPUs",
  ),
} as const;

const ADAPTER = {
  adapter: {
    kind: "path",
    value: undefined,
    placeholder: "DIR",
    help: "adapter of the model, as peft or a run with --lora saves it",
    group: "Model and data",
  },
} as const;

/** How weights lie on the device. */
const FROZEN = {
  kind: "choice",
  value: "f32",
  choices: ["f32", "f16", "int8"],
  help: "how matrices that are not trained lie on the device; int8 with a scale a column and 128 rows",
  group: "Training",
} as const;

/** The same for a model that is run and not trained. */
const HELD = { ...FROZEN, help: "how matrices lie on the device, as frozen ones do in training" } as const;

const LORA = {
  adapter: { ...ADAPTER.adapter, help: `${ADAPTER.adapter.help}, to begin with` },
  train: {
    kind: "choice",
    value: "auto",
    choices: ["auto", "all", "attention", "lora"],
    placeholder: "PART",
    help: "all, attention (its products), or lora (adapters); auto: adapters if any, else all",
    group: "Training",
  },
  lora: integer(0, 0, "rank of low-rank adapters, which alone are trained; 0: none", "Training"),
  loraAlpha: {
    kind: "numberOrAuto",
    value: "auto",
    lowest: 0,
    above: true,
    help: "what they make is multiplied by alpha / rank; auto: twice the rank",
    group: "Training",
  },
  loraTargets: {
    kind: "name",
    value: "query,key,value,output",
    placeholder: "LIST",
    help: "products with adapters: these, gate, up, down, names such as q_proj, or all-linear",
    group: "Training",
  },
  rslora: flag(false, "alpha / the root of the rank instead", "Training"),
  frozen: FROZEN,
  merge: flag(false, "save the model with its adapters merged into it, and these beside it", "Run"),
} as const;

const SERVER = {
  serve: flag(false, "also serve the runs at http://127.0.0.1, as deno task serve does", "Output"),
  port: {
    kind: "number",
    value: 8000,
    lowest: 0,
    highest: 65535,
    integer: true,
    help: "with --serve; 0: any that is free",
    group: "Output",
    needs: withFlag("serve"),
  },
} as const;

/** Settings of `sparsify`. */
export const SPARSIFY = {
  model: {
    kind: "path",
    value: "data/english",
    placeholder: "MODEL",
    hub: true,
    help: "folder, or owner/name on the hub: GPT-2, Llama, Qwen, OLMo, Pythia, Mistral",
    group: "Model and data",
  },
  ...DATA,
  ...TRAINING,
  ...GATES,
  ...PRETRAINED,
  ...LORA,
  front: flag(
    false,
    "also the trade-off: from half of the steps on the target rises, in levels; each is measured",
    "Gates",
  ),
  frontSlack: {
    ...positive(0.2, "nats that the target rises by, with --front", "Gates"),
    needs: withFlag("front"),
  },
  attentionRate: {
    ...PRETRAINED.attentionRate,
    help: "what it is multiplied by for weights of queries, keys, values; of the control 1",
  },
  distill: atLeastZero(0, "weight of KL(teacher || sparse) beside the loss", "Training"),
  teacher: {
    kind: "choice",
    value: "dense",
    choices: ["dense", "control", "auto"],
    placeholder: "WHO",
    help: "of --distill: dense or control, which then comes first; auto: the control if any",
    group: "Training",
    needs: {
      setting: "distill",
      holds: (weight: unknown) => weight !== 0,
      told: (_: unknown, teacher: unknown) => `${teacher} as nothing is learnt from it: give --distill 2`,
    },
  },
  control: flag(true, "also fine-tune a dense control with the same steps and data", "Run"),
  ...RUN,
  memory: {
    ...RUN.memory,
    alone: true,
    help: "GB of device memory to stay within; auto: what can be had; no value: tells the need",
  },
  ...RANKS,
  ...SHARDS,
  ...SERVER,
  ...OUTPUT,
} as const satisfies SettingsTable;

/** Settings of gates, which have an effect where training is sparse. */
const whereSparse = <const Table extends SettingsTable>(table: Table): Table =>
  Object.fromEntries(
    Object.entries(table).map(([name, setting]) => [
      name,
      { ...setting, needs: [withFlag("sparse"), ...[setting.needs ?? []].flat()] },
    ]),
  ) as SettingsTable as Table;

/** Settings of gates that hold of a model from scratch too: there is no dense model whose loss a slack stands above. */
const { slack: _, ...GATES_FROM_SCRATCH } = GATES;

/** Settings of `pretrain`. */
export const PRETRAIN = {
  data: { ...DATA.data, help: `${TEXT}; required` },
  textColumn: DATA.textColumn,
  tokenizer: { ...DATA.tokenizer, help: "tokenizer.json of any kind, or a folder with one; required" },
  layers: integer(3, 1, "layers", "Model and data"),
  heads: integer(4, 1, "heads of a layer", "Model and data"),
  width: integer(128, 1, "width, a multiple of the heads", "Model and data"),
  ...TRAINING,
  lr: positive(2e-3, "peak learning rate", "Training"),
  warmup: { ...TRAINING.warmup, value: 100 },
  weightDecay: atLeastZero(0.1, "AdamW's; never on queries, keys, biases and layer norms", "Training"),
  sparse: flag(false, "train under the constraint; needs --target-loss", "Gates"),
  ...whereSparse({
    sparseFrom: {
      ...share(0, "share of the steps after which it is switched on, dense before", "Gates"),
      highest: 0.99,
    },
    ...GATES_FROM_SCRATCH,
    targetLoss: {
      kind: "numberOrAuto",
      value: "auto",
      lowest: 0,
      help: "held-out loss to stay at, nats, which --sparse needs; auto: none",
      group: "Gates",
    },
  }),
  ...RUN,
  evalEvery: integer(250, 1, "steps between evaluations", "Run"),
  checkpointEvery: integer(500, 1, "steps between checkpoints", "Run"),
  ...RANKS,
  ...SHARDS,
  ...SERVER,
  ...OUTPUT,
} as const satisfies SettingsTable;

/** Settings of `evaluate`. */
export const EVALUATE = {
  model: SPARSIFY.model,
  ...ADAPTER,
  ...DATA,
  batch: integer(8, 1, "rows at a time", "Evaluation"),
  context: integer(0, 0, "tokens of a row; 0: the model recommends it, else its whole context", "Evaluation"),
  dense: flag(false, "ignore the gates", "Evaluation"),
  frozen: { ...HELD, group: "Evaluation", byModel: false },
  split: {
    kind: "choice",
    value: "test",
    choices: ["test", "validation", "train", "all"],
    help: "documents of the data to measure on",
    group: "Evaluation",
  },
  evalTokens: RUN.evalTokens,
  memory: flag(false, "only tell what device memory is needed; config.json is enough", "Evaluation"),
  gpu: { ...RUN.gpu, group: "Evaluation" },
  ...RANKS,
  ...OUTPUT,
} as const satisfies SettingsTable;

/** Settings of `plan`. */
export const PLAN = {
  model: {
    kind: "path",
    value: undefined,
    placeholder: "MODEL",
    hub: true,
    help: "config.json, a folder with one, or owner/name on the hub; weights are not read",
    group: "Model",
  },
  train: { ...LORA.train, group: "Model" },
  lora: { ...LORA.lora, group: "Model" },
  loraTargets: { ...LORA.loraTargets, group: "Model" },
  adapter: { ...LORA.adapter, group: "Model" },
  frozen: { ...FROZEN, group: "Model" },
  batch: { ...TRAINING.batch, kind: "number", value: TRAINING.batch.value, help: "rows of a micro-batch" },
  context: TRAINING.context,
  accumulate: TRAINING.accumulate,
  dtype: TRAINING.dtype,
  recompute: flag(false, "bytes and arithmetic with activations computed anew", "Training"),
  distill: SPARSIFY.distill,
  teacher: SPARSIFY.teacher,
  constraintEvery: SPARSIFY.constraintEvery,
  gpuMemory: {
    kind: "name",
    value: undefined,
    placeholder: "SIZE",
    help: "memory of the device, as 24GB or 80GiB: tells what fits",
    group: "Device",
  },
  binding: {
    kind: "name",
    value: undefined,
    placeholder: "SIZE",
    help: "what a binding of the device holds (default: 2GiB, the most)",
    group: "Device",
  },
  tokens: integer(0, 0, "tokens to train on: tells steps and arithmetic", "Device"),
  rate: atLeastZero(
    0,
    "tokens a second of one device alone: tells hours, of several with --network",
    "Device",
  ),
  ranks: integer(1, 1, "ranks that train together: bytes are those of each", "Several GPUs"),
  network: {
    kind: "name",
    value: undefined,
    placeholder: "RATE",
    help: "what a rank sends, as 25GB/s or 200Gbit/s: with --rate tells a step's time",
    group: "Several GPUs",
  },
  ...SHARDS,
  shardOptimizer: {
    ...SHARDS.shardOptimizer,
    needs: {
      setting: "ranks",
      holds: (ranks: unknown, own: unknown) => own !== true || ranks !== 1,
      told: () => "without --ranks, among which it divides",
    },
  },
  json: flag(false, "the plan as one line of JSON on standard output", "Output"),
  debug: OUTPUT.debug,
} as const satisfies SettingsTable;

/** Settings of `circuits`. */
export const CIRCUITS = {
  task: {
    kind: "name",
    value: undefined,
    placeholder: "TASK",
    help: "copy, ioi, greater-than, docstring, addition (default: what the embedded models do)",
    group: "Task",
  },
  pairs: {
    kind: "path",
    value: undefined,
    placeholder: "FILE",
    help: "your own pairs instead: JSON Lines, or an array, of clean, corrupted, answers, wrong",
    group: "Task",
  },
  pairsLength: {
    kind: "numberOrAuto",
    value: "auto",
    lowest: 1,
    integer: true,
    help: "tokens of the prompts of pairs that are taken; auto: all must have as many",
    group: "Task",
    needs: { setting: "pairs", holds: (other) => other !== undefined, told: () => "without --pairs" },
  },
  prompt: {
    kind: "text",
    value: undefined,
    placeholder: "TEXT",
    help: "one pair of your own instead, by four flags: its prompt",
    group: "Task",
  },
  corrupted: {
    kind: "text",
    value: undefined,
    placeholder: "TEXT",
    help: "its corruption, of as many tokens",
    group: "Task",
  },
  answer: {
    kind: "text",
    value: undefined,
    placeholder: "TEXT",
    help: "the one token that is right behind the prompt, with its leading space",
    group: "Task",
  },
  wrong: {
    kind: "text",
    value: undefined,
    placeholder: "TEXT",
    help: "the one that is wrong there",
    group: "Task",
  },
  prompts: {
    kind: "numberOrAuto",
    value: "auto",
    lowest: 2,
    integer: true,
    help: "pairs of prompts; auto: 32 of a task, all of a file",
    group: "Task",
  },
  model: {
    kind: "path",
    value: undefined,
    placeholder: "MODEL",
    hub: true,
    help: "folder, or owner/name on the hub; dense or sparse",
    group: "Models",
  },
  against: {
    kind: "path",
    value: undefined,
    placeholder: "MODEL",
    hub: true,
    help: "another of the same shape and tokenizer to set beside it, dense or sparse",
    group: "Models",
  },
  adapter: { ...ADAPTER.adapter, help: `${ADAPTER.adapter.help}; merged into --model`, group: "Models" },
  method: {
    kind: "choice",
    value: "eap-ig",
    choices: ["eap-ig", "eap"],
    help: "how edges are estimated: with integrated gradients, or by one gradient",
    group: "Discovery",
  },
  igSteps: {
    ...integer(5, 1, "steps of the integrated gradients", "Discovery"),
    needs: {
      setting: "method",
      holds: (method: unknown) => method === "eap-ig",
      told: (method: unknown) => `with --method ${method}, which has no such steps`,
    },
  },
  ablation: {
    kind: "choice",
    value: "resample",
    choices: ["resample", "mean", "zero"],
    help: "what replaces what a circuit leaves out",
    group: "Discovery",
  },
  leastAccuracy: share(0.6, "share of answers that must be right for a circuit to be looked for", "Task"),
  seed: {
    ...TRAINING.seed,
    help: "keys the choice of prompts and the bootstrap",
    group: "Task",
    byModel: false,
  },
  memory: {
    ...RUN.memory,
    help: "GB of device memory for the activations of the pairs that are run at once; auto: 1",
  },
  gpu: RUN.gpu,
  runs: RUN.runs,
  name: RUN.name,
  ...RANKS,
  ...OUTPUT,
} as const satisfies SettingsTable;

/** Settings of `generate`. */
export const GENERATE = {
  model: { ...SPARSIFY.model, help: `${SPARSIFY.model.help}; dense or sparse` },
  ...ADAPTER,
  frozen: { ...HELD, group: "Model and data", byModel: false },
  prompt: {
    kind: "text",
    value: undefined,
    placeholder: "TEXT",
    help: "what is continued; - reads it from standard input, without a line end at its end",
    group: "Text",
  },
  tokenizer: DATA.tokenizer,
  tokens: integer(64, 1, "tokens of the continuation, at most", "Text"),
  dense: flag(false, "open all gates; a sparse model's own continuation is shown beside", "Text"),
  temperature: {
    ...atLeastZero(0, "logits are divided by it; 0 takes the likeliest token each time", "Text"),
    // Where a model is trained it is another.
    byModel: false,
  },
  topP: {
    kind: "number",
    value: 1,
    lowest: 0,
    above: true,
    highest: 1,
    help: "draw from the fewest tokens that have this probability together",
    group: "Text",
    needs: DRAWN,
  },
  seed: {
    ...TRAINING.seed,
    help: "keys the draw; the same seed gives the same text",
    group: "Text",
    byModel: false,
    needs: DRAWN,
  },
  steer: {
    kind: "path",
    value: undefined,
    placeholder: "FILE",
    help: "safetensors of what is added at every token, by the activation's name",
    group: "Text",
  },
  steerScale: {
    kind: "number",
    value: 1,
    lowest: -Infinity,
    help: "what that is multiplied by",
    group: "Text",
    needs: {
      setting: "steer",
      holds: (file: unknown) => file !== undefined,
      told: () => "without --steer",
    },
  },
  gpu: { ...GPU.gpu, group: "Text" },
  ...OUTPUT,
  json: flag(false, "end with one line of JSON on standard output, in place of the text", "Output"),
} as const satisfies SettingsTable;

/** Settings of `benchmark`. */
export const BENCHMARK = {
  task: {
    kind: "name",
    value: undefined,
    placeholder: "NAME[,NAME]",
    help: "arc_easy, piqa, … (an unknown name lists them); choices: your own; passkey: needs no data",
    group: "Task",
  },
  data: {
    kind: "paths",
    value: [],
    placeholder: "PATH",
    hub: true,
    help: "each task's in order, or a folder with NAME.jsonl for each (default: from the hub)",
    group: "Task",
    byModel: false,
  },
  limit: integer(0, 0, "items of each task, the first; 0: all", "Task"),
  lengths: {
    kind: "name",
    value: undefined,
    placeholder: "N[,N]",
    help: "tokens of passkey's items (default: 128, 256, 512 and 1024, as far as the model goes)",
    group: "Task",
  },
  seed: {
    ...TRAINING.seed,
    help: "keys the bootstrap of a difference, and passkey's items",
    group: "Task",
    byModel: false,
  },
  model: { ...SPARSIFY.model, help: `${SPARSIFY.model.help}; dense or sparse`, group: "Models" },
  dense: flag(false, "open all gates of --model", "Models"),
  adapter: { ...ADAPTER.adapter, help: `${ADAPTER.adapter.help}; of --model`, group: "Models" },
  frozen: { ...HELD, help: `of --model: ${HELD.help}`, group: "Models", byModel: false },
  against: {
    kind: "path",
    value: undefined,
    placeholder: "MODEL",
    hub: true,
    help: "another, on the same items: the difference is tested",
    group: "Models",
  },
  tokenizer: { ...DATA.tokenizer, help: "of --model: tokenizer.json, or a folder with one", group: "Models" },
  batchTokens: integer(4096, 1, "tokens that are run at once, at least one sequence", "Run"),
  gpu: RUN.gpu,
  output: {
    kind: "path",
    value: undefined,
    placeholder: "DIR",
    help: "folder for items.arrow, each choice with its score, and results.json",
    group: "Output",
  },
  ...RANKS,
  ...OUTPUT,
  json: flag(false, "end with one line of JSON for each task on standard output", "Output"),
} as const satisfies SettingsTable;

/** Settings of `sweep`, beside its file. */
export const SWEEP = {
  jobs: integer(1, 1, "runs at a time on this machine, or at each rank", "Sweep"),
  only: {
    kind: "numberOrAuto",
    value: "auto",
    lowest: 0,
    integer: true,
    help: "run one alone, by its number from 0, as a task of a job array does; auto: all",
    group: "Sweep",
  },
  table: flag(false, "run nothing: only make the table and the page of what is there", "Sweep"),
  slurm: flag(
    false,
    "run nothing: write a script for sbatch that runs each as a task of a job array",
    "Sweep",
  ),
  runs: { ...RUN.runs, group: "Sweep" },
  name: { ...RUN.name, help: "folder of its runs in --runs (default: the file's name)", group: "Sweep" },
  mpi: RANKS.mpi,
  rankLimit: RANKS.rankLimit,
  ...OUTPUT,
} as const satisfies SettingsTable;

/** Settings of `study`, beside its name. */
export const STUDY = {
  quick: flag(false, "tiny sizes, for the tests: only to see that it works", "Study"),
  part: {
    kind: "name",
    value: undefined,
    placeholder: "NAME",
    help: "run one part alone, such as addition; of the others only what is there is told (default: all)",
    group: "Study",
  },
  table: flag(false, "run nothing: only write what the runs that are there have come to", "Study"),
  jobs: { ...SWEEP.jobs, help: "runs at a time on this machine", group: "Study" },
  runs: { ...RUN.runs, group: "Study" },
  name: { ...RUN.name, help: "folder of its runs in --runs (default: the study's name)", group: "Study" },
  ...OUTPUT,
} as const satisfies SettingsTable;

/** Settings of `train-tokenizer`. */
export const TRAIN_TOKENIZER = {
  data: { ...DATA.data, hub: false, help: `${FILES_OF_TEXT}; repeatable; required` },
  textColumn: DATA.textColumn,
  vocabulary: integer(4096, 257, "entries, the bytes and the end-of-text token included", "Tokenizer"),
  output: {
    kind: "path",
    value: "tokenizer.json",
    placeholder: "FILE",
    help: "file to write",
    group: "Tokenizer",
  },
  debug: OUTPUT.debug,
} as const satisfies SettingsTable;

/** Settings of `activations`. */
export const ACTIVATIONS = {
  model: {
    ...SPARSIFY.model,
    help: "folder, or owner/name on the hub, of a model as sparsify takes or saves it",
  },
  ...ADAPTER,
  ...DATA,
  read: {
    kind: "names",
    value: [],
    placeholder: "NAME[,NAME]",
    help: "activations, such as blocks.2.hook_resid_pre, or all (an unknown name lists them); required",
    group: "Activations",
  },
  tokens: integer(65536, 1, "tokens of each split, or of the documents, at most, or one row", "Activations"),
  eachDocument: flag(
    false,
    "a row for each document, alone, in place of rows that they fill together",
    "Activations",
  ),
  split: {
    ...EVALUATE.split,
    help: "documents of the data that are read",
    group: "Activations",
    needs: {
      setting: "eachDocument",
      holds: (other) => other !== true,
      told: () => "with --each-document, which reads all documents",
    },
  },
  batch: { ...EVALUATE.batch, group: "Activations" },
  context: { ...EVALUATE.context, group: "Activations" },
  dense: flag(false, "ignore the gates", "Activations"),
  dtype: {
    kind: "choice",
    value: "f32",
    choices: ["f32", "f16"],
    help: "type in which they are written; what f16 cannot hold, above 65504, is refused",
    group: "Activations",
    byModel: false,
  },
  shardSize: positive(256, "MB of a file, at most, or one row of --context", "Activations"),
  output: {
    kind: "path",
    value: undefined,
    placeholder: "FOLDER",
    help: "folder to make; required",
    group: "Output",
  },
  gpu: { ...RUN.gpu, group: "Activations" },
  ...OUTPUT,
} as const satisfies SettingsTable;

/** Settings of `export`. */
export const EXPORT = {
  run: {
    kind: "name",
    value: undefined,
    placeholder: "NAME",
    help: "the run, finished or not; alone lists the steps that it has kept; required",
    group: "Export",
  },
  runs: { ...RUN.runs, group: "Export" },
  step: {
    kind: "numberOrAuto",
    value: "auto",
    lowest: 1,
    integer: true,
    help: "which of these; auto: none",
    group: "Export",
  },
  front: {
    kind: "numberOrAuto",
    value: "auto",
    lowest: 0,
    integer: true,
    help: "or the step of a level of --front, from 0, the run's own target; auto: none",
    group: "Export",
  },
  output: {
    kind: "path",
    value: undefined,
    placeholder: "DIR",
    help: "Hugging Face folder to make",
    group: "Export",
  },
  ...OUTPUT,
} as const satisfies SettingsTable;

/** Values of {@link SPARSIFY}. */
export type SparsifySettings = SettingsOf<typeof SPARSIFY>;
/** Values of {@link PRETRAIN}. */
export type PretrainSettings = SettingsOf<typeof PRETRAIN>;
/** Values of {@link EVALUATE}. */
export type EvaluateSettings = SettingsOf<typeof EVALUATE>;
/** Values of {@link PLAN}. */
export type PlanSettings = SettingsOf<typeof PLAN>;
/** Values of {@link CIRCUITS}. */
export type CircuitsSettings = SettingsOf<typeof CIRCUITS>;
/** Values of {@link GENERATE}. */
export type GenerateSettings = SettingsOf<typeof GENERATE>;
/** Values of {@link BENCHMARK}. */
export type BenchmarkSettings = SettingsOf<typeof BENCHMARK>;
/** Values of {@link SWEEP}. */
export type SweepSettings = SettingsOf<typeof SWEEP>;
/** Values of {@link STUDY}. */
export type StudySettings = SettingsOf<typeof STUDY>;
/** Values of {@link TRAIN_TOKENIZER}. */
export type TrainTokenizerSettings = SettingsOf<typeof TRAIN_TOKENIZER>;
/** Values of {@link ACTIVATIONS}. */
export type ActivationsSettings = SettingsOf<typeof ACTIVATIONS>;
/** Values of {@link EXPORT}. */
export type ExportSettings = SettingsOf<typeof EXPORT>;
