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
import { prepareMatmul } from "../../kernels/matmul/op.ts";
import type { CompiledOp, Pass, Value } from "../model/op.ts";
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

/** Norms look at neither gates nor edges. */
const PASS: Pass = { mode: "dense" };

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
  const { width } = model.config;
  const { delta, streams, norms, scores } = tensors;
  const rows = batch * positions;
  const { headSize: size } = shapeOf(model.config);
  const { ofHeads } = layerIndices(graph, 0);
  const all = graph.sources.length;
  const pairStep = scores.shape[1] / batch;
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
              batches: { count: batch, aStep: positions * width, bStep: positions * width, cStep: pairStep },
            }),
          ] as const
        ),
      ),
    );
  const products = { attention: await ofInputs(ofHeads), one: await ofInputs(1) };
  const first = (kind: Branch["kind"]): Branch => model.branches.find((branch) => branch.kind === kind)!;
  const isNormed = first("mlp").steps[0].op.kind === "norm";
  /** From the gradient of what products with `columns` of a weight give to that of what they read. */
  const intoStream = (count: number, columns: number) =>
    prepareMatmul(gpu, {
      layout: "nt",
      m: rows,
      n: width,
      k: columns,
      aStride: count * columns,
      bStride: count * columns,
      batches: { count, aStep: columns, bStep: columns, cStep: rows * width },
    });
  const fromHeads = await intoStream(ofHeads, size);
  const columns = stepIn(first("mlp"), "in").parameters.weight.shape[1];
  // The network's own backward gives what an MLP's norm reads.
  const fromMlp = isNormed ? undefined : await intoStream(1, columns);
  const normOf = async (count: number) =>
    isNormed ? await stepIn(first("mlp"), "norm").op.withGradients!(count).compile(gpu, true) : undefined;
  const [normAttention, normOne] = [await normOf(ofHeads), await normOf(1)];

  /** Adds the estimates of `count` inputs from `first` on, from the gradient of what they read. */
  function add(recorder: Recorder, first: number, count: number, gradient: Tensor): void {
    const product = (count === 1 ? products.one : products.attention)
      .get(productSources(graph.inputs[first].sources, all))!;
    product.record(recorder, { a: gradient, b: delta, c: rowsOf(scores, first, count) });
  }

  /** Backward of the norm that a branch begins with. */
  function throughNorm(
    recorder: Recorder,
    branch: Branch,
    norm: CompiledOp,
    { dy, dx }: Record<"dy" | "dx", Tensor>,
  ): void {
    const { reads, writes, parameters: own } = stepIn(branch, "norm");
    const [x, statistics] = [reads.x, writes.statistics].map(({ name }) => activations.get(name)!);
    const weight = own.weight && parameters.get(own.weight.name)!;
    norm.backward!(recorder, { x, statistics, dy, dx, ...(weight && { weight }) }, undefined, PASS);
  }
  /** What adds the estimates of a branch's inputs, and the value whose gradient it takes. */
  function ofBranch(branch: Branch): [Value, ActivationHook] {
    const { firstInput, mlpInput } = layerIndices(graph, branch.layer);
    const [at, count] = branch.kind === "attention" ? [firstInput, ofHeads] : [mlpInput, 1];
    const into = stepIn(branch, "in");
    const weight = parameters.get(into.parameters.weight.name)!;
    const [ofReads, ofNorms] = [streams, norms].map((t) =>
      within(t, "gradients of what a branch reads", [count, rows, width])
    );
    const product = branch.kind === "attention" ? fromHeads : fromMlp;
    const norm = branch.kind === "attention" ? normAttention : normOne;
    return [product ? into.writes.y : into.reads.x, (_, gradient, recorder) => {
      product?.record(recorder, { a: gradient, b: weight, c: ofReads });
      const dy = product ? ofReads : gradient;
      if (norm) throughNorm(recorder, branch, norm, { dy, dx: ofNorms });
      add(recorder, at, count, norm ? ofNorms : dy);
    }];
  }
  /** What adds an input's estimates, by the name of the activation whose gradient it takes. */
  const takers = new Map(
    [
      [
        model.final.reads.x,
        (_: string, dx: Tensor, r: Recorder) => add(r, graph.inputs.length - 1, 1, dx),
      ] as const,
      ...model.branches.map(ofBranch),
    ].map(([{ name }, hook]) => [name, hook]),
  );

  return {
    clear: (recorder) => recorder.clear(scores),
    hook: (name, tensor, recorder) => takers.get(name)?.(name, tensor, recorder),

    async read(pairs, scale) {
      const values = await gpu.read(scores);
      return Array.from({ length: pairs }, (_, pair) => {
        const ofPair = new Float32Array(graph.edges);
        graph.inputs.forEach(({ firstEdge, sources }, input) => {
          const at = (input * batch + pair) * pairStep;
          for (let source = 0; source < sources; source++) {
            ofPair[firstEdge + source] = scale * values[at + source];
          }
        });
        return ofPair;
      });
    },
  };
}
