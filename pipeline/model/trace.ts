/**
 * The one description of a model: its choices traced into a straight list of steps, which the schedule, the memory plan,
 * the network, the decoder, the circuits and the float64 reference read.
 *
 * Shapes: B batch, T positions, d width, H heads, D head size, F MLP width, V vocabulary, L layers.
 *
 * @module
 */
import { needsPartial } from "../../kernels/matmul/linear.ts";
import { rankOf } from "../../kernels/matmul/low_rank.ts";
import { adaptersOf } from "./adapter_parameters.ts";
import type { Adapters, Trained } from "./adapters.ts";
import type { ModelConfig } from "./config.ts";
import { familyOf } from "./families.ts";
import type { StoredName } from "./family.ts";
import type { FrozenType, Op, Parameter, Step, Value } from "./op.ts";
import { add as addition } from "./ops/add.ts";
import { attention } from "./ops/attention.ts";
import { cachedAttention } from "./ops/cached_attention.ts";
import { clip } from "./ops/clip.ts";
import { embed } from "./ops/embed.ts";
import { gelu } from "./ops/gelu.ts";
import { linear } from "./ops/linear.ts";
import { norm as layerNorm } from "./ops/norm.ts";
import { queryKeyNorm } from "./ops/query_key_norm.ts";
import { rmsNorm } from "./ops/rms_norm.ts";
import { rotary } from "./ops/rotary.ts";
import { swiglu } from "./ops/swiglu.ts";

/** What is read from the residual stream, computed, and added to it again. */
export interface Branch {
  /** What it computes. */
  readonly kind: "attention" | "mlp";
  /** From 0. */
  readonly layer: number;
  /** The residual stream that it reads. */
  readonly stream: Value;
  /** From its norm to its addition. */
  readonly steps: readonly Step[];
}

/** A model for batches of one shape. */
export interface Model {
  /** What it was traced from. */
  readonly config: ModelConfig;
  /** Every parameter once, in the order of their first use. */
  readonly parameters: readonly Parameter[];
  /** From tokens to the residual stream. */
  readonly embed: Step;
  /** In the order in which they are computed. */
  readonly branches: readonly Branch[];
  /** The final norm. */
  readonly final: Step;
  /** The matrix [V, d] that logits are products with. */
  readonly head: Parameter;
}

/** The batches that a model is traced for. */
export interface TracedShape {
  /** Rows B. */
  batch: number;
  /** Positions T of each. */
  context: number;
  /** Whether what products read is stored as f16: all but the residual stream. */
  half?: boolean;
  /** Rows go on behind positions whose keys and values are kept, of this many in all; there is then no backward. */
  cached?: number;
  /** What a binding holds; left out: everything. */
  maxBindingBytes?: number;
  /** Low-rank adapters beside its products; left out: none. */
  adapters?: Adapters;
  /** What training moves; left out: everything. */
  train?: Trained;
  /**
   * How what it does not move lies on the device: matrices of products, and with either of the smaller types the tables of
   * tokens, as f16. Left out: as f32.
   */
  frozen?: FrozenType;
  /** Power of 1 + distance by which an edge weighs less in the mean that backward descends; left out: 0. */
  distancePower?: number;
}

