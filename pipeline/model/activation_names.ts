/**
 * What there is to see of a model: activations by TransformerLens's names, the axes of each, and where it lies in what the
 * network computes.
 *
 * @module
 */
import { elementsOf } from "../../kernels/core/tensor.ts";
import { nearest } from "../nearest.ts";
import type { ModelConfig } from "./config.ts";
import type { Step, Value } from "./op.ts";
import { type Model, stepIn, trace } from "./trace.ts";

/** What is of queries by keys. */
export const isSquare = (name: string): boolean => /hook_(attn_scores|pattern|gate_logits|gates)$/.test(name);

/** What is −∞ for keys behind the query, whatever replaces it. */
export const isMasked = (name: string): boolean => /hook_(attn_scores|gate_logits)$/.test(name);

/** What a norm divides by: what it gives stands by then, and would have to be computed anew. */
export const isScale = (name: string): boolean => /hook_scale$/.test(name);

/** The name of what a norm divides by. */
export const scaleOf = ({ writes: { statistics } }: Step): string =>
  statistics.name.replace(/statistics$/, "hook_scale");

/** An axis of an activation. */
export type ActivationAxis =
  | "batch"
  | "position"
  | "head"
  | "keyValueHead"
  | "query"
  | "key"
  | "width"
  | "headSize"
  | "mlpWidth";

/** An activation's axes, and where it stands among the elements of a position in the network's tensor. */
interface Part {
  /** Name of the network's activation that it is a part of, or that stands when it does. */
  hook: string;
  /** Name of the value that it is a part of, where it is of another. */
  from?: string;
  axes: readonly ActivationAxis[];
  /** Elements of a position in the tensor, and its first of them. */
  row: number;
  first: number;
}

const OF_HEAD = ["batch", "position", "head", "headSize"] as const;
const OF_KEY_HEAD = ["batch", "position", "keyValueHead", "headSize"] as const;
const SQUARE = ["batch", "head", "query", "key"] as const;
const STREAM = ["batch", "position", "width"] as const;
const OF_MLP = ["batch", "position", "mlpWidth"] as const;
/** What tokens and learned positions add. */
export const EMBEDDINGS = ["hook_embed", "hook_pos_embed"] as const;
const OF_ROW = ["batch", "position"] as const;

/** Every activation of a model, by name, in the order in which it is computed. */
function partsOf(model: Model): Map<string, Part> {
  const { heads, mlpWidth, gate } = model.config;
  const { keyValueHeads, headSize } = model.config;
  const parts = new Map<string, Part>();
  function add(
    { name, shape }: Value,
    of: readonly (readonly [string, readonly ActivationAxis[], number?])[],
  ): void {
    const row = elementsOf(shape.slice(1));
    for (const [part, axes, first = 0] of of) parts.set(part, { hook: name, axes, row, first });
  }
  /** Queries, keys and values that lie side by side. */
  function addPacked(value: Value, names: readonly [string, string, string?]): void {
    const axes = [OF_HEAD, OF_KEY_HEAD, OF_KEY_HEAD];
    const before = [0, heads, heads + keyValueHeads];
    add(value, names.map((name, n) => [name!, axes[n], before[n] * headSize] as const));
  }
  /** What a norm gives, and before it what it divides by: the last of its statistics is one over that. */
  function addNorm(norm: Step): void {
    const { y, statistics } = norm.writes;
    const row = statistics.shape[1];
    const scale = { hook: y.name, from: statistics.name, axes: OF_ROW, row, first: row - 1 };
    parts.set(scaleOf(norm), scale);
    add(y, [[y.name, STREAM]]);
  }
  const { embed, branches, final } = model;
  const embedded = embed.writes.y;
  if (embed.parameters.position) {
    // Summed in one kernel: see embedding_parts.ts.
    for (const name of EMBEDDINGS) add({ ...embedded, name }, [[name, STREAM]]);
    add(embedded, [[embedded.name, STREAM]]);
  } else add(embedded, ["hook_embed", embedded.name].map((name) => [name, STREAM] as const));
  for (const branch of branches) {
    const { kind, layer, steps } = branch;
    const place = `blocks.${layer}.${kind === "attention" ? "attn" : "mlp"}`;
    for (const step of steps) {
      const { op, reads, writes: { y } } = step;
      const isFirst = y === stepIn(branch, "in").writes.y;
      if (op.kind === "attention") {
        // What is seen of attention before it is mixed.
        const seen = ["attn_scores", "pattern", ...(gate ? ["gate_logits"] : []), "gates"];
        add(reads.x, seen.map((name) => [`${place}.hook_${name}`, SQUARE] as const));
        add(y, [[y.name, OF_HEAD]]);
      } else if (kind === "attention" && isFirst) {
        addPacked(y, [`${place}.hook_q`, `${place}.hook_k`, `${place}.hook_v`]);
      } else if (op.kind === "rotary") addPacked(y, [`${place}.hook_rot_q`, `${place}.hook_rot_k`]);
      else if (kind === "mlp" && isFirst && y.shape.length === 3) {
        add(y, [[`${place}.hook_pre`, OF_MLP], [`${place}.hook_pre_linear`, OF_MLP, mlpWidth]]);
      } else if (kind === "mlp" && (isFirst || y === stepIn(branch, "out").reads.x)) {
        add(y, [[y.name, OF_MLP]]);
      } else if (kind === "mlp" && op.kind === "add") {
        // What one block ends with is what the next begins with.
        const names = new Set([`blocks.${layer}.hook_resid_post`, y.name]);
        add(y, [...names].map((name) => [name, STREAM] as const));
      } else if (op.kind === "norm") addNorm(step);
      else if (op.kind === "linear" || op.kind === "add") add(y, [[y.name, STREAM]]);
    }
  }
  addNorm(final);
  return parts;
}

