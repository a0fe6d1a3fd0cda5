/**
 * `deno task benchmark`: multiple-choice and likelihood benchmarks of a model and passkey, dense or sparse, beside another.
 *
 * @module
 */
import { join } from "node:path";
import type { Gpu } from "../../kernels/core/gpu.ts";
import { prepareMesa, userFolder } from "../command_line.ts";
import { type CommandThread, inCommandThread, performCommand, superviseCommand } from "../command_thread.ts";
import { inputError, usageError } from "../errors.ts";
import { locateHere, locateModel, openData } from "../fetch_named.ts";
import { exists } from "../files.ts";
import { isHubData } from "../hub/names.ts";
import type { ModelConfig } from "../model/config.ts";
import { readModelConfig } from "../model/config_file.ts";
import {
  type HeldSettings,
  type HeldShape,
  type HeldWeights,
  loadHeld,
  openHeld,
} from "../model/held_weights.ts";
import { destroyParameters, type ParameterShape } from "../model/parameters.ts";
import { nearest } from "../nearest.ts";
import { BENCHMARK, type BenchmarkSettings } from "../settings.ts";
import { printedInstead } from "../settings/help.ts";
import { parseCommand, type ParsedCommand } from "../settings/parse.ts";
import { resolveFully } from "../settings/resolve.ts";
import { checkOwnTokenizer, checkTokenizer, loadTokenizer } from "../text/tokenizer.ts";
import { type EncodedItems, encodeItems, makeItems, readItems, scoreItems } from "./benchmark.ts";
import type { Item, PlacedItem } from "./items.ts";
import { measureLikelihoods } from "./likelihood.ts";
import { lengthsFor, parseLengths } from "./passkey.ts";
import { checkOutputFolder, holdOutputFolder } from "./output_folder.ts";
import { type BenchmarkResult, jsonOf, type ModelScores, resultsText, saveBenchmarks } from "./results.ts";
import { type Encoding, findPrefix, type Sequence } from "./requests.ts";
import { compareScores, scoreOf } from "./scores.ts";
import { BENCHMARKS, type BenchmarkTask, isRead, type ReadTask } from "./tasks.ts";
import { atFirst, type Exchange } from "../parallel/exchange.ts";
import { hearFirst, openGpuOfRank, type Ranks, spreadCommand } from "../ranks.ts";

const PURPOSE =
  "Measures a model on benchmarks, as lm-evaluation-harness does, or on passkey, and beside another model.";

/** Endings of a file of data in a folder that has one for each task. */
const ENDINGS = [".jsonl", ".json", ".parquet", ".jsonl.gz", ".json.gz", ""];

/** The tasks that were asked for. */
function tasksOf(names: string | undefined): BenchmarkTask[] {
  const all = [...BENCHMARKS.keys()];
  if (names === undefined) {
    throw usageError(`Cannot run a benchmark without its name: give --task with some of ${all.join(", ")}`);
  }
  const tasks = names.split(",").map((name) => name.trim()).map((name) => {
    const task = BENCHMARKS.get(name);
    const near = nearest(name, all);
    if (!task) {
      throw usageError(
        `Cannot run ${name || "a benchmark without a name"} as there is no such benchmark${
          near === undefined ? `: ${all.join(", ")}` : ` (did you mean ${near}?)`
        }`,
      );
    }
    return task;
  });
  const twice = tasks.find((task, n) => tasks.indexOf(task) !== n);
  if (twice) throw usageError(`Cannot run ${twice.name} twice in one command`);
  return tasks;
}

/**
 * What was asked for, as far as it can be told without a file.
 *
 * @throws {UserError} on an unknown task, and on a flag that is for none of them
 */
function readWish(
  { task, data = [], lengths }: Partial<Pick<BenchmarkSettings, "task" | "data" | "lengths">>,
): { tasks: BenchmarkTask[]; lengths: number[] | undefined } {
  const tasks = tasksOf(task);
  const names = tasks.map(({ name }) => name).join(", ");
  if (data.length > 0 && !tasks.some(isRead)) {
    throw usageError(`Cannot use --data with ${names} as its items are made, not read`);
  }
  if (lengths !== undefined && tasks.every(isRead)) {
    throw usageError(`Cannot use --lengths with ${names} as only passkey has items of a length`);
  }
  return { tasks, lengths: lengths === undefined ? undefined : parseLengths(lengths) };
}

