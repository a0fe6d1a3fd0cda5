/**
 * The attention explorer: a run's model looked at through one prompt. The device is opened at the first question, the
 * questions are answered one after the other, and training, which has the device too, goes on meanwhile.
 *
 * @module
 */
import { HTTPException } from "hono/http-exception";
import { dirname, join, resolve } from "node:path";
import { AdapterError } from "../kernels/core/gpu_adapters.ts";
import { DeviceError } from "../kernels/core/device.ts";
import { Gpu } from "../kernels/core/gpu.ts";
import { generate } from "../pipeline/generation/generate.ts";
import { readAttention } from "../pipeline/model/attention_pattern.ts";
import { readCheckpoint } from "../pipeline/runs/checkpoint.ts";
import { locateHere } from "../pipeline/fetch_named.ts";
import { exists, MAX_JSON_BYTES, MAX_SMALL_JSON_BYTES, shown } from "../pipeline/files.ts";
import { openOwnWeights } from "../pipeline/model/load_weights.ts";
import { ADAPTER_CONFIG, readAdapterConfig } from "../pipeline/model/adapter_config.ts";
import { ADAPTER_WEIGHTS, mergedValues, openAdapterWeights } from "../pipeline/model/adapter_files.ts";
import type { Adapters } from "../pipeline/model/adapters.ts";
import type { ModelConfig } from "../pipeline/model/config.ts";
import { readModelConfig } from "../pipeline/model/config_file.ts";
import { parametersOf } from "../pipeline/model/trace.ts";
import { type Decoder, prepareDecoder } from "../pipeline/model/decoder.ts";
import { type Network, prepareNetwork } from "../pipeline/model/network.ts";
import { destroyParameters, loadParameters, type Parameters } from "../pipeline/model/parameters.ts";
import { assertSelfCheck } from "../pipeline/model/self_check.ts";
import { BESIDE_TOKENIZER } from "../pipeline/text/special_tokens.ts";
import { loadTokenizer, type Tokenizer, withStart } from "../pipeline/text/tokenizer.ts";
import {
  type AttentionAnswer,
  type AttentionEdge,
  type AttentionRequest,
  type ContinuationAnswer,
  type ContinuationRequest,
  MAX_CONTINUATION,
} from "./api.ts";
import { ownCheckpoints } from "./checkpoints.ts";
import { logFault } from "./fault_log.ts";
import { checkHeaderLength, isOwn } from "./own_files.ts";
import { problem } from "./problem.ts";
import { liesInside } from "./roots.ts";
import type { RunView } from "./runs.ts";

/** Tokens of a prompt that are looked at, or that a continuation goes on from. */
export const MAX_PROMPT_TOKENS = 128;
/** Tokens of a continuation where it is not said. */
const DEFAULT_CONTINUATION = 32;
const MAX_EDGES = 20_000;
const MAX_WAITING = 8;
const NEXT_TOKENS = 5;
const DEFAULT_THRESHOLD = 0.01;
/** Sets of weights kept on the device: dense and sparse of one run, looked at in turn. */
const WEIGHTS_KEPT = 2;

/** What is looked at of a run. */
export type ExploredRun = Pick<RunView, "name" | "path" | "config">;

/** Answers questions about runs' models. */
export interface Explorer {
  /**
   * @throws {HTTPException} 409 when the run has no such weights yet or they cannot be read, 503 when too many questions
   * wait or the device fails
   */
  ask(run: ExploredRun, request: AttentionRequest): Promise<AttentionAnswer>;
  /**
   * As {@link Explorer.ask}, for how the model goes on from a text.
   *
   * @throws {HTTPException} 400 also when the prompt is longer than what can be gone on from
   */
  goOn(run: ExploredRun, request: ContinuationRequest): Promise<ContinuationAnswer>;
  /** Gives the device back. */
  close(): void;
}

/** Where weights lie. */
interface Source {
  /** Tells these weights from any others. */
  key: string;
  weights: AttentionAnswer["weights"];
  config: ModelConfig;
  gateBias: number | undefined;
  read(name: string): Promise<Float32Array>;
}

