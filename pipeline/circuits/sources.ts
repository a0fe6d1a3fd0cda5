/**
 * What each source of a graph writes to the residual stream, collected from a network as it runs.
 *
 * Where a norm stands behind an attention layer, a head writes its part of what the norm makes of the layer's sum: the
 * head's own product times the norm's weight over the scale that the sum has in that run. The parts add up to what the
 * layer writes, and taking one away leaves the scale of the others as it was.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import { rows as rowsOf, type Tensor } from "../../kernels/core/tensor.ts";
import { prepareMatmul } from "../../kernels/matmul/op.ts";
import { prepareResidual } from "../../kernels/residual/op.ts";
import { prepareRmsNormParts } from "../../kernels/rms_norm/op.ts";
import type { ActivationHook } from "../model/runner.ts";
import type { Parameters } from "../model/parameters.ts";
import { shapeOf } from "../model/config.ts";
import type { Value } from "../model/op.ts";
import { type Branch, type Model, normBehind, stepIn } from "../model/trace.ts";
import type { CircuitGraph } from "./graph.ts";
import { layerIndices } from "./layout.ts";

/** Writes what sources compute, less their ablated values, to `delta`. */
export interface Sources {
  /** The embedding or an MLP from its output (row, width). */
  writer(recorder: Recorder, source: number, output: Tensor): void;
  /** A layer's heads, once all of its branch but its addition has run: `tensorOf` are its values. */
  heads(recorder: Recorder, branch: Branch, tensorOf: (value: Value) => Tensor): void;
  /** A hook for the forward of the unpatched network, which does both as it goes. */
  readonly collect: ActivationHook;
  /** A hook that only copies the residual stream: what each branch reads, and the end. */
  readonly copyStreams: ActivationHook;
}

/** Compiles the heads' outputs for a number of rows. `activations` are of the network that sources are collected from. */
export async function prepareSources(
  gpu: Gpu,
  { model, graph, parameters, rows, tensors, activations }: {
    model: Model;
    graph: CircuitGraph;
    parameters: Parameters;
    rows: number;
    tensors: Record<"delta" | "minusAblated" | "base", Tensor>;
    activations: ReadonlyMap<string, Tensor>;
  },
): Promise<Sources> {
  const { branches, config: { width, heads } } = model;
  const { delta, minusAblated, base } = tensors;
  const { headSize: size } = shapeOf(model.config);
  const stride = delta.shape[1];
  const ofWriter = await prepareResidual(gpu, { length: rows * width });
  const isNormed = normBehind(branches[0]) !== undefined;
  const ofHeads = await prepareMatmul(gpu, {
    layout: "nn",
    m: rows,
    n: width,
    k: size,
    aStride: heads * size,
    residual: !isNormed,
    batches: { count: heads, aStep: size, bStep: size * width, cStep: stride },
  });
  const normed = isNormed ? await prepareRmsNormParts(gpu, { rows, width, count: heads, stride }) : undefined;

  function writer(recorder: Recorder, source: number, output: Tensor): void {
    const [b, sum] = [minusAblated, delta].map((tensor) => rowOf(tensor, source, rows * width));
    ofWriter.forward(recorder, { a: output, b, sum });
  }

  const ofLayer: Sources["heads"] = (recorder, branch, tensorOf) => {
    const { firstHead } = layerIndices(graph, branch.layer);
    const out = stepIn(branch, "out");
    const [residual, c] = [minusAblated, delta].map((tensor) => rowsOf(tensor, firstHead, heads));
    const b = parameters.get(out.parameters.weight.name)!;
    ofHeads.record(recorder, { a: tensorOf(out.reads.x), b, residual, c });
    const norm = normBehind(branch);
    if (!norm) return;
    const weight = parameters.get(norm.parameters.weight.name)!;
    normed!.record(recorder, { parts: c, statistics: tensorOf(norm.writes.statistics), weight, residual });
  };

  /** What collects each activation that a source has written, by its name. */
  const collectors = new Map<string, ActivationHook>([
    [model.embed.writes.y.name, (_, tensor, recorder) => writer(recorder, 0, tensor)],
    ...branches.map((branch): [string, ActivationHook] => [
      stepIn(branch, "add").reads.x.name,
      branch.kind === "attention"
        ? (_, _output, recorder) => ofLayer(recorder, branch, ({ name }) => activations.get(name)!)
        : (_, output, recorder) => writer(recorder, layerIndices(graph, branch.layer).mlp, output),
    ]),
  ]);
  const streams = [...branches.map(({ stream }) => stream.name), model.final.reads.x.name];

  return {
    writer,
    heads: ofLayer,
    collect: (name, tensor, recorder) => collectors.get(name)?.(name, tensor, recorder),
    copyStreams(name, tensor, recorder) {
      for (const [n, stream] of streams.entries()) {
        if (stream === name) recorder.copy(tensor, rowsOf(base, n, 1));
      }
    },
  };
}

/** The first `length` elements of a row whose end is padding. */
export function rowOf(tensor: Tensor, row: number, length: number): Tensor {
  return { ...rowsOf(tensor, row, 1), shape: [length], length, byteLength: 4 * length };
}
