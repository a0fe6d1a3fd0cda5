/**
 * Edge attribution patching (Syed, Rager, Conmy, arXiv 2310.10348; with integrated gradients: Hanna, Pezzelle, Belinkov,
 * arXiv 2403.17806): the effect of every edge to first order, from one backward pass. The effect of the edge from source
 * s to input n is
 *
 *     sum over positions and width of delta_s · dM/dx_n
 *
 * with delta_s what s wrote for the clean prompt less its ablated value, and x_n what n reads from the residual stream.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import { rows as rowsOf, type Tensor, within } from "../../kernels/core/tensor.ts";
import { prepareLayerNorm } from "../../kernels/layer_norm/op.ts";
import { prepareMatmul } from "../../kernels/matmul/op.ts";
import type { ActivationHook } from "../model/runner.ts";
import type { Parameters } from "../model/parameters.ts";
import { shapeOf } from "../model/config.ts";
import { type Branch, type Model, stepIn } from "../model/trace.ts";
import type { CircuitGraph } from "./graph.ts";
import { layerIndices } from "./layout.ts";
import { productSources } from "./patched_run.ts";

/** Compiled for a batch. */
export interface Attribution {
  /** Sets the scores to zero. */
  clear(recorder: Recorder): void;
  /** A hook for the network's backward that adds each input's estimates to the scores. */
  readonly hook: ActivationHook;
  /** The sums of the batch's first `pairs` pairs times `scale`, [pair][edge]. */
  read(pairs: number, scale: number): Promise<Float32Array[]>;
}

/** Compiles the products of gradients with what sources wrote. */
export async function prepareAttribution(
  gpu: Gpu,
  { model, graph, parameters, batch, positions, tensors, activations }: {
    model: Model;
    graph: CircuitGraph;
    parameters: Parameters;
    batch: number;
    positions: number;
    tensors: Record<"delta" | "streams" | "norms" | "scores", Tensor>;
    /** Of the network that goes backward. */
    activations: ReadonlyMap<string, Tensor>;
  },
): Promise<Attribution> {
  const { width, layerNormEpsilon: epsilon } = model.config;
  const { delta, streams, norms, scores } = tensors;
  const rows = batch * positions;
  const { headSize: size } = shapeOf(model.config);
  const { ofHeads } = layerIndices(graph, 0);
  const all = graph.sources.length;
  const columns = scores.shape[1] / batch;
  const ofInputs = async (inputs: number) =>
    new Map(
      await Promise.all(
        [...new Set(graph.inputs.map(({ sources }) => productSources(sources, all)))].map(async (n) =>
          [
            n,
            await prepareMatmul(gpu, {
              layout: "nt",
              m: inputs,
              n,
              k: positions * width,
              aStride: rows * width,
              bStride: delta.shape[1],
              cStride: scores.shape[1],
              accumulate: true,
              batches: { count: batch, aStep: positions * width, bStep: positions * width, cStep: columns },
            }),
          ] as const
        ),
      ),
    );
  const products = { attention: await ofInputs(ofHeads), one: await ofInputs(1) };
  const intoNorm = await prepareMatmul(gpu, {
    layout: "nt",
    m: rows,
    n: width,
    k: size,
    aStride: ofHeads * size,
    bStride: ofHeads * size,
    batches: { count: ofHeads, aStep: size, bStep: size, cStep: rows * width },
  });
  const normAttention = await prepareLayerNorm(gpu, { rows, width, epsilon, gradients: ofHeads });
  const normOne = await prepareLayerNorm(gpu, { rows, width, epsilon });

  /** Adds the estimates of `count` inputs from `first` on, from the gradient of what they read. */
  function add(recorder: Recorder, first: number, count: number, gradient: Tensor): void {
    const product = (count === 1 ? products.one : products.attention)
      .get(productSources(graph.inputs[first].sources, all))!;
    product.record(recorder, { a: gradient, b: delta, c: rowsOf(scores, first, count) });
  }

  /** Of the norm that a branch begins with: what its backward takes. */
  function ofNorm(branch: Branch): Record<"x" | "weight" | "statistics", Tensor> {
    const { reads, writes, parameters: { weight } } = stepIn(branch, "norm");
    const [x, statistics] = [reads.x, writes.statistics].map(({ name }) => activations.get(name)!);
    return { x, statistics, weight: parameters.get(weight.name)! };
  }
  function ofMlp(branch: Branch): ActivationHook {
    const { mlpInput } = layerIndices(graph, branch.layer);
    const dx = within(norms, "gradient of what the MLP reads", [rows, width]);
    return (_, dy, recorder) => {
      normOne.backward(recorder, { ...ofNorm(branch), dy, dx });
      add(recorder, mlpInput, 1, dx);
    };
  }
  function ofAttention(branch: Branch): ActivationHook {
    const { firstInput } = layerIndices(graph, branch.layer);
    const weight = parameters.get(stepIn(branch, "in").parameters.weight.name)!;
    return (_, dqkv, recorder) => {
      intoNorm.record(recorder, { a: dqkv, b: weight, c: streams });
      normAttention.backward(recorder, { ...ofNorm(branch), dy: streams, dx: norms });
      add(recorder, firstInput, ofHeads, norms);
    };
  }
  /** What adds an input's estimates, by the name of the activation whose gradient it takes. */
  const takers = new Map<string, ActivationHook>([
    [model.final.reads.x.name, (_, dx, recorder) => add(recorder, graph.inputs.length - 1, 1, dx)],
    ...model.branches.map((branch): [string, ActivationHook] =>
      branch.kind === "attention"
        ? [stepIn(branch, "in").writes.y.name, ofAttention(branch)]
        : [stepIn(branch, "norm").writes.y.name, ofMlp(branch)]
    ),
  ]);

  return {
    clear: (recorder) => recorder.clear(scores),
    hook: (name, tensor, recorder) => takers.get(name)?.(name, tensor, recorder),

    async read(pairs, scale) {
      const values = await gpu.read(scores);
      return Array.from({ length: pairs }, (_, pair) => {
        const ofPair = new Float32Array(graph.edges);
        graph.inputs.forEach(({ firstEdge, sources }, input) => {
          const at = (input * batch + pair) * columns;
          for (let source = 0; source < sources; source++) {
            ofPair[firstEdge + source] = scale * values[at + source];
          }
        });
        return ofPair;
      });
    },
  };
}
