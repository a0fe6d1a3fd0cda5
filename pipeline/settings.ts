/**
 * Every setting of every command, in one table each, from which flags, `--help`, config files and types follow.
 *
 * A value comes from the flag, else from `--config FILE`, else from the model folder's `sparsify.json` (settings that a
 * model recommends for itself), else from the table.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { parseArgs } from "@std/cli/parse-args";
import { inputError, usageError } from "./errors.ts";
import project from "../deno.json" with { type: "json" };
import { exists, isObject, readJson } from "./files.ts";
import { flagName } from "./flags.ts";
import { hubModel, isHubData } from "./hub/names.ts";
import { readModelConfig } from "./model/config_file.ts";
import { nearest } from "./nearest.ts";
import { STANDARD_INPUT } from "./text/data_files.ts";
import { DEFAULT_RUNS } from "./runs/run_folder.ts";

interface Common {
  help: string;
  group: string;
}

/** One setting: what kind of value it takes, its default and its line in `--help`. */
export type Setting =
  | (Common & {
    kind: "path" | "name" | "text";
    value: string | undefined;
    placeholder: string;
    /** Whether a model of the hub may be named where there is no such folder. */
    hub?: boolean;
  })
  | (Common & {
    kind: "paths" | "names";
    value: readonly string[];
    placeholder: string;
    /** Whether data of the hub may be named. */
    hub?: boolean;
  })
  | (Common & {
    kind: "number";
    value: number;
    lowest: number;
    highest?: number;
    above?: boolean;
    integer?: boolean;
    /** Name of another setting that it must not exceed. */
    atMost?: string;
  })
  | (Common & {
    kind: "numberOrAuto";
    value: number | "auto";
    lowest: number;
    above?: boolean;
    integer?: boolean;
    /** The flag may stand without a value: nothing is run then, see {@link ParsedCommand.needs}. */
    alone?: true;
    /** A word that it may be instead. */
    or?: string;
  })
  | (Common & { kind: "choice"; value: string; choices: readonly string[]; placeholder?: string })
  | (Common & { kind: "flag"; value: boolean });

/** The settings of one command by name (camelCase; the flag is the same in kebab-case). */
export type SettingsTable = Record<string, Setting>;

type ValueOf<S extends Setting> = S extends { kind: "path" | "name" | "text"; value: infer V }
  ? V extends string ? string
  : string | undefined
  : S extends { kind: "paths" | "names" } ? string[]
  : S extends { kind: "number" } ? number
  : S extends { kind: "numberOrAuto"; or: infer Word } ? number | "auto" | Word
  : S extends { kind: "numberOrAuto" } ? number | "auto"
  : S extends { kind: "choice"; choices: readonly (infer C)[] } ? C
  : boolean;

/** The values that a table describes. */
export type SettingsOf<Table extends SettingsTable> = {
  -readonly [Name in keyof Table]: ValueOf<Table[Name]>;
};

const integer = (value: number, lowest: number, help: string, group: string) =>
  ({ kind: "number", value, lowest, integer: true, help, group }) as const;
const positive = (value: number, help: string, group: string) =>
  ({ kind: "number", value, lowest: 0, above: true, help, group }) as const;
const share = (value: number, help: string, group: string) =>
  ({ kind: "number", value, lowest: 0, highest: 1, help, group }) as const;
const atLeastZero = (value: number, help: string, group: string) =>
  ({ kind: "number", value, lowest: 0, help, group }) as const;
