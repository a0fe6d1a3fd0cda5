/**
 * Training's whole objective in float64, put together from the kernels' references: forward, head, teacher and backward
 * of a batch of any number of rows at once, with nothing cut into micro-batches, slices or blocks. What the device does
 * in parts must add up to this.
 *
 * Shapes: R rows, T positions, d width, H heads, V vocabulary.
 *
 * @module
 */
import {
  crossEntropyGradientReference,
  crossEntropyReference,
} from "../../kernels/cross_entropy/reference.ts";
import { distillationReference } from "../../kernels/distillation/reference.ts";
import { embeddingGradientReference, embeddingReference } from "../../kernels/embedding/reference.ts";
import {
  attentionGradientReference,
  attentionReference,
  type AttentionReferenceInput,
} from "../../kernels/gated_attention/reference.ts";
import { geluGradientReference, geluReference } from "../../kernels/gelu/reference.ts";
import { layerNormGradientReference, layerNormReference } from "../../kernels/layer_norm/reference.ts";
import { biasGradientReference, matmulReference } from "../../kernels/matmul/reference.ts";
import { elementsOf } from "../../kernels/core/tensor.ts";
import type { ModelConfig } from "../../pipeline/model/config.ts";
import { parametersOf } from "../../pipeline/model/trace.ts";
import { normals } from "./seeded.ts";

/** Parameters by name, as the device has them. */
export type Weights = ReadonlyMap<string, ArrayLike<number>>;

/** Rows of tokens [R · T], each with the token that follows it; a target outside the vocabulary does not count. */
export interface Rows {
  inputs: ArrayLike<number>;
  targets: ArrayLike<number>;
  /** What each position's gradient of the loss is multiplied by; left out: 1. */
  weights?: ArrayLike<number>;
}

/** How gates are computed; left out: dense attention. */
export interface ReferenceGate {
  bias: number;
  /** With noise the gates are sampled and trained; left out: hard ones. */
  noise?: { seed: number; step: number };
  temperature?: number;
  saturationBound?: number;
  saturationWeight?: number;
  /** Power of 1 + distance by which edges weigh less in E's gradient; left out: 0. */
  distancePower?: number;
}

/** Sums of one head over all rows. */
export interface ReferenceHead {
  openProbability: number;
  /** Edges that were open, with the noise. */
  openUsed: number;
  saturation: number;
  /** Edges that are open without noise. */
  open: number;
  /** Queries that have no such edge. */
  dead: number;
}

/** What a model makes of a batch. */
export interface ReferenceLosses {
  /** Mean over counted positions, nats. */
  ce: number;
  counted: number;
  /** Counted positions whose target has the highest logit. */
  correct: number;
  /** 1 for rows in which every counted position has. */
  exact: number[];
  /** Of each row, the sum of the losses of its counted positions, nats. */
  rowLosses: number[];
  /** [L · H] */
  heads: ReferenceHead[];
  /** Logits [R · T, V]. */
  logits: Float64Array;
  /** How near the nearest gate stands to its threshold: float32 must not flip it. */
  margin: number;
}

/** Random weights with which scores have a standard deviation of about 2, so that gates open and close. */
export function randomWeights(config: ModelConfig, seed: number): Map<string, Float32Array> {
  return new Map(
    parametersOf(config).map(({ name, shape }, index) => {
      const length = elementsOf(shape);
      const scale = shape.length === 1 ? 0.1 : /^w[tp]e/.test(name) ? 0.3 : 1.5 / Math.sqrt(shape[0]);
      const offset = /ln_\w+\.weight$/.test(name) ? 1 : 0;
      return [name, normals(100 * seed + index, length, scale).map((value) => offset + value)];
    }),
  );
}

