/**
 * The attention explorer: a run's model looked at through one prompt. The device is opened at the first question, the
 * questions are answered one after the other, and training, which has the device too, goes on meanwhile.
 *
 * @module
 */
import { join } from "node:path";
import { AdapterError, DeviceError, Gpu } from "../kernels/core/gpu.ts";
import { readAttention } from "../pipeline/attention_pattern.ts";
import { listCheckpoints, readCheckpoint } from "../pipeline/checkpoint.ts";
import { UserError } from "../pipeline/errors.ts";
import { exists } from "../pipeline/files.ts";
import { openWeights } from "../pipeline/load_weights.ts";
import { type ModelConfig, parameterShapes, readModelConfig } from "../pipeline/model_config.ts";
import { type Network, prepareNetwork } from "../pipeline/network.ts";
import { destroyParameters, loadParameters, type Parameters } from "../pipeline/parameters.ts";
import { assertSelfCheck } from "../pipeline/self_check.ts";
import { loadTokenizer } from "../pipeline/tokenizer.ts";
import type { AttentionAnswer, AttentionEdge, AttentionRequest } from "./api.ts";
import { problem } from "./problem.ts";
import type { RunView } from "./runs.ts";

/** Tokens of a prompt that are looked at. */
export const MAX_PROMPT_TOKENS = 128;
const MAX_EDGES = 20_000;
const MAX_WAITING = 8;
const NEXT_TOKENS = 5;
const DEFAULT_THRESHOLD = 0.01;
/** Sets of weights kept on the device: dense and sparse of one run, looked at in turn. */
const WEIGHTS_KEPT = 2;

/** Answers questions about runs' models. */
export interface Explorer {
  /**
   * @throws {HTTPException} 409 when the run has no such weights yet or they cannot be read, 503 when too many questions
   * wait or the device fails
   */
  ask(run: RunView, request: AttentionRequest): Promise<AttentionAnswer>;
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
  parameters: Map<string, Parameters>;
}