const flag = (value: boolean, help: string, group: string) => ({ kind: "flag", value, help, group }) as const;

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
  warmup: integer(20, 0, "steps over which the learning rate rises", "Training"),
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
    value: "auto",
    lowest: -Infinity,
    help: "held-out loss to stay at, nats; auto: the dense model's plus --slack",
    group: "Gates",
  },
  slack: {
    kind: "number",
    value: 0,
    lowest: -100,
    highest: 100,
    help: "nats above the dense loss, with auto",
    group: "Gates",
  },
  constraintScale: positive(0.03, "violation in nats at which the controller reacts fully", "Gates"),
  constraintEvery: integer(4, 1, "steps between measurements of the constraint", "Gates"),
  // At 1 the average would never move.
  average: { ...share(0.9, "moving average of the violation", "Gates"), highest: 0.999 },
  lambdaStart: positive(0.3, "multiplier at the start", "Gates"),
  lambdaMin: { ...positive(0.02, "its floor", "Gates"), atMost: "lambdaMax" },
  lambdaMax: positive(5, "its ceiling", "Gates"),
  lambdaRate: positive(0.015, "its growth a step at a full violation (log scale)", "Gates"),
  lambdaGain: atLeastZero(1.5, "what acts is lambda times exp(gain x average violation)", "Gates"),
  saturationWeight: atLeastZero(0.01, "pull on saturated gates", "Gates"),
  saturationBound: atLeastZero(6, "gate logit beyond which it pulls", "Gates"),
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
  evalTokens: integer(65536, 1, "test tokens that the results come from, at most", "Run"),
  validationTokens: integer(16384, 1, "validation tokens of each evaluation, at most", "Run"),
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
  frozen: {
    kind: "choice",
    value: "f32",
    choices: ["f32", "f16", "int8"],
    help: "how matrices that are not trained lie on the device; int8 with a scale a column and 128 rows",
    group: "Training",
  },
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
  targetLoss: {
    ...GATES.targetLoss,
    or: "control",
    help: "loss to stay at; auto: the dense model's, control: the control's, plus --slack",
  },
  slack: { ...GATES.slack, help: "nats above that loss, with auto or control" },
  distill: atLeastZero(0, "weight of KL(dense || sparse) beside the loss", "Training"),
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

/** Settings of `pretrain`. */
export const PRETRAIN = {
  data: { ...DATA.data, help: `${TEXT}; required` },
  tokenizer: { ...DATA.tokenizer, help: "tokenizer.json of any kind, or a folder with one; required" },
  layers: integer(3, 1, "layers", "Model and data"),
  heads: integer(4, 1, "heads of a layer", "Model and data"),
  width: integer(128, 1, "width, a multiple of the heads", "Model and data"),
  ...TRAINING,
  lr: positive(2e-3, "peak learning rate", "Training"),
  warmup: integer(100, 0, "steps over which the learning rate rises", "Training"),
  weightDecay: atLeastZero(0.1, "AdamW's; never on queries, keys, biases and layer norms", "Training"),
  sparse: flag(false, "train under the constraint from the start; needs --target-loss", "Gates"),
  ...GATES,
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
  frozen: {
    kind: "choice",
    value: "f32",
    choices: ["f32", "f16", "int8"],
    help: "how weights are stored that are not trained",
    group: "Model",
  },
  batch: { ...TRAINING.batch, kind: "number", value: TRAINING.batch.value, help: "rows of a micro-batch" },
  context: TRAINING.context,
  accumulate: TRAINING.accumulate,
  dtype: TRAINING.dtype,
  recompute: flag(false, "bytes and arithmetic with activations computed anew", "Training"),
  distill: SPARSIFY.distill,
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
  rate: atLeastZero(0, "tokens a second, as measured: with --tokens tells the hours", "Device"),
  ranks: integer(1, 1, "ranks that train together: bytes are those of each", "Several GPUs"),
  ...SHARDS,
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
    help: "your own pairs instead: .jsonl of clean, corrupted, answers, wrong",
    group: "Task",
  },
  prompts: integer(32, 2, "pairs of prompts", "Task"),
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
    help: "another to set beside it, such as the sparse model of a run",
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
  igSteps: integer(5, 1, "steps of the integrated gradients", "Discovery"),
  ablation: {
    kind: "choice",
    value: "resample",
    choices: ["resample", "mean", "zero"],
    help: "what replaces what a circuit leaves out",
    group: "Discovery",
  },
  seed: { ...TRAINING.seed, help: "keys the choice of prompts and the bootstrap", group: "Task" },
  memory: {
    ...RUN.memory,
    help: "GB of device memory for the activations of the pairs that are run at once; auto: 1",
  },
  gpu: RUN.gpu,
  runs: RUN.runs,
  name: RUN.name,
  ...OUTPUT,
} as const satisfies SettingsTable;

