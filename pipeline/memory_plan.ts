/**
 * What a network stores and when: every activation with the moments between which its values are needed, and buffers
 * that activations share whose moments do not overlap. Worked out from shapes alone, before anything is compiled or
 * allocated, so that a run can say what it will need.
 *
 * A shared buffer holds one activation at a time: WebGPU lets no dispatch read one part of a buffer and write another.
 *
 * @module
 */
import { elementBytes } from "../kernels/core/tensor.ts";
import { type ModelConfig, parameterShapes } from "./model_config.ts";
import type { ParameterShape } from "./parameters.ts";

/** What a network is compiled for. */
export interface NetworkShape {
  /** Rows of a micro-batch. */
  batch: number;
  /** Positions T of each row. */
  context: number;
  /** Whether backward will be called. */
  training: boolean;
  /** Whether a teacher's logits will be compared. */
  distill?: boolean;
  /**
   * Keeps only the residual stream between forward and backward, and computes a layer's other activations anew when
   * backward reaches it: the same values to the bit, a third more time.
   */
  recompute?: boolean;
  /**
   * Stores what products read, weights and activations but for the residual stream, as f16. Sums, gradients, the
   * residual stream and the weights that are trained stay float32.
   */
  half?: boolean;
  /** Every activation keeps a buffer of its own, so that it can be read after the work is done. */
  keep?: boolean;
  /** Bytes that one block of logits may take; all it can at most is one binding. */
  logitsBytes?: number;
}

/** One stored activation. */
export interface PlannedTensor {
  shape: readonly number[];
  type: "f32" | "f16";
  /** Which of {@link MemoryPlan.buffers} it lies in. */
  buffer: number;
  /** First and last moment of each time that it holds something. */
  lifetimes: readonly (readonly [first: number, last: number])[];
}

/** Where a network's activations lie. */
export interface MemoryPlan {
  /** By name; see {@link Network.activations}. */
  readonly tensors: ReadonlyMap<string, PlannedTensor>;
  /** Bytes of each buffer. */
  readonly buffers: readonly number[];
  /** The blocks of positions whose logits are held at once. */
  readonly blocks: readonly { first: number; count: number }[];
  /** Elements from one row of logits to the next. */
  readonly logitsStride: number;
}

/** Device memory of a run in bytes, by what it is for. */
export interface MemoryNeeds {
  weights: number;
  /** Their copies in half precision. */
  copies: number;
  /** A frozen dense model to distil from. */
  teacher: number;
  gradients: number;
  /** AdamW's two. */
  moments: number;
  activations: number;
  /** What a CPU driver reads of all these by texture, about. */
  textures: number;
  /** All of it: everything is held at once. */
  total: number;
  /** The largest buffer that is bound whole. */
  largestBinding: number;
  /** Every buffer. */
  buffers: readonly number[];
}

const DEFAULT_LOGITS_BYTES = 64 << 20;

const bytesOf = (shape: readonly number[], bytes = 4): number =>
  bytes * shape.reduce((product, axis) => product * axis, 1);

/** What products read, by its name in the plan. */
const READ_BY_PRODUCTS = /hook_(normalized|qkv|z|pre|post)$|^teacher's final layer norm$/;

/** Blocks of consecutive positions whose logits fit `bytes`, starting at multiples of 64 so that slices are aligned. */
function blocksOf(positions: number, stride: number, bytes: number): { first: number; count: number }[] {
  const fitting = Math.floor(bytes / (4 * stride));
  if (fitting >= positions) return [{ first: 0, count: positions }];
  const count = Math.max(64, Math.floor(fitting / 64) * 64);
  const blocks = [];
  for (let first = 0; first < positions; first += count) {
    blocks.push({ first, count: Math.min(count, positions - first) });
  }
  return blocks;
}

