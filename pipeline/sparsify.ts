/**
 * Sparse post-training from end to end: tokenise, load the weights, measure the dense model, train it under the
 * constraint, choose the sparsest model that meets it, train the dense control, measure all three on tokens that were
 * used for nothing else, and save.
 *
 * The data is cut in three by document: the model learns from `train`; the constraint is measured and the best step is
 * chosen on `validation`; what is reported comes from `test`.
 *
 * @module
 */
import { dirname, join } from "node:path";
import type { Gpu } from "../kernels/core/gpu.ts";
import { pruneRunCheckpoints, readPhaseCheckpoint, savePhaseCheckpoint } from "./run_checkpoints.ts";
import { listCheckpoints, readCheckpoint, saveCheckpoint } from "./checkpoint.ts";
import { inputError } from "./errors.ts";
import { type Evaluation, evaluate, type EvaluationBatch } from "./evaluate.ts";
import { openWeights } from "./load_weights.ts";
import type { MetricsFile } from "./metrics.ts";
import { type ModelConfig, parameterShapes, readModelConfig } from "./model_config.ts";
import { type Network, prepareNetwork } from "./network.ts";
import { createParameters, destroyParameters, type Parameters, uploadParameters } from "./parameters.ts";
