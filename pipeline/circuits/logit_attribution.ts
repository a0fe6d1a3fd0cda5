/**
 * Direct logit attribution: what each component of a model adds to a logit, or to the difference of two, by what it
 * writes to the residual stream and nothing reads in between (Elhage et al. 2021, A Mathematical Framework for
 * Transformer Circuits).
 *
 * With each norm between a component and the logits held to the scale that it had, a logit is linear in what is written:
 * the final norm gives y = (x − mean) / σ · w + b, so a direction u of the vocabulary comes to u_x = centred(w · u) / σ in
 * the residual stream, and a component that writes c adds c · u_x. An RMS norm does not centre. A head writes z_h W_h, its
 * part of the layer's product, through the norm behind that where there is one.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import { scaleOf } from "../model/activation_names.ts";
import type { Parameter, Step } from "../model/op.ts";
import { normBehind, stepIn, trace } from "../model/trace.ts";
import type { CircuitModel } from "./engine.ts";
import { createGraph } from "./graph.ts";
import { layerIndices } from "./layout.ts";

/** What one component adds. */
export interface LogitPart {
  /**
   * As in circuits' graphs: `embed` (tokens and learned positions), head `a3.h1`, MLP `m2`; and of its own each bias that
   * is added to the stream (`a3.bias`, `m2.bias`) or by the final norm (`ln_final.bias`). What biases inside an attention
   * layer or an MLP do is its heads' or its own. Of a run in which something was replaced, at the end, `replaced`.
   */
  component: string;
  /** In the logits' unit. */
  value: number;
}

/** The activations that {@link attributeLogit} needs. */
export function attributedActivations(config: CircuitModel["config"]): string[] {
  const { embed, branches, final } = trace(config, { batch: 1, context: 1 });
  return [
    embed.writes.y.name,
    ...branches.flatMap((branch) => {
      const behind = normBehind(branch);
      const written = branch.kind === "attention"
        ? stepIn(branch, "attention").writes.y
        : stepIn(branch, "add").reads.x;
      return [written.name, ...(behind ? [scaleOf(behind)] : [])];
    }),
    scaleOf(final),
  ];
}

/**
 * What each component adds to the logit of `answer`, less that of `wrong`, in the order in which they are computed. The sum
 * is that logit, or difference, but for float32's rounding in the run.
 *
 * @param rowOf gives an activation at the position whose logits are meant, by name: [d], of heads [H · D], of scales [1]
 */
export async function attributeLogit(
  gpu: Gpu,
  { config, parameters }: CircuitModel,
  rowOf: (name: string) => ArrayLike<number>,
  { answer, wrong }: { answer: number; wrong?: number },
): Promise<LogitPart[]> {
  const { width, heads, headSize } = config;
  const { embed, branches, final, head } = trace(config, { batch: 1, context: 1 });
  const { sources, ...graph } = createGraph(config);
  const read = (parameter: Parameter): Promise<Float32Array> => gpu.read(parameters.get(parameter.name)!);
  const rowOfHead = (token: number) => gpu.read(parameters.get(head.name)!, token * width, width);

  /** A direction of what a norm gives, in what it reads, and what its bias adds along it. */
  async function before(norm: Step, direction: ArrayLike<number>) {
    const { weight, bias } = norm.parameters;
    const scale = rowOf(scaleOf(norm))[0];
    const weights = weight && await read(weight);
    const scaled = Float64Array.from(direction, (value, n) => value * (weights?.[n] ?? 1) / scale);
    const mean = config.norm.kind === "layer" ? scaled.reduce((sum, value) => sum + value, 0) / width : 0;
    return {
      direction: scaled.map((value) => value - mean),
      bias: bias && dot(await read(bias), direction),
    };
  }

  const ofAnswer = await rowOfHead(answer);
  const ofWrong = wrong === undefined ? new Float32Array(width) : await rowOfHead(wrong);
  const stream = await before(final, Float64Array.from(ofAnswer, (value, n) => value - ofWrong[n]));
  const parts: LogitPart[] = [];
  const give = (component: string, value: number): void => void parts.push({ component, value });
  give(sources[0].name, dot(rowOf(embed.writes.y.name), stream.direction));
  for (const branch of branches) {
    const { firstHead, mlp } = layerIndices({ sources, ...graph }, branch.layer);
    const behind = normBehind(branch);
    const { direction, bias: ofNorm } = behind
      ? await before(behind, stream.direction)
      : { ...stream, bias: undefined };
    const { weight, bias } = stepIn(branch, "out").parameters;
    const ofBias = bias && dot(await read(bias), direction);
    const unowned = (ofBias ?? 0) + (ofNorm ?? 0);
    if (branch.kind === "attention") {
      const z = rowOf(stepIn(branch, "attention").writes.y.name);
      const matrix = await read(weight);
      for (let head = 0; head < heads; head++) {
        let value = 0;
        for (let row = head * headSize; row < (head + 1) * headSize; row++) {
          value += z[row] * dot(matrix.subarray(row * width, (row + 1) * width), direction);
        }
        give(sources[firstHead + head].name, value);
      }
    } else {
      const added = rowOf(stepIn(branch, "add").reads.x.name);
      give(sources[mlp].name, dot(added, stream.direction) - unowned);
    }
    if (ofBias !== undefined || ofNorm !== undefined) {
      give(`${branch.kind === "attention" ? "a" : "m"}${branch.layer}.bias`, unowned);
    }
  }
  if (stream.bias !== undefined) give("ln_final.bias", stream.bias);
  return parts;
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let n = 0; n < a.length; n++) sum += a[n] * b[n];
  return sum;
}
