/**
 * `deno task circuits`: finds the circuit of a task in a model, or in two beside each other, and measures how small it is.
 *
 * @module
 */
import { basename, extname, join, resolve } from "node:path";
import project from "../../deno.json" with { type: "json" };
import type { Gpu } from "../../kernels/core/gpu.ts";
import { prepareMesa, userFolder } from "../command_line.ts";
import { locateHere, locateModel } from "../fetch_named.ts";
import { type CommandThread, inCommandThread, performCommand, superviseCommand } from "../command_thread.ts";
import { inputError, usageError } from "../errors.ts";
import { openRegular, writeAll, writeAtomically, writeJson } from "../files.ts";
import { openWeights } from "../model/load_weights.ts";
import type { ModelConfig } from "../model/config.ts";
import { readModelConfig } from "../model/config_file.ts";
import { destroyParameters, loadParameters, type ParameterShape } from "../model/parameters.ts";
import { randomStream } from "../../kernels/core/random.ts";
import { checkRunIsNew, createRun } from "../runs/run_folder.ts";
import { CIRCUITS, type CircuitsSettings } from "../settings.ts";
import { printedInstead } from "../settings/help.ts";
import { parseCommand, type ParsedCommand } from "../settings/parse.ts";
import { type Located, resolveSettings } from "../settings/resolve.ts";
import { formatTable } from "../report/table.ts";
import { checkOwnTokenizer, checkTokenizer, loadTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import type { Reporter } from "../training/training_run.ts";
import { type CircuitFindings, type Findings, ratioOf } from "./analyse.ts";
import type { AttributionMethod } from "./engine.ts";
import { createGraph } from "./graph.ts";
import { analyseModel, type ModelAnalysis, type ModelAnalysisOptions } from "./model_analysis.ts";
import { MOST_EFFECTS } from "./off_paths.ts";
import { modelNames } from "./model_names.ts";
import {
  circuitSentence,
  circuitsHtml,
  otherLengthsText,
  pairsText,
  resultRows,
  tableNotes,
  unableReason,
} from "./report.ts";
import {
  type CircuitResults,
  type ModelResult,
  modelResult,
  ofPairs,
  resultLine,
  saveResults,
  sharedOf,
  tokenEdgeCounts,
} from "./results.ts";
import type { PromptSet } from "./prompts.ts";
import { onePair, type PairFlags } from "./tasks/one_pair.ts";
import { readPairs } from "./tasks/pairs_file.ts";
import { TASKS } from "./tasks/tasks.ts";
import { atFirst, type Exchange } from "../parallel/exchange.ts";
import { hearFirst, openGpuOfRank, type Ranks, spreadCommand } from "../ranks.ts";

const PURPOSE =
  "Finds the circuit of a task in a model, or in two beside each other, and measures how small it is.";

interface Job {
  task?: string;
  pairs?: string;
  pair?: PairFlags;
  model: string;
  against?: string;
}

/** What is looked at without flags: the paper's toy, and the English model. */
const DEMONSTRATION: readonly Job[] = [
  { task: "addition", model: "data/addition", against: "data/addition-sparse" },
  { task: "copy", model: "data/english", against: "data/english-sparse" },
  { pairs: "data/english/previous-word.jsonl", model: "data/english", against: "data/english-sparse" },
];
const DEFAULT_BYTES = 1e9;
/** Pairs of a task's prompts, where no number is given. */
const TASK_PROMPTS = 32;

/** What an investigation starts from, all of which is read and checked before a device is opened. */
interface Prepared {
  job: Job;
  places: readonly Located[];
  configs: readonly ModelConfig[];
  /** What the models are called, as they were named and beside each other. */
  labels: readonly string[];
  names: readonly string[];
  tokenizer: Tokenizer;
  set: PromptSet;
}

/** What the other ranks are told of a model and its analysis. */
interface SharedAnalysis
  extends Pick<ModelAnalysisOptions, "set" | "ablation" | "maxBytes" | "method" | "seed" | "leastAccuracy"> {
  config: ModelConfig;
  parameters: readonly ParameterShape[];
}

/** What the other ranks get next: a model to analyse, where an investigation was saved, or that there is no further one. */
type Next = SharedAnalysis | { saved: string } | undefined;

/** A model on the device; `shared`: of its analysis, what the other ranks are told. */
async function loadModel(
  gpu: Gpu,
  { folder, name }: Located,
  { adapter, exchange, shared }: {
    adapter?: string;
    exchange: Exchange | undefined;
    shared: Omit<SharedAnalysis, "config" | "parameters">;
  },
) {
  const config = await readModelConfig(folder, adapter);
  const weights = await openWeights(folder, config, adapter);
  await weights.verify();
  const shapes = weights.parameters.map(({ name, shape, stored }) => ({ name, shape, stored }));
  await exchange?.share((): Next => ({ ...shared, config, parameters: shapes }));
  const read = async (name: string): Promise<Float32Array> =>
    await atFirst(exchange, () => weights.read(name));
  const parameters = await loadParameters(gpu, shapes, read);
  return { name, config, parameters, hash: await weights.hash() };
}
type LoadedModel = Awaited<ReturnType<typeof loadModel>>;

/** Helps rank 0 with every analysis. */
async function helpCircuits(
  gpu: Gpu,
  exchange: Exchange,
  { reporter, logTo }: CommandThread,
): Promise<object> {
  for (;;) {
    const next = await hearFirst<Next>(exchange);
    if (!next) return {};
    if ("saved" in next) {
      logTo(join(next.saved, `rank-${exchange.rank}.log`));
      continue;
    }
    const { config, parameters: shapes, ...options } = next;
    const parameters = await loadParameters(gpu, shapes, () => hearFirst<Float32Array>(exchange));
    try {
      await analyseModel(gpu, { config, parameters }, {
        ...options,
        exchange,
        // Rank 0 draws the prompt.
        tokenizer: { spell: String },
        progress: (name, done, of) => reporter.activity({ name, done, of }),
      });
    } finally {
      destroyParameters(gpu, parameters);
    }
  }
}

/** The adapter is the first model's. */
const adapterOf = (n: number, { adapter }: CircuitsSettings): string | undefined =>
  n === 0 ? adapter : undefined;

/**
 * Reads what one or two models and their prompts are.
 *
 * @throws {UserError} when the models cannot be set side by side, or the prompts are not theirs
 */
async function prepare(
  job: Job,
  places: readonly Located[],
  settings: CircuitsSettings,
  reporter: Reporter,
): Promise<Prepared> {
  const [model, against] = places.map(({ name }) => name);
  const configs = await Promise.all(
    places.map(({ folder }, n) => readModelConfig(folder, adapterOf(n, settings))),
  );
  if (configs.length === 2) {
    const [a, b] = configs;
    for (
      const field of ["family", "layers", "heads", "keyValueHeads", "parallel", "vocabularySize"] as const
    ) {
      if (a[field] !== b[field]) {
        throw inputError(
          `Cannot compare ${model} with ${against} as ${field} differ: ${a[field]} and ${b[field]}`,
        );
      }
    }
    const [here, there] = places.map(({ folder }) => resolve(folder));
    if (here === there && settings.adapter === undefined) {
      throw inputError(`Cannot compare ${model} with itself`);
    }
  }
  const tokenizer = await loadTokenizer(places[0].folder, configs[0], reporter.message);
  for (const [n, config] of configs.entries()) {
    checkTokenizer(tokenizer, config, places[n].name);
    await checkOwnTokenizer(tokenizer, places[n].folder);
  }
  const contextLength = Math.min(...configs.map((config) => config.contextLength));
  const prompts = settings.prompts === "auto" ? undefined : settings.prompts;
  const { task, pairs, pair } = job;
  const set = pair
    ? onePair(pair, { tokenizer, contextLength })
    : pairs === undefined
    ? taskOf(task!).generate({
      tokenizer,
      contextLength,
      prompts: prompts ?? TASK_PROMPTS,
      random: randomStream(settings.seed, 0),
    })
    : await readPairs(pairs, {
      tokenizer,
      contextLength,
      prompts,
      length: settings.pairsLength === "auto" ? undefined : settings.pairsLength,
    });
  if (set.pairs.length === 1 && settings.ablation === "mean") {
    throw usageError(
      "Cannot use --ablation mean with one pair: the mean of one corrupted prompt is that prompt",
    );
  }
  const labels = places.map(({ name }, n) => {
    const adapter = adapterOf(n, settings);
    return adapter === undefined ? name : `${name} with ${adapter}`;
  });
  const names = modelNames(configs.map(({ gate }, n) => ({ label: labels[n], gated: gate !== undefined })));
  return { job, places, configs, labels, names, tokenizer, set };
}

/** Analyses one or two models on one task. */
async function investigate(
  gpu: Gpu,
  { job, places, configs, labels, names, tokenizer, set }: Prepared,
  settings: CircuitsSettings,
  reporter: Reporter,
  exchange: Exchange | undefined,
): Promise<{ results: CircuitResults; models: LoadedModel[]; tokenizer: Tokenizer }> {
  const started = performance.now();
  const { seed, ablation, leastAccuracy } = settings;
  const maxBytes = settings.memory === "auto" ? DEFAULT_BYTES : settings.memory * 1e9;
  const method: AttributionMethod = settings.method === "eap"
    ? { name: "eap" }
    : { name: "eap-ig", steps: settings.igSteps };
  reporter.message(
    `${set.task}: ${pairsText(set.pairs.length, set.leftOut)}${set.leftOut ? " (--prompts)" : ""}${
      otherLengthsText(set.otherLengths)
    } of prompts of ` +
      `${set.pairs[0].clean.length} tokens, such as ${JSON.stringify(tokenizer.decode(set.pairs[0].clean))}`,
  );

  const models: LoadedModel[] = [];
  const found: { findings: Findings; result: ModelResult }[] = [];
  for (const [n, place] of places.entries()) {
    const [label, name] = [labels[n], names[n]];
    reporter.activity({ name: `compiling kernels for ${label}` });
    const shared = { set, ablation, maxBytes, method, seed, leastAccuracy };
    const loaded = await loadModel(gpu, place, { adapter: adapterOf(n, settings), exchange, shared });
    models.push(loaded);
    let analysis: ModelAnalysis;
    try {
      analysis = await analyseModel(gpu, loaded, {
        ...shared,
        tokenizer,
        exchange,
        onReady: ({ graph, bytes, batch }) =>
          reporter.message(
            `${label}, ${loaded.config.gate ? "sparse" : "dense"}: ${graph.edges} edges; ${
              (bytes / 1e6).toFixed(0)
            } MB, ${batch} pairs at a time`,
          ),
        progress: (text, done, of) => reporter.activity({ name: `${name}: ${text}`, done, of }),
      });
    } finally {
      destroyParameters(gpu, loaded.parameters);
    }
    const { findings } = analysis;
    const { performance: how } = findings;
    if (!how.able) {
      reporter.message(
        `${label} does not do ${set.task} well enough: ${
          unableReason(how, leastAccuracy)
        }; no circuit is looked for`,
      );
    }
    const graph = createGraph(loaded.config);
    const result = modelResult(graph, set, {
      name,
      label,
      gated: loaded.config.gate !== undefined,
      ...analysis,
    });
    const listed = tokenEdgeCounts(result);
    if (listed.prompts < set.pairs.length) {
      reporter.message(
        `${label}: token_edges.arrow has the attention edges of the first ${listed.prompts} of ` +
          `${pairsText(set.pairs.length)}, ${listed.edges} in all`,
      );
    }
    if (result.gated && listed.with_effects < listed.prompts) {
      reporter.message(
        `${label}: what closing each attention edge alone does was measured in ${listed.with_effects} of ` +
          `${pairsText(listed.prompts)}; in the others more than ${
            Math.floor(MOST_EFFECTS / set.pairs.length)
          } may matter`,
      );
    }
    found.push({ findings, result });
  }
  // The dense one first, where the other is sparse.
  if (found.length === 2 && found[0].result.gated && !found[1].result.gated) found.reverse();
  const { layers, heads, keyValueHeads, norm } = configs[0];
  const ladder = (of: CircuitFindings, kind: "edgeLadder" | "headLadder") => ({
    ladder: of[kind],
    bounds: of.bounds,
  });
  const [first, second] = found.map(({ findings }) => findings.circuit);
  const ratio = first && second
    ? {
      heads: ratioOf(ladder(first, "headLadder"), ladder(second, "headLadder"), { seed }),
      edges: ratioOf(ladder(first, "edgeLadder"), ladder(second, "edgeLadder"), { seed }),
    }
    : null;
  const results: CircuitResults = {
    task: set.task,
    purpose: purposeOf(job, set),
    metric: set.metric,
    ...ofPairs(set, tokenizer),
    method,
    ablation,
    seed,
    least_accuracy: leastAccuracy,
    adapter: gpu.adapter.name,
    seconds: (performance.now() - started) / 1000,
    graph: {
      layers,
      heads,
      key_value_heads: keyValueHeads,
      edges: createGraph(configs[0]).edges,
      norm_behind_attention: norm.at === "output",
    },
    models: found.map(({ result }) => result),
    ratio,
    shared: sharedOf(found.map(({ result }) => result)),
  };
  return { results, models, tokenizer };
}

function taskOf(name: string) {
  if (!Object.hasOwn(TASKS, name)) {
    throw usageError(`Unknown task ${name}: ${Object.keys(TASKS).join(", ")}, or --pairs FILE`);
  }
  return TASKS[name];
}

/** What a job's page says that its prompts ask for. */
function purposeOf({ task, pair }: Job, set: PromptSet): string {
  if (!pair) return task === undefined ? `the pairs of ${set.task}` : TASKS[task].purpose;
  const [prompt, answer, wrong, corrupted] = [pair.prompt, pair.answer, pair.wrong, pair.corrupted]
    .map((text) => JSON.stringify(text));
  return `what makes ${prompt} go on with ${answer} and not with ${wrong}; corrupted to ${corrupted}`;
}

/** The pair that flags give, where they give one. */
function pairOf(settings: CircuitsSettings): PairFlags | undefined {
  const { prompt, corrupted, answer, wrong } = settings;
  const given = [prompt, corrupted, answer, wrong].filter((text) => text !== undefined).length;
  if (given === 0) return undefined;
  if (prompt === undefined || corrupted === undefined || answer === undefined || wrong === undefined) {
    throw usageError(
      `Cannot use ${given} of --prompt, --corrupted, --answer and --wrong: a pair is all four`,
    );
  }
  for (const name of ["task", "pairs"] as const) {
    if (settings[name] !== undefined) throw usageError(`Cannot use --prompt and --${name} at once`);
  }
  if (settings.prompts !== "auto") throw usageError("Cannot use --prompts with --prompt, which is one pair");
  return { prompt, corrupted, answer, wrong };
}

/** The name of a job's run, where one was given; undefined: after the time. */
function nameOf(n: number, { task, pairs }: Job, name: string | undefined): string | undefined {
  if (name === undefined || n === 0) return name;
  return `${name}-${task ?? basename(pairs!, extname(pairs!))}`;
}

/** What the settings ask for: the demonstration where they ask for nothing. */
function jobsOf(settings: CircuitsSettings): readonly Job[] {
  const { task, pairs, model, against } = settings;
  const pair = pairOf(settings);
  if (task !== undefined && pairs !== undefined) throw usageError("Cannot use --task and --pairs at once");
  if (task !== undefined) taskOf(task);
  if (model === undefined) {
    if (against !== undefined) throw usageError("Cannot use --against without --model");
    if (pairs !== undefined) throw usageError("Cannot use --pairs without --model");
    if (pair) throw usageError("Cannot use --prompt without --model");
    const known = DEMONSTRATION.filter((job) => task === undefined || job.task === task);
    return known.length > 0 ? known : [{ ...DEMONSTRATION[1], task }];
  }
  if (task === undefined && pairs === undefined && !pair) {
    throw usageError("Cannot go on without a task: give --task, --pairs or --prompt");
  }
  return [{ task, pairs, pair, model, against }];
}

/** Saves one investigation in a run folder of its own, and says what came of it. */
async function save(
  { results, models, tokenizer }: Awaited<ReturnType<typeof investigate>>,
  settings: CircuitsSettings,
  name: string | undefined,
): Promise<string> {
  const folder = await createRun(settings.runs, `circuits-${results.task.replace(/[^\w.-]+/g, "-")}`, name);
  try {
    await folder.begin({
      id: crypto.randomUUID(),
      command: "circuits",
      settings: { ...settings, task: results.task },
      adapter: results.adapter,
      versions: { project: project.version, deno: Deno.version.deno },
      model: { config: models[0].config, hash: models.map(({ hash }) => hash).join(" ") },
      tokenizer: { hash: tokenizer.hash },
    });
    await saveResults(folder.path, results);
    const page = new TextEncoder().encode(circuitsHtml(folder.name, results));
    await writeAtomically(join(folder.path, "circuits.html"), (file) => writeAll(file, page));
    await writeJson(folder.summary, JSON.parse(resultLine(results)));
  } catch (error) {
    await folder.abandon();
    throw error;
  } finally {
    folder.release();
  }
  return folder.path;
}

/** Prints what came of an investigation, which is saved in a folder. */
function tellResults(
  results: CircuitResults,
  path: string,
  { json }: CircuitsSettings,
  { print }: CommandThread,
): void {
  if (json) return print(resultLine(results));
  print(formatTable([
    [results.task, ...results.models.map(({ name }) => name)],
    ...resultRows(results).map(({ label, cells }) => [label, ...cells]),
  ]));
  print(
    `${tableNotes(results).join("\n")}\n\n${circuitSentence(results)}\nPage: ${
      join(path, "circuits.html")
    }\n`,
  );
}

async function circuitsCommand(args: string[], thread: CommandThread): Promise<boolean> {
  const parsed = parseCommand(CIRCUITS, args, userFolder());
  return await spreadCommand(
    parsed.given,
    args,
    thread,
    (ranks) => leadCircuits(parsed, thread, ranks),
    (gpu, exchange) => helpCircuits(gpu, exchange, thread),
  );
}

async function leadCircuits(
  parsed: ParsedCommand<typeof CIRCUITS>,
  thread: CommandThread,
  ranks: Ranks | undefined,
): Promise<boolean> {
  const printed = await printedInstead("circuits", PURPOSE, CIRCUITS, parsed, locateHere);
  if (printed !== undefined) {
    thread.print(printed);
    return true;
  }
  const { reporter } = thread;
  const settings = await resolveSettings(CIRCUITS, parsed);
  const jobs = jobsOf(settings);
  if (settings.quiet) thread.beQuiet();
  for (const [n, job] of jobs.entries()) {
    const name = nameOf(n, job, settings.name);
    if (name !== undefined) await checkRunIsNew(settings.runs, "circuits", name);
  }
  // A file that is not there is told before a model is fetched.
  for (const { pairs } of jobs) if (pairs !== undefined) (await openRegular(pairs)).file.close();
  const locate = locateModel(thread);
  const places: Located[][] = [];
  for (const { model, against } of jobs) {
    places.push([await locate(model), ...(against === undefined ? [] : [await locate(against)])]);
  }
  thread.leaveNet();
  const prepared: Prepared[] = [];
  for (const [n, job] of jobs.entries()) prepared.push(await prepare(job, places[n], settings, reporter));
  const models = prepared.flatMap(({ configs }) => configs);
  const start = { ...settings, autotune: false };
  await ranks?.begin(start);
  const exchange = ranks?.exchange;
  const gpu = await openGpuOfRank(ranks, start, () => ({ models, interventions: true }), reporter);
  try {
    for (const [n, job] of jobs.entries()) {
      const investigation = await investigate(gpu, prepared[n], settings, reporter, exchange);
      await atFirst(exchange, async (): Promise<Next> => {
        reporter.activity({ name: "saving" });
        const path = await save(investigation, settings, nameOf(n, job, settings.name));
        tellResults(investigation.results, path, settings, thread);
        return { saved: path };
      });
    }
    await exchange?.share((): Next => undefined);
  } finally {
    await gpu.end();
  }
  return true;
}

if (inCommandThread()) {
  const args = [...Deno.args];
  performCommand((thread) => circuitsCommand(args, thread), { debug: args.includes("--debug") });
} else if (import.meta.main) {
  prepareMesa();
  await superviseCommand(import.meta.url);
}
