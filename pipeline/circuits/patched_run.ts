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
import type { GateMode } from "../../kernels/gated_attention/op.ts";
import { prepareLayerNorm } from "../../kernels/layer_norm/op.ts";
import { prepareMatmul } from "../../kernels/matmul/op.ts";
import { shapeOf } from "../model/config.ts";
import type { Step, Value } from "../model/op.ts";
import type { Parameters } from "../model/parameters.ts";
import { type Bindings, prepareSteps } from "../model/runner.ts";
import { grouped } from "../model/schedule.ts";
import { type Branch, type Model, stepIn } from "../model/trace.ts";
import type { CircuitGraph } from "./graph.ts";
import { hardGates } from "../model/network.ts";
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
  { model, graph, parameters, batch, positions, tensors, scratch, sources }: {
    model: Model;
    graph: CircuitGraph;
    parameters: Parameters;
    batch: number;
    positions: number;
    tensors: Record<"delta" | "minusAblated" | "base" | "streams" | "norms" | "statistics" | "mask", Tensor>;
    scratch: ReadonlyMap<string, Tensor>;
    sources: Sources;
  },
): Promise<PatchedRun> {
  const { width, layerNormEpsilon: epsilon, gate } = model.config;
  const { delta, minusAblated, base, streams, norms, statistics, mask } = tensors;
  const rows = batch * positions;
  const { headSize: size } = shapeOf(model.config);
  const { ofHeads } = layerIndices(graph, 0);
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
  const products = { attention: await ofInputs(ofHeads), one: await ofInputs(1) };
  const normAttention = await prepareLayerNorm(gpu, { rows: ofHeads * rows, width, epsilon });
  const normOne = await prepareLayerNorm(gpu, { rows, width, epsilon });
  const queryKeyValue = await prepareMatmul(gpu, {
    layout: "nn",
    m: rows,
    n: size,
    k: width,
    bStride: ofHeads * size,
    cStride: ofHeads * size,
    bias: true,
    batches: { count: ofHeads, aStep: rows * width, bStep: size, cStep: size },
  });
  // One layer's attention is as another's where gates have no noise.
  const attention = stepIn(model.branches[0], "attention");
  const behindNorm = ({ steps }: Branch) => grouped(steps.slice(1));
  const mlps = model.branches.filter(({ kind }) => kind === "mlp").map(behindNorm);
  const runner = await prepareSteps(gpu, [[model.embed], [attention], ...mlps.flat()], { training: false });
  const gates = { ...hardGates(gate?.bias, batch), edgeWeight: 0 };
  for (const op of runner.ops) op.configureGates?.(gates);
  const get = (name: string): Tensor => parameters.get(name)!;
  const oneStream = within(streams, "what one input reads", [rows, width]);
  const oneNorm = within(norms, "one input's layer norm", [rows, width]);

  /** The network's activations but for some values. */
  const bind = (others: readonly (readonly [Value, Tensor])[] = []): Bindings => {
    const elsewhere = new Map(others);
    return { parameters, tensorOf: (value) => elsewhere.get(value) ?? scratch.get(value.name)! };
  };

  /** What `count` inputs from `first` on read of a stream, normalised. */
  function read(
    recorder: Recorder,
    first: number,
    count: number,
    stream: number,
    { parameters }: Step,
  ): void {
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
      weight: get(parameters.weight.name),
      bias: get(parameters.bias.name),
      y,
      statistics: within(statistics, "statistics", [count * rows, 2]),
    });
  }

  return {
    upload(tokens) {
      for (const op of runner.ops) op.upload?.(tokens);
    },
    record(recorder, mode) {
      runner.run(recorder, [model.embed], bind([[model.embed.writes.y, oneStream]]), { mode });
      sources.writer(recorder, 0, oneStream);
      for (const [stream, branch] of model.branches.entries()) {
        const norm = stepIn(branch, "norm");
        const { firstInput, mlpInput, mlp } = layerIndices(graph, branch.layer);
        if (branch.kind === "attention") {
          const { weight, bias } = stepIn(branch, "in").parameters;
          const { tensorOf } = bind();
          read(recorder, firstInput, ofHeads, stream, norm);
          queryKeyValue.record(recorder, {
            a: norms,
            b: get(weight.name),
            bias: get(bias.name),
            c: tensorOf(attention.reads.x),
          });
          runner.run(recorder, [attention], bind(), { mode });
          sources.heads(recorder, branch.layer, tensorOf(attention.writes.y));
        } else {
          const { reads, writes } = stepIn(branch, "add");
          const bindings = bind([
            [norm.writes.y, oneNorm],
            [reads.stream, rowOf(minusAblated, mlp, rows * width)],
            [writes.y, rowOf(delta, mlp, rows * width)],
          ]);
          read(recorder, mlpInput, 1, stream, norm);
          for (const group of behindNorm(branch)) runner.run(recorder, group, bindings, { mode });
        }
      }
      read(recorder, graph.inputs.length - 1, 1, model.branches.length, model.final);
      return oneNorm;
    },
    destroy: () => runner.destroy(),
  };
}
