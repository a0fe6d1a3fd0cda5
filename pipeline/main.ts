/**
 * The command line: `sparsify`, `pretrain`, `evaluate` and `train-tokenizer`. The tasks in deno.json call it.
 *
 * @module
 */
import { basename, dirname, join } from "node:path";
import { OutOfMemoryError } from "../kernels/core/device.ts";
import { batchCount, sequentialBatches } from "./text/batches.ts";
import { trainBpe } from "./text/bpe_trainer.ts";
import { prepareMesa, userFolder } from "./command_line.ts";
import { type CommandThread, inCommandThread, performCommand, superviseCommand } from "./command_thread.ts";
import { cannotBegin, completeRun } from "./complete_run.ts";
import { readDocuments } from "./text/documents.ts";
import { DivergedError, inputError, usageError } from "./errors.ts";
import { checkLoss, LIVE_EDGES } from "./training/evaluate.ts";
import { type EvaluatedModel, evaluateModel } from "./evaluate_model.ts";
import { DEFAULT_RUNS, type RunFolder } from "./runs/run_folder.ts";
import { checkIsFree, exists, writeNew } from "./files.ts";
import { fixed } from "./fixed.ts";
import { locateHere, locateModel, type NamedData, openData } from "./fetch_named.ts";
import { initialWeights } from "./model/initial_weights.ts";
import { heldShape, openHeld } from "./model/held_weights.ts";
import { type MemorySettings, whatToLower } from "./training/memory_budget.ts";
import { gpt2Config, type ModelConfig } from "./model/config.ts";
import { readModelConfig } from "./model/config_file.ts";
import { parametersOf } from "./model/trace.ts";
import {
  finishedSummary,
  openResumed,
  openRunModel,
  prepareRun,
  type ResumedRun,
  type RunModel,
} from "./training/prepare_run.ts";
import { requireOneProcess } from "./parallel/one_process.ts";
import { pipelinesOf, shareOfStep } from "./parallel/share_of_step.ts";
import {
  encoderOf,
  followFirst,
  hearFirst,
  joinRanks,
  openGpuOfRank,
  type Ranks,
  shareRun,
  spreadCommand,
} from "./ranks.ts";
import { adaptationOf, teacherIsAdapted } from "./training/adaptation.ts";
import { findInputs } from "./training/resumed_inputs.ts";
import { pretrain, sparseTarget } from "./training/pretrain.ts";
import { formatShare } from "./report/progress.ts";
import { EVALUATE, PLAN, PRETRAIN, SPARSIFY, TRAIN_TOKENIZER } from "./settings.ts";
import { checkContext, requireData } from "./settings/checks.ts";
import { printedInstead, versionText } from "./settings/help.ts";
import { parseCommand, type ParsedCommand } from "./settings/parse.ts";
import { defaultsIn, fromModelLine, type Locate, resolveFully, resolveSettings } from "./settings/resolve.ts";
import type { SettingsOf, SettingsTable } from "./settings/table.ts";
import { checkControl, sparsify, type SparsifySummary } from "./training/sparsify.ts";
import { AGAINST_DIVERGENCE, tellsDivergence } from "./training/signatures.ts";
import { type NeedsAsked, needsText, tellNeeds } from "./report/memory_needs.ts";
import { planAsked, planText, planTraining } from "./report/training_plan.ts";
import { formatTable, summaryTable } from "./report/table.ts";
import { tokeniseSplits } from "./tokenise_splits.ts";
import type { Split } from "./text/tokenise.ts";
import { checkOwnTokenizer, checkTokenizer, loadTokenizer } from "./text/tokenizer.ts";
import type { PreparedRun, Reporter } from "./training/training_run.ts";
import { unlessStopped } from "./unless_stopped.ts";

const PURPOSES = {
  sparsify: "Makes a pretrained transformer's attention sparse at the dense model's loss.",
  pretrain: "Trains a GPT-2-type model from scratch, dense or under the sparsity constraint.",
  evaluate: "Measures a model's held-out loss and its open attention edges.",
  plan: "Tells what training a model takes and what fits a memory, from its config.json alone.",
  "train-tokenizer": "Trains a byte-level BPE vocabulary, as GPT-2's, and writes it as a tokenizer.json.",
};