/** Plans the activations of a network. */
export function planMemory(config: ModelConfig, shape: NetworkShape, maxBindingBytes: number): MemoryPlan {
  const { width, heads, layers, mlpWidth, vocabularySize } = config;
  const { batch, context, training, distill = false, recompute = false, keep = false, half = false } = shape;
  const typeOf = (name: string) => half && READ_BY_PRODUCTS.test(name) ? "f16" as const : "f32" as const;
  const rows = batch * context;
  const logitsStride = 4 * Math.ceil(vocabularySize / 4);
  const blocks = blocksOf(
    rows,
    logitsStride,
    Math.min(shape.logitsBytes ?? DEFAULT_LOGITS_BYTES, maxBindingBytes),
  );

  const shapes = new Map<string, readonly number[]>();
  const lifetimes = new Map<string, [number, number][]>();
  let moment = 0;
  /** One dispatch, or a few in a row: what it reads must hold something, what it writes is overwritten. */
  function step(reads: readonly string[], writes: Record<string, readonly number[]>): void {
    for (const name of reads) lifetimes.get(name)!.at(-1)![1] = moment;
    for (const [name, axes] of Object.entries(writes)) {
      shapes.set(name, axes);
      if (!lifetimes.has(name)) lifetimes.set(name, []);
      if (!reads.includes(name)) lifetimes.get(name)!.push([moment, moment]);
    }
    moment++;
  }

  const perRow = (size: number): readonly number[] => [rows, size];
  const names = (layer: number) => {
    const block = `blocks.${layer}`;
    return {
      residualPre: `${block}.hook_resid_pre`,
      norm1: `${block}.ln1.hook_normalized`,
      statistics1: `${block}.ln1.statistics`,
      qkv: `${block}.attn.hook_qkv`,
      z: `${block}.attn.hook_z`,
      logSumExp: `${block}.attn.log_sum_exp`,
      rowSums: `${block}.attn.row_sums`,
      residualMid: `${block}.hook_resid_mid`,
      norm2: `${block}.ln2.hook_normalized`,
      statistics2: `${block}.ln2.statistics`,
      mlpPre: `${block}.mlp.hook_pre`,
      mlpPost: `${block}.mlp.hook_post`,
    };
  };
  const residualAfter = (layer: number): string =>
    layer + 1 < layers ? names(layer + 1).residualPre : `blocks.${layer}.hook_resid_post`;

  /** A layer up to the MLP's second product, which only forward needs. */
  function layerForward(layer: number): void {
    const n = names(layer);
    step([n.residualPre], { [n.norm1]: perRow(width), [n.statistics1]: perRow(2) });
    step([n.norm1], { [n.qkv]: [rows, 3, heads, width / heads] });
    step([n.qkv], {
      [n.z]: [rows, heads, width / heads],
      [n.logSumExp]: [batch, heads, context],
      [n.rowSums]: [batch, heads, context, 4],
    });
    step([n.rowSums], {});
    // One kernel ends a branch in the residual stream, and two where a hook looks on: what the one reads still stands.
    step([n.z], { branch: perRow(width) });
    step([n.z, n.residualPre, "branch"], { [n.residualMid]: perRow(width) });
    step([n.residualMid], { [n.norm2]: perRow(width), [n.statistics2]: perRow(2) });
    step([n.norm2], { [n.mlpPre]: perRow(mlpWidth) });
    step([n.norm2, n.mlpPre], { [n.mlpPost]: perRow(mlpWidth) });
  }

  function forward(): void {
    step([], { [names(0).residualPre]: perRow(width) });
    for (let layer = 0; layer < layers; layer++) {
      const { mlpPost, residualMid } = names(layer);
      layerForward(layer);
      step([mlpPost], { branch: perRow(width) });
      step([mlpPost, residualMid, "branch"], { [residualAfter(layer)]: perRow(width) });
    }
    step([residualAfter(layers - 1)], {
      "ln_final.hook_normalized": perRow(width),
      "ln_final.statistics": perRow(2),
    });
  }

  function head(): void {
    const logits = [blocks[0].count, logitsStride];
    const read = ["ln_final.hook_normalized", ...(distill ? ["teacher's final layer norm"] : [])];
    // All blocks at once: what one block writes, such as dnorm, stands until the last is done.
    step(read, {
      logits,
      ...(distill ? { "teacher's logits": logits } : {}),
      ...(training ? { dnorm: perRow(width) } : {}),
    });
  }

  function backward(): void {
    step([residualAfter(layers - 1), "ln_final.statistics", "dnorm"], { dresidual: perRow(width) });
    for (let layer = layers - 1; layer >= 0; layer--) {
      if (recompute) layerForward(layer);
      const n = names(layer);
      step([n.mlpPost, "dresidual"], { "dmlp post": perRow(mlpWidth) });
      step([n.mlpPre, "dmlp post"], { "dmlp pre": perRow(mlpWidth) });
      step([n.norm2, "dmlp pre"], { dnorm: perRow(width) });
      step([n.residualMid, n.statistics2, "dnorm", "dresidual"], { "dresidual mid": perRow(width) });
      step([n.z, "dresidual mid"], { dz: perRow(width) });
      step([n.qkv, n.z, n.logSumExp, "dz"], { dqkv: perRow(3 * width), delta: [batch, heads, context] });
      step([n.norm1, "dqkv"], { dnorm: perRow(width) });
      step([n.residualPre, n.statistics1, "dnorm", "dresidual mid"], { dresidual: perRow(width) });
    }
    step(["dresidual"], {});
  }

  if (distill) {
    forward();
    step(["ln_final.hook_normalized"], { "teacher's final layer norm": perRow(width) });
  }
  forward();
  head();
  if (training) backward();

  const { buffers, bufferOf } = share([...shapes].map(([name, axes]) => ({
    name,
    bytes: bytesOf(axes, elementBytes(typeOf(name))),
    lifetimes: keep ? [[0, moment] as const] : lifetimes.get(name)!,
  })));
  const tensors = new Map(
    [...shapes].map(([name, axes]) => [
      name,
      { shape: axes, type: typeOf(name), buffer: bufferOf.get(name)!, lifetimes: lifetimes.get(name)! },
    ]),
  );
  return { tensors, buffers, blocks, logitsStride };
}