/**
 * The axes of everything that can be read and replaced, by name, in the order in which a model computes it: see the names
 * of `Interventions`.
 */
export function activationAxes(config: ModelConfig): Map<string, readonly ActivationAxis[]> {
  const parts = partsOf(trace(config, { batch: 1, context: 1 }));
  return new Map([...parts].map(([name, { axes }]) => [name, axes]));
}

/** Whether what tokens and learned positions add is summed in one kernel, so that the parts do not stand by themselves. */
export function isSummedIn(model: Model, name: string): boolean {
  return model.embed.parameters.position !== undefined && EMBEDDINGS.some((one) => one === name);
}

/**
 * The network's own name of an activation of a model's width, such as the residual stream.
 *
 * @throws {RangeError} on another name, and on one of a part of what the network computes in one step
 */
export function streamNamed(config: ModelConfig, name: string): string {
  const model = trace(config, { batch: 1, context: 1 });
  const parts = partsOf(model);
  const part = parts.get(name);
  if (!part) throw noActivation(name, parts.keys());
  if (part.axes !== STREAM || isSummedIn(model, name)) {
    throw new RangeError(
      `Cannot add to ${name} as it must be an activation of the model's width that stands by itself, such as blocks.0.hook_resid_post`,
    );
  }
  return part.hook;
}

/** Where everything that can be read and replaced lies, by name: two names of one place are one activation's. */
export function placesOf(config: ModelConfig): Map<string, string> {
  const parts = partsOf(trace(config, { batch: 1, context: 1 }));
  return new Map(
    [...parts].map(([name, { hook, from, first }]) => [
      name,
      isSquare(name) ? name : `${from ?? hook} ${first}`,
    ]),
  );
}

/** Of what elements that lie together are. */
export interface Place {
  /** Which prompt's, by its place in the batch. */
  row: number;
  /** Of squares that of the query. */
  position: number;
  /** Where there are any. */
  head?: number;
}

/** How an activation lies in a tensor. */
export interface Location {
  hook: string;
  from?: string;
  shape: readonly number[];
  /** Axes of the shape but for that of elements that lie together: [B, T], [B, T, H] or [B, H, T]. */
  runs: readonly number[];
  /** Elements that lie together. */
  length: number;
  /** Elements of a position in the tensor. */
  row: number;
  /** Where the n-th run begins in the tensor; in the activation's own shape it begins at n · length. */
  start(run: number): number;
  /** Of what the n-th run is; those of a prompt follow one another. */
  placeOf(run: number): Place;
}

/** @param padded positions of the tensors, of which the activations have the first `positions` */
export function locationsOf(
  model: Model,
  { batch, positions, padded }: { batch: number; positions: number; padded: number },
): Map<string, Location> {
  const { width, heads, mlpWidth } = model.config;
  const { keyValueHeads: keyValueHead, headSize } = model.config;
  const sizes: Record<ActivationAxis, number> = {
    batch,
    position: positions,
    head: heads,
    keyValueHead,
    query: positions,
    key: positions,
    width,
    headSize,
    mlpWidth,
  };
  const locations = new Map<string, Location>();
  for (const [name, { hook, from, axes, row, first }] of partsOf(model)) {
    const shape = axes.map((axis) => sizes[axis]);
    const [runs, length] = axes === OF_ROW ? [shape, 1] : [shape.slice(0, -1), shape.at(-1)!];
    const isMap = isSquare(name);
    /** Runs of a position. */
    const inner = axes.includes("headSize") ? shape[2] : 1;
    locations.set(name, {
      hook: isMap ? name : hook,
      from,
      shape,
      runs,
      length,
      row,
      start(run) {
        const at = Math.floor(run / inner);
        const place = Math.floor(at / positions) * padded + at % positions;
        return isMap ? place * padded : place * row + first + (run % inner) * length;
      },
      placeOf(run) {
        const at = Math.floor(run / inner);
        const [before, position] = [Math.floor(at / positions), at % positions];
        if (isMap) return { row: Math.floor(before / heads), position, head: before % heads };
        return { row: before, position, head: axes.includes("headSize") ? run % inner : undefined };
      },
    });
  }
  return locations;
}

/**
 * The error that there is no activation of a name: the layers that there are, where it is of another; else the nearest that
 * there is, and all there are, one for all layers.
 */
export function noActivation(name: string, known: Iterable<string>): RangeError {
  const names = [...known];
  const generalOf = (one: string): string => one.replace(/^blocks\.(\d+)\./, "blocks.N.");
  const layersOf = new Map<string, number[]>();
  for (const one of names) {
    const [, layer] = /^blocks\.(\d+)\./.exec(one) ?? [];
    layersOf.set(generalOf(one), [...layersOf.get(generalOf(one)) ?? [], Number(layer ?? NaN)]);
  }
  const layers = Math.max(0, ...[...layersOf.values()].map(({ length }) => length));
  if (generalOf(name) !== name && layersOf.get(generalOf(name))?.length === layers) {
    return new RangeError(
      `Cannot find an activation as none is named ${name}: the model has layers 0 to ${layers - 1}`,
    );
  }
  const near = nearest(name, names);
  const listed = [...layersOf].map(([general, of]) =>
    of.length === layers || Number.isNaN(of[0]) ? general : general.replace("N", String(of[0]))
  );
  return new RangeError(
    `Cannot find an activation as none is named ${name}${
      near === undefined ? "" : ` (did you mean ${near}?)`
    }: ` +
      `there are ${listed.join(", ")}, for N from 0 to ${layers - 1}`,
  );
}