/** Where the data of each task is: as given, in a folder with a file for each, or where the hub has it. */
async function dataOf(tasks: readonly ReadTask[], data: readonly string[]): Promise<string[]> {
  if (data.length === 0) {
    return tasks.map(({ name, hub }) => {
      if (hub !== undefined) return hub;
      throw usageError(`Cannot run ${name} without its data: give --data PATH`);
    });
  }
  if (data.length === tasks.length && (tasks.length > 1 || !await fileOf(data[0], tasks[0].name))) {
    return [...data];
  }
  if (data.length === 1 && !isHubData(data[0])) {
    const files: string[] = [];
    for (const { name } of tasks) {
      const file = await fileOf(data[0], name);
      if (file === undefined) {
        throw inputError(`Cannot find the data of ${name} in ${data[0]}: it must be called ${name}.jsonl`);
      }
      files.push(file);
    }
    return files;
  }
  throw usageError(
    `Cannot tell which data is whose, as ${tasks.length} tasks need one --data each in their order, or a folder with a ` +
      `file for each: ${data.length} given`,
  );
}

/** The file or folder of a task's data in a folder of such. */
async function fileOf(folder: string, name: string): Promise<string | undefined> {
  for (const ending of ENDINGS) {
    const path = join(folder, name + ending);
    if (await exists(path)) return path;
  }
  return undefined;
}

/** A model that is about to be measured. */
interface Candidate {
  name: string;
  folder: string;
  config: ModelConfig;
  weights: HeldWeights;
  encoding: Encoding;
}

/** Opens a model's files, and checks that they go together. */
async function openCandidate(
  folder: string,
  name: string,
  tell: (message: string) => void,
  { tokenizer: own, dense = false, ...held }: HeldSettings & { tokenizer?: string; dense?: boolean } = {},
): Promise<Candidate> {
  const stored = await readModelConfig(folder, held.adapter);
  const weights = await openHeld(folder, stored, held);
  await weights.verify();
  const tokenizer = await loadTokenizer(own ?? folder, stored, tell);
  checkTokenizer(tokenizer, stored, name);
  await checkOwnTokenizer(tokenizer, folder);
  const prefix = await findPrefix(tokenizer, stored.startOfText);
  return {
    name,
    folder,
    config: dense ? { ...stored, gate: undefined } : stored,
    weights,
    encoding: { tokenizer, prefix, contextLength: stored.contextLength },
  };
}

async function benchmarkCommand(args: string[], thread: CommandThread): Promise<boolean> {
  const parsed = parseCommand(BENCHMARK, args, userFolder());
  return await spreadCommand(
    parsed.given,
    args,
    thread,
    (ranks) => leadBenchmark(parsed, thread, ranks),
    (gpu, exchange) => helpBenchmark(gpu, exchange, thread),
  );
}

async function leadBenchmark(
  parsed: ParsedCommand<typeof BENCHMARK>,
  thread: CommandThread,
  ranks: Ranks | undefined,
): Promise<boolean> {
  const printed = await printedInstead("benchmark", PURPOSE, BENCHMARK, parsed, locateHere);
  if (printed !== undefined) {
    thread.print(printed);
    return true;
  }
  const { reporter, signal } = thread;
  if (parsed.given.quiet) thread.beQuiet();
  // Before anything is fetched.
  if (!parsed.config) readWish(parsed.given);
  const locate = locateModel(thread);
  const { settings, modelFolder } = await resolveFully(BENCHMARK, parsed, locate);
  if (settings.quiet) thread.beQuiet();
  const { data, against, output, seed } = settings;
  const limit = settings.limit || Infinity;
  const { tasks, lengths: given } = readWish(settings);
  if (output !== undefined) await checkOutputFolder(output);
  const read = tasks.filter(isRead);
  const named = await dataOf(read, data);
  const candidates = [await openCandidate(modelFolder!, settings.model, reporter.message, settings)];
  if (against !== undefined) {
    const other = await locate(against);
    candidates.push(await openCandidate(other.folder, other.name, reporter.message));
  }
  const items: PlacedItem[][] = [];
  for (const each of tasks) {
    if (!isRead(each)) {
      reporter.activity({ name: `making ${each.name}` });
      const models = candidates.map(({ name, config: { contextLength } }) => ({ name, contextLength }));
      const lengths = lengthsFor(models, given);
      items.push(makeItems(each, { lengths, limit, seed }, candidates[0].encoding));
      continue;
    }
    reporter.activity({ name: `reading ${each.name}` });
    const { sources } = await openData([named[read.indexOf(each)]], thread);
    items.push(await readItems(each, sources, limit));
  }
  thread.leaveNet();
  const encoded = candidates.map(({ encoding }) => items.map((of) => encodeItems(of, encoding)));
  // Before the device is opened, since it may not be possible.
  await using _held = output === undefined
    ? undefined
    : await holdOutputFolder(output, thread.removeIfStopped);
  const start = { ...settings, autotune: false };
  await ranks?.begin(start);
  const exchange = ranks?.exchange;
  const workload = {
    models: candidates.map(({ config }) => config),
    stored: candidates.map(({ weights }) => weights.shape),
  };
  const gpu = await openGpuOfRank(ranks, start, () => workload, reporter);
  try {
    const models: ModelScores[][] = tasks.map(() => []);
    for (const [n, candidate] of candidates.entries()) {
      const scores = await scoresOf(gpu, candidate, tasks, items, encoded[n], settings, thread, exchange);
      scores.forEach((of, task) => models[task].push(of));
    }
    await atFirst(exchange, async (): Promise<Next> => {
      const results = tasks.map(({ name, scoring }, n): BenchmarkResult => {
        const [own, other] = models[n];
        if (other) reporter.activity({ name: "comparing" });
        const differences = other && compareScores(items[n], scoring, own.items, other.items, seed);
        return { task: name, items: items[n], models: models[n], differences };
      });
      if (output !== undefined) await saveBenchmarks(output, results);
      if (settings.json) { for (const result of results) thread.print(JSON.stringify(jsonOf(result))); }
      else thread.print(resultsText(results));
      return { output };
    });
  } finally {
    await gpu.end();
  }
  signal.throwIfAborted();
  return true;
}