/** Settings of `generate`. */
export const GENERATE = {
  model: { ...SPARSIFY.model, help: `${SPARSIFY.model.help}; dense or sparse` },
  ...ADAPTER,
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
  temperature: atLeastZero(0, "logits are divided by it; 0 takes the likeliest token each time", "Text"),
  topP: {
    kind: "number",
    value: 1,
    lowest: 0,
    above: true,
    highest: 1,
    help: "draw from the fewest tokens that have this probability together",
    group: "Text",
  },
  seed: { ...TRAINING.seed, help: "keys the draw; the same seed gives the same text", group: "Text" },
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
    help: "arc_easy, piqa, lambada_openai, … (an unknown name lists them), or choices: your own",
    group: "Task",
  },
  data: {
    kind: "paths",
    value: [],
    placeholder: "PATH",
    hub: true,
    help: "each task's in order, or a folder with NAME.jsonl for each (default: from the hub)",
    group: "Task",
  },
  limit: integer(0, 0, "items of each task, the first; 0: all", "Task"),
  seed: { ...TRAINING.seed, help: "keys the bootstrap of a difference", group: "Task" },
  model: { ...SPARSIFY.model, help: `${SPARSIFY.model.help}; dense or sparse`, group: "Models" },
  dense: flag(false, "open all gates of --model", "Models"),
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
  ...OUTPUT,
  json: flag(false, "end with one line of JSON for each task on standard output", "Output"),
} as const satisfies SettingsTable;

/** Settings of `sweep`, beside its file. */
export const SWEEP = {
  jobs: integer(1, 1, "runs at a time on this machine", "Sweep"),
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
  ...OUTPUT,
} as const satisfies SettingsTable;