/** Traces a model. */
export function trace(
  config: ModelConfig,
  {
    batch,
    context,
    half = false,
    cached,
    maxBindingBytes = Infinity,
    adapters = {},
    train = "all",
    frozen = "f32",
    distancePower,
  }: TracedShape,
): Model {
  const { vocabularySize, contextLength, width, heads, keyValueHeads, headSize, layers, mlpWidth } = config;
  const { names } = familyOf(config);
  const rows = batch * context;
  const value = (name: string, shape: readonly number[]): Value => ({ name, shape });
  const stream = (name: string): Value => value(name, [rows, width]);
  /** What a product reads. */
  const operand = (name: string, shape: readonly number[]): Value => ({ name, shape, half });

  const tableType = train === "all" || frozen === "f32" ? "f32" : "f16";
  const table = (
    name: string,
    count: number,
    { readByProducts, stored = tableType }: Pick<Parameter, "readByProducts"> & Partial<Parameter>,
  ): Parameter => ({
    name: `${name}.weight`,
    shape: [count, width],
    kind: "table",
    group: "embedding",
    readByProducts,
    initial: { deviation: 0.02 },
    decayFrom: 0,
    trainable: train === "all",
    stored,
  });
  const vector = (name: string, length: number, all: number, others: Partial<Parameter> = {}): Parameter => ({
    name,
    shape: [length],
    kind: "vector",
    group: "other",
    readByProducts: false,
    initial: { all },
    decayFrom: Infinity,
    trainable: train === "all",
    stored: "f32",
    ...others,
  });
  // Residual projections start smaller by √(2 L) (Radford et al. 2019).
  const intoStream = { deviation: 0.02 / Math.sqrt(2 * layers) };

  /** @param y in half precision where a product reads it */
  function normStep(x: Value, y: Value, place: string, name: string): Step {
    const { kind, affine, epsilon } = config.norm;
    const sizes = { rows, width, epsilon, half: y.half ?? false };
    return {
      op: kind === "rms" ? rmsNorm(sizes) : layerNorm({ ...sizes, affine }),
      reads: { x },
      writes: { y, statistics: value(`${place}.statistics`, [rows, kind === "rms" ? 1 : 2]) },
      parameters: {
        ...(affine === "none" ? {} : { weight: vector(`${name}.weight`, width, 1) }),
        ...(affine === "both" ? { bias: vector(`${name}.bias`, width, 0) } : {}),
      },
    };
  }

  /** A product of `x` with a weight whose columns may stand in files as several tensors. */
  function linearStep(x: Value, y: Value, of: {
    /** Before its name: that of the layer. */
    layer: string;
    stored: StoredName;
    inputs: number;
    /** Of each of its parts. */
    columns: readonly number[];
    bias: boolean;
    kind: Branch["kind"];
    group?: Parameter["group"];
    deviation?: number;
    decayFrom?: number;
  }): Step {
    const { layer, stored: { name, parts }, inputs, columns, bias } = of;
    const { group = "other", deviation = 0.02, decayFrom = 0 } = of;
    const outputs = columns.reduce((sum, count) => sum + count);
    const partsOf = (kind: string): Parameter["parts"] =>
      parts?.map((part, n) => ({ name: `${layer}.${part}.${kind}`, columns: columns[n] }));
    const trainable = train === "all" || (train === "attention" && of.kind === "attention");
    const beside = adaptersOf(adapters, { ...of, group });
    const stored = trainable ? "f32" : frozen;
    const sizes = {
      rows,
      inputs,
      outputs,
      bias,
      half: {
        x: x.half ?? false,
        weight: stored === "f16" || (half && stored === "f32"),
        y: y.half ?? false,
      },
      ...(trainable ? {} : { frozen: true }),
      ...(stored === "int8" ? { int8: true } : {}),
    };
    const partial = needsPartial({ ...sizes, accumulate: beside !== undefined }, maxBindingBytes) &&
      value(`partial sums of ${y.name}`, y.shape);
    const low = beside && value(`low-rank products of ${y.name}`, [rows, rankOf(beside.adapters)]);
    return {
      op: linear({ ...sizes, ...(beside && { adapters: beside.adapters }) }),
      reads: { x },
      writes: { y, ...(partial && { partial }), ...(low && { low }) },
      parameters: {
        weight: {
          name: `${layer}.${name}.weight`,
          shape: [inputs, outputs],
          kind: "matrix",
          group,
          parts: partsOf("weight"),
          readByProducts: true,
          initial: { deviation },
          decayFrom,
          trainable,
          stored,
        },
        ...(bias
          ? { bias: vector(`${layer}.${name}.bias`, outputs, 0, { parts: partsOf("bias"), trainable }) }
          : {}),
        ...beside?.parameters,
      },
    };
  }

  /** A branch with its norm at its beginning or its end, whose last product's output is added to `from`. */
  function branch(
    { kind, layer, reads, from, to, norm }: Pick<Branch, "kind" | "layer"> & {
      reads: Value;
      from: Value;
      to: Value;
      /** Its place among the values, and its name. */
      norm: readonly [place: string, name: string];
    },
    out: string,
    inside: (x: Value, out: Value) => Step[],
  ): Branch {
    const { at } = config.norm;
    const normalized = operand(`${norm[0]}.hook_normalized`, [rows, width]);
    const first = at === "input" ? [normStep(reads, normalized, ...norm)] : [];
    const product = stream(at === "input" ? out : `${out}_pre`);
    const steps = [...first, ...inside(first[0]?.writes.y ?? reads, product)];
    // Under the name that it is added by.
    const last = at === "output" ? [normStep(product, stream(out), ...norm)] : [];
    const x = last[0]?.writes.y ?? product;
    const add: Step = {
      op: addition(rows * width),
      reads: { x, stream: from },
      writes: { y: to },
      parameters: {},
    };
    return { kind, layer, stream: reads, steps: [...steps, ...last, add] };
  }

  /** What lies between the product that gives queries, keys and values and the attention that reads them. */
  function toAttention(qkv: Value, place: string, name: string): Step[] {
    const { clip: limit, queryKeyNorm: per, positions } = config;
    const packed = { rows, heads, keyValueHeads, headSize, half };
    const steps: Step[] = [];
    const next = (suffix: string, op: Op, more: Partial<Step> = {}): void => {
      const x = steps.at(-1)?.writes.y ?? qkv;
      const y = operand(`${place}.hook_qkv_${suffix}`, qkv.shape);
      steps.push({ op, reads: { x }, parameters: {}, ...more, writes: { y, ...more.writes } });
    };
    if (limit !== undefined) {
      next("clipped", clip({ length: rows * (heads + 2 * keyValueHeads) * headSize, limit, half }));
    }
    if (per !== undefined) {
      const [ofQueries, ofKeys] = per === "head"
        ? [headSize, headSize]
        : [heads * headSize, keyValueHeads * headSize];
      const count = per === "head" ? heads + keyValueHeads : 2;
      next("normalized", queryKeyNorm({ ...packed, per, epsilon: config.norm.epsilon }), {
        writes: { statistics: value(`${place}.statistics`, [rows, count]) },
        parameters: {
          queryWeight: vector(`${name}.${names.queryNorm}.weight`, ofQueries, 1),
          keyWeight: vector(`${name}.${names.keyNorm}.weight`, ofKeys, 1),
        },
      });
    }
    if (positions.kind === "rotary") {
      const { theta, share, scaling } = positions;
      next(
        "rotated",
        rotary({
          ...packed,
          batch,
          positions: context,
          contextLength: cached ?? context,
          rotated: Math.floor(share * headSize),
          theta,
          ...(scaling ? { scaling: { type: "llama3", ...scaling } } : {}),
        }),
      );
    }
    return steps;
  }

  function attentionBranch(layer: number, reads: Value, from: Value, to: Value): Branch {
    const [block, place] = [`blocks.${layer}`, `${names.layers}.${layer}`];
    const norm = [`${block}.ln1`, `${place}.${names.attentionNorm}`] as const;
    return branch({ kind: "attention", layer, reads, from, to, norm }, `${block}.hook_attn_out`, (x, out) => {
      const columns = [heads, keyValueHeads, keyValueHeads].map((count) => count * headSize);
      const shape = keyValueHeads === heads
        ? [rows, 3, heads, headSize]
        : [rows, heads + 2 * keyValueHeads, headSize];
      const qkv = operand(`${block}.attn.hook_qkv`, shape);
      const between = toAttention(qkv, `${block}.attn`, place);
      const z = operand(`${block}.attn.hook_z`, [rows, heads, headSize]);
      const sizes = { batch, heads, keyValueHeads, positions: context, headSize, half };
      const sums = {
        logSumExp: value(`${block}.attn.log_sum_exp`, [batch, heads, context]),
        rowSums: value(`${block}.attn.row_sums`, [batch, heads, context, 4]),
      };
      return [
        linearStep(x, qkv, {
          layer: place,
          stored: names.qkv,
          inputs: width,
          columns,
          kind: "attention",
          bias: config.biases.qkv,
          group: "attention",
          // Weight decay on queries and keys would pull gate logits to the bias.
          decayFrom: (heads + keyValueHeads) * headSize,
        }),
        ...between,
        {
          op: cached === undefined ? attention({ ...sizes, layer, distancePower }) : cachedAttention(sizes),
          reads: { x: between.at(-1)?.writes.y ?? qkv },
          writes: { y: z, ...(cached === undefined ? sums : {}) },
          parameters: {},
        },
        linearStep(z, out, {
          layer: place,
          stored: { name: names.attentionOut },
          inputs: heads * headSize,
          columns: [width],
          kind: "attention",
          bias: config.biases.other,
          ...intoStream,
        }),
      ];
    });
  }

  function mlpBranch(layer: number, reads: Value, from: Value, to: Value): Branch {
    const [block, place] = [`blocks.${layer}`, `${names.layers}.${layer}`];
    const norm = [`${block}.ln2`, `${place}.${names.mlpNorm}`] as const;
    const { mlp, biases: { other: bias } } = config;
    return branch({ kind: "mlp", layer, reads, from, to, norm }, `${block}.hook_mlp_out`, (x, out) => {
      const gated = mlp === "swiglu";
      const pre = operand(`${block}.mlp.hook_pre`, gated ? [rows, 2, mlpWidth] : [rows, mlpWidth]);
      const post = operand(`${block}.mlp.hook_post`, [rows, mlpWidth]);
      const inside = gated
        ? swiglu({ rows, width: mlpWidth, half })
        : gelu(rows * mlpWidth, half, mlp === "gelu" ? "exact" : "tanh");
      return [
        linearStep(x, pre, {
          layer: place,
          stored: names.mlpIn,
          inputs: width,
          columns: gated ? [mlpWidth, mlpWidth] : [mlpWidth],
          kind: "mlp",
          bias,
        }),
        { op: inside, reads: { x: pre }, writes: { y: post }, parameters: {} },
        linearStep(post, out, {
          layer: place,
          stored: { name: names.mlpOut },
          inputs: mlpWidth,
          columns: [width],
          kind: "mlp",
          bias,
          ...intoStream,
        }),
      ];
    });
  }

  const token = table(names.token, vocabularySize, { readByProducts: config.tied });
  const learned = config.positions.kind === "learned";
  let now = stream("blocks.0.hook_resid_pre");
  const embedStep: Step = {
    op: embed({
      batch,
      positions: context,
      vocabularySize,
      width,
      positionEmbedding: learned,
      ...(token.stored === "f16" ? { half: true } : {}),
    }),
    reads: {},
    writes: { y: now },
    parameters: {
      token,
      ...(learned
        ? { position: table(names.position!, contextLength, { readByProducts: false, stored: "f32" }) }
        : {}),
    },
  };
  const branches: Branch[] = [];
  for (let layer = 0; layer < layers; layer++) {
    const mid = stream(`blocks.${layer}.hook_resid_mid`);
    const post = stream(
      layer + 1 < layers ? `blocks.${layer + 1}.hook_resid_pre` : `blocks.${layer}.hook_resid_post`,
    );
    branches.push(
      attentionBranch(layer, now, now, mid),
      mlpBranch(layer, config.parallel ? now : mid, mid, post),
    );
    now = post;
  }
  const final = normStep(now, operand("ln_final.hook_normalized", [rows, width]), "ln_final", names.final);
  const head = config.tied ? token : table(names.head, vocabularySize, { readByProducts: true });
  const steps = [embedStep, ...branches.flatMap(({ steps }) => steps), final];
  const parameters = new Set([...steps.flatMap((step) => Object.values(step.parameters)), head]);
  return { config, parameters: [...parameters], embed: embedStep, branches, final, head };
}