/** Everything that backward needs of a forward. */
function forward(
  config: ModelConfig,
  weights: Weights,
  inputs: ArrayLike<number>,
  context: number,
  gate?: ReferenceGate,
) {
  const { width, heads, mlpWidth, norm: { epsilon } } = config;
  const rows = inputs.length;
  const get = (name: string): ArrayLike<number> => weights.get(name)!;
  const norm = (name: string, x: Float64Array) =>
    layerNormReference(x, get(`${name}.weight`), get(`${name}.bias`), epsilon);
  const linear = (name: string, x: Float64Array, k: number, n: number) =>
    matmulReference({
      layout: "nn",
      m: rows,
      n,
      k,
      a: x,
      b: get(`${name}.weight`),
      bias: get(`${name}.bias`),
    });
  const plus = (a: Float64Array, b: Float64Array) => a.map((value, n) => value + b[n]);

  let stream = embeddingReference(inputs, context, width, get("wte.weight"), get("wpe.weight"));
  let margin = Infinity;
  const sums: ReferenceHead[] = [];
  const layers = Array.from({ length: config.layers }, (_, layer) => {
    const h = `h.${layer}`;
    const residualPre = stream;
    const norm1 = norm(`${h}.ln_1`, residualPre);
    const qkv = linear(`${h}.attn.c_attn`, norm1, width, 3 * width);
    const attention: AttentionReferenceInput = {
      batch: rows / context,
      heads,
      positions: context,
      headSize: width / heads,
      qkv,
      gate: gate && {
        bias: gate.bias,
        temperature: gate.temperature ?? 1,
        noise: gate.noise && { ...gate.noise, layer, firstRow: 0 },
        saturationBound: gate.saturationBound ?? Infinity,
        saturationWeight: gate.saturationWeight ?? 0,
        edgeGradient: 0,
        distancePower: gate.distancePower ?? 0,
      },
    };
    const { y: z, rowSums, noisyLogits } = attentionReference(attention);
    if (gate) margin = noisyLogits.reduce((least, logit) => Math.min(least, Math.abs(logit)), margin);
    for (let head = 0; head < heads; head++) {
      const sum: ReferenceHead = { openProbability: 0, openUsed: 0, saturation: 0, open: 0, dead: 0 };
      for (let row = 0; row < rows; row++) {
        const at = 4 * ((Math.floor(row / context) * heads + head) * context + row % context);
        sum.openProbability += rowSums[at];
        sum.openUsed += rowSums[at + 1];
        sum.saturation += rowSums[at + 2];
        sum.open += rowSums[at + 3];
        if (rowSums[at + 3] === 0) sum.dead++;
      }
      sums.push(sum);
    }
    const residualMid = plus(residualPre, linear(`${h}.attn.c_proj`, z, width, width));
    const norm2 = norm(`${h}.ln_2`, residualMid);
    const mlpPre = linear(`${h}.mlp.c_fc`, norm2, width, mlpWidth);
    const mlpPost = geluReference(mlpPre);
    stream = plus(residualMid, linear(`${h}.mlp.c_proj`, mlpPost, mlpWidth, width));
    return { h, residualPre, norm1, attention, z, residualMid, norm2, mlpPre, mlpPost };
  });
  const final = norm("ln_f", stream);
  const V = config.vocabularySize;
  const logits = matmulReference({ layout: "nt", m: rows, n: V, k: width, a: final, b: get("wte.weight") });
  return { layers, stream, final, logits, sums, margin };
}

/** Loss and edges of a batch, without gradients. */
export function referenceLosses(
  { config, weights, context, gate }: {
    config: ModelConfig;
    weights: Weights;
    /** T. */
    context: number;
    gate?: ReferenceGate;
  },
  { inputs, targets }: Rows,
): ReferenceLosses {
  return lossesOf(config, forward(config, weights, inputs, context, gate), targets, context);
}

function lossesOf(
  { vocabularySize }: ModelConfig,
  { logits, sums, margin }: ReturnType<typeof forward>,
  targets: ArrayLike<number>,
  context: number,
): ReferenceLosses {
  const { losses, correct } = crossEntropyReference(logits, targets, vocabularySize);
  const counts = Array.from(targets, (target) => target < vocabularySize);
  const counted = counts.filter((counts) => counts).length;
  const exact = Array.from(
    { length: targets.length / context },
    (_, row) =>
      counts.some((counts, at) => Math.floor(at / context) === row && counts && !correct[at]) ? 0 : 1,
  );
  return {
    ce: losses.reduce((sum, loss) => sum + loss, 0) / counted,
    counted,
    correct: correct.reduce((sum, value) => sum + value, 0),
    exact,
    rowLosses: Array.from(
      { length: targets.length / context },
      (_, row) => losses.subarray(row * context, (row + 1) * context).reduce((sum, loss) => sum + loss, 0),
    ),
    heads: sums,
    logits,
    margin,
  };
}

/** What one step's objective is made of (docs/method.md). */
export interface ReferenceObjective {
  config: ModelConfig;
  weights: Weights;
  /** T. */
  context: number;
  /** Left out: dense training, whose objective is CE. */
  gate?: ReferenceGate;
  /** The λ that acts: [E + ρ R + λ (CE + w KL − τ)] / (1 + λ). Needed with `gate`. */
  lambda?: number;
  /** w, and the dense model that is followed. */
  distill?: { teacher: Weights; weight: number };
}