/** What a training command works with. */
interface CommandSettings<Table extends SettingsTable> {
  /** What is named on the hub, with its commit. */
  settings: SettingsOf<Table>;
  modelFolder?: string;
  /** Where the tokenizer lies that the settings name; left out: with the model. */
  tokenizer?: string;
  data: NamedData;
  /** What is said of the settings that come from the model. */
  fromModel?: string;
  /** Where one is resumed. */
  resumed?: ResumedRun;
}

/** Settings and, where one is resumed, the run; a model of the hub is fetched. */
async function runSettings<const Table extends SettingsTable>(
  command: string,
  table: Table,
  parsed: ParsedCommand<Table>,
  thread: CommandThread,
): Promise<CommandSettings<Table>> {
  // Fetching speaks too.
  if ((parsed.given as { quiet?: boolean }).quiet) thread.beQuiet();
  const locate = locateModel(thread);
  if (parsed.resume === undefined) {
    const resolved = await resolveFully(table, parsed, locate);
    const { settings, modelFolder } = resolved;
    const data = await openData((settings as { data: string[] }).data, thread);
    return {
      settings: { ...settings, data: data.names },
      modelFolder,
      tokenizer: (settings as { tokenizer?: string }).tokenizer,
      data,
      fromModel: fromModelLine(resolved),
    };
  }
  const { runs } = { ...defaultsIn(table, parsed.folder), ...parsed.given } as { runs: string };
  if (parsed.config) {
    throw usageError("Cannot use --config with --resume, as a run keeps the settings it began with");
  }
  const { settings, resumed } = await openResumed(command, table, runs, parsed.resume, parsed.given);
  try {
    const { model, tokenizer } = await findInputs(resumed.folder, settings, parsed.given, {
      locate,
      tell: (message) => thread.reporter.message(message),
    });
    const data = await openData((settings as { data: string[] }).data, thread);
    const named = { ...model ? { model: model.name } : {}, data: data.names };
    return { settings: { ...settings, ...named }, modelFolder: model?.folder, tokenizer, data, resumed };
  } catch (error) {
    resumed.folder.release();
    throw error;
  }
}

function shown(thread: CommandThread, text: string): true {
  thread.print(text);
  return true;
}

/** Folders that a model's files are read from; those of the hub's cache are links to another. */
async function foldersOf({ files = [] }: RunModel): Promise<string[]> {
  const real = await Promise.all(files.map((file) => Deno.realPath(file)));
  return [...new Set([...files, ...real].map((file) => dirname(file)))];
}

/** Starts the server in a thread of its own and returns its address. */
async function serveBeside(
  { runs, port, gpu }: { runs: string; port: number; gpu?: string },
  models: readonly string[],
): Promise<string> {
  // By its address, not by an import: the pipeline does not know the server.
  const worker = new Worker(new URL("../serve/worker.ts", import.meta.url), { type: "module" });
  const answer = new Promise<{ url?: string; error?: string }>((resolve) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = (event) => {
      event.preventDefault();
      resolve({ error: event.message });
    };
  });
  worker.postMessage({ runs, port, models, gpu, token: Deno.env.get("SPARSE_ATTENTION_TOKEN") });
  const { url, error } = await answer;
  if (!url) throw usageError(`Cannot serve at port ${port}: ${error}`);
  return url;
}

