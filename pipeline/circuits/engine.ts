/**
 * What circuits are found with: a model run in which every edge carries either what its source computes or what the
 * source would have written under an ablation, and estimates of what each edge is worth.
 *
 * @module
 */
import { allOrNothing } from "../../kernels/core/all_or_nothing.ts";
import { oneAtATime } from "../../kernels/core/one_at_a_time.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import { destroyTensor, type Tensor } from "../../kernels/core/tensor.ts";
import { prepareBlend } from "../../kernels/blend/op.ts";
import { IGNORED } from "../../kernels/core/targets.ts";
import { inputError } from "../errors.ts";
import type { ModelConfig } from "../model/config.ts";
import { hardGates } from "../model/gates.ts";
import { prepareNetwork } from "../model/network.ts";
import type { ActivationHook } from "../model/runner.ts";
import { trace } from "../model/trace.ts";
import type { Parameters } from "../model/parameters.ts";
import type { Exchange } from "../parallel/exchange.ts";
import { prepareAblation } from "./ablation.ts";
import { type AnswerRow, answerRows, prepareAnswers } from "./answers.ts";
import { prepareAttribution } from "./attribution.ts";
import {
  checkAblation,
  checkDirection,
  checkEngineOptions,
  checkMethod,
  edgeNumbers,
  keptEdges,
  keptEdgesOfEach,
} from "./engine_options.ts";
import { type CircuitGraph, createGraph } from "./graph.ts";
import { type CircuitShape, engineBytes, engineShapes, type EngineTensor, networkShape } from "./layout.ts";
import { preparePatchedRun } from "./patched_run.ts";
import type { PromptPair, PromptSet } from "./prompts.ts";
import { prepareSources, rowOf } from "./sources.ts";

/**
 * How what a circuit leaves out is replaced: by what the same node writes for the corrupted prompt of the pair, by the
 * mean of that over all corrupted prompts at the same position, or by zero.
 */
export type Ablation = "resample" | "mean" | "zero";

/** A loaded model: dense, or with hard gates where its config has a gate. */
export interface CircuitModel {
  /** Its sizes, and its gate where it has one. */
  config: ModelConfig;
  /** Its weights on the device. */
  parameters: Parameters;
}

/** What an engine is made for. */
export interface CircuitEngineOptions {
  /** The prompts. */
  set: PromptSet;
  /** Of everything that is measured, where a run does not name another; `resample` when left out. */
  ablation?: Ablation;
  /** Bytes that the engine may hold on the device beside the model's parameters; 1 GiB when left out. */
  maxBytes?: number;
  /**
   * The other ranks, all of which make an engine of the same and call its methods in the same order. What is run is shared
   * out among them in the batches of one process, and every rank gets all values, with the bits of one.
   */
  exchange?: Exchange;
}

/** How edges are estimated: at the clean prompt, or on the way to it from the ablated embedding in `steps` steps. */
export type AttributionMethod = { name: "eap" } | { name: "eap-ig"; steps: number };

/** Told how many of how many parts of the work are done. */
export type Progress = (done: number, of: number) => void;

/** Metrics of the unpatched model, one value a pair. */
export interface Baselines {
  /** Of the clean prompts. */
  clean: Float64Array;
  /** Of the corrupted prompts. */
  corrupted: Float64Array;
  /** Share of a pair's places at which the best right token beats every wrong one, for the clean prompt. */
  correct: Float64Array;
  /** Share of a pair's places at which no logit exceeds a right token's. */
  exact: Float64Array;
}

/**
 * A model and its prompt pairs, compiled and ready. What is asked for together is done one behind the other. A call refuses
 * at once names that there are not, edges that are no Uint8Array, and whatever is of another type (UserError), and masks of
 * another length or with another number than 0 and 1 (RangeError); what its arguments hold is taken as it is called.
 */
