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
import type { ActivationHook } from "../model/runner.ts";
import type { Parameters } from "../model/parameters.ts";
import { shapeOf } from "../model/config.ts";
import { type Model, stepIn } from "../model/trace.ts";
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
  { model, graph, parameters, rows, tensors }: {
    model: Model;
    graph: CircuitGraph;
    parameters: Parameters;
    rows: number;
    tensors: Record<"delta" | "minusAblated" | "base", Tensor>;
  },
): Promise<Sources> {
  const { branches, config: { width, heads } } = model;
  const { delta, minusAblated, base } = tensors;
  const { headSize: size } = shapeOf(model.config);
  const ofWriter = await prepareResidual(gpu, { length: rows * width });
  const ofHeads = await prepareMatmul(gpu, {
    layout: "nn",
    m: rows,
    n: width,
    k: size,
    aStride: heads * size,
    residual: true,
    batches: { count: heads, aStep: size, bStep: size * width, cStep: delta.shape[1] },
  });

  function writer(recorder: Recorder, source: number, output: Tensor): void {
    const [b, sum] = [minusAblated, delta].map((tensor) => rowOf(tensor, source, rows * width));
    ofWriter.forward(recorder, { a: output, b, sum });
  }

  const projections = branches.filter(({ kind }) => kind === "attention")
    .map((branch) => stepIn(branch, "out").parameters.weight.name);

  function ofLayer(recorder: Recorder, layer: number, z: Tensor): void {
    const { firstHead } = layerIndices(graph, layer);
    ofHeads.record(recorder, {
      a: z,
      b: parameters.get(projections[layer])!,
      residual: rowsOf(minusAblated, firstHead, heads),
      c: rowsOf(delta, firstHead, heads),
    });
  }

  const embedding: [string, ActivationHook] = [
    model.embed.writes.y.name,
    (_, tensor, recorder) => writer(recorder, 0, tensor),
  ];
  /** What collects each activation that a source has written, by its name. */
  const collectors = new Map([
    embedding,
    ...branches.map((branch): [string, ActivationHook] => {
      const { kind, layer } = branch;
      return kind === "attention"
        ? [stepIn(branch, "attention").writes.y.name, (_, z, recorder) => ofLayer(recorder, layer, z)]
        : [
          stepIn(branch, "out").writes.y.name,
          (_, output, recorder) => writer(recorder, layerIndices(graph, layer).mlp, output),
        ];
    }),
  ]);
  const streams = [...branches.map(({ stream }) => stream.name), model.final.reads.x.name];

  return {
    writer,
    heads: ofLayer,
    collect: (name, tensor, recorder) => collectors.get(name)?.(name, tensor, recorder),
    copyStreams(name, tensor, recorder) {
      const stream = streams.indexOf(name);
      if (stream >= 0) recorder.copy(tensor, rowsOf(base, stream, 1));
    },
  };
}

/** The first `length` elements of a row whose end is padding. */
export function rowOf(tensor: Tensor, row: number, length: number): Tensor {
  return { ...rowsOf(tensor, row, 1), shape: [length], length, byteLength: 4 * length };
}