/** The losses, KL averaged over counted positions, and the objective's gradient by every parameter. */
export function referenceStep(
  { config, weights, context, gate, lambda = Infinity, distill }: ReferenceObjective,
  { inputs, targets, weights: ofPositions }: Rows,
): ReferenceLosses & { kl: number; gradients: Map<string, Float64Array> } {
  const { width, heads, layers, vocabularySize: V, norm: { epsilon } } = config;
  const rows = inputs.length;
  const get = (name: string): ArrayLike<number> => weights.get(name)!;
  const run = forward(config, weights, inputs, context, gate);
  const losses = lossesOf(config, run, targets, context);
  const [lossScale, edgeScale] = gate ? [lambda / (1 + lambda), 1 / (1 + lambda)] : [1, 0];
  const weight = lossScale / losses.counted;
  const ofEach = Array.from(targets, (_, at) => weight * (ofPositions?.[at] ?? 1));
  const dlogits = crossEntropyGradientReference(run.logits, targets, V, ofEach);
  let kl = 0;
  if (distill) {
    const { logits } = forward(config, distill.teacher, inputs, context);
    const { kl: byRow, dstudent } = distillationReference(logits, run.logits, V);
    for (let row = 0; row < rows; row++) {
      if (targets[row] >= V) continue;
      kl += byRow[row] / losses.counted;
      for (let n = row * V; n < (row + 1) * V; n++) dlogits[n] += weight * distill.weight * dstudent[n];
    }
  }

  const gradients = new Map(
    parametersOf(config).map(({ name, shape }) => [name, new Float64Array(elementsOf(shape))] as const),
  );
  const add = (name: string, values: Float64Array): void => {
    const gradient = gradients.get(name)!;
    values.forEach((value, n) => gradient[n] += value);
  };
  const normBackward = (name: string, x: Float64Array, dy: Float64Array): Float64Array => {
    const { dx, dweight, dbias } = layerNormGradientReference(x, get(`${name}.weight`), dy, epsilon);
    add(`${name}.weight`, dweight);
    add(`${name}.bias`, dbias);
    return dx;
  };
  const linearBackward = (name: string, x: Float64Array, dy: Float64Array): Float64Array => {
    const [inputs, outputs] = [x.length / rows, dy.length / rows];
    add(`${name}.weight`, matmulReference({ layout: "tn", m: inputs, n: outputs, k: rows, a: x, b: dy }));
    add(`${name}.bias`, biasGradientReference(rows, outputs, dy));
    const b = get(`${name}.weight`);
    return matmulReference({ layout: "nt", m: rows, n: inputs, k: outputs, a: dy, b });
  };
  const plus = (a: Float64Array, b: Float64Array) => a.map((value, n) => value + b[n]);

  add("wte.weight", matmulReference({ layout: "tn", m: V, n: width, k: rows, a: dlogits, b: run.final }));
  const b = get("wte.weight");
  const dfinal = matmulReference({ layout: "nn", m: rows, n: width, k: V, a: dlogits, b });
  let dstream = normBackward("ln_f", run.stream, dfinal);
  const pairs = context * (context + 1) / 2;
  const edgeGradient = edgeScale / (layers * heads * (rows / context) * pairs);
  for (
    const { h, residualPre, norm1, attention, z, residualMid, norm2, mlpPre, mlpPost } of run.layers
      .toReversed()
  ) {
    const dmlpPost = linearBackward(`${h}.mlp.c_proj`, mlpPost, dstream);
    const dnorm2 = linearBackward(`${h}.mlp.c_fc`, norm2, geluGradientReference(mlpPre, dmlpPost));
    dstream = plus(dstream, normBackward(`${h}.ln_2`, residualMid, dnorm2));
    const dz = linearBackward(`${h}.attn.c_proj`, z, dstream);
    const trained = attention.gate && { ...attention.gate, edgeGradient };
    const dqkv = attentionGradientReference({ ...attention, gate: trained }, dz);
    dstream = plus(
      dstream,
      normBackward(`${h}.ln_1`, residualPre, linearBackward(`${h}.attn.c_attn`, norm1, dqkv)),
    );
  }
  const { dtokenEmbedding, dpositionEmbedding } = embeddingGradientReference(inputs, context, V, dstream);
  add("wte.weight", dtokenEmbedding);
  add("wpe.weight", dpositionEmbedding);
  return { ...losses, kl, gradients };
}

/** Sums over heads of one of their sums. */
export function headTotal(heads: readonly ReferenceHead[], of: keyof ReferenceHead): number {
  return heads.reduce((sum, head) => sum + head[of], 0);
}

/** Rows of several batches as one batch. */
export function joinRows(batches: readonly Rows[]): { inputs: Uint32Array; targets: Uint32Array } {
  const join = (of: "inputs" | "targets") =>
    Uint32Array.from(batches.flatMap((batch) => Array.from(batch[of])));
  return { inputs: join("inputs"), targets: join("targets") };
}