/** Runs a training command to its end or to an orderly stop, and writes its summary. */
async function train<Summary extends object>(
  command: "sparsify" | "pretrain",
  thread: CommandThread,
  { settings, model, data, resumed, fromModel, ranks, body, show }: {
    settings:
      & MemorySettings
      & Pick<
        SettingsOf<typeof SPARSIFY>,
        | "data"
        | "autotune"
        | "gpu"
        | "context"
        | "batch"
        | "recompute"
        | "memory"
        | "runs"
        | "name"
        | "json"
        | "quiet"
        | "serve"
        | "port"
        | "steps"
        | "accumulate"
        | "validationTokens"
        | "evalTokens"
        | "checkpointEvery"
        | "rankLimit"
        | "shareAdapter"
        | "stages"
      >;
    model: RunModel;
    data: NamedData;
    resumed?: ResumedRun;
    /** What is said of the settings that come from the model. */
    fromModel?: string;
    /** The other ranks, of which this is the first. */
    ranks?: Ranks;
    body(run: PreparedRun, reporter: Reporter, signal: AbortSignal): Promise<Summary | undefined>;
    show(summary: Summary, folder: RunFolder): string;
  },
): Promise<boolean> {
  const { reporter, signal } = thread;
  if (settings.quiet) thread.beQuiet();
  const printed = (summary: Summary, folder: RunFolder): true =>
    shown(thread, settings.json ? JSON.stringify(summary) : show(summary, folder));
  const finished = resumed && await finishedSummary(resumed, settings, model, data.sources).catch((error) => {
    resumed.folder.release();
    throw error;
  });
  if (resumed && finished) {
    reporter.message(`run ${resumed.folder.path} is finished: nothing is left to do`);
    return printed(finished as Summary, resumed.folder);
  }
  if (fromModel !== undefined) reporter.message(fromModel);
  if (settings.serve) {
    const url = await serveBeside(settings, await foldersOf(model));
    reporter.message(`serving ${settings.runs} at ${url}`);
  }
  if (!data.fetches) thread.leaveNet();
  let abandon: (() => Promise<void>) | undefined;
  await ranks?.begin(settings);
  const prepared = await unlessStopped(
    signal,
    () =>
      prepareRun(command, settings, model, reporter, {
        resumed,
        sources: data.sources,
        onStart: (remove) => abandon = remove,
        ranks: ranks?.exchange.size,
        withEncoder: ranks && encoderOf(ranks),
        openGpu: ranks && ((workload) => openGpuOfRank(ranks, settings, () => workload, reporter)),
      }),
    // What cannot be removed is an empty start, which the next one of its name takes over.
    () => abandon?.().catch(() => {}),
  );
  const { folder } = prepared;
  const elsewhere = settings.runs === DEFAULT_RUNS ? "" : ` --runs ${settings.runs}`;
  const goOn = `deno task ${command} --resume ${folder.name}${elsewhere}`;
  thread.goOnBy(goOn);
  let summary: Summary | undefined;
  try {
    const { batch } = prepared;
    const run = ranks ? await shareRun(prepared, { ...settings, batch }, ranks.exchange) : prepared;
    run.onSaved = (what) => thread.savedAs(what);
    summary = await completeRun(run, () => body(run, reporter, ranks?.exchange.signal ?? signal));
  } catch (error) {
    if (error instanceof OutOfMemoryError) error.message += `; ${whatToLower(settings, true)}`;
    const isVain = cannotBegin(prepared, error) || (error instanceof DivergedError && error.isLost);
    if (error instanceof Error && !isVain) error.message += `; go on by ${goOn}`;
    throw error;
  }
  return summary !== undefined && printed(summary, folder);
}

/** What a model needs, told from its config.json. */
function tellNeedsOf(
  thread: CommandThread,
  { model, json }: { model: string; json: boolean },
  config: ModelConfig,
  asked: NeedsAsked,
): true {
  checkContext(asked.context, config.contextLength, model);
  const told = tellNeeds(config, asked);
  return shown(thread, json ? JSON.stringify({ model, ...told }) : needsText(told, asked));
}

/**
 * Performs a training command, alone or as one of several ranks: the first does what one alone does, and the others follow.
 *
 * @param lead does the command
 * @param body what the others do of it, as the first does
 */
