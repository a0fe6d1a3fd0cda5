/**
 * Sparse attention post-training on WebGPU (arXiv 2512.05865): put a binary gate on every attention edge of a
 * pretrained language model and train until few are open, at the dense model's loss.
 *
 * The commands in deno.json are made of what is exported here. {@link loadModel} is where looking into a model begins,
 * {@link sparsify} where a sparse one comes from.
 *
 * @example What a model attends to, through which gates, and what comes of it without one head
 * ```ts
 * import assert from "node:assert/strict";
 * import { loadModel } from "./mod.ts";
 *
 * using model = await loadModel("data/addition-sparse"); // or the model of a run, runs/<name>/model
 * const { activations } = await model.run("12+34=", {
 *   read: ["blocks.0.attn.hook_pattern", "blocks.0.attn.hook_gates"],
 * });
 * const { shape } = activations.get("blocks.0.attn.hook_gates")!;
 * assert(shape.join() === "1,4,6,6"); // (batch, head, query, key)
 *
 * const { logits } = await model.run("12+34=", {
 *   patch: [{ activation: "blocks.0.attn.hook_z", head: 0, by: "zero" }],
 * });
 * assert(logits.values.length === model.config.vocabularySize);
 * assert([...model.hooks.keys()].includes("blocks.0.hook_resid_mid"));
 * ```
 *
 * @example Held-out loss and open edges of a model
 * ```ts
 * import assert from "node:assert/strict";
 * import { evaluate, loadModel, sequentialBatches, tokenise } from "./mod.ts";
 *
 * using model = await loadModel("data/addition", { batch: 64 });
 * const tokens = await tokenise({
 *   sources: ["data/addition/examples.jsonl.gz"],
 *   tokenizer: model.tokenizer,
 *   folder: await Deno.makeTempDir(),
 * });
 * const { ce, openFraction } = await evaluate(model.gpu, model.network, model.parameters, {
 *   mode: model.config.gate ? "deterministic" : "dense",
 *   gateBias: model.config.gate?.bias,
 *   batches: sequentialBatches({ tokens: tokens.test, batch: 64, context: 8, limit: 1024 }),
 * });
 * assert(ce < 0.001 && openFraction === 1);
 * ```
 *
 * @example Replace an activation on the device while the model runs: all heads of layer 0 ablated
 * ```ts
 * import assert from "node:assert/strict";
 * import { loadModel } from "./mod.ts";
 *
 * using model = await loadModel("data/addition");
 * const { gpu, network, parameters } = model;
 * network.upload(Uint32Array.of(1, 2, 3, 4, 5, 6, 7, 8), new Uint32Array(8));
 * gpu.submit("ablated forward", (recorder) =>
 *   network.forward(recorder, parameters, "dense", {
 *     hook: (name, tensor) => {
 *       if (name === "blocks.0.attn.hook_z") recorder.clear(tensor);
 *     },
 *   }));
 * const final = await gpu.read(network.activations.get("ln_final.hook_normalized")!);
 * assert(final.length === 8 * model.config.width);
 * ```
 *
 * @module
 */