/** A device with the network of one model's sizes, and the weights that were asked for last. */
interface Bench {
  sizes: string;
  gpu: Gpu;
  network: Network;
  /** Made with the first continuation. */
  decoder?: Decoder;
  parameters: Map<string, Parameters>;
}

/**
 * Creates an explorer; nothing is opened before the first question.
 *
 * @param roots folders that models and tokenizers are read from, the folder of the runs among them
 * @param adapter which adapter, by a part of its name or its number; the fastest where left out
 */
export function createExplorer(roots: readonly string[], adapter?: string): Explorer {
  let bench: Bench | undefined;
  let waiting = 0;
  let turn: Promise<unknown> = Promise.resolve();

  function close(): void {
    bench?.gpu.close();
    bench = undefined;
  }

  async function load(source: Source): Promise<{ bench: Bench; parameters: Parameters }> {
    const { config, key } = source;
    const { gate: _, ...plain } = config;
    const sizes = JSON.stringify(plain);
    // Compiled kernels live as long as their device.
    if (bench?.sizes !== sizes) close();
    if (!bench) {
      const gpu = await Gpu.open({ adapter });
      try {
        await assertSelfCheck(gpu, { workload: { models: [config], generation: true } });
        const context = Math.min(config.contextLength, MAX_PROMPT_TOKENS);
        const network = await prepareNetwork(gpu, config, { batch: 1, context, training: false });
        bench = { sizes, gpu, network, parameters: new Map() };
      } catch (error) {
        gpu.close();
        throw error;
      }
    }
    const { gpu } = bench;
    let parameters = bench.parameters.get(key);
    if (!parameters) {
      if (bench.parameters.size === WEIGHTS_KEPT) {
        const [oldest, unused] = bench.parameters.entries().next().value!;
        destroyParameters(gpu, unused);
        bench.parameters.delete(oldest);
      }
      parameters = await loadParameters(gpu, parametersOf(config), (name) => source.read(name));
    }
    bench.parameters.delete(key);
    bench.parameters.set(key, parameters);
    return { bench, parameters };
  }

  /** The model that is asked for on the device, and the prompt's tokens, all of which it has. */
  async function modelFor(run: ExploredRun, { prompt, model }: Pick<AttentionRequest, "prompt" | "model">) {
    const source = await sourceOf(run, model, roots);
    const tokenizer = await tokenizerOf(run, roots);
    const known = await usable(`${run.name}'s tokenizer`, () => tokenizer.encodeKnown(prompt));
    if (known.lost > 0) {
      throw problem(400, `Cannot look at the prompt as the model has no token for ${shown(known.firstLost)}`);
    }
    if (known.tokens.length === 0) throw problem(400, "Cannot look at an empty prompt");
    const all = withStart(tokenizer, known.tokens);
    const { vocabularySize } = source.config;
    if (!all.every((token) => Number.isInteger(token) && token >= 0 && token < vocabularySize)) {
      throw problem(
        409,
        `Cannot look into ${run.name} as its tokenizer is another model's: this one has ${vocabularySize} tokens`,
      );
    }
    const loaded = await usable(`${run.name}'s ${model} model`, () => load(source));
    return { source, tokenizer, all, ...loaded };
  }

  async function continuation(run: ExploredRun, request: ContinuationRequest): Promise<ContinuationAnswer> {
    const { model, tokens: wanted = DEFAULT_CONTINUATION } = request;
    const { source, tokenizer, all, bench, parameters } = await modelFor(run, request);
    const { gpu } = bench;
    const { config, gateBias, weights } = source;
    const longest = Math.min(config.contextLength, MAX_PROMPT_TOKENS);
    if (all.length > longest) {
      throw problem(
        400,
        `Cannot continue the prompt as it must have at most ${longest} tokens: ${all.length}`,
      );
    }
    const positions = Math.min(config.contextLength, MAX_PROMPT_TOKENS + MAX_CONTINUATION);
    bench.decoder ??= await prepareDecoder(gpu, config, { positions });
    const gate = gateBias === undefined ? undefined : { bias: gateBias, temperature: 1 };
    const { tokens, text, ended } = await generate(
      { gpu, config: { ...config, gate }, parameters, tokenizer },
      all,
      { tokens: wanted, decoder: bench.decoder },
    );
    return { model, weights, tokens, text, ended };
  }

  async function answer(run: ExploredRun, request: AttentionRequest): Promise<AttentionAnswer> {
    const { model, threshold = DEFAULT_THRESHOLD } = request;
    const { source, tokenizer, all, bench: { gpu, network }, parameters } = await modelFor(run, request);
    const tokens = all.slice(0, network.shape.context);
    const { gateBias } = source;
    // The network is of all models of its sizes, with whatever gates the first of them has.
    const through = gateBias === undefined ? { dense: true } : { gateBias };
    const pattern = await readAttention(gpu, network, parameters, tokens, through);

    const length = tokens.length;
    const edges: AttentionEdge[] = [];
    let open = 0;
    pattern.layers.forEach(({ weights, gates }, layer) => {
      for (let head = 0; head < source.config.heads; head++) {
        for (let query = 0; query < length; query++) {
          for (let key = 0; key <= query; key++) {
            const at = (head * length + query) * length + key;
            const gate = gateBias === undefined ? null : gates[at];
            if (gate !== null && gate <= 0) continue;
            open++;
            if (weights[at] >= threshold) edges.push([layer, head, query, key, weights[at], gate]);
          }
        }
      }
    });
    const omitted = Math.max(0, edges.length - MAX_EDGES);
    if (omitted > 0) edges.sort((a, b) => b[4] - a[4]).length = MAX_EDGES;
    const next = [...pattern.next.keys()].sort((a, b) => pattern.next[b] - pattern.next[a]).slice(
      0,
      NEXT_TOKENS,
    );
    const { layers, heads } = source.config;
    return {
      model,
      weights: source.weights,
      layers,
      heads,
      tokens: tokens.map((token) => tokenizer.spell(token)),
      truncated: all.length > length,
      edges,
      open,
      causal_pairs: layers * heads * length * (length + 1) / 2,
      omitted,
      next: next.map((token) => ({
        token: tokenizer.spell(token),
        probability: Math.exp(pattern.next[token]),
      })),
    };
  }

  /** Answers when it is this question's turn. */
  async function inTurn<Answer>(work: () => Promise<Answer>): Promise<Answer> {
    if (waiting >= MAX_WAITING) throw problem(503, "Too many prompts are waiting: try again in a moment");
    waiting++;
    const mine = turn.then(work).catch((error) => {
      if (!(error instanceof AdapterError || error instanceof DeviceError)) throw error;
      // The next question opens the device anew.
      close();
      throw problem(503, error.message);
    });
    turn = mine.catch(() => {}).then(() => waiting--);
    return await mine;
  }

  return {
    ask: (run, request) => inTurn(() => answer(run, request)),
    goOn: (run, request) => inTurn(() => continuation(run, request)),
    close,
  };
}