async function overRanks<const Table extends SettingsTable>(
  parsed: ParsedCommand<Table>,
  args: readonly string[],
  thread: CommandThread,
  lead: (ranks: Ranks | undefined) => Promise<boolean>,
  body: (
    settings: SettingsOf<Table>,
    run: PreparedRun,
    reporter: Reporter,
    signal: AbortSignal,
  ) => Promise<object | undefined>,
): Promise<boolean> {
  const ranks = await joinRanks(parsed.given as Parameters<typeof joinRanks>[0], args, thread);
  if (ranks && ranks.exchange.rank > 0) return await followFirst(ranks, thread, body);
  const finished = await lead(ranks);
  await ranks?.close();
  return finished;
}

async function sparsifyCommand(args: string[], thread: CommandThread): Promise<boolean> {
  const parsed = parseCommand(SPARSIFY, args, userFolder());
  return await overRanks(parsed, args, thread, (ranks) => leadSparsify(parsed, thread, ranks), sparsify);
}

async function leadSparsify(
  parsed: ParsedCommand<typeof SPARSIFY>,
  thread: CommandThread,
  ranks: Ranks | undefined,
): Promise<boolean> {
  const printed = await printedInstead("sparsify", PURPOSES.sparsify, SPARSIFY, parsed, locateHere);
  if (printed !== undefined) return shown(thread, printed);
  if (parsed.needs) {
    if (parsed.resume !== undefined) {
      throw usageError(
        "Cannot tell what a run needs by --memory without a value: give --model, not --resume",
      );
    }
    const locate = locateModel(thread, { withoutWeights: true });
    const { settings, modelFolder } = await resolveFully(SPARSIFY, parsed, locate);
    checkControl(settings);
    const { context, distill, accumulate, stages, shardOptimizer } = settings;
    const config = await readModelConfig(modelFolder!);
    const { adapters, train, frozen, from } = await adaptationOf(settings, config);
    // Stages alone are one pipeline.
    const size = ranks?.exchange.size ?? stages;
    const pipelines = pipelinesOf({ ranks: size, stages, layers: config.layers });
    const step = settings.batch === "auto"
      ? { batch: 1, accumulate: pipelines * Math.ceil(accumulate / pipelines) }
      : shareOfStep({ batch: settings.batch, accumulate }, pipelines);
    const asked = {
      context,
      batch: step.batch,
      stages,
      microBatches: step.accumulate / pipelines,
      shards: shardOptimizer && pipelines > 1 ? pipelines : undefined,
      training: true,
      distill: distill > 0,
      adapters,
      train,
      frozen,
      teacherAdapted: teacherIsAdapted(settings, { adapters, from }),
    };
    return tellNeedsOf(thread, settings, config, asked);
  }
  const { settings, modelFolder, tokenizer, data, resumed, fromModel } = await runSettings(
    "sparsify",
    SPARSIFY,
    parsed,
    thread,
  );
  checkControl(settings);
  const model = await openRunModel(modelFolder!, {
    tokenizer,
    label: settings.model,
    adaptation: settings,
  });
  return await train<SparsifySummary>("sparsify", thread, {
    settings,
    model,
    data,
    resumed,
    fromModel,
    ranks,
    body: (run, reporter, signal) => sparsify(settings, run, reporter, signal),
    show(summary, folder) {
      const lines = [summaryTable(summary), ""];
      if (!summary.sparse.feasible) {
        const higher = typeof settings.targetLoss === "number" ? "--target-loss" : "--slack";
        // No number of steps comes to less.
        const longer = summary.target_loss < 0 ? "" : `more --steps than ${settings.steps}, or `;
        lines.push(
          "The constraint held at no evaluation: these are the last step's weights. " +
            (summary.signatures.some(tellsDivergence)
              ? `The loss ran away. ${AGAINST_DIVERGENCE}.`
              : `Begin another run with ${longer}a higher ${higher}.`),
        );
      }
      lines.push(
        `${summary.test_tokens.toLocaleString("en-US")} held-out tokens; target loss ${
          summary.target_loss.toFixed(4)
        } on validation.`,
      );
      lines.push(`Model: ${folder.model}   Results: ${folder.summary}   Report: ${folder.report}`);
      return lines.join("\n");
    },
  });
}