// A model of a folder, and text for it.
export type {
  Activation,
  AttributionOptions,
  Hook,
  LensOptions,
  LoadedModel,
  LoadOptions,
  ModelRun,
  OpenEdgesOptions,
  PatchEachOptions,
  PatchPair,
  RunChanges,
  RunOptions,
} from "./pipeline/loaded_model.ts";
export { loadModel } from "./pipeline/load_model.ts";
export type { PairEffects, PatchAxis, PatchedPlace, PatchEffects } from "./pipeline/circuits/patch_each.ts";
export { type FetchedModel, fetchModel, type FetchModelOptions } from "./pipeline/hub/model.ts";
export { type HubShards, type OpenDataOptions, openHubData } from "./pipeline/hub/data.ts";
export { type HubEnvironment, hubEnvironment } from "./pipeline/hub/environment.ts";
export { type ClientOptions } from "./pipeline/hub/client.ts";
export { type OnBytes } from "./pipeline/hub/fetch_files.ts";
export type { SpecialTokens } from "./pipeline/text/special_tokens.ts";
export { type KnownTokens, loadTokenizer, type Tokenizer, withStart } from "./pipeline/text/tokenizer.ts";
export { gpt2Config, type Gpt2Sizes, type ModelConfig } from "./pipeline/model/config.ts";
export { readModelConfig } from "./pipeline/model/config_file.ts";
export type { Adapter, Adapters, Trained } from "./pipeline/model/adapters.ts";
export { type Branch, type Model, parametersOf, trace, type TracedShape } from "./pipeline/model/trace.ts";
export type { Heads } from "./kernels/core/heads.ts";
export type { ActivationHook } from "./pipeline/model/runner.ts";
export type {
  CompiledOp,
  FrozenType,
  Op,
  Parameter,
  PartialRoles,
  Pass,
  Reals,
  ReferenceOp,
  ReferencePass,
  Roles,
  Step,
  Value,
} from "./pipeline/model/op.ts";
export type { HeadBackward, LossSettings } from "./pipeline/model/head.ts";
export { openWeights, type WeightSource } from "./pipeline/model/load_weights.ts";
export {
  createParameters,
  destroyParameters,
  loadParameters,
  type Parameters,
  type ParameterShape,
  readableParameters,
  uploadParameters,
} from "./pipeline/model/parameters.ts";
export { type SavedAdapter, type SavedModel, saveModel } from "./pipeline/model/save_weights.ts";
export {
  type HeldTensor,
  openSafetensors,
  type Safetensors,
  type TensorEntry,
  type TensorType,
  type WritableIntegers,
  type WritableTensor,
  writeSafetensors,
} from "./pipeline/model/safetensors.ts";
export { type Example, readDocuments, type TextPiece } from "./pipeline/text/documents.ts";
export { type FileSequence, type Source } from "./pipeline/text/data_files.ts";
export { type Enough, type Split, SPLITS, tokenise, type Tokens } from "./pipeline/text/tokenise.ts";
export { type EncodeMany, type SharedEncoder, type TextToEncode } from "./pipeline/text/shared_encoding.ts";
export { type TokenArray, type TokenFile } from "./pipeline/text/token_file.ts";
export {
  type Batch,
  type BatchShape,
  createBatches,
  sequentialBatches,
  type TokenSource,
} from "./pipeline/text/batches.ts";
export { IGNORED } from "./kernels/core/targets.ts";
export { trainBpe } from "./pipeline/text/bpe_trainer.ts";

// What a model does.
export {
  type Continuation,
  generate,
  type GenerateOptions,
  type GeneratingModel,
} from "./pipeline/generation/generate.ts";
export type { Steering } from "./pipeline/generation/steering.ts";
export { type SamplingSettings } from "./pipeline/generation/sampling.ts";
export { type Decoder, type DecoderOptions, prepareDecoder } from "./pipeline/model/decoder.ts";
export { evaluate, type Evaluation } from "./pipeline/training/evaluate.ts";
export { likeliest, type LikelyToken } from "./pipeline/model/likeliest.ts";
export {
  type AttentionPattern,
  type LayerPattern,
  readAttention,
  type ReadAttentionOptions,
} from "./pipeline/model/attention_pattern.ts";
export { activationAxes, type ActivationAxis } from "./pipeline/model/activation_names.ts";
export {
  type AttentionEdge,
  closedEdges,
  type InterventionResult,
  type Interventions,
  prepareInterventions,
} from "./pipeline/circuits/interventions.ts";
export type { Patch, Prompt, Prompts, Replacement, ReplacementValue } from "./pipeline/model/replacement.ts";

export { type HeadWeights, type WeightArray } from "./pipeline/circuits/head_weights.ts";
export { type OpenEdge } from "./pipeline/circuits/open_edges.ts";
export { type LogitPart } from "./pipeline/circuits/logit_attribution.ts";
export { type LensLayer, type LensToken } from "./pipeline/circuits/logit_lens.ts";