/**
 * The steps of a branch by what they do: its norm, the product behind it (of an attention branch queries, keys and values
 * side by side), attention, the product that ends it, and its addition.
 *
 * @throws {RangeError} when it has none such
 */
export function stepIn(branch: Branch, what: "norm" | "in" | "attention" | "out" | "add"): Step {
  const { steps, kind, layer } = branch;
  const found = what === "in" || what === "out"
    ? steps[what === "in" ? "find" : "findLast"](({ op }) => op.kind === "linear")
    : steps.find(({ op }) => op.kind === what);
  if (!found) throw new RangeError(`Cannot find ${what} in the ${kind} branch of layer ${layer}`);
  return found;
}

/** The norm that a branch ends in, before its addition. */
export function normBehind({ steps }: Branch): Step | undefined {
  const last = steps.at(-2)!;
  return last.op.kind === "norm" ? last : undefined;
}

/** Every step of a model in the order in which they are computed. */
export function stepsOf({ embed, branches, final }: Model): Step[] {
  return [embed, ...branches.flatMap(({ steps }) => steps), final];
}

/** Every parameter of a model. */
export function parametersOf(
  config: ModelConfig,
  options: Pick<TracedShape, "adapters" | "train" | "frozen"> = {},
): readonly Parameter[] {
  return trace(config, { ...options, batch: 1, context: 1 }).parameters;
}