/**
 * Does what reads files that anyone may have written: what they hold wrong is a conflict, not a fault of ours. The
 * readers' own words may quote a file, and go nowhere.
 *
 * @param what is read, for the client
 * @throws {HTTPException} 409
 */
async function usable<Result>(what: string, read: () => Result | Promise<Result>): Promise<Result> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof HTTPException || error instanceof AdapterError || error instanceof DeviceError) {
      throw error;
    }
    logFault(`reading ${what}`, error);
    throw problem(409, `Cannot use ${what}: it is damaged, or of another kind`);
  }
}

/**
 * Asserts that a file is one that the server may read.
 *
 * @throws {HTTPException} 409 when it lies elsewhere by its real path, is no file or too large
 */
async function checkReadable(path: string, maxBytes: number, roots: readonly string[]): Promise<void> {
  if (!await liesInside(path, roots)) {
    throw problem(
      409,
      `Cannot read ${path} as it lies in no folder that is served, or is not there: ` +
        "start the server with --models and its folder",
    );
  }
  const { isFile, size } = await usable(path, () => Deno.stat(path));
  if (!isFile || size > maxBytes) {
    throw problem(409, `Cannot read ${path} as it must be a file of at most ${maxBytes} bytes`);
  }
}

/** The run's own tokenizer, or the one that its settings name. */
async function tokenizerOf(run: ExploredRun, roots: readonly string[]): Promise<Tokenizer> {
  const { tokenizer, model } = run.config!.settings;
  let path = join(run.path, "tokenizer.json");
  if (!await isOwn(path, "isFile")) path = join(run.path, "model", "tokenizer.json");
  if (!await isOwn(path, "isFile")) {
    const named = tokenizer ?? model;
    if (typeof named !== "string") throw problem(409, `Cannot look into ${run.name} as it has no tokenizer`);
    path = resolve((await locateHere(named)).folder);
    if (await liesInside(path, roots) && await isOwn(path, "isDirectory")) {
      path = join(path, "tokenizer.json");
    }
  }
  await checkReadable(path, MAX_JSON_BYTES, roots);
  for (const name of BESIDE_TOKENIZER) {
    const beside = join(dirname(path), name);
    if (await exists(beside)) await checkReadable(beside, MAX_SMALL_JSON_BYTES, roots);
  }
  return await usable(`${run.name}'s tokenizer`, () => loadTokenizer(path, run.config?.model.config));
}