/** Settings of `train-tokenizer`. */
export const TRAIN_TOKENIZER = {
  data: { ...DATA.data, hub: false, help: `${FILES_OF_TEXT}; repeatable; required` },
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
/** Values of {@link TRAIN_TOKENIZER}. */
export type TrainTokenizerSettings = SettingsOf<typeof TRAIN_TOKENIZER>;

/** What was asked for on the command line. */
export interface ParsedCommand<Table extends SettingsTable> {
  /** `--help` was given. */
  help: boolean;
  /** `--version` was given. */
  version: boolean;
  /** `--memory` stands without a value: what is needed is to be told, and nothing run. */
  needs: boolean;
  /** Only what the flags say. */
  given: Partial<SettingsOf<Table>>;
  /** Value of `--config`. */
  config: string | undefined;
  /** Folder that relative paths are taken from, where it is another than the working folder. */
  folder?: string;
  /** Value of `--resume`. */
  resume: string | undefined;
}

/** Flags with a value that a command has beside its table. */
const specialFlags = (table: SettingsTable): string[] => hasRuns(table) ? ["config", "resume"] : ["config"];

/** Whether a command trains, so that a run of it can be stopped and resumed. */
const hasRuns = (table: SettingsTable): boolean => "steps" in table;

/**
 * Parses a command's arguments against its table.
 *
 * @param folder that relative paths are taken from; left out: the working folder
 * @throws {UserError} on an unknown flag, a missing or bad value: one line, naming the flag
 */
export function parseCommand<const Table extends SettingsTable>(
  table: Table,
  args: string[],
  folder?: string,
): ParsedCommand<Table> {
  const flags = new Map(Object.keys(table).map((name) => [flagName(name), name]));
  const booleans = [...flags].filter(([, name]) => table[name].kind === "flag").map(([key]) => key);
  const lists = [...flags].filter(([, name]) => isList(table[name])).map(([key]) => key);
  const special = specialFlags(table);
  const strings = [...[...flags.keys()].filter((key) => !booleans.includes(key)), ...special];
  const known = [...flags.keys(), ...special, ...booleans.map((key) => `no-${key}`), "help", "version"];
  checkSwitches(args, [...booleans, "help", "version"]);
  const texts = [...flags].filter(([, name]) => table[name].kind === "text").map(([key]) => key);
  const parsed = parseArgs(joinDashed(args, strings, texts), {
    boolean: [...booleans, "help", "version"],
    string: strings,
    collect: lists,
    negatable: booleans,
    // What was not given must be told from what was given as false.
    default: Object.fromEntries([...flags.keys()].map((key) => [key, undefined])),
    alias: { h: "help" },
    unknown(arg, key) {
      if (key === undefined) throw usageError(`Unknown argument ${arg}`);
      throw usageError(`Unknown flag ${arg}${suggestion(arg.replace(/^-+|=.*/gs, ""), known, "--")}`);
    },
  });
  const given: Record<string, unknown> = {};
  let needs = false;
  for (const [key, name] of flags) {
    if (parsed[key] === undefined) continue;
    const setting = table[name];
    // A value that is there but empty is none.
    if (setting.kind === "numberOrAuto" && setting.alone && parsed[key] === "" && args.includes(`--${key}`)) {
      needs = true;
      continue;
    }
    given[name] = fromFolder(table[name], parseValue(`--${key}`, table[name], parsed[key]), folder);
  }
  for (const key of special) {
    if (parsed[key] === "") throw usageError(`Cannot use --${key} as it needs a value`);
  }
  const config = parsed.config as string | undefined;
  return {
    help: parsed.help === true,
    version: parsed.version === true,
    needs,
    given: given as Partial<SettingsOf<Table>>,
    config: config && folder !== undefined && !isAbsolute(config) ? join(folder, config) : config,
    folder,
    resume: parsed.resume as string | undefined,
  };
}

/** A flag that is on or off takes no value but true or false, and its `--no-` form none at all. */
function checkSwitches(args: string[], booleans: string[]): void {
  for (const arg of args) {
    const [, no = "", key, value] = /^--(no-)?([^=]+)=(.*)$/s.exec(arg) ?? [];
    if (key === undefined || !booleans.includes(key)) continue;
    if (no || (value !== "true" && value !== "false")) {
      const required = no ? "given without a value" : "true or false";
      throw usageError(`Cannot use --${no}${key} as it must be ${required}: ${value}`);
    }
  }
}

/** `--slack -0.1` as `--slack=-0.1`: a value that begins with a dash would be taken for a flag. */
function joinDashed(args: string[], strings: string[], texts: string[]): string[] {
  const joined: string[] = [];
  for (const arg of args) {
    const last = joined.at(-1);
    const flag = last?.startsWith("--") ? last.slice(2) : "";
    const isValue = /^-[\d.]/.test(arg) || arg === STANDARD_INPUT;
    if ((strings.includes(flag) && isValue) || (texts.includes(flag) && /^-(?!-)/.test(arg))) {
      joined[joined.length - 1] += `=${arg}`;
    } else joined.push(arg);
  }
  return joined;
}

function parseValue(label: string, setting: Setting, value: unknown): unknown {
  const isBlank = String(value).trim() === "";
  const isText = typeof value === "string" && !isBlank;
  const fail = (required: string): never => {
    throw usageError(
      `Cannot use ${label} as it must be ${required}: ${isBlank ? "nothing given" : String(value)}`,
    );
  };
  switch (setting.kind) {
    case "flag":
      return typeof value === "boolean" ? value : fail("true or false");
    case "text":
      return typeof value === "string" && value !== "" ? value : fail("a text");
    case "path":
    case "name":
      return isText ? value : fail("a " + setting.kind);
    case "names":
    case "paths": {
      const list = Array.isArray(value) ? value : [value];
      return list.length > 0 && list.every((item) => typeof item === "string" && item)
        ? list
        : fail(`a ${setting.kind.slice(0, -1)}`);
    }
    case "choice":
      return isText && setting.choices.includes(value) ? value : fail(`one of ${setting.choices.join(", ")}`);
    case "numberOrAuto":
    case "number": {
      const words = setting.kind === "numberOrAuto" ? ["auto", ...(setting.or ? [setting.or] : [])] : [];
      if (words.includes(value as string)) return value;
      const number = isText ? Number(value) : value;
      if (typeof number !== "number" || !Number.isFinite(number)) {
        return fail(["a number", ...words].join(" or "));
      }
      const { lowest, above } = setting;
      const highest = setting.kind === "number" ? setting.highest ?? Infinity : Infinity;
      if (setting.integer && !Number.isSafeInteger(number)) return fail("a whole number");
      if (above ? number <= lowest : number < lowest) {
        return fail(`${above ? "above" : "at least"} ${lowest}`);
      }
      return number <= highest ? number : fail(`at most ${highest}`);
    }
  }
}

/** What other programs call a setting of ours. */
const ALSO_CALLED: Readonly<Record<string, string>> = { "learning-rate": "lr", "output-dir": "runs" };

/** The nearest known name, as a question, where one is near: `vocab` for `vocabulary`, `batch` for `batch-size`. */
function suggestion(name: string, known: string[], prefix = ""): string {
  const word = name.toLowerCase();
  const also = Object.hasOwn(ALSO_CALLED, word) ? ALSO_CALLED[word] : undefined;
  const parts = word.split(/[-_]/);
  const near = known.find((other) => other === also) ?? nearest(name, known) ??
    (word.length > 2 ? known.find((other) => other.startsWith(word)) : undefined) ??
    known.find((other) => parts.includes(other)) ??
    known.find((other) => word.length > 2 && other.split("-").includes(word));
  return near === undefined ? "" : ` (did you mean ${prefix}${near}?)`;
}

const isList = ({ kind }: Setting): boolean => kind === "paths" || kind === "names";

/** A value of a setting, its paths taken from a folder where they are relative. */
function fromFolder(setting: Setting, value: unknown, folder: string | undefined): unknown {
  if (folder === undefined) return value;
  const below = (path: string): string =>
    isAbsolute(path) || path === STANDARD_INPUT ? path : join(folder, path);
  const inFolder = (path: string): string => {
    const hub = "hub" in setting && setting.hub;
    const onHub = hub && (setting.kind === "paths" ? isHubData(path) : hubModel(path) !== undefined);
    return onHub && (setting.kind === "paths" || !existsSync(below(path))) ? path : below(path);
  };
  if (setting.kind === "path") return inFolder(value as string);
  return setting.kind === "paths" ? (value as string[]).map(inFolder) : value;
}

/**
 * Reads settings from a JSON file, with the names of the table as keys.
 *
 * @param relativeTo folder that relative paths in the file are taken from; left out: the working folder
 * @throws {UserError} on a file that is no JSON object, an unknown key or a bad value
 */
export async function readSettingsFile<const Table extends SettingsTable>(
  table: Table,
  path: string,
  relativeTo?: string,
): Promise<Partial<SettingsOf<Table>>> {
  const json = await readJson(path).catch((error) => {
    throw usageError(`Cannot read settings from ${path}: ${(error as Error).message}`, { cause: error });
  });
  if (!isObject(json)) throw usageError(`Cannot read settings from ${path} as it must be a JSON object`);
  return checkedSettings(table, json, path, relativeTo);
}

/**
 * Settings with the names of the table as keys, each value checked.
 *
 * @param label what error messages call where they are from
 * @throws {UserError} on an unknown key or a bad value
 */
export function checkedSettings<const Table extends SettingsTable>(
  table: Table,
  values: Readonly<Record<string, unknown>>,
  label: string,
  relativeTo?: string,
): Partial<SettingsOf<Table>> {
  const settings: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(values)) {
    if (!Object.hasOwn(table, name)) {
      throw usageError(`Cannot use ${label}: unknown key ${name}${suggestion(name, Object.keys(table))}`);
    }
    const checked = parseValue(`${name} in ${label}`, table[name], value);
    settings[name] = fromFolder(table[name], checked, relativeTo);
  }
  return settings as Partial<SettingsOf<Table>>;
}