export interface CircuitEngine {
  /** What edges are numbered by. */
  readonly graph: CircuitGraph;
  /** Bytes held on the device beside the parameters. */
  readonly bytes: number;
  /** Pairs in one batch: as many as fit. */
  readonly batch: number;
  /** Runs every prompt, clean and corrupted, unpatched. */
  baselines(): Promise<Baselines>;
  /**
   * Metric of each pair where the kept edges (1 of 0/1 for each edge) carry what their source computes in this run, and
   * every other edge the ablation's value. All kept: the clean run. None kept: the corrupted one, where the ablation is
   * `resample`.
   *
   * @param by the ablation, the engine's own where left out
   * @throws {UserError} on another ablation, and what is no Uint8Array
   * @throws {RangeError} on another number of edges, and another number than 0 and 1
   */
  run(kept: Uint8Array, by?: Ablation): Promise<Float64Array>;
  /** The same of several circuits, [circuit][pair]; one whose first edges are those of the one before takes less time. */
  runEach(circuits: readonly Uint8Array[], progress?: Progress): Promise<Float64Array[]>;
  /** Estimated drop of each pair's metric when an edge is ablated, [pair][edge]: positive where the edge helps. */
  attribute(method: AttributionMethod, progress?: Progress): Promise<Float32Array[]>;
  /**
   * Exact effect of each node, [pair][source]. `noising`: the drop of the metric when the node's output in the clean run
   * is ablated. `denoising`: its rise when the node's output in the corrupted run is the clean run's, whatever the
   * ablation.
   */
  patchNodes(direction: "noising" | "denoising", progress?: Progress): Promise<Float64Array[]>;
  /** Exact drop of the metric when one edge of the clean run is ablated, [pair][index into `edges`]. */
  patchEdges(edges: readonly number[], progress?: Progress): Promise<Float64Array[]>;
  /** Frees everything that the engine holds on the device. */
  destroy(): void;
}

const DEFAULT_BYTES = 1 << 30;
/** Patched runs that a rank does one behind the other before it meets the others, at most. */
const RUNS_AT_ONCE = 16;

/** Pairs that run together, and the rows at which they answer. */
interface Batch {
  /** Index of its first pair in the set. */
  first: number;
  pairs: readonly PromptPair[];
  rows: readonly AnswerRow[];
}

/** Fails unless the model can run the pairs and answer at their places; returns the number of positions. */
function checkSet({ pairs, task }: PromptSet, { vocabularySize, contextLength }: ModelConfig): number {
  const isToken = (token: number): boolean => Number.isInteger(token) && token >= 0 && token < vocabularySize;
  const fail = (required: string, found: unknown): never => {
    throw new RangeError(`Cannot find circuits for ${task} as ${required}: ${found}`);
  };
  if (pairs.length === 0) fail("at least one pair of prompts is needed", 0);
  const positions = pairs[0].clean.length;
  if (positions < 1 || positions > contextLength) {
    fail(`prompts must have 1 to ${contextLength} tokens`, positions);
  }
  for (const { clean, corrupted, places } of pairs) {
    for (const { length } of [clean, corrupted]) {
      if (length !== positions) fail(`all prompts must have the ${positions} tokens of the first`, length);
    }
    const unknown = [...clean, ...corrupted].find((token) => !isToken(token));
    if (unknown !== undefined) fail(`prompts must be of tokens below ${vocabularySize}`, unknown);
    if (places.length === 0) fail("every pair needs a place at which the model answers", 0);
    for (const { position, right, wrong } of places) {
      if (!(Number.isInteger(position) && position >= 0 && position < positions)) {
        fail(`places must be positions below ${positions}`, position);
      }
      if (right.length === 0 || wrong.length === 0) fail("every place needs a right and a wrong token", 0);
      const outside = [...right, ...wrong].find((token) => !isToken(token));
      if (outside !== undefined) fail(`answers must be tokens below ${vocabularySize}`, outside);
    }
  }
  return positions;
}