/** What the other ranks are told of a model. */
interface SharedModel {
  config: ModelConfig;
  parameters: readonly ParameterShape[];
  /** How its weights lie on the device. */
  shape: HeldShape;
  sequences: readonly Sequence[];
  batchTokens: number;
}

/** What the other ranks get next: a model; or that there is no further one, and where results and logs go, if anywhere. */
type Next = SharedModel | { output: string | undefined };

/** Helps rank 0 with every model. */
async function helpBenchmark(
  gpu: Gpu,
  exchange: Exchange,
  { reporter, logTo }: CommandThread,
): Promise<object> {
  for (;;) {
    const next = await hearFirst<Next>(exchange);
    if ("output" in next) {
      if (next.output !== undefined) logTo(join(next.output, `rank-${exchange.rank}.log`));
      return next;
    }
    const { config, parameters: shapes, shape, sequences, batchTokens } = next;
    const read = () => hearFirst<Float32Array>(exchange);
    const parameters = await loadHeld(gpu, { parameters: shapes, shape, read }, reporter.message);
    try {
      await measureLikelihoods(gpu, { config, parameters, held: shape }, sequences, {
        batchTokens,
        signal: exchange.signal,
        exchange,
        onDone: (done) => reporter.activity({ name: "measuring", done, of: sequences.length }),
      });
    } finally {
      destroyParameters(gpu, parameters);
    }
  }
}

/** Scores of one model on every task; its weights are on the device for as long. */
async function scoresOf(
  gpu: Gpu,
  { name, config, weights }: Candidate,
  tasks: readonly BenchmarkTask[],
  items: readonly (readonly Item[])[],
  encoded: readonly EncodedItems[],
  { batchTokens }: Pick<BenchmarkSettings, "batchTokens">,
  { reporter, signal }: CommandThread,
  exchange: Exchange | undefined,
): Promise<ModelScores[]> {
  reporter.activity({ name: `loading ${name}` });
  const { parameters: shapes, shape } = weights;
  await exchange?.share((): Next => ({
    config,
    parameters: shapes.map(({ name, shape, stored }) => ({ name, shape, stored })),
    shape,
    sequences: encoded.flatMap(({ sequences }) => sequences),
    batchTokens,
  }));
  const read = async (name: string): Promise<Float32Array> =>
    await atFirst(exchange, () => weights.read(name));
  const parameters = await loadHeld(gpu, { parameters: shapes, shape, read }, reporter.message);
  try {
    const parts = tasks.map((task, n) => ({ task, items: items[n], encoded: encoded[n] }));
    const of = encoded.reduce((sum, { sequences }) => sum + sequences.length, 0);
    const scores = await scoreItems(gpu, { config, parameters, held: shape }, parts, {
      batchTokens,
      signal: exchange?.signal ?? signal,
      exchange,
      onDone: (done) => reporter.activity({ name: `measuring ${name}`, done, of }),
    });
    return tasks.map(({ scoring }, n) => ({
      model: name,
      mode: config.gate ? "gated" : "dense",
      frozen: shape.frozen,
      cut: encoded[n].cut,
      items: scores[n],
      score: scoreOf(items[n], scoring, scores[n]),
    }));
  } finally {
    destroyParameters(gpu, parameters);
  }
}

if (inCommandThread()) {
  const args = [...Deno.args];
  performCommand((thread) => benchmarkCommand(args, thread), { debug: args.includes("--debug") });
} else if (import.meta.main) {
  prepareMesa();
  await superviseCommand(import.meta.url);
}
