/**
 * The edge-patched run: what an input reads is the ablated residual stream plus, for each kept edge, what its source
 * wrote in this run less its ablated value. One product with a matrix of zeros and ones gives what all inputs of a layer
 * read.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import { rows as rowsOf, type Tensor, within } from "../../kernels/core/tensor.ts";
import { prepareEmbedding } from "../../kernels/embedding/op.ts";
import { type GateMode, prepareGatedAttention } from "../../kernels/gated_attention/op.ts";
import { prepareLayerNorm } from "../../kernels/layer_norm/op.ts";
import { prepareMatmul } from "../../kernels/matmul/op.ts";
import type { ModelConfig } from "../model_config.ts";
import type { Parameters } from "../model/parameters.ts";
import type { CircuitGraph } from "./graph.ts";
import { layerIndices } from "./layout.ts";
import { rowOf, type Sources } from "./sources.ts";

/** A compiled run. */
export interface PatchedRun {
  /** The prompts that run, (pair, position). */
  upload(tokens: Uint32Array): void;
  /** Overwrites `delta`; what is returned is the final layer norm's output (row, width). */
  record(recorder: Recorder, mode: Extract<GateMode, "dense" | "deterministic">): Tensor;
  /** Frees what it holds beside the engine's tensors. */
  destroy(): void;
}

/** Products over sources come in this many sizes at most, each of which has a kernel to compile, */
const SIZES = 4;
/** and no more than needed for steps of this many sources. */
const LEAST_STEP = 16;

/** Sources that a product goes over when an input has `count`, of `all`: rounded up, the mask being 0 past them. */
export function productSources(count: number, all: number): number {
  const step = Math.max(LEAST_STEP, 4 * Math.ceil(all / (4 * SIZES)));
  return Math.min(all, step * Math.ceil(count / step));
}