/** Where a model lies. */
export interface Located {
  /** Its folder. */
  folder: string;
  /** What it is called: the folder, or its name on the hub with the commit. */
  name: string;
}

/** Finds a model, which may have to be fetched. */
export type Locate = (model: string) => Promise<Located>;

const inItsFolder: Locate = (model) => Promise.resolve({ folder: model, name: model });

/** Settings, and what of them a model decided. */
export interface Resolved<Table extends SettingsTable> {
  settings: SettingsOf<Table>;
  /** The model's folder, where there is a model. */
  modelFolder: string | undefined;
  /** What stands in force because the model folder's sparsify.json says so. */
  recommended: Partial<SettingsOf<Table>>;
  /** What is lower than the table says as the model has fewer positions. */
  fitted: Partial<SettingsOf<Table>>;
}

/**
 * All settings of a command, in the order of precedence.
 *
 * @throws {UserError} as {@link readSettingsFile}, and on a setting that exceeds another that bounds it
 */
export async function resolveSettings<const Table extends SettingsTable>(
  table: Table,
  parsed: Pick<ParsedCommand<Table>, "given" | "config" | "folder">,
): Promise<SettingsOf<Table>> {
  return (await resolveFully(table, parsed)).settings;
}

/**
 * All settings of a command, and which of them come from the model.
 *
 * @param locate finds the model's folder; left out: the model is one
 * @throws {UserError} as {@link resolveSettings}, and whatever `locate` throws
 */