async function pretrainCommand(args: string[], thread: CommandThread): Promise<boolean> {
  const parsed = parseCommand(PRETRAIN, args, userFolder());
  return await overRanks(parsed, args, thread, (ranks) => leadPretrain(parsed, thread, ranks), pretrain);
}

async function leadPretrain(
  parsed: ParsedCommand<typeof PRETRAIN>,
  thread: CommandThread,
  ranks: Ranks | undefined,
): Promise<boolean> {
  const printed = await printedInstead("pretrain", PURPOSES.pretrain, PRETRAIN, parsed);
  if (printed !== undefined) return shown(thread, printed);
  const { settings, tokenizer, data, resumed, fromModel } = await runSettings(
    "pretrain",
    PRETRAIN,
    parsed,
    thread,
  );
  const { width, heads, layers, context, seed } = settings;
  if (tokenizer === undefined) {
    throw usageError(
      "Cannot pre-train without a vocabulary: give --tokenizer PATH, as deno task train-tokenizer makes one",
    );
  }
  sparseTarget(settings);
  if (width % heads !== 0) {
    throw usageError(`Cannot use --width ${width} as it must be a multiple of --heads ${heads}`);
  }
  const { vocabularySize } = await loadTokenizer(tokenizer);
  const config: ModelConfig = gpt2Config({
    vocabularySize,
    contextLength: context,
    width,
    layers,
    heads,
    mlpWidth: 4 * width,
  });
  const shapes = parametersOf(config);
  const read = (name: string): Promise<Float32Array> => {
    const index = shapes.findIndex((shape) => shape.name === name);
    return Promise.resolve(initialWeights(shapes[index], { seed, index }));
  };
  const model = {
    config,
    weights: { parameters: shapes, read },
    hash: `seed ${seed}`,
    label: "the new model",
    tokenizer,
  };
  return await train("pretrain", thread, {
    settings,
    model,
    data,
    resumed,
    fromModel,
    ranks,
    body: (run, reporter, signal) => pretrain(settings, run, reporter, signal),
    show: ({ test, validation, parameters }, folder) =>
      `${parameters} parameters: loss ${fixed(test.ce, 4)} on ${test.tokens} test tokens, ` +
      `${fixed(validation.ce, 4)} on ${validation.tokens} validation tokens; exact rows ${
        formatShare(test.exact_rows)
      }; ` +
      `open edges ${formatShare(test.open_fraction)}\nModel: ${folder.model}   Report: ${folder.report}`,
  });
}

async function evaluateCommand(args: string[], thread: CommandThread): Promise<boolean> {
  const parsed = parseCommand(EVALUATE, args, userFolder());
  const { reporter, signal } = thread;
  return await spreadCommand(
    parsed.given,
    args,
    thread,
    (ranks) => leadEvaluate(parsed, thread, ranks),
    async (gpu, exchange) => {
      const model = await hearFirst<EvaluatedModel>(exchange);
      return await evaluateModel(gpu, model, undefined, { reporter, signal, exchange });
    },
  );
}

