/**
 * Sparse attention post-training on WebGPU (arXiv 2512.05865): put a binary gate on every attention edge of a
 * pretrained GPT-2-type model and train until few are open, at the dense model's loss.
 *
 * The commands in deno.json are made of what is exported here.
 *
 * @example Held-out loss and open edges of a model
 * ```ts
 * import {
 *   createParameters,
 *   evaluate,
 *   Gpu,
 *   loadTokenizer,
 *   openWeights,
 *   prepareNetwork,
 *   readModelConfig,
 *   sequentialBatches,
 *   tokenise,
 *   uploadParameters,
 * } from "./mod.ts";
 *
 * const folder = "data/addition"; // or the model of a run, runs/<name>/model
 * const config = await readModelConfig(folder);
 * const weights = await openWeights(folder, config);
 * const tokens = await tokenise({
 *   sources: [`${folder}/examples.jsonl.gz`],
 *   tokenizer: await loadTokenizer(folder),
 *   folder: await Deno.makeTempDir(),
 * });
 *
 * const gpu = await Gpu.open();
 * const parameters = createParameters(gpu, weights.parameters);
 * await uploadParameters(gpu, parameters, (name) => weights.read(name));
 * const network = await prepareNetwork(gpu, config, { batch: 64, context: 8, training: false });
 * const { ce, openFraction } = await evaluate(gpu, network, parameters, {
 *   mode: config.gate ? "deterministic" : "dense",
 *   gateBias: config.gate?.bias,
 *   batches: sequentialBatches({ tokens: tokens.test, batch: 64, context: 8, limit: 1024 }),
 * });
 * console.assert(ce < 0.001 && openFraction === 1);
 * gpu.close();
 * ```
 *
 * @example Replace an activation while the model runs: all heads of layer 0 ablated
 * ```ts
 * import { createParameters, Gpu, openWeights, prepareNetwork, readModelConfig, uploadParameters } from "./mod.ts";
 *
 * const config = await readModelConfig("data/addition");
 * const weights = await openWeights("data/addition", config);
 * const gpu = await Gpu.open();
 * const parameters = createParameters(gpu, weights.parameters);
 * await uploadParameters(gpu, parameters, (name) => weights.read(name));
 * const network = await prepareNetwork(gpu, config, { batch: 1, context: 8, training: false });
 *
 * network.upload(Uint32Array.of(1, 2, 3, 4, 5, 6, 7, 8), new Uint32Array(8));
 * gpu.submit("ablated forward", (recorder) =>
 *   network.forward(recorder, parameters, "dense", {
 *     hook: (name, tensor) => {
 *       if (name === "blocks.0.attn.hook_z") recorder.clear(tensor);
 *     },
 *   }));
 * const final = await gpu.read(network.activations.get("ln_final.hook_normalized")!);
 * console.assert(final.length === 8 * config.width);
 * gpu.close();
 * ```
 *
 * @module
 */
export { type AdapterDescription, AdapterError, DeviceError } from "./kernels/core/device.ts";
export { Gpu } from "./kernels/core/gpu.ts";
export { compile, Kernel, type KernelSource } from "./kernels/core/kernel.ts";
export { Recorder } from "./kernels/core/recorder.ts";
export { destroyTensor, reshape, rows, type Tensor } from "./kernels/core/tensor.ts";
export {
  type GatedAttention,
  type GateMode,
  HEAD_SUMS,
  prepareGatedAttention,
} from "./kernels/gated_attention/op.ts";
export {
  type Batch,
  createBatches,
  IGNORED,
  sequentialBatches,
  type TokenSource,
} from "./pipeline/batches.ts";
export { type AttentionPattern, type LayerPattern, readAttention } from "./pipeline/attention_pattern.ts";
export {
  type Ablation,
  type CircuitEngine,
  type CircuitModel,
  createCircuitEngine,
} from "./pipeline/circuits/engine.ts";
export { type CircuitGraph, createGraph, edgeEnds } from "./pipeline/circuits/graph.ts";
export {
  type AttentionEdge,
  closedEdges,
  type Interventions,
  prepareInterventions,
  type Replacement,
} from "./pipeline/circuits/interventions.ts";
export { type AnswerPlace, type PromptPair, type PromptSet } from "./pipeline/circuits/prompts.ts";
export {
  type TokenCircuit,
  tokenCircuit,
  type TokenEdge,
  type TokenPath,
  tokenPaths,
} from "./pipeline/circuits/token_circuit.ts";
export { trainBpe } from "./pipeline/bpe_trainer.ts";
export { listCheckpoints, readCheckpoint, saveCheckpoint } from "./pipeline/checkpoint.ts";
export { readDocuments } from "./pipeline/documents.ts";
export { EXIT, UserError } from "./pipeline/errors.ts";
export { evaluate, type Evaluation } from "./pipeline/evaluate.ts";
export { openWeights, type WeightSource } from "./pipeline/load_weights.ts";
export { createMetricsReader, type MetricRow, openMetrics, readMetrics } from "./pipeline/metrics.ts";
export { type ModelConfig, parameterShapes, readModelConfig } from "./pipeline/model_config.ts";
export { type ActivationHook, type Network, prepareNetwork } from "./pipeline/network.ts";
export {
  createParameters,
  destroyParameters,
  loadParameters,
  type Parameters,
  readableParameters,
  uploadParameters,
} from "./pipeline/parameters.ts";
export { openSafetensors, writeSafetensors } from "./pipeline/safetensors.ts";
export { saveModel } from "./pipeline/save_weights.ts";
export { createHealthWatch, type Signature } from "./pipeline/signatures.ts";
export { SPLITS, tokenise } from "./pipeline/tokenise.ts";
export { loadTokenizer, type Tokenizer } from "./pipeline/tokenizer.ts";
export { createTrainer, type Trainer } from "./pipeline/trainer.ts";
