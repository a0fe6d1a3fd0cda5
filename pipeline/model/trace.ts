/**
 * The one description of a model: its choices traced into a straight list of steps, which the schedule, the memory plan,
 * the network, the circuits and the reference read. What is not told here is known nowhere.
 *
 * Shapes: B batch, T positions, d width, H heads, D head size, F MLP width, V vocabulary, L layers.
 *
 * @module
 */
import { type ModelConfig, shapeOf } from "./config.ts";
import { familyOf } from "./families.ts";
import type { StoredName } from "./family.ts";
import type { Parameter, Step, Value } from "./op.ts";
import { add } from "./ops/add.ts";
import { attention } from "./ops/attention.ts";
import { embed } from "./ops/embed.ts";
import { gelu } from "./ops/gelu.ts";
import { linear } from "./ops/linear.ts";
import { norm } from "./ops/norm.ts";

/** What is read from the residual stream, computed, and added to it again. */
export interface Branch {
  readonly kind: "attention" | "mlp";
  readonly layer: number;
  /** The residual stream that it reads. */
  readonly stream: Value;
  /** From its norm to its addition. */
  readonly steps: readonly Step[];
}

/** A model for batches of one shape. */
export interface Model {
  readonly config: ModelConfig;
  /** Every parameter once, in the order of their first use. */
  readonly parameters: readonly Parameter[];
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
  batch: number;
  context: number;
  /** Whether what products read is stored as f16: all but the residual stream. */
  half?: boolean;
}