/**
 * Compiles the model for the set's pairs. An engine's methods use the same memory: what is asked for together is done one
 * behind the other, in the order of the calls.
 *
 * @example What patching a head's output from the corrupted prompt does to each pair
 * ```ts
 * import assert from "node:assert/strict";
 * import { createCircuitEngine, loadModel, randomStream, TASKS } from "../../mod.ts";
 *
 * using model = await loadModel("data/addition");
 * const { tokenizer, config: { contextLength } } = model;
 * const set = TASKS.addition.generate({ tokenizer, contextLength, prompts: 4, random: randomStream(1) });
 * const engine = await createCircuitEngine(model.gpu, model, { set });
 * const { correct } = await engine.baselines();
 * assert(correct.every((share) => share === 1));
 * const effects = await engine.patchNodes("noising"); // [pair][source]
 * assert(effects[0].length === engine.graph.sources.length);
 * engine.destroy();
 * ```
 *
 * @throws {RangeError} when there is no pair, a prompt or a place is not as the model needs it, or one pair needs more
 * than `maxBytes` or than one binding holds
 * @throws {UserError} on an option, an ablation or a metric that there is not, and on a model that no circuit can be found in
 */
export async function createCircuitEngine(
  gpu: Gpu,
  model: CircuitModel,
  options: CircuitEngineOptions,
): Promise<CircuitEngine> {
  checkEngineOptions(options);
  return await allOrNothing(() => create(gpu, model, options));
}