/** Creates an explorer; nothing is opened before the first question. */
export function createExplorer(): Explorer {
  let bench: Bench | undefined;
  let waiting = 0;
  let turn: Promise<unknown> = Promise.resolve();

  function close(): void {
    bench?.gpu.close();
    bench = undefined;
  }

  async function load(source: Source): Promise<{ gpu: Gpu; network: Network; parameters: Parameters }> {
    const { config, key } = source;
    const { gate: _, ...plain } = config;
    const sizes = JSON.stringify(plain);
    // Compiled kernels live as long as their device.
    if (bench?.sizes !== sizes) close();
    if (!bench) {
      const gpu = await Gpu.open();
      await assertSelfCheck(gpu);
      const context = Math.min(config.contextLength, MAX_PROMPT_TOKENS);
      const network = await prepareNetwork(gpu, config, { batch: 1, context, training: false });
      bench = { sizes, gpu, network, parameters: new Map() };
    }
    const { gpu, network } = bench;
    let parameters = bench.parameters.get(key);
    if (!parameters) {
      if (bench.parameters.size === WEIGHTS_KEPT) {
        const [oldest, unused] = bench.parameters.entries().next().value!;
        destroyParameters(gpu, unused);
        bench.parameters.delete(oldest);
      }
      parameters = await loadParameters(gpu, parameterShapes(config), (name) => source.read(name));
    }
    bench.parameters.delete(key);
    bench.parameters.set(key, parameters);
    return { gpu, network, parameters };
  }

  async function answer(run: RunView, request: AttentionRequest): Promise<AttentionAnswer> {
    const { prompt, model, threshold = DEFAULT_THRESHOLD } = request;
    const source = await sourceOf(run, model);
    const { settings } = run.config!;
    const tokenizer = await loadTokenizer((settings.tokenizer ?? settings.model) as string);
    const all = Array.from(tokenizer.encode(prompt));
    if (all.length === 0) throw problem(400, "Cannot look at an empty prompt");
    const { gpu, network, parameters } = await load(source);
    const tokens = all.slice(0, network.shape.context);
    const pattern = await readAttention(gpu, network, parameters, tokens, source.gateBias);

    const length = tokens.length;
    const edges: AttentionEdge[] = [];
    let open = 0;
    pattern.layers.forEach(({ weights, gates }, layer) => {
      for (let head = 0; head < source.config.heads; head++) {
        for (let query = 0; query < length; query++) {
          for (let key = 0; key <= query; key++) {
            const at = (head * length + query) * length + key;
            const gate = source.gateBias === undefined ? null : gates[at];
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
      tokens: tokens.map((token) => tokenizer.decode([token])),
      truncated: all.length > length,
      edges,
      open,
      causal_pairs: layers * heads * length * (length + 1) / 2,
      omitted,
      next: next.map((token) => ({
        token: tokenizer.decode([token]),
        probability: Math.exp(pattern.next[token]),
      })),
    };
  }

  return {
    async ask(run, request) {
      if (waiting >= MAX_WAITING) throw problem(503, "Too many prompts are waiting: try again in a moment");
      waiting++;
      const mine = turn.then(() => answer(run, request)).catch((error) => {
        if (error instanceof UserError) throw problem(409, error.message);
        if (!(error instanceof AdapterError || error instanceof DeviceError)) throw error;
        // The next question opens the device anew.
        close();
        throw problem(503, error.message);
      });
      turn = mine.catch(() => {}).then(() => waiting--);
      return await mine;
    },
    close,
  };
}

/** The run's weights: the finished model's, else the newest checkpoint's; or the dense model that it began with. */
async function sourceOf(run: RunView, model: AttentionRequest["model"]): Promise<Source> {
  const { config } = run;
  if (!config) throw problem(409, `Cannot look into ${run.name} as it is no whole run`);
  const settings = config.settings as { model?: string; sparse?: boolean; gateBias: number };
  const pretraining = config.command === "pretrain";
  if (model === "dense" && !pretraining) {
    const folder = settings.model!;
    if (!await exists(folder)) throw problem(409, `Cannot look at the dense model as ${folder} is not here`);
    return await folderSource(folder, { kind: "dense", step: null }, undefined);
  }
  if (pretraining && (model === "sparse") !== (settings.sparse === true)) {
    throw problem(
      409,
      `Cannot look at the ${model} model as the run trains only a ${
        settings.sparse ? "sparse" : "dense"
      } one`,
    );
  }
  const gateBias = model === "sparse" ? settings.gateBias : undefined;
  const folder = join(run.path, "model");
  if (await exists(join(folder, "config.json"))) {
    return await folderSource(folder, { kind: "model", step: null }, gateBias);
  }
  const phase = pretraining ? "pretrain" : "sparse";
  const { checkpoints } = await listCheckpoints(join(run.path, "checkpoints"));
  const newest = checkpoints.findLast((entry) => entry.phase === phase);
  if (!newest) throw problem(409, `Cannot look at the ${model} model as the run has no checkpoint yet`);
  const checkpoint = await readCheckpoint(newest.path);
  const shapes = new Map(parameterShapes(config.model.config).map(({ name, shape }) => [name, shape]));
  return {
    key: newest.path,
    weights: { kind: "checkpoint", step: newest.step },
    config: config.model.config,
    gateBias,
    read: (name) => checkpoint.read(`weight.${name}`, shapes.get(name)!),
  };
}

async function folderSource(
  folder: string,
  weights: AttentionAnswer["weights"],
  gateBias: number | undefined,
): Promise<Source> {
  const config = await readModelConfig(folder);
  const source = await openWeights(folder, config);
  const { mtime } = await Deno.stat(join(folder, "config.json"));
  return {
    key: `${folder} ${mtime?.getTime()}`,
    weights,
    config,
    gateBias,
    read: (name) => source.read(name),
  };
}
