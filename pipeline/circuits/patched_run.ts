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
import { prepareMatmul } from "../../kernels/matmul/op.ts";
import type { Step, Value } from "../model/op.ts";
import type { Parameters } from "../model/parameters.ts";
import { type Bindings, prepareSteps } from "../model/runner.ts";
import { type Group, grouped } from "../model/schedule.ts";
import { type Branch, type Model, normBehind, stepIn, trace } from "../model/trace.ts";
import type { CircuitGraph } from "./graph.ts";
import { hardGates } from "../model/gates.ts";
import { layerIndices } from "./layout.ts";
import { rowOf, type Sources } from "./sources.ts";

/** A compiled run. */
export interface PatchedRun {
  /** The prompts that run, (pair, position). */
  upload(tokens: Uint32Array): void;
  /**
   * Overwrites `delta`; what is returned is the final norm's output (row, width).
   *
   * @param from the first input whose mask is another than in the run before, of the same prompts and ablated values:
   * what comes before it stands in `delta` already; 0: all is run
   */
  record(recorder: Recorder, mode: Extract<GateMode, "dense" | "deterministic">, from: number): Tensor;
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
  const { width, gate } = model.config;
  const { delta, minusAblated, base, streams, norms, statistics, mask } = tensors;
  const rows = batch * positions;
  const { headSize: size } = model.config;
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
  const queryKeyValue = await prepareMatmul(gpu, {
    layout: "nn",
    m: rows,
    n: size,
    k: width,
    bStride: ofHeads * size,
    cStride: ofHeads * size,
    bias: stepIn(model.branches[0], "in").parameters.bias !== undefined,
    batches: { count: ofHeads, aStep: rows * width, bStep: size, cStep: size },
  });
  // What the inputs of an attention layer read is normed as that many prompts are.
  const wide = trace(model.config, { batch: ofHeads * batch, context: positions });
  const branches = model.branches.map((branch, n) => partsOf(branch, wide.branches[n], model.branches[0]));
  const allNorms = [...branches.map(({ norm }) => norm), model.final].filter((norm) => norm !== undefined);
  const groups = [
    [model.embed],
    ...allNorms.map((norm) => [norm]),
    ...branches.flatMap(({ inside, end }) => end ? [...inside, end] : inside),
  ] as Group[];
  const runner = await prepareSteps(gpu, groups, { training: false });
  const gates = { ...hardGates(gate?.bias, batch), edgeWeight: 0 };
  for (const op of runner.ops) op.configureGates?.(gates);
  const oneStream = within(streams, "what one input reads", [rows, width]);
  const oneNorm = within(norms, "one input's norm", [rows, width]);
  const networks = (value: Value): Tensor => scratch.get(value.name)!;

  /** The network's activations but for some values. */
  const bind = (others: readonly (readonly [Value, Tensor])[] = []): Bindings => {
    const elsewhere = new Map(others);
    return { parameters, tensorOf: (value) => elsewhere.get(value) ?? networks(value) };
  };

  /** What `count` inputs from `first` on read of a stream, normed where they begin with that. */
  function read(
    recorder: Recorder,
    { first, count, stream, norm, mode }: {
      first: number;
      count: number;
      stream: number;
      norm: Step | undefined;
      mode: GateMode;
    },
  ): Tensor {
    const product = count === 1 ? products.one : products.attention;
    const [x, y] = count === 1 ? [oneStream, oneNorm] : [streams, norms];
    product.get(productSources(graph.inputs[first].sources, all))!.record(recorder, {
      a: rowsOf(mask, first, count),
      b: delta,
      bias: rowOf(base, stream, rows * width),
      c: x,
    });
    if (!norm) return x;
    const ofRows = norm.writes.statistics;
    const elsewhere = [[norm.reads.x, x], [norm.writes.y, y], [
      ofRows,
      within(statistics, ofRows.name, ofRows.shape),
    ]] as const;
    runner.run(recorder, [norm], bind(elsewhere), { mode });
    return y;
  }

  return {
    upload(tokens) {
      for (const op of runner.ops) op.upload?.(tokens);
    },
    record(recorder, mode, from) {
      if (from === 0) {
        runner.run(recorder, [model.embed], bind([[model.embed.writes.y, oneStream]]), { mode });
        sources.writer(recorder, 0, oneStream);
      }
      for (const [stream, branch] of model.branches.entries()) {
        const { norm, inside, end } = branches[stream];
        const { firstInput, mlpInput, mlp } = layerIndices(graph, branch.layer);
        const lastInput = branch.kind === "attention" ? firstInput + ofHeads - 1 : mlpInput;
        if (lastInput < from) continue;
        const into = stepIn(branch, "in");
        const given: [Value, Tensor][] = [];
        if (branch.kind === "attention") {
          const { weight, bias } = into.parameters;
          queryKeyValue.record(recorder, {
            a: read(recorder, { first: firstInput, count: ofHeads, stream, norm, mode }),
            b: parameters.get(weight.name)!,
            bias: bias && parameters.get(bias.name)!,
            c: networks(into.writes.y),
          });
        } else given.push([into.reads.x, read(recorder, { first: mlpInput, count: 1, stream, norm, mode })]);
        for (const group of inside) runner.run(recorder, group, bind(given), { mode });
        if (!end) sources.heads(recorder, branch, networks);
        else {
          const { reads, writes } = stepIn(branch, "add");
          const ended = bind([
            [reads.stream, rowOf(minusAblated, mlp, rows * width)],
            [writes.y, rowOf(delta, mlp, rows * width)],
          ]);
          runner.run(recorder, end, ended, { mode });
        }
      }
      const [first, stream] = [graph.inputs.length - 1, model.branches.length];
      return read(recorder, { first, count: 1, stream, norm: model.final, mode });
    },
    destroy: () => runner.destroy(),
  };
}

/** How a branch is run. */
interface BranchParts {
  /** What its inputs begin with. */
  norm: Step | undefined;
  /** What lies behind the norm, and of attention behind the product that gives queries, keys and values. */
  inside: Group[];
  /** Of an MLP what ends in the addition, in whose place the ablated value is taken away; heads write by themselves. */
  end: Group | undefined;
}

/**
 * @param wide the same of a model whose rows are all that the inputs of an attention layer read
 * @param first the first attention layer, whose gates are as every layer's where they have no noise
 */
function partsOf(branch: Branch, wide: Branch, first: Branch): BranchParts {
  const { kind, steps } = branch;
  const isNormed = steps[0].op.kind === "norm";
  if (kind === "mlp") {
    const groups = grouped(steps.slice(isNormed ? 1 : 0));
    return { norm: isNormed ? steps[0] : undefined, inside: groups.slice(0, -1), end: groups.at(-1) };
  }
  const [from, to] = (["in", "attention"] as const).map((what) => steps.indexOf(stepIn(branch, what)) + 1);
  const { op } = stepIn(first, "attention");
  // Of what is behind attention only the scale of a norm is needed.
  const inside = steps.slice(from, normBehind(branch) ? -1 : to)
    .map((step) => step.op.kind === "attention" ? { ...step, op } : step);
  return { norm: isNormed ? wide.steps[0] : undefined, inside: grouped(inside), end: undefined };
}