export async function resolveFully<const Table extends SettingsTable>(
  table: Table,
  { given, config, folder }: Pick<ParsedCommand<Table>, "given" | "config" | "folder">,
  locate: Locate = inItsFolder,
): Promise<Resolved<Table>> {
  const defaults = defaultsIn(table, folder);
  const file = config ? await readSettingsFile(table, config, folder) : {};
  const chosen: Record<string, unknown> = { ...file, ...given };
  const { model } = { ...defaults, ...chosen } as { model?: string };
  const located = model === undefined ? undefined : await locate(model);
  const inFile = await recommended(table, located);
  const fitted = await fittedTo(located?.folder, defaults, { ...inFile, ...chosen });
  const settings = {
    ...defaults,
    ...fitted,
    ...inFile,
    ...chosen,
    ...(located ? { model: located.name } : {}),
  };
  checkOrder(table, settings);
  return {
    settings: settings as SettingsOf<Table>,
    modelFolder: located?.folder,
    recommended: Object.fromEntries(
      Object.entries(inFile).filter(([name]) => !Object.hasOwn(chosen, name)),
    ) as Partial<SettingsOf<Table>>,
    fitted: fitted as Partial<SettingsOf<Table>>,
  };
}

/**
 * The default context where the model has fewer positions, and a default batch of about as many tokens.
 *
 * @param chosen what the user or the model's recommendation says
 */
async function fittedTo(
  model: string | undefined,
  { context, batch }: Record<string, unknown>,
  chosen: Record<string, unknown>,
): Promise<Record<string, unknown>> {
  if (model === undefined || typeof context !== "number" || "context" in chosen) return {};
  // What is wrong with the model is said when it is opened.
  const config = await readModelConfig(model).catch(() => undefined);
  if (!config || config.contextLength >= context) return {};
  const { contextLength } = config;
  const keepsTokens = typeof batch === "number" && !("batch" in chosen);
  return {
    context: contextLength,
    ...(keepsTokens ? { batch: Math.floor(batch * context / contextLength) } : {}),
  };
}

/** One line on the settings that come from the model; undefined where none do. */
export function fromModelLine<Table extends SettingsTable>(
  { settings, recommended, fitted }: Resolved<Table>,
): string | undefined {
  const { model } = settings as { model?: string };
  const list = (values: object): string =>
    Object.entries(values).map(([name, value]) => `${flagName(name)} ${value}`).join(", ");
  const lines = [
    [recommended, `from ${join(model ?? "", "sparsify.json")}`],
    [fitted, `as the positions of ${model} end there`],
  ] as const;
  const said = lines.filter(([values]) => Object.keys(values).length > 0)
    .map(([values, where]) => `${list(values)} (${where})`);
  return said.length > 0 ? `settings from the model: ${said.join("; ")}` : undefined;
}

/** The table's own values; paths are such that they hold where the user stands. */
export function defaultsIn(table: SettingsTable, folder: string | undefined): Record<string, unknown> {
  const defaults = defaultsOf(table);
  if (folder === undefined) return defaults;
  return Object.fromEntries(
    Object.entries(defaults).map(([name, value]) => [
      name,
      table[name].kind === "path" && typeof value === "string" ? resolve(value) : value,
    ]),
  );
}