/** Compiles the run for a batch. `scratch` are activations of a network that is not running then. */
export async function preparePatchedRun(
  gpu: Gpu,
  { config, graph, parameters, batch, positions, tensors, scratch, sources }: {
    config: ModelConfig;
    graph: CircuitGraph;
    parameters: Parameters;
    batch: number;
    positions: number;
    tensors: Record<"delta" | "minusAblated" | "base" | "streams" | "norms" | "statistics" | "mask", Tensor>;
    scratch: ReadonlyMap<string, Tensor>;
    sources: Sources;
  },
): Promise<PatchedRun> {
  const { width, heads, layers, mlpWidth, vocabularySize, layerNormEpsilon: epsilon } = config;
  const { delta, minusAblated, base, streams, norms, statistics, mask } = tensors;
  const rows = batch * positions;
  const size = width / heads;
  const all = graph.sources.length;
  const ofInputs = async (inputs: number) =>
    new Map(
      await Promise.all(
        [...new Set(graph.inputs.map(({ sources }) => productSources(sources, all)))].map(async (k) =>
          [
            k,
            await prepareMatmul(gpu, {
              layout: "nn",
              m: inputs,
              n: rows * width,
              k,
              aStride: mask.shape[1],
              bStride: delta.shape[1],
              bias: true,
            }),
          ] as const
        ),
      ),
    );
  const products = { attention: await ofInputs(3 * heads), one: await ofInputs(1) };
  const normAttention = await prepareLayerNorm(gpu, { rows: 3 * heads * rows, width, epsilon });
  const normOne = await prepareLayerNorm(gpu, { rows, width, epsilon });
  const queryKeyValue = await prepareMatmul(gpu, {
    layout: "nn",
    m: rows,
    n: size,
    k: width,
    bStride: 3 * width,
    cStride: 3 * width,
    bias: true,
    batches: { count: 3 * heads, aStep: rows * width, bStep: size, cStep: size },
  });
  const mlpIn = await prepareMatmul(gpu, {
    layout: "nn",
    m: rows,
    n: mlpWidth,
    k: width,
    bias: true,
    gelu: true,
  });
  const mlpOut = await prepareMatmul(gpu, {
    layout: "nn",
    m: rows,
    n: width,
    k: mlpWidth,
    bias: true,
    residual: true,
  });
  const embedding = await prepareEmbedding(gpu, { batch, positions, vocabularySize, width });
  const attention = await prepareGatedAttention(gpu, {
    batch,
    heads,
    positions,
    headSize: size,
    layer: 0,
    training: false,
  });
  attention.configure({
    seed: 0,
    step: 0,
    firstRow: 0,
    bias: config.gate?.bias ?? 0,
    temperature: 1,
    edgeWeight: 0,
    saturationWeight: 0,
    saturationBound: 0,
  });
  const get = (name: string): Tensor => parameters.get(name)!;
  const borrowed = (name: string): Tensor => scratch.get(`blocks.0.${name}`)!;
  const oneStream = within(streams, "what one input reads", [rows, width]);
  const oneNorm = within(norms, "one input's layer norm", [rows, width]);

  /** What `count` inputs from `first` on read, normalised. */
  function read(recorder: Recorder, first: number, count: number, stream: number, norm: string): void {
    const product = count === 1 ? products.one : products.attention;
    const [x, y] = count === 1 ? [oneStream, oneNorm] : [streams, norms];
    product.get(productSources(graph.inputs[first].sources, all))!.record(recorder, {
      a: rowsOf(mask, first, count),
      b: delta,
      bias: rowOf(base, stream, rows * width),
      c: x,
    });
    (count === 1 ? normOne : normAttention).forward(recorder, {
      x,
      weight: get(`${norm}.weight`),
      bias: get(`${norm}.bias`),
      y,
      statistics: within(statistics, "statistics", [count * rows, 2]),
    });
  }

  return {
    upload: (tokens) => embedding.upload(tokens),
    record(recorder, mode) {
      embedding.forward(recorder, {
        tokenEmbedding: get("wte.weight"),
        positionEmbedding: get("wpe.weight"),
        x: oneStream,
      });
      sources.writer(recorder, 0, oneStream);
      for (let layer = 0; layer < layers; layer++) {
        const h = `h.${layer}`;
        const { firstInput, mlpInput, mlp } = layerIndices(graph, layer);
        read(recorder, firstInput, 3 * heads, 2 * layer, `${h}.ln_1`);
        queryKeyValue.record(recorder, {
          a: norms,
          b: get(`${h}.attn.c_attn.weight`),
          bias: get(`${h}.attn.c_attn.bias`),
          c: borrowed("attn.hook_qkv"),
        });
        attention.forward(recorder, mode, {
          qkv: borrowed("attn.hook_qkv"),
          y: borrowed("attn.hook_z"),
          logSumExp: borrowed("attn.log_sum_exp"),
          rowSums: borrowed("attn.row_sums"),
        });
        sources.heads(recorder, layer, borrowed("attn.hook_z"));
        read(recorder, mlpInput, 1, 2 * layer + 1, `${h}.ln_2`);
        mlpIn.record(recorder, {
          a: oneNorm,
          b: get(`${h}.mlp.c_fc.weight`),
          bias: get(`${h}.mlp.c_fc.bias`),
          c: borrowed("mlp.hook_pre"),
          activated: borrowed("mlp.hook_post"),
        });
        mlpOut.record(recorder, {
          a: borrowed("mlp.hook_post"),
          b: get(`${h}.mlp.c_proj.weight`),
          bias: get(`${h}.mlp.c_proj.bias`),
          residual: rowOf(minusAblated, mlp, rows * width),
          c: rowOf(delta, mlp, rows * width),
        });
      }
      read(recorder, graph.inputs.length - 1, 1, 2 * layers, "ln_f");
      return oneNorm;
    },
    destroy() {
      for (const op of [embedding, attention]) op.destroy();
    },
  };
}