async function create(
  gpu: Gpu,
  { config, parameters }: CircuitModel,
  { set, ablation = "resample", maxBytes = DEFAULT_BYTES, exchange }: CircuitEngineOptions,
): Promise<CircuitEngine> {
  const { norm, biases } = config;
  if (norm.at === "output" && (norm.kind !== "rms" || biases.other)) {
    throw inputError(
      "Cannot find circuits in a model whose layers end in layer norms or have biases before a norm, which no head owns",
    );
  }
  const positions = checkSet(set, config);
  const graph = createGraph(config);
  const mode = config.gate ? "deterministic" : "dense";
  const { shape, batches, bytes } = planBatches(set, (shape) => {
    const { total, largest } = engineBytes(config, graph, shape, gpu.maxBindingBytes);
    if (total <= maxBytes && largest <= gpu.maxBindingBytes) return { bytes: total };
    return {
      bytes: total,
      fault: `one pair must fit ${maxBytes} bytes, and its largest tensor ${gpu.maxBindingBytes}: ` +
        `${total} and ${largest} bytes`,
    };
  }, positions);
  const { batch } = shape;
  const rows = batch * positions;
  const { rank, size } = exchange ?? { rank: 0, size: 1 };

  /**
   * What came of so many pieces of work, which the ranks do in turn, in the order of the pieces.
   *
   * @throws the signal's reason when the ranks agree to stop
   */
  async function shareOut<Result>(
    count: number,
    what: string,
    work: (index: number) => Promise<Result>,
  ): Promise<Result[]> {
    const all: Result[] = [];
    for (let first = 0; first < count; first += size) {
      await exchange?.agree();
      exchange?.signal.throwIfAborted();
      const index = first + rank;
      const own = index < count ? await work(index) : undefined;
      const results = await exchange?.gather(own, what) ?? [own];
      for (const result of results) if (result !== undefined) all.push(result);
    }
    return all;
  }

  const network = await prepareNetwork(gpu, config, networkShape(shape));
  network.configureGates(hardGates(config.gate?.bias, batch));
  const { activations } = network;
  const tensors = Object.fromEntries(
    Object.entries(engineShapes(config, graph, shape, gpu.maxBindingBytes))
      .map(([name, axes]) => [name, gpu.tensor(name, axes)]),
  ) as Record<EngineTensor, Tensor>;
  const model = trace(config, { ...networkShape(shape), maxBindingBytes: gpu.maxBindingBytes });
  const [embedded, final] = [model.embed, model.final].map(({ writes }) => writes.y.name);
  const shared = { model, graph, parameters, batch, positions, rows, tensors, activations };
  const sources = await prepareSources(gpu, shared);
  const patched = await preparePatchedRun(gpu, { ...shared, scratch: activations, sources });
  const attribution = await prepareAttribution(gpu, shared);
  const answers = await prepareAnswers(gpu, { ...shared, metric: set.metric });
  const interpolation = await prepareBlend(gpu, { length: rows * config.width });
  const ablations = await prepareAblation(gpu, { ...shared, pairs: set.pairs.length });

  /** The network and the ablation's outputs hold one piece of work. */
  const inTurn = oneAtATime();

  /** A batch's prompts, the last batch filled up with its first pair. */
  const tokensOf = ({ pairs }: Batch, side: "clean" | "corrupted"): Uint32Array =>
    Uint32Array.from(Array.from({ length: batch }, (_, n) => (pairs[n] ?? pairs[0])[side]).flat());

  function uploadToNetwork(part: Batch, side: "clean" | "corrupted"): void {
    network.upload(tokensOf(part, side), new Uint32Array(rows).fill(IGNORED));
  }

  /** Runs the unpatched network with hooks, one after the other. */
  function forward(recorder: Recorder, ...hooks: ActivationHook[]): void {
    network.forward(recorder, parameters, mode, {
      countEdges: false,
      hook: (name, tensor, recorder) => hooks.forEach((hook) => hook(name, tensor, recorder)),
    });
  }

  const gather = (part: Batch): ActivationHook => (name, tensor, recorder) => {
    if (name === final) answers.gather(recorder, part.rows, tensor);
  };

  /** Leaves what the sources write for these prompts in `delta`, and the residual stream in `base`. */
  function collect(part: Batch, side: "clean" | "corrupted"): void {
    uploadToNetwork(part, side);
    gpu.submit("activations to patch with", (recorder) => {
      recorder.clear(tensors.minusAblated);
      forward(recorder, sources.collect, sources.copyStreams);
    });
  }

  /** What `minusAblated` and `base` hold. */
  let ablated = "";

  /** Fills them: noising takes the clean run's edges away, denoising the corrupted run's, whatever the ablation. */
  async function ablate(
    part: Batch,
    direction: "noising" | "denoising",
    by: Ablation = ablation,
  ): Promise<void> {
    const kind = direction === "denoising" ? "resample" : by;
    const wanted = kind === "resample" ? `${direction} of the batch from ${part.first} on` : kind;
    if (ablated === wanted) return;
    ablated = wanted;
    if (kind === "resample") {
      collect(part, direction === "noising" ? "corrupted" : "clean");
      ablations.resample();
    } else if (kind === "mean") {
      ablations.beginMean();
      for (const part of batches) {
        collect(part, "corrupted");
        ablations.addToMean(part.pairs.length);
      }
      ablations.endMean();
    } else await ablations.zero();
  }

  /** Uploads it, and returns the first input of which other edges are kept than `before`; 0 where nothing was before. */
  function uploadMask(kept: Uint8Array, before?: Uint8Array): number {
    const [inputs, columns] = tensors.mask.shape;
    const values = new Float32Array(inputs * columns);
    graph.inputs.forEach(({ firstEdge, sources }, input) =>
      values.set(kept.subarray(firstEdge, firstEdge + sources), input * columns)
    );
    gpu.write(tensors.mask, values);
    if (!before) return 0;
    const other = kept.findIndex((one, edge) => one !== before[edge]);
    const next = graph.inputs.findIndex(({ firstEdge }) => firstEdge > other);
    return other < 0 || next < 0 ? inputs - 1 : next - 1;
  }

  /** Metrics [mask][pair] of `count` patched runs; one whose first edges are those of the run before takes less time. */
  async function runAll(
    count: number,
    kept: (index: number) => Uint8Array,
    direction: "noising" | "denoising",
    { progress, by }: { progress?: Progress; by?: Ablation },
  ): Promise<Float64Array[]> {
    const metrics = Array.from({ length: count }, () => new Float64Array(set.pairs.length));
    // Of one batch, one behind the other, as many for each rank.
    const length = Math.max(1, Math.min(RUNS_AT_ONCE, Math.ceil(count * batches.length / size)));
    const stretches = batches.flatMap((part) =>
      Array.from({ length: Math.ceil(count / length) }, (_, n) => ({
        part,
        first: n * length,
        end: Math.min(count, (n + 1) * length),
      }))
    );
    let uploaded: Batch | undefined;
    let before: Uint8Array | undefined;
    const measured = await shareOut(stretches.length, "runs of circuits", async (index) => {
      const { part, first, end } = stretches[index];
      if (part !== uploaded) {
        await ablate(part, direction, by);
        patched.upload(tokensOf(part, direction === "noising" ? "clean" : "corrupted"));
        [uploaded, before] = [part, undefined];
      }
      const found: Float64Array[] = [];
      for (let n = first; n < end; n++) {
        const now = kept(n);
        const from = uploadMask(now, before);
        before = now;
        gpu.submit("patched run", (recorder) => {
          answers.gather(recorder, part.rows, patched.record(recorder, mode, from));
        });
        const { metric } = await answers.measure(part.rows, part.pairs.length);
        found.push(Float64Array.from(metric));
        progress?.(batches.indexOf(part) * count + n + 1, count * batches.length);
      }
      return found;
    });
    stretches.forEach(({ part, first }, index) =>
      measured[index].forEach((metric, n) => metrics[first + n].set(metric, part.first))
    );
    return metrics;
  }

  /** How far the metric without some edges is from that of the run with all edges, [pair][index into `left`]. */
  async function effects(
    left: readonly (readonly number[])[],
    direction: "noising" | "denoising",
    progress?: Progress,
  ): Promise<Float64Array[]> {
    // The last first: up to the edges that are left out a run is as the run before.
    const order = [...left.keys()].sort((a, b) => left[b][0] - left[a][0]);
    const keptOf = (index: number): Uint8Array => {
      const kept = new Uint8Array(graph.edges).fill(1);
      for (const edge of index > 0 ? left[order[index - 1]] : []) kept[edge] = 0;
      return kept;
    };
    const [whole, ...patchedRuns] = await runAll(left.length + 1, keptOf, direction, { progress });
    const sign = direction === "noising" ? 1 : -1;
    return Array.from(whole, (metric, pair) => {
      const ofPair = new Float64Array(left.length);
      order.forEach((index, n) => ofPair[index] = sign * (metric - patchedRuns[n][pair]));
      return ofPair;
    });
  }

  /** Metrics of the unpatched model. */
  async function measureBaselines(): Promise<Baselines> {
    const total = set.pairs.length;
    const [clean, corrupted, correct, exact] = Array.from({ length: 4 }, () => new Float64Array(total));
    const found = await shareOut(batches.length, "runs of the prompts", async (index) => {
      const part = batches[index];
      const measure = async (side: "clean" | "corrupted") => {
        uploadToNetwork(part, side);
        gpu.submit("unpatched run", (recorder) => forward(recorder, gather(part)));
        return await answers.measure(part.rows, part.pairs.length);
      };
      return { clean: await measure("clean"), corrupted: await measure("corrupted") };
    });
    batches.forEach(({ first }, index) => {
      const ofBatch = found[index];
      clean.set(ofBatch.clean.metric, first);
      corrupted.set(ofBatch.corrupted.metric, first);
      correct.set(ofBatch.clean.correct, first);
      exact.set(ofBatch.clean.exact, first);
    });
    return { clean, corrupted, correct, exact };
  }

  /** Estimates of every edge, on the way from the ablated embedding in so many steps. */
  async function attributeIn(steps: number, progress?: Progress): Promise<Float32Array[]> {
    const scores = await shareOut(batches.length, "attribution", async (index) => {
      const part = batches[index];
      let done = index * steps;
      await ablate(part, "noising");
      uploadToNetwork(part, "clean");
      // The last step is the clean prompt itself, which also gives what the sources write.
      for (let step = steps; step > 0; step--) {
        interpolation.configure({ a: -1, b: step / steps });
        const interpolate: ActivationHook = (name, tensor, recorder) => {
          if (name !== embedded) return;
          const [a, b] = [tensors.minusAblated, tensors.delta].map((t) => rowOf(t, 0, tensor.length));
          interpolation.forward(recorder, { a, b, sum: tensor });
        };
        gpu.submit("attribution forward", (recorder) => {
          if (step === steps) attribution.clear(recorder);
          forward(recorder, step === steps ? sources.collect : interpolate, gather(part));
        });
        await answers.measure(part.rows, part.pairs.length, { gradients: true });
        gpu.submit("attribution backward", (recorder) =>
          network.backward(
            recorder,
            parameters,
            undefined,
            mode,
            tensors.edgeScale,
            (name, tensor, recorder) => {
              if (name === final) answers.scatter(recorder, part.rows, tensor);
              attribution.hook(name, tensor, recorder);
            },
          ));
        progress?.(++done, steps * batches.length);
      }
      return await attribution.read(part.pairs.length, 1 / steps);
    });
    return scores.flat();
  }

  return {
    graph,
    bytes,
    batch,

    baselines: () => inTurn(measureBaselines),

    async run(kept, by) {
      if (by !== undefined) checkAblation(by);
      const circuit = keptEdges(kept, graph.edges);
      const [metric] = await inTurn(() => runAll(1, () => circuit, "noising", { by }));
      return metric;
    },

    async runEach(circuits, progress) {
      const all = keptEdgesOfEach(circuits, graph.edges);
      return await inTurn(() => runAll(all.length, (index) => all[index], "noising", { progress }));
    },

    async attribute(method, progress) {
      checkMethod(method);
      const steps = method.name === "eap" ? 1 : method.steps;
      return await inTurn(() => attributeIn(steps, progress));
    },

    async patchNodes(direction, progress) {
      checkDirection(direction);
      const left = graph.sources.map((_, source) =>
        graph.inputs.flatMap(({ firstEdge, sources }) => source < sources ? [firstEdge + source] : [])
      );
      return await inTurn(() => effects(left, direction, progress));
    },

    async patchEdges(edges, progress) {
      const left = edgeNumbers(edges, graph.edges).map((edge) => [edge]);
      return await inTurn(() => effects(left, "noising", progress));
    },

    destroy() {
      for (const tensor of Object.values(tensors)) destroyTensor(gpu, tensor);
      for (const part of [network, patched, interpolation, ablations]) part.destroy();
    },
  };
}

/** Batches of equal size, as few as fit; the last may be smaller. */
function planBatches(
  { task, pairs }: PromptSet,
  measure: (shape: CircuitShape) => { bytes: number; fault?: string },
  positions: number,
): { shape: CircuitShape; batches: Batch[]; bytes: number } {
  for (let count = 1;; count++) {
    const batch = Math.ceil(pairs.length / count);
    const batches = Array.from({ length: Math.ceil(pairs.length / batch) }, (_, n) => {
      const part = pairs.slice(n * batch, (n + 1) * batch);
      return { first: n * batch, pairs: part, rows: answerRows(part) };
    });
    const answers = Math.max(...batches.map(({ rows }) => rows.length));
    const shape = { batch, positions, answers };
    const { bytes, fault } = measure(shape);
    if (!fault) return { shape, batches, bytes };
    if (batch === 1) throw new RangeError(`Cannot find circuits for ${task} as ${fault}`);
  }
}