// Circuits: tasks, the engine that runs and patches, ranking, and all that is found out together.
export {
  type AnswerPlace,
  type MetricName,
  type PromptPair,
  type PromptSet,
} from "./pipeline/circuits/prompts.ts";
export { type Task, type TaskOptions } from "./pipeline/circuits/tasks/task.ts";
export { TASKS } from "./pipeline/circuits/tasks/tasks.ts";
export { readPairs } from "./pipeline/circuits/tasks/pairs_file.ts";
export { type PairsOptions, promptPairs, type TextPair } from "./pipeline/circuits/tasks/prompt_pairs.ts";
export { type RandomStream, randomStream } from "./kernels/core/random.ts";
export {
  type Ablation,
  type AttributionMethod,
  type Baselines,
  type CircuitEngine,
  type CircuitEngineOptions,
  type CircuitModel,
  createCircuitEngine,
  type Progress,
} from "./pipeline/circuits/engine.ts";
export {
  type CircuitGraph,
  createGraph,
  edgeEnds,
  type NodeInput,
  type SourceNode,
} from "./pipeline/circuits/graph.ts";
export {
  connected,
  edgeCount,
  greedyCircuit,
  headCircuit,
  headSources,
  meanScores,
  rankEdges,
  topEdges,
} from "./pipeline/circuits/discovery.ts";
export {
  type Bounds,
  faithfulness,
  type Interval,
  type Measured,
  type Rung,
} from "./pipeline/circuits/metrics.ts";
export {
  analyse,
  type AnalysisOptions,
  type CircuitFindings,
  type CurvePoint,
  type Findings,
  type Performance,
  type Stability,
} from "./pipeline/circuits/analyse.ts";
export {
  type TokenCircuit,
  tokenCircuit,
  type TokenCircuitShape,
  type TokenEdge,
  type TokenPath,
  tokenPaths,
} from "./pipeline/circuits/token_circuit.ts";
export {
  measureOffPaths,
  type OffPathEffect,
  type PromptTokenCircuit,
  summariseOffPaths,
  type TokenCircuits,
} from "./pipeline/circuits/off_paths.ts";

// Training.
export {
  type SparsifiedModel,
  sparsifyModel as sparsify,
  type SparsifyOptions,
} from "./pipeline/sparsify_model.ts";
export { type FrontPoint } from "./pipeline/training/front.ts";
export { type SparsifySummary } from "./pipeline/training/sparsify.ts";
export { type Work } from "./pipeline/training/time_left.ts";
export { type Activity, type Reporter } from "./pipeline/training/training_run.ts";
export { type Exchange, type Stages } from "./pipeline/parallel/exchange.ts";
export {
  createTrainer,
  type GateObjective,
  type MicroBatch,
  type StepLog,
  type Trainer,
  type TrainerOptions,
} from "./pipeline/training/trainer.ts";
export {
  type Checkpoint,
  type CheckpointEntry,
  listCheckpoints,
  readCheckpoint,
  saveCheckpoint,
  type TornCheckpoint,
} from "./pipeline/runs/checkpoint.ts";
export {
  createMetricsReader,
  type MetricRow,
  type MetricsFile,
  type MetricsReader,
  openMetrics,
  type Phase,
  readMetrics,
} from "./pipeline/runs/metrics.ts";
export {
  createHealthWatch,
  type HealthBounds,
  type HealthSample,
  type Signature,
} from "./pipeline/training/signatures.ts";
export { EXIT, UserError } from "./pipeline/errors.ts";

// The network and the kernels below it.
export { hardGates, type NetworkGates } from "./pipeline/model/gates.ts";
export { type Network, prepareNetwork } from "./pipeline/model/network.ts";
export { type Cut, type ModelStage, type StageShape } from "./pipeline/model/stage.ts";
export { type Stretch } from "./pipeline/model/schedule.ts";
export { type Moment } from "./pipeline/training/moments.ts";
export { type DeviceLog, type LogRow } from "./pipeline/training/device_log.ts";
export type { Check, CheckScope, Comparison, KernelCheck } from "./kernels/core/check.ts";
export { type GecoSettings } from "./kernels/geco/op.ts";
export { type AdamWSettings } from "./kernels/adamw/op.ts";
export { type HeldShape } from "./pipeline/model/held_weights.ts";
export { type NetworkShape } from "./pipeline/model/plan.ts";
export {
  type AttentionVariant,
  type GatedAttention,
  type GatedAttentionConfig,
  type GateMode,
  type GateSettings,
  HEAD_SUMS,
  prepareGatedAttention,
} from "./kernels/gated_attention/op.ts";
export {
  type CachedAttention,
  type CachedAttentionConfig,
  type CachePlace,
  prepareCachedAttention,
} from "./kernels/gated_attention/cached_attention.ts";
export {
  type AdapterDescription,
  AdapterError,
  findAdapters,
  type FoundAdapter,
} from "./kernels/core/gpu_adapters.ts";
export { Device, DeviceError, type DeviceOptions } from "./kernels/core/device.ts";
export { type Contest, Gpu, type Tuner } from "./kernels/core/gpu.ts";
export { BindGroups, type Resource } from "./kernels/core/bind_groups.ts";
export { type Region, type Shadow, type TextureLimits, Textures } from "./kernels/core/textures.ts";
export { type Bindings, type Bound, compile, Kernel, type KernelSource } from "./kernels/core/kernel.ts";
export { type Grid, Recorder } from "./kernels/core/recorder.ts";
export { destroyTensor, type ElementType, reshape, rows, type Tensor } from "./kernels/core/tensor.ts";
