/**
 * Sparse attention post-training on WebGPU (arXiv 2512.05865): put a binary gate on every attention edge of a
 * pretrained GPT-2-type model and train until few are open, at the dense model's loss.
 *
 * The commands in deno.json are made of what is exported here.
 *
 * @example Open edges of a saved model on some text
 * ```ts ignore
 * import { createParameters, evaluate, Gpu, loadTokenizer, openWeights, prepareNetwork, readModelConfig } from "./mod.ts";
 * import { sequentialBatches, tokenise, uploadParameters } from "./mod.ts";
 *
 * const folder = "runs/my-run/model";
 * const config = await readModelConfig(folder);
 * const weights = await openWeights(folder, config);
 * const tokenizer = await loadTokenizer(folder);
 * const tokens = await tokenise({ sources: ["my.txt"], tokenizer, folder: "tokens" });
 *
 * const gpu = await Gpu.open();
 * const parameters = createParameters(gpu, weights.parameters);
 * await uploadParameters(gpu, parameters, (name) => weights.read(name));
 * const network = await prepareNetwork(gpu, config, { batch: 8, context: 128, training: false });
 * const { ce, openByHead } = await evaluate(gpu, network, parameters, {
 *   mode: "deterministic",
 *   gateBias: config.gate!.bias,
 *   batches: sequentialBatches({ tokens: tokens.test, batch: 8, context: 128 }),
 * });
 * console.log(ce, openByHead);
 * ```
 *
 * @example Read the attention output of layer 0 while the model runs, and replace it
 * ```ts ignore
 * gpu.submit("patched forward", (recorder) =>
 *   network.forward(recorder, parameters, "deterministic", {
 *     hook: (name, tensor) => {
 *       if (name === "blocks.0.attn.hook_z") recorder.copy(replacement, tensor);
 *     },
 *   }));
 * const final = await gpu.read(network.activations.get("ln_final.hook_normalized")!);
 * ```
 *
 * @module
 */
export { type AdapterDescription, AdapterError, DeviceError, Gpu } from "./kernels/core/gpu.ts";
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
export { trainBpe } from "./pipeline/bpe_trainer.ts";
export { listCheckpoints, readCheckpoint, saveCheckpoint } from "./pipeline/checkpoint.ts";
export { readDocuments } from "./pipeline/documents.ts";
export { EXIT, UserError } from "./pipeline/errors.ts";
export { evaluate, type Evaluation } from "./pipeline/evaluate.ts";
export { openWeights, type WeightSource } from "./pipeline/load_weights.ts";
export { type MetricRow, openMetrics, readMetrics } from "./pipeline/metrics.ts";
export { type ModelConfig, parameterShapes, readModelConfig } from "./pipeline/model_config.ts";
export { type ActivationHook, type Network, prepareNetwork } from "./pipeline/network.ts";
export {
  createParameters,
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