interface Held {
  name: string;
  bytes: number;
  lifetimes: readonly (readonly [number, number])[];
}

/** The largest first, each into the smallest buffer that holds it and is free whenever it is needed, else a new one. */
function share(tensors: Held[]): { buffers: number[]; bufferOf: Map<string, number> } {
  const buffers: { bytes: number; holds: Held[] }[] = [];
  const bufferOf = new Map<string, number>();
  for (const tensor of tensors.toSorted((a, b) => b.bytes - a.bytes)) {
    // Buffers were made largest first, so the last that is free is the smallest.
    let at = buffers.findLastIndex(({ holds }) => !holds.some((other) => overlap(tensor, other)));
    if (at < 0) at = buffers.push({ bytes: tensor.bytes, holds: [] }) - 1;
    buffers[at].holds.push(tensor);
    bufferOf.set(tensor.name, at);
  }
  return { buffers: buffers.map(({ bytes }) => bytes), bufferOf };
}

function overlap(a: Held, b: Held): boolean {
  return a.lifetimes.some(([first, last]) =>
    b.lifetimes.some(([otherFirst, otherLast]) => first <= otherLast && otherFirst <= last)
  );
}

/** What training, or only running, a network takes on the device. */
export function memoryNeeds(
  config: ModelConfig,
  shape: NetworkShape,
  maxBindingBytes: number,
  textureCapacity = 0,
): MemoryNeeds {
  const ofNetwork = planMemory(config, shape, maxBindingBytes).buffers;
  const shapes = parameterShapes(config);
  const ofParameters = shapes.map(({ shape }) => bytesOf(shape));
  const ofCopies = shape.half ? shapes.filter(isRounded).map(({ shape }) => bytesOf(shape, 2)) : [];
  const sum = (sizes: readonly number[]): number => sizes.reduce((total, bytes) => total + bytes, 0);
  const weights = sum(ofParameters);
  // The weights, the teacher's, gradients and two moments are each as large as the other.
  const sets = 1 + (shape.distill ? 1 : 0) + (shape.training ? 3 : 0);
  const buffers = [...ofNetwork, ...ofCopies, ...Array.from({ length: sets }, () => ofParameters).flat()];
  const held = sum(buffers);
  const textures = Math.min(textureCapacity, held);
  return {
    weights,
    copies: sum(ofCopies),
    teacher: shape.distill ? weights : 0,
    gradients: shape.training ? weights : 0,
    moments: shape.training ? 2 * weights : 0,
    activations: sum(ofNetwork),
    textures,
    total: held + textures,
    largestBinding: Math.max(...ofNetwork),
    buffers,
  };
}

/** Whether products read a parameter: all matrices but the positions'. */
export function isRounded({ name, shape }: ParameterShape): boolean {
  return shape.length === 2 && name !== "wpe.weight";
}