/** The table's own values. */
export function defaultsOf(table: SettingsTable): Record<string, unknown> {
  return Object.fromEntries(Object.entries(table).map(([name, { value }]) => [name, value]));
}

/** @throws {UserError} on a setting that exceeds another that bounds it */
export function checkOrder(table: SettingsTable, settings: Record<string, unknown>): void {
  for (const [name, setting] of Object.entries(table)) {
    if (setting.kind !== "number" || setting.atMost === undefined) continue;
    const [value, bound] = [settings[name] as number, settings[setting.atMost] as number];
    if (value > bound) {
      throw usageError(
        `Cannot use --${flagName(name)} as it must be at most --${
          flagName(setting.atMost)
        } ${bound}: ${value}`,
      );
    }
  }
}

/** What a stranger's model may recommend: how it is trained, and neither what is read nor where anything is written. */
const OF_A_STRANGER = ["Training", "Gates"];

/** What a model's sparsify.json recommends, as far as the command has such settings. */
async function recommended(
  table: SettingsTable,
  model: Located | undefined,
): Promise<Record<string, unknown>> {
  if (model === undefined) return {};
  const path = join(model.folder, "sparsify.json");
  if (!await exists(path)) return {};
  const settings = await readSettingsFile(SPARSIFY, path, dirname(path));
  const isFromHub = model.name !== model.folder;
  return Object.fromEntries(
    Object.entries(settings).filter(([name]) =>
      name in table && (!isFromHub || OF_A_STRANGER.includes(table[name].group))
    ),
  );
}

/**
 * What a run that goes on may be given anew and that changes its course from there on; which, and from which step, is
 * written into its config.json, of the slack into its slack.json.
 */
export const CHANGEABLE = ["lr", "clip", "slack", "targetLoss", "lambdaMin", "lambdaMax"] as const;

/** What changes no bit of the result, the data, whose content is compared by itself, and the adapter, which is told. */
const FREE_ON_RESUME = [
  "data",
  "json",
  "quiet",
  "debug",
  "serve",
  "port",
  "runs",
  "checkpointEvery",
  "keepCheckpoints",
  "recompute",
  "memory",
  "autotune",
  "gpu",
  "mpi",
  "rankLimit",
  "shareAdapter",
  "shardOptimizer",
  "merge",
];

/**
 * The settings of a run that is resumed: the run's own, with those taken from flags that may be new.
 *
 * @throws {UserError} when another flag differs from the run's setting
 */
export function resumedSettings<const Table extends SettingsTable>(
  own: SettingsOf<Table>,
  given: Partial<SettingsOf<Table>>,
  name: string,
): SettingsOf<Table> {
  const allowed: readonly string[] = [...FREE_ON_RESUME, ...CHANGEABLE];
  for (const [key, value] of Object.entries(given)) {
    const before = (own as Record<string, unknown>)[key];
    if (key === "targetLoss" && (before === "control") !== (value === "control")) {
      throw usageError(
        `Cannot resume ${name} with --target-loss ${value}, as the run began with ${before}: the control comes first ` +
          `where it sets the target, else last`,
      );
    }
    if (!allowed.includes(key) && JSON.stringify(before) !== JSON.stringify(value)) {
      throw usageError(
        `Cannot resume ${name} with --${
          flagName(key)
        } ${value}, as the run began with ${before}: leave it out, or ` +
          `begin another run with it; ${
            CHANGEABLE.map((each) => `--${flagName(each)}`).join(", ")
          } may be new`,
      );
    }
  }
  return { ...own, ...given };
}

/** Columns of a terminal that a help text fits. */
const HELP_COLUMNS = 118;

/** What `--version` prints. */
export function versionText(): string {
  return `sparse-attention ${project.version}, Deno ${Deno.version.deno}`;
}

/**
 * The `--help` text of a command.
 *
 * @param options `resolved`: what would be in force with the other arguments; left out: the table's values
 */