async function leadEvaluate(
  parsed: ParsedCommand<typeof EVALUATE>,
  thread: CommandThread,
  ranks: Ranks | undefined,
): Promise<boolean> {
  const printed = await printedInstead("evaluate", PURPOSES.evaluate, EVALUATE, parsed, locateHere);
  if (printed !== undefined) return shown(thread, printed);
  if (parsed.given.quiet) thread.beQuiet();
  const withoutWeights = parsed.given.memory;
  const resolved = await resolveFully(EVALUATE, parsed, locateModel(thread, { withoutWeights }));
  const { settings } = resolved;
  const { batch, model } = settings;
  const folder = resolved.modelFolder!;
  const config = await readModelConfig(folder, settings.adapter);
  const context = settings.context || config.contextLength;
  if (settings.memory) {
    const shape = await heldShape(folder, config, settings);
    return tellNeedsOf(thread, settings, config, { batch, context, training: false, ...shape });
  }
  requireData(settings.data);
  const { reporter, signal } = thread;
  if (settings.quiet) thread.beQuiet();
  const weights = await openHeld(folder, config, settings);
  await weights.verify();
  checkContext(context, config.contextLength, model);
  const tokenizer = await loadTokenizer(settings.tokenizer ?? folder, config, reporter.message);
  checkTokenizer(tokenizer, config, model);
  await checkOwnTokenizer(tokenizer, folder);
  const fromModel = fromModelLine(resolved);
  if (fromModel !== undefined) reporter.message(fromModel);
  await using temporary = await thread.temporaryFolder();
  const { splits, tokens } = await tokeniseSplits(thread, {
    ...settings,
    limit: settings.evalTokens,
    context,
    tokenizer,
    folder: temporary.path,
  });
  const start = { ...settings, autotune: false };
  await ranks?.begin(start);
  const gpu = await openGpuOfRank(
    ranks,
    start,
    () => ({ models: [config], stored: [weights.shape] }),
    reporter,
  );
  const ofSplit = (split: Split) => ({ tokens: tokens[split], batch, context, limit: settings.evalTokens });
  const batches = async function* () {
    for (const split of splits) yield* sequentialBatches(ofSplit(split));
  };
  const of = splits.reduce<number>((sum, split) => sum + batchCount(ofSplit(split)), 0);
  const measured: EvaluatedModel = {
    config,
    parameters: weights.parameters.map(({ name, shape, stored }) => ({ name, shape, stored })),
    shape: weights.shape,
    batch,
    context,
    dense: settings.dense,
    of,
  };
  const exchange = ranks?.exchange;
  await exchange?.share(() => measured);
  const from = { read: (name: string) => weights.read(name), batches: batches() };
  const gated = config.gate !== undefined && !settings.dense;
  const result = await evaluateModel(gpu, measured, from, { reporter, signal, exchange });
  await gpu.end();
  checkLoss(result, model);
  if (settings.json) {
    return shown(
      thread,
      JSON.stringify({
        model,
        mode: gated ? "gated" : "dense",
        ...weights.shape.frozen && { frozen: weights.shape.frozen },
        split: settings.split,
        ...evaluationJson(result),
      }),
    );
  }
  thread.print(formatTable([
    ["", gated ? "with its gates" : "dense"],
    ["loss (nats)", fixed(result.ce, 4)],
    ["perplexity", fixed(result.perplexity, 2)],
    [`tokens (${settings.split})`, String(result.tokens)],
    ["next token right", formatShare(result.accuracy)],
    ["open edges", formatShare(result.openFraction)],
    ["edges per query", result.edgesPerQuery.toFixed(2)],
    ["queries without an edge", formatShare(result.deadQueries)],
    [
      `live heads (an edge for every ${1 / LIVE_EDGES} queries or fewer)`,
      `${result.liveHeads} of ${config.layers * config.heads}`,
    ],
  ]));
  const heads = Array.from({ length: config.heads }, (_, head) => `head ${head}`);
  const rows = result.openByHead.map((row, layer) => [`layer ${layer}`, ...row.map(formatShare)]);
  return shown(thread, `\nopen edges by head:\n${formatTable([["", ...heads], ...rows])}`);
}

/** What is measured of a model, by the names that summary.json has for it. */
function evaluationJson(result: Awaited<ReturnType<typeof evaluateModel>>): object {
  const { ce, perplexity, tokens, accuracy } = result;
  return {
    ce,
    perplexity,
    tokens,
    accuracy,
    exact_rows: result.exactRows,
    expected_exact: result.expectedExact,
    open_fraction: result.openFraction,
    edges_per_query: result.edgesPerQuery,
    dead_queries: result.deadQueries,
    live_heads: result.liveHeads,
    open_by_head: result.openByHead,
  };
}