/** The run's weights: the finished model's, else the newest checkpoint's; or the dense model that it began with. */
async function sourceOf(
  run: ExploredRun,
  model: AttentionRequest["model"],
  roots: readonly string[],
): Promise<Source> {
  const { config } = run;
  if (!config) throw problem(409, `Cannot look into ${run.name} as it is no whole run`);
  const { settings } = config;
  const pretraining = config.command === "pretrain";
  if (model === "dense" && !pretraining) return await denseSource(run, roots);
  if (pretraining && (model === "sparse") !== (settings.sparse === true)) {
    throw problem(
      409,
      `Cannot look at the ${model} model as the run trains only a ${
        settings.sparse ? "sparse" : "dense"
      } one`,
    );
  }
  const { gateBias } = settings;
  if (model === "sparse" && !Number.isFinite(gateBias)) {
    throw problem(409, `Cannot look at the sparse model as ${run.name} does not say the bias of its gates`);
  }
  const bias = model === "sparse" ? gateBias as number : undefined;
  const folder = join(run.path, "model");
  const { adapters } = config.adaptation ?? {};
  if (await isOwn(join(folder, "config.json"), "isFile")) {
    const weights = { kind: "model", step: null } as const;
    const isMerged = adapters === undefined || await isOwn(join(folder, "model.safetensors"), "isFile");
    if (isMerged) return await folderSource(folder, weights, bias, roots);
    const base = await baseSource(run, roots);
    const key = `${folder} ${(await Deno.stat(join(folder, "config.json"))).mtime?.getTime()}`;
    return { ...await adaptedSource(base, folder, adapters, roots), key, weights, gateBias: bias };
  }
  const phase = pretraining ? "pretrain" : "sparse";
  const { checkpoints } = await ownCheckpoints(join(run.path, "checkpoints"));
  const newest = checkpoints.findLast((entry) => entry.phase === phase);
  if (!newest) throw problem(409, `Cannot look at the ${model} model as the run has no checkpoint yet`);
  const sizes = config.model.config;
  await checkReadable(newest.path, Infinity, roots);
  const checkpoint = await usable(newest.path, () => readCheckpoint(newest.path));
  const parameters = new Map(
    parametersOf(sizes, { adapters }).map((parameter) => [parameter.name, parameter]),
  );
  const stored = (name: string) => checkpoint.read(`weight.${name}`, parameters.get(name)!.shape);
  /** What is not trained stands in the model that the run began with, of which adapters to begin with are trained on. */
  const frozen = config.adaptation &&
    (adapters ? await baseSource(run, roots) : await denseSource(run, roots));
  const own = (name: string) =>
    frozen && !checkpoint.has(`weight.${name}`) ? frozen.read(name) : stored(name);
  return {
    key: `${newest.path} ${newest.written}`,
    weights: { kind: "checkpoint", step: newest.step },
    config: sizes,
    gateBias: bias,
    read: async (name) =>
      adapters
        ? await mergedValues(parameters.get(name)!, adapters, await own(name), stored)
        : await own(name),
  };
}