export function helpText<const Table extends SettingsTable>(
  command: string,
  purpose: string,
  table: Table,
  { resolved }: { resolved?: Resolved<Table> } = {},
): string {
  const groups = new Map<string, HelpLine[]>();
  const line = (group: string, left: string, right: string, value = ""): void => {
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group)!.push({ left, right, value });
  };
  const values: Record<string, unknown> = resolved?.settings ?? defaultsOf(table);
  for (const [name, setting] of Object.entries(table)) {
    const key = flagName(name);
    const value = values[name];
    if (setting.kind === "flag") {
      const left = value ? `--[no-]${key}` : `--${key}`;
      line(setting.group, left, setting.help + (value ? " (on)" : ""));
      continue;
    }
    const placeholder = "placeholder" in setting
      ? setting.placeholder
      : setting.kind === "choice"
      ? setting.choices.join("|")
      : "N";
    const shown = Array.isArray(value) ? value.join(" ") : value;
    const isShown = shown !== undefined && shown !== "";
    const left = "alone" in setting ? `[${placeholder}]` : placeholder;
    line(setting.group, `--${key} ${left}`, setting.help, isShown ? `(${shown})` : "");
  }
  line("Settings", "--config FILE", "the same settings as JSON, names in camelCase; a flag wins");
  if (hasRuns(table)) line("Settings", "--resume NAME", "go on with a stopped run");
  line("Settings", "--help", `this text${"model" in table ? "; with --model, what would hold for it" : ""}`);
  line("Settings", "--version", "the version of this program, and of Deno");
  const width = Math.max(...[...groups.values()].flat().map(({ left }) => left.length));
  const body = [...groups].map(([group, lines]) =>
    `${group}:\n${lines.map((each) => helpLine(each, width)).join("\n")}`
  );
  const origin = resolved && originOfDefaults(resolved);
  const usage = `Usage: deno task ${command} [flags]${origin ? `\n\n${origin}` : ""}`;
  return `${purpose}\n\n${usage}\n\n${body.join("\n\n")}\n`;
}

interface HelpLine {
  left: string;
  right: string;
  /** What holds without the flag, in brackets. */
  value: string;
}

/** One setting in a help text; a long value stands on a line of its own. */
function helpLine({ left, right, value }: HelpLine, width: number): string {
  const line = `  ${left.padEnd(width)}  ${right}`;
  if (!value) return line;
  const isLong = line.length + 1 + value.length > HELP_COLUMNS;
  return line + (isLong ? `\n${" ".repeat(width + 4)}` : " ") + value;
}

/** Whose defaults a help text shows, where a model has a say in them. */
function originOfDefaults<Table extends SettingsTable>(
  { settings, recommended, fitted }: Resolved<Table>,
): string | undefined {
  const { model } = settings as { model?: string };
  const names = [...Object.keys(recommended), ...Object.keys(fitted)].map((name) => `--${flagName(name)}`);
  if (names.length === 0) return undefined;
  return `In brackets: what holds with --model ${model}, which itself decides\n${listed(names)}.`;
}

/** Words with commas between them, in lines of a help text. */
function listed(words: readonly string[]): string {
  let text = "";
  let column = 0;
  words.forEach((word, n) => {
    const next = n < words.length - 1 ? `${word},` : word;
    // The last is followed by a full stop.
    const fits = column + 1 + next.length < HELP_COLUMNS;
    text += n === 0 ? next : (fits ? " " : "\n") + next;
    column = n > 0 && fits ? column + 1 + next.length : next.length;
  });
  return text;
}

/** What a command prints in place of doing anything, where that was asked for: its help, or the version. */
export async function printedInstead<const Table extends SettingsTable>(
  command: string,
  purpose: string,
  table: Table,
  parsed: ParsedCommand<Table>,
  locate?: Locate,
): Promise<string | undefined> {
  if (parsed.version) return versionText();
  if (!parsed.help) return undefined;
  const resolved = await resolveFully(table, parsed, locate);
  return helpText(command, purpose, table, { resolved });
}

/** The data a command needs, or the error that none was given. */
export function requireData(data: readonly string[]): void {
  if (data.length === 0) throw usageError("Cannot go on without text: give --data PATH");
}

/** A context or the error that the model is shorter. */
export function checkContext(context: number, contextLength: number, model: string): void {
  if (context > contextLength) {
    throw inputError(
      `Cannot use a context of ${context} as the positions of ${model} end at ${contextLength}`,
    );
  }
}
