/**
 * What each source of a graph writes to the residual stream, collected from a network as it runs.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import { rows as rowsOf, type Tensor } from "../../kernels/core/tensor.ts";
import { prepareMatmul } from "../../kernels/matmul/op.ts";
import { prepareResidual } from "../../kernels/residual/op.ts";
import type { ModelConfig } from "../model_config.ts";
import type { ActivationHook } from "../model/network.ts";
import type { Parameters } from "../model/parameters.ts";
import type { CircuitGraph } from "./graph.ts";
import { layerIndices } from "./layout.ts";

/** Writes what sources compute, less their ablated values, to `delta`. */
export interface Sources {
  /** The embedding or an MLP from its output (row, width). */
  writer(recorder: Recorder, source: number, output: Tensor): void;
  /** A layer's heads from their z (row, head, D). */
  heads(recorder: Recorder, layer: number, z: Tensor): void;
  /** A hook for the forward of the unpatched network, which does both as it goes. */
  readonly collect: ActivationHook;
  /** A hook that only copies the residual stream: before and inside each layer, and at the end. */
  readonly copyStreams: ActivationHook;
}

/** Compiles the heads' outputs for a number of rows. */
export async function prepareSources(
  gpu: Gpu,
  { config, graph, parameters, rows, tensors }: {
    config: ModelConfig;
    graph: CircuitGraph;
    parameters: Parameters;
    rows: number;
    tensors: Record<"delta" | "minusAblated" | "base", Tensor>;
  },
): Promise<Sources> {
  const { width, heads, layers } = config;
  const { delta, minusAblated, base } = tensors;
  const size = width / heads;
  const ofWriter = await prepareResidual(gpu, { length: rows * width });
  const ofHeads = await prepareMatmul(gpu, {
    layout: "nn",
    m: rows,
    n: width,
    k: size,
    aStride: width,
    residual: true,
    batches: { count: heads, aStep: size, bStep: size * width, cStep: delta.shape[1] },
  });

  function writer(recorder: Recorder, source: number, output: Tensor): void {
    const [b, sum] = [minusAblated, delta].map((tensor) => rowOf(tensor, source, rows * width));
    ofWriter.forward(recorder, { a: output, b, sum });
  }

  function ofLayer(recorder: Recorder, layer: number, z: Tensor): void {
    const { firstHead } = layerIndices(graph, layer);
    ofHeads.record(recorder, {
      a: z,
      b: parameters.get(`h.${layer}.attn.c_proj.weight`)!,
      residual: rowsOf(minusAblated, firstHead, heads),
      c: rowsOf(delta, firstHead, heads),
    });
  }

  return {
    writer,
    heads: ofLayer,
    collect(name, tensor, recorder) {
      const [, layer, what] = /^blocks\.(\d+)\.(?:attn\.)?hook_(z|mlp_out|resid_pre)$/.exec(name) ?? [];
      if (what === "z") ofLayer(recorder, Number(layer), tensor);
      if (what === "mlp_out") writer(recorder, layerIndices(graph, Number(layer)).mlp, tensor);
      if (what === "resid_pre" && layer === "0") writer(recorder, 0, tensor);
    },
    copyStreams(name, tensor, recorder) {
      const [, layer, what] = /^blocks\.(\d+)\.hook_resid_(pre|mid|post)$/.exec(name) ?? [];
      if (what === undefined || (what === "post" && Number(layer) < layers - 1)) return;
      const stream = 2 * Number(layer) + ["pre", "mid", "post"].indexOf(what);
      recorder.copy(tensor, rowsOf(base, stream, 1));
    },
  };
}

/** The first `length` elements of a row whose end is padding. */
export function rowOf(tensor: Tensor, row: number, length: number): Tensor {
  return { ...rowsOf(tensor, row, 1), shape: [length], length, byteLength: 4 * length };
}