/** The model that the run began with, without an adapter that it may have begun with too. */
async function baseSource({ name, path, config }: ExploredRun, roots: readonly string[]): Promise<Source> {
  const { model } = config!.settings;
  const own = join(path, "dense");
  const weights = { kind: "dense", step: null } as const;
  if (await isOwn(join(own, "config.json"), "isFile")) {
    return await folderSource(own, weights, undefined, roots);
  }
  if (typeof model !== "string") {
    throw problem(409, `Cannot look at the dense model as ${name} does not say which it began with`);
  }
  // One of the hub lies in the cache, under another name than the run knows it by.
  const { folder } = await locateHere(model);
  return await folderSource(resolve(folder), weights, undefined, roots);
}

/** The model that the run began with. */
async function denseSource(run: ExploredRun, roots: readonly string[]): Promise<Source> {
  const base = await baseSource(run, roots);
  const { adapter } = run.config!.settings;
  if (typeof adapter !== "string") return base;
  const folder = resolve(adapter);
  const configPath = join(folder, ADAPTER_CONFIG);
  await checkReadable(configPath, MAX_SMALL_JSON_BYTES, roots);
  const { adapters } = run.config!.adaptation ?? {};
  const found = adapters ??
    (await usable(configPath, () => readAdapterConfig(configPath, base.config))).adapters;
  return await adaptedSource(base, folder, found, roots);
}

/** A model with the adapter of a folder merged into it. */
async function adaptedSource(
  base: Source,
  folder: string,
  adapters: Adapters,
  roots: readonly string[],
): Promise<Source> {
  const path = join(folder, ADAPTER_WEIGHTS);
  await checkReadable(path, Infinity, roots);
  await usable(path, () => checkHeaderLength(path));
  const adapter = await usable(path, () => openAdapterWeights(folder, base.config, { adapters }));
  const parameters = new Map(parametersOf(base.config).map((parameter) => [parameter.name, parameter]));
  return {
    ...base,
    key: `${base.key} ${path} ${(await Deno.stat(path)).mtime?.getTime()}`,
    read: async (name) =>
      await mergedValues(
        parameters.get(name)!,
        adapters,
        await base.read(name),
        (name) => adapter.read(name),
      ),
  };
}

async function folderSource(
  folder: string,
  weights: AttentionAnswer["weights"],
  gateBias: number | undefined,
  roots: readonly string[],
): Promise<Source> {
  const configPath = join(folder, "config.json");
  await checkReadable(configPath, MAX_SMALL_JSON_BYTES, roots);
  const config = await usable(configPath, () => readModelConfig(folder));
  // The whole model or shards of it, by whatever names an index gives them.
  for await (const { name } of Deno.readDir(folder)) {
    const path = join(folder, name);
    if (name.endsWith(".index.json")) await checkReadable(path, MAX_SMALL_JSON_BYTES, roots);
    else if (name.endsWith(".safetensors")) {
      await checkReadable(path, Infinity, roots);
      await usable(path, () => checkHeaderLength(path));
    }
  }
  // No model that an adapter in the folder names, which may lie anywhere.
  const source = await usable(`the safetensors in ${folder}`, () => openOwnWeights(folder, config));
  const { mtime } = await Deno.stat(configPath);
  return {
    key: `${folder} ${mtime?.getTime()}`,
    weights,
    config,
    gateBias,
    read: (name) => source.read(name),
  };
}