async function planCommand(args: string[], thread: CommandThread): Promise<boolean> {
  await requireOneProcess("plan");
  const parsed = parseCommand(PLAN, args, userFolder());
  const printed = await printedInstead("plan", PURPOSES.plan, PLAN, parsed, inFolderOfConfig(locateHere));
  if (printed !== undefined) return shown(thread, printed);
  const locate = locateModel(thread, { withoutWeights: true });
  const { settings, modelFolder } = await resolveFully(PLAN, parsed, inFolderOfConfig(locate));
  thread.leaveNet();
  const { model, json } = settings;
  if (model === undefined) {
    throw usageError(
      "Cannot plan without a model: give --model, a config.json, its folder or a name on the hub",
    );
  }
  const config = await readModelConfig(modelFolder!);
  const asked = await planAsked(settings, config);
  checkContext(asked.context, config.contextLength, model);
  const plan = planTraining(config, asked);
  return shown(thread, json ? JSON.stringify({ model, ...plan }) : planText(config, plan, asked));
}

/** Finds a model as another way to find one does, and a config.json in its folder. */
function inFolderOfConfig(locate: Locate): Locate {
  return async (model) => {
    if (basename(model) !== "config.json" || !await exists(model)) return await locate(model);
    return { folder: dirname(model), name: model };
  };
}

async function trainTokenizerCommand(args: string[], thread: CommandThread): Promise<boolean> {
  await requireOneProcess("train-tokenizer");
  const parsed = parseCommand(TRAIN_TOKENIZER, args, userFolder());
  const purpose = PURPOSES["train-tokenizer"];
  const printed = await printedInstead("train-tokenizer", purpose, TRAIN_TOKENIZER, parsed);
  if (printed !== undefined) return shown(thread, printed);
  const { data, textColumn, output, vocabulary } = await resolveSettings(TRAIN_TOKENIZER, parsed);
  requireData(data);
  thread.reporter.activity({ name: "training the vocabulary" });
  async function* texts(): AsyncGenerator<string> {
    for await (const document of readDocuments(data, { textColumn })) {
      yield document.kind === "text" ? document.text : document.prompt + document.completion;
    }
  }
  const info = await Deno.stat(output).catch(() => undefined);
  const path = info?.isDirectory ? join(output, "tokenizer.json") : output;
  await checkIsFree(path);
  const tokenizer = await trainBpe(texts(), { vocabularySize: vocabulary }) as {
    model: { vocab: Record<string, number> };
  };
  const entries = Object.keys(tokenizer.model.vocab).length;
  if (entries < vocabulary) {
    throw inputError(
      `Cannot train a vocabulary of ${vocabulary} entries as the text gives ${entries}, after which no two tokens stand ` +
        `side by side twice: give --vocabulary ${entries} or more text`,
    );
  }
  await writeNew(path, new TextEncoder().encode(JSON.stringify(tokenizer) + "\n"));
  return shown(thread, `${entries} entries: ${path}`);
}

const COMMANDS: Record<string, (args: string[], thread: CommandThread) => Promise<boolean>> = {
  sparsify: sparsifyCommand,
  pretrain: pretrainCommand,
  evaluate: evaluateCommand,
  plan: planCommand,
  "train-tokenizer": trainTokenizerCommand,
};

/** The commands, each with what it does. */
function commandsText(): string {
  const lines = Object.entries(PURPOSES).map(([name, purpose]) => `  ${name.padEnd(16)}  ${purpose}`);
  return `Usage: deno task COMMAND [flags]; --help after a command lists them\n\n${lines.join("\n")}`;
}

if (inCommandThread()) {
  const [name, ...args] = Deno.args;
  performCommand(async (thread) => {
    if (["--help", "-h", "--version"].includes(name)) {
      return shown(thread, name === "--version" ? versionText() : commandsText());
    }
    const command = COMMANDS[name];
    if (!command) throw usageError(`Unknown command ${name ?? ""}: ${Object.keys(COMMANDS).join(", ")}`);
    return await command(args, thread);
  }, { debug: args.includes("--debug") });
} else if (import.meta.main) {
  prepareMesa();
  await superviseCommand(import.meta.url);
}