/** Traces a model. */
export function trace(config: ModelConfig, { batch, context, half = false }: TracedShape): Model {
  const { vocabularySize, contextLength, width, heads, layers, mlpWidth, layerNormEpsilon: epsilon } = config;
  const { keyValueHeads, headSize, architecture } = shapeOf(config);
  const { names } = familyOf(config);
  const rows = batch * context;
  const value = (name: string, shape: readonly number[]): Value => ({ name, shape });
  const stream = (name: string): Value => value(name, [rows, width]);
  /** What a product reads. */
  const operand = (name: string, shape: readonly number[]): Value => ({ name, shape, half });

  const table = (name: string, count: number, readByProducts: boolean): Parameter => ({
    name: `${name}.weight`,
    shape: [count, width],
    kind: "table",
    group: "embedding",
    readByProducts,
    initial: { deviation: 0.02 },
    decayFrom: 0,
  });
  const vector = (name: string, length: number, all: number, parts?: Parameter["parts"]): Parameter => ({
    name,
    shape: [length],
    kind: "vector",
    group: "other",
    parts,
    readByProducts: false,
    initial: { all },
    decayFrom: Infinity,
  });
  // Residual projections start smaller by √(2 L) (Radford et al. 2019).
  const intoStream = { deviation: 0.02 / Math.sqrt(2 * layers) };

  function normStep(x: Value, place: string, name: string): Step {
    return {
      op: norm({ rows, width, epsilon, half }),
      reads: { x },
      writes: {
        y: operand(`${place}.hook_normalized`, [rows, width]),
        statistics: value(`${place}.statistics`, [rows, 2]),
      },
      parameters: { weight: vector(`${name}.weight`, width, 1), bias: vector(`${name}.bias`, width, 0) },
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
    group?: Parameter["group"];
    deviation?: number;
    decayFrom?: number;
  }): Step {
    const { layer, stored: { name, parts }, inputs, columns } = of;
    const { group = "other", deviation = 0.02, decayFrom = 0 } = of;
    const outputs = columns.reduce((sum, count) => sum + count);
    const partsOf = (kind: string): Parameter["parts"] =>
      parts?.map((part, n) => ({ name: `${layer}.${part}.${kind}`, columns: columns[n] }));
    return {
      op: linear({ rows, inputs, outputs, half: { operands: half, result: y.half ?? false } }),
      reads: { x },
      writes: { y },
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
        },
        bias: vector(`${layer}.${name}.bias`, outputs, 0, partsOf("bias")),
      },
    };
  }

  /** Ends a branch. */
  const addStep = (x: Value, from: Value, to: Value): Step => ({
    op: add(rows * width),
    reads: { x, stream: from },
    writes: { y: to },
    parameters: {},
  });

  function attentionBranch(layer: number, from: Value, to: Value): Branch {
    const [block, place] = [`blocks.${layer}`, `${names.layers}.${layer}`];
    const ofNorm = normStep(from, `${block}.ln1`, `${place}.${names.attentionNorm}`);
    const qkv = operand(`${block}.attn.hook_qkv`, [rows, 3, heads, headSize]);
    const z = operand(`${block}.attn.hook_z`, [rows, heads, headSize]);
    const out = stream(`${block}.hook_attn_out`);
    return {
      kind: "attention",
      layer,
      stream: from,
      steps: [
        ofNorm,
        // Weight decay on queries and keys would pull gate logits to the bias.
        linearStep(ofNorm.writes.y, qkv, {
          layer: place,
          stored: names.qkv,
          inputs: width,
          columns: [heads, keyValueHeads, keyValueHeads].map((count) => count * headSize),
          group: "attention",
          decayFrom: (heads + keyValueHeads) * headSize,
        }),
        {
          op: attention({ batch, heads, positions: context, headSize, layer, half }),
          reads: { x: qkv },
          writes: {
            y: z,
            logSumExp: value(`${block}.attn.log_sum_exp`, [batch, heads, context]),
            rowSums: value(`${block}.attn.row_sums`, [batch, heads, context, 4]),
          },
          parameters: {},
        },
        linearStep(z, out, {
          layer: place,
          stored: { name: names.attentionOut },
          inputs: heads * headSize,
          columns: [width],
          ...intoStream,
        }),
        addStep(out, from, to),
      ],
    };
  }

  function mlpBranch(layer: number, from: Value, to: Value): Branch {
    const [block, place] = [`blocks.${layer}`, `${names.layers}.${layer}`];
    const ofNorm = normStep(from, `${block}.ln2`, `${place}.${names.mlpNorm}`);
    const pre = operand(`${block}.mlp.hook_pre`, [rows, mlpWidth]);
    const post = operand(`${block}.mlp.hook_post`, [rows, mlpWidth]);
    const out = stream(`${block}.hook_mlp_out`);
    return {
      kind: "mlp",
      layer,
      stream: from,
      steps: [
        ofNorm,
        linearStep(ofNorm.writes.y, pre, {
          layer: place,
          stored: names.mlpIn,
          inputs: width,
          columns: [mlpWidth],
        }),
        { op: gelu(rows * mlpWidth, half), reads: { x: pre }, writes: { y: post }, parameters: {} },
        linearStep(post, out, {
          layer: place,
          stored: { name: names.mlpOut },
          inputs: mlpWidth,
          columns: [width],
          ...intoStream,
        }),
        addStep(out, from, to),
      ],
    };
  }

  const token = table(names.token, vocabularySize, architecture.tied);
  const position = table(names.position!, contextLength, false);
  let now = stream("blocks.0.hook_resid_pre");
  const embedStep: Step = {
    op: embed({ batch, positions: context, vocabularySize, width }),
    reads: {},
    writes: { y: now },
    parameters: { token, position },
  };
  const branches: Branch[] = [];
  for (let layer = 0; layer < layers; layer++) {
    const mid = stream(`blocks.${layer}.hook_resid_mid`);
    const post = stream(
      layer + 1 < layers ? `blocks.${layer + 1}.hook_resid_pre` : `blocks.${layer}.hook_resid_post`,
    );
    branches.push(attentionBranch(layer, now, mid), mlpBranch(layer, mid, post));
    now = post;
  }
  const final = normStep(now, "ln_final", names.final);
  const steps = [embedStep, ...branches.flatMap(({ steps }) => steps), final];
  const parameters = steps.flatMap((step) => Object.values(step.parameters));
  return { config, parameters, embed: embedStep, branches, final, head: token };
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

/** Every step of a model in the order in which they are computed. */
export function stepsOf({ embed, branches, final }: Model): Step[] {
  return [embed, ...branches.flatMap(({ steps }) => steps), final];
}

/** Every parameter of a model. */
export function parametersOf(config: ModelConfig): readonly Parameter[] {
  return trace(config, { batch: 1, context: 1 }).parameters;
}
