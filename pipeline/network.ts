/**
 * GPT-2 as a graph of kernels for one shape of batch: forward, head and backward over parameters that the caller
 * names. The same network runs the model being trained, its frozen teacher and its dense control; they differ in their
 * parameters and in how gates are used.
 *
 * Shapes: B batch, T positions, d width, H heads, D head size, F MLP width, V vocabulary, L layers.
 *
 * @module
 */
import type { Gpu } from "../kernels/core/gpu.ts";
import type { Recorder } from "../kernels/core/recorder.ts";
import {
  destroyTensor,
  rows as rowsOf,
  type Slice,
  slicesOf,
  type Tensor,
  within,
} from "../kernels/core/tensor.ts";
import { prepareCrossEntropy } from "../kernels/cross_entropy/op.ts";
import { prepareDistillation } from "../kernels/distillation/op.ts";
import { prepareEmbedding } from "../kernels/embedding/op.ts";
import { type GateMode, type GateSettings, prepareGatedAttention } from "../kernels/gated_attention/op.ts";
import { prepareGelu } from "../kernels/gelu/op.ts";
import { prepareLayerNorm } from "../kernels/layer_norm/op.ts";
import {
  type MatmulConfig,
  type MatmulLayout,
  prepareBiasGradient,
  prepareMatmul,
} from "../kernels/matmul/op.ts";
import { prepareResidual } from "../kernels/residual/op.ts";
import { prepareRounding } from "../kernels/rounding/op.ts";
import { isRounded, type NetworkShape, planMemory } from "./memory_plan.ts";
import { type ModelConfig, parameterShapes } from "./model_config.ts";
import type { Parameters, ParameterShape } from "./parameters.ts";

/** Called after each activation is computed; may record a copy out of it, or into it to replace it. */
export type ActivationHook = (name: string, tensor: Tensor, recorder: Recorder) => void;

/** What the gates see; what an edge weighs in the sparsity loss follows from `batchRows`, the rows of a whole batch. */
export type NetworkGates = Omit<GateSettings, "edgeWeight"> & {
  /** Rows of all micro-batches of a step together. */
  batchRows: number;
};

/** How the loss of one micro-batch is weighed. */
export interface LossSettings {
  /** Weight of each counted position: 1 / (counted positions of the whole batch). */
  weight: number;
  /** Weight w of the distillation term. */
  distill?: number;
}

/** Where the head's gradients go, and what they are multiplied by. */
export interface HeadBackward {
  /** Added to, by name. */
  gradients: Parameters;
  /** [1], multiplies the loss's gradient. */
  lossScale: Tensor;
}

/** A compiled network with its activations. */
export interface Network {
  /** What it is compiled for. */
  readonly shape: NetworkShape;
  /** Whose sizes it has. */
  readonly config: ModelConfig;
  /**
   * Activations by TransformerLens's names, with `(batch · position)` as the first axis: `blocks.N.hook_resid_pre`
   * [BT, d], `blocks.N.ln1.hook_normalized` [BT, d], `blocks.N.attn.hook_qkv` [BT, 3, H, D], `blocks.N.attn.hook_z`
   * [BT, H, D], `blocks.N.hook_attn_out` [BT, d], `blocks.N.hook_resid_mid`, `blocks.N.ln2.hook_normalized`,
   * `blocks.N.mlp.hook_pre` [BT, F], `blocks.N.mlp.hook_post`, `blocks.N.hook_mlp_out`, `blocks.N.hook_resid_post`,
   * `ln_final.hook_normalized`. Tensors whose values are not needed at the same time share memory: read them in a hook,
   * or prepare the network with `keep` (the two `_out` names share one tensor in any case).
   */
  readonly activations: ReadonlyMap<string, Tensor>;
  /** Loss of each position [BT, 4]: cross-entropy, 1 if no logit exceeds the target's, log-sum-exp, 1 if counted. */
  readonly lossRows: Tensor;
  /** KL of each position [BT, 4], where there is a teacher. */
  readonly distillationRows: Tensor | undefined;
  /** Sums of (cross-entropy, correct, 0, counted) [4]; added to by {@link Network.head}. */
  readonly totals: Tensor;
  /** Sums of (KL, ., 0, counted) [4]. */
  readonly distillationTotals: Tensor;
  /** Sums over each head [L, H, 8], see HEAD_SUMS; added to by {@link Network.forward}. */
  readonly headSums: Tensor;
  /** Uploads inputs and targets, each [B · T]; a target of 0xffffffff does not count. */
  upload(inputs: Uint32Array, targets: Uint32Array): void;
  /** Sets what the gates see in the next submissions. */
  configureGates(settings: NetworkGates): void;
  /** Counts only the first `rows` of the batch in `headSums`. */
  configureRows(rows: number): void;
  /** Sets how the next submissions weigh the loss. */
  configureLoss(settings: LossSettings): void;
  /**
   * Everything up to the final layer norm. `hook` sees each activation as it is computed, and may replace it;
   * `countEdges: false` leaves
   * `headSums` alone.
   */
  forward(
    recorder: Recorder,
    parameters: Parameters,
    mode: GateMode,
    options?: { hook?: ActivationHook; countEdges?: boolean },
  ): void;
  /** Keeps the final layer norm's output as the teacher's, for the next {@link Network.head}. */
  keepAsTeacher(recorder: Recorder): void;
  /** Loss from the final layer norm; with `backward` also its gradient into the head and the final layer norm. */
  head(
    recorder: Recorder,
    parameters: Parameters,
    options?: { backward?: HeadBackward; teacher?: Parameters },
  ): void;
  /**
   * Adds every parameter's gradient to `gradients`, after {@link Network.head} with `backward`. Without `gradients`, only
   * activations get theirs. `hook` sees them as they are computed, by the names of what they are gradients of:
   * `ln_final.hook_normalized` (before anything else: it may be filled there), `blocks.N.attn.hook_qkv`,
   * `blocks.N.attn.hook_z`, `blocks.N.ln1.hook_normalized`, `blocks.N.ln2.hook_normalized`,
   * `blocks.N.mlp.hook_pre`, `blocks.N.mlp.hook_post`, `blocks.N.hook_resid_pre`, `blocks.N.hook_resid_mid` and
   * `blocks.N.hook_resid_post` of the last block. Layers share their tensors: use them in the hook.
   */
  backward(
    recorder: Recorder,
    parameters: Parameters,
    gradients: Parameters | undefined,
    mode: GateMode,
    edgeScale: Tensor,
    hook?: ActivationHook,
  ): void;
  /** Computes the logits of one of {@link Network.blocks} into {@link Network.logitsTensor}. */
  logits(recorder: Recorder, parameters: Parameters, block: number): void;
  /** Logits of one block [rows of the block, stride]; the loss's backward turns them into gradients in place. */
  readonly logitsTensor: Tensor;
  /** The blocks of positions whose logits are held at once. */
  readonly blocks: readonly { first: number; count: number }[];
  /** Elements from one row of a block's logits to the next. */
  readonly logitsStride: number;
  /** Frees everything that the network holds on the device, which is all but the caller's parameters. */
  destroy(): void;
}

/** What {@link Network.configureGates} takes for gates without noise, as a trained model is run: open or closed. */
export function hardGates(bias: number | undefined, batchRows: number): NetworkGates {
  return {
    seed: 0,
    step: 0,
    firstRow: 0,
    bias: bias ?? 0,
    temperature: 1,
    saturationWeight: 0,
    saturationBound: 0,
    batchRows,
  };
}

/** What a linear layer is compiled for: y [rows, outputs] from x [rows, inputs]. */
interface LinearShape {
  rows: number;
  inputs: number;
  outputs: number;
  training: boolean;
  /** What follows it, which the same kernel can do: `ended` beside `forward`. */
  ending?: "residual" | "gelu";
  /** Whether x and W are f16, and whether y is. Gradients are not. */
  half: { operands: boolean; result: boolean };
}

/** A linear layer y = x W + b with W [in, out], and its gradients. */
async function prepareLinear(gpu: Gpu, { rows, inputs, outputs, training, ending, half }: LinearShape) {
  const product = (layout: MatmulLayout, m: number, n: number, k: number, options: Partial<MatmulConfig>) =>
    prepareMatmul(gpu, { layout, m, n, k, ...options });
  const ofForward: Partial<MatmulConfig> = {
    bias: true,
    half: half.operands ? half.result ? ["a", "b", "c"] : ["a", "b"] : [],
  };
  const forward = await product("nn", rows, outputs, inputs, ofForward);
  const ended = ending
    ? await product("nn", rows, outputs, inputs, { ...ofForward, [ending]: true })
    : forward;
  if (!training) return { forward, ended };
  const [dx, dweight, dbias] = await Promise.all([
    product("nt", rows, inputs, outputs, { half: half.operands ? ["b"] : [] }),
    product("tn", inputs, outputs, rows, { accumulate: true, half: half.operands ? ["a"] : [] }),
    prepareBiasGradient(gpu, { m: rows, n: outputs, accumulate: true }),
  ]);
  return { forward, ended, dx, dweight, dbias };
}

/** Parameters in half precision, by name, and how each is made from the one that is trained. */
async function prepareRounded(gpu: Gpu, shapes: readonly ParameterShape[]) {
  return await Promise.all(
    shapes.filter(isRounded).map(async ({ name, shape: [rows, columns] }) => ({
      name,
      tensor: gpu.tensor(`${name} in half precision`, [rows, columns], "f16"),
      // A matrix of embeddings may be larger than a binding.
      slices: await Promise.all(
        slicesOf(rows, columns, gpu.maxBindingBytes, 2).map(async ({ start, count }) => ({
          start,
          count,
          rounding: await prepareRounding(gpu, { length: count * columns }),
        })),
      ),
    })),
  );
}

/** Compiles a network and allocates its activations. */
export async function prepareNetwork(gpu: Gpu, config: ModelConfig, shape: NetworkShape): Promise<Network> {
  const { width, heads, layers, mlpWidth, vocabularySize, layerNormEpsilon } = config;
  const { batch, context, training, distill = false, recompute = false, half = false } = shape;
  if (context > config.contextLength) {
    throw new RangeError(
      `Cannot prepare a context of ${context} as the model's positions end at ${config.contextLength}`,
    );
  }
  const headSize = width / heads;
  if (half && [width, headSize, mlpWidth].some((size) => size % 4 !== 0)) {
    throw new RangeError(
      `Cannot store activations as f16 as width, head size and MLP width must be multiples of 4: ` +
        `${width}, ${headSize}, ${mlpWidth}`,
    );
  }
  const rows = batch * context;
  const plan = planMemory(config, shape, gpu.maxBindingBytes);
  const { blocks, logitsStride: stride } = plan;
  const slices = slicesOf(vocabularySize, width, gpu.maxBindingBytes, half ? 2 : 4);

  const embedding = await prepareEmbedding(gpu, { batch, positions: context, vocabularySize, width });
  const layerNorm = await prepareLayerNorm(gpu, { rows, width, epsilon: layerNormEpsilon, half });
  const linear = (inputs: number, outputs: number, ending?: LinearShape["ending"]) => {
    // The residual stream, which two of them end in, is never f16.
    const ofHalf = { operands: half, result: half && ending !== "residual" };
    return prepareLinear(gpu, { rows, inputs, outputs, training, ending, half: ofHalf });
  };
  const qkvLinear = await linear(width, 3 * width);
  const attentionLinear = await linear(width, width, "residual");
  const mlpIn = await linear(width, mlpWidth, "gelu");
  const mlpOut = await linear(mlpWidth, width, "residual");
  const gelu = await prepareGelu(gpu, { length: rows * mlpWidth, half });
  const residual = await prepareResidual(gpu, { length: rows * width });
  const attention = await Promise.all(
    Array.from(
      { length: layers },
      (_, layer) =>
        prepareGatedAttention(gpu, { batch, heads, positions: context, headSize, layer, training, half }),
    ),
  );
  const crossEntropy = await prepareCrossEntropy(gpu, { rows, vocabularySize, stride });
  const distillation = distill ? await prepareDistillation(gpu, { vocabularySize, stride }) : undefined;
  const logitsOf = (count: number, slice: Slice, inHalf: MatmulConfig["half"]) =>
    prepareMatmul(gpu, {
      layout: "nt",
      m: count,
      n: slice.count,
      k: width,
      cStride: stride,
      cColumn: slice.start,
      half: half ? inHalf : [],
    });
  const head = await Promise.all(blocks.map(({ count }) =>
    Promise.all(slices.map(async (slice, index) => ({
      ...slice,
      logits: await logitsOf(count, slice, ["a", "b"]),
      // The student's weights have taken the place of the teacher's rounded ones by then.
      teacherLogits: distill ? await logitsOf(count, slice, ["a"]) : undefined,
      dx: await prepareMatmul(gpu, {
        layout: "nn",
        m: count,
        n: width,
        k: slice.count,
        aStride: stride,
        aColumn: slice.start,
        accumulate: index > 0,
        half: half ? ["b"] : [],
      }),
      dweight: await prepareMatmul(gpu, {
        layout: "tn",
        m: slice.count,
        n: width,
        k: count,
        aStride: stride,
        aColumn: slice.start,
        accumulate: true,
        half: half ? ["b"] : [],
      }),
    })))
  ));

  const buffers = plan.buffers.map((bytes, n) => gpu.tensor(`activations ${n}`, [bytes / 4]));
  const tensors = new Map(
    [...plan.tensors].map(([name, { shape, type, buffer }]) =>
      [name, within(buffers[buffer], name, shape, type)] as const
    ),
  );
  const rounded = await prepareRounded(gpu, half ? parameterShapes(config) : []);
  const planned = (name: string): Tensor => tensors.get(name)!;
  const activations = new Map([...tensors].filter(([name]) => /^(blocks|ln_final)\./.test(name)));
  const branch = planned("branch");
  const blocksOfModel = Array.from({ length: layers }, (_, layer) => {
    const name = `blocks.${layer}`;
    activations.set(`${name}.hook_attn_out`, branch).set(`${name}.hook_mlp_out`, branch);
    if (layer > 0) activations.set(`blocks.${layer - 1}.hook_resid_post`, planned(`${name}.hook_resid_pre`));
    return {
      name,
      residualPre: planned(`${name}.hook_resid_pre`),
      norm1: planned(`${name}.ln1.hook_normalized`),
      statistics1: planned(`${name}.ln1.statistics`),
      qkv: planned(`${name}.attn.hook_qkv`),
      z: planned(`${name}.attn.hook_z`),
      logSumExp: planned(`${name}.attn.log_sum_exp`),
      rowSums: planned(`${name}.attn.row_sums`),
      residualMid: planned(`${name}.hook_resid_mid`),
      norm2: planned(`${name}.ln2.hook_normalized`),
      statistics2: planned(`${name}.ln2.statistics`),
      mlpPre: planned(`${name}.mlp.hook_pre`),
      mlpPost: planned(`${name}.mlp.hook_post`),
    };
  });
  const residualFinal = planned(`blocks.${layers - 1}.hook_resid_post`);
  const normFinal = planned("ln_final.hook_normalized");
  const statisticsFinal = planned("ln_final.statistics");
  const logits = planned("logits");
  const targets = gpu.tensor("targets", [rows], "u32");
  const lossRows = gpu.tensor("loss rows", [rows, 4]);
  const totals = gpu.tensor("loss totals", [4]);
  const distillationTotals = gpu.tensor("distillation totals", [4]);
  const headSums = gpu.tensor("head sums", [layers, heads, 8]);
  const teacher = distill
    ? {
      norm: planned("teacher's final layer norm"),
      logits: planned("teacher's logits"),
      rows: gpu.tensor("distillation rows", [rows, 4]),
    }
    : undefined;
  const scratch = training
    ? {
      dresidual: planned("dresidual"),
      dresidualMid: planned("dresidual mid"),
      dnorm: planned("dnorm"),
      dz: planned("dz"),
      dqkv: planned("dqkv"),
      dmlpPost: planned("dmlp post"),
      dmlpPre: planned("dmlp pre"),
      delta: planned("delta"),
    }
    : undefined;

  /** A layer up to the activations inside its MLP: what forward computes first, and what `recompute` computes anew. */
  function layerForward(
    recorder: Recorder,
    parameters: Parameters,
    mode: GateMode,
    layer: number,
    { hook, countEdges }: { hook?: ActivationHook; countEdges: boolean },
  ): void {
    const done = doneOf(recorder, hook);
    const block = blocksOfModel[layer];
    const { name } = block;
    const h = `h.${layer}`;
    const get = (name: string): Tensor => parameters.get(name)!;
    done(`${name}.hook_resid_pre`);
    layerNorm.forward(recorder, {
      x: block.residualPre,
      weight: get(`${h}.ln_1.weight`),
      bias: get(`${h}.ln_1.bias`),
      y: block.norm1,
      statistics: block.statistics1,
    });
    done(`${name}.ln1.hook_normalized`);
    qkvLinear.forward.record(recorder, {
      a: block.norm1,
      b: weightOf(parameters, `${h}.attn.c_attn.weight`),
      bias: get(`${h}.attn.c_attn.bias`),
      c: block.qkv,
    });
    done(`${name}.attn.hook_qkv`);
    attention[layer].forward(recorder, mode, {
      qkv: block.qkv,
      y: block.z,
      logSumExp: block.logSumExp,
      rowSums: block.rowSums,
    });
    if (countEdges) attention[layer].sumHeads(recorder, { rowSums: block.rowSums, headSums });
    done(`${name}.attn.hook_z`);
    branchForward(recorder, parameters, attentionLinear, {
      weights: `${h}.attn.c_proj`,
      x: block.z,
      name: `${name}.hook_attn_out`,
      residual: block.residualPre,
      sum: block.residualMid,
    }, hook);
    done(`${name}.hook_resid_mid`);
    layerNorm.forward(recorder, {
      x: block.residualMid,
      weight: get(`${h}.ln_2.weight`),
      bias: get(`${h}.ln_2.bias`),
      y: block.norm2,
      statistics: block.statistics2,
    });
    done(`${name}.ln2.hook_normalized`);
    const intoMlp = {
      a: block.norm2,
      b: weightOf(parameters, `${h}.mlp.c_fc.weight`),
      bias: get(`${h}.mlp.c_fc.bias`),
      c: block.mlpPre,
    };
    if (hook) {
      mlpIn.forward.record(recorder, intoMlp);
      done(`${name}.mlp.hook_pre`);
      gelu.forward(recorder, { x: block.mlpPre, y: block.mlpPost });
      done(`${name}.mlp.hook_post`);
    } else mlpIn.ended.record(recorder, { ...intoMlp, activated: block.mlpPost });
  }

  /**
   * The product that a branch ends in, added to the residual stream: in one kernel, or in two where a hook is to see the
   * branch by itself. The bits are the same.
   */
  function branchForward(
    recorder: Recorder,
    parameters: Parameters,
    linear: Awaited<ReturnType<typeof prepareLinear>>,
    { weights, x, name, residual: stream, sum }: {
      weights: string;
      x: Tensor;
      name: string;
      residual: Tensor;
      sum: Tensor;
    },
    hook: ActivationHook | undefined,
  ): void {
    const operands = {
      a: x,
      b: weightOf(parameters, `${weights}.weight`),
      bias: parameters.get(`${weights}.bias`)!,
    };
    if (!hook) return linear.ended.record(recorder, { ...operands, residual: stream, c: sum });
    linear.forward.record(recorder, { ...operands, c: branch });
    hook(name, branch, recorder);
    residual.forward(recorder, { a: stream, b: branch, sum });
  }

  const doneOf = (recorder: Recorder, hook: ActivationHook | undefined) => (name: string): void =>
    hook?.(name, activations.get(name)!, recorder);

  /** A weight as products read it: rounded where that was asked for, by the latest forward. */
  const roundedByName = new Map(rounded.map(({ name, tensor }) => [name, tensor]));
  const weightOf = (parameters: Parameters, name: string): Tensor =>
    roundedByName.get(name) ?? parameters.get(name)!;

  /** Gradients of y = x W + b, and dx where the input has a gradient to receive. */
  function linearBackward(
    recorder: Recorder,
    linear: Awaited<ReturnType<typeof prepareLinear>>,
    parameters: Parameters,
    gradients: Parameters | undefined,
    name: string,
    { x, dy, dx }: { x: Tensor; dy: Tensor; dx: Tensor },
  ): void {
    linear.dx!.record(recorder, { a: dy, b: weightOf(parameters, `${name}.weight`), c: dx });
    if (!gradients) return;
    linear.dweight!.record(recorder, { a: x, b: dy, c: gradients.get(`${name}.weight`)! });
    linear.dbias!.record(recorder, { dc: dy, dbias: gradients.get(`${name}.bias`)! });
  }

  /** Logits of one block, of the network or of its teacher, from their final layer norm. */
  function recordLogits(recorder: Recorder, parameters: Parameters, block: number, ofTeacher = false): void {
    const { first, count } = blocks[block];
    const [x, into] = ofTeacher ? [teacher!.norm, teacher!.logits] : [normFinal, logits];
    const embeddingTensor = ofTeacher ? parameters.get("wte.weight")! : weightOf(parameters, "wte.weight");
    for (const { start, count: tokens, logits: ofNetwork, teacherLogits } of head[block]) {
      const product = ofTeacher ? teacherLogits! : ofNetwork;
      product.record(recorder, {
        a: rowsOf(x, first, count),
        b: rowsOf(embeddingTensor, start, tokens),
        c: into,
      });
    }
  }

  return {
    shape,
    config,
    activations,
    lossRows,
    distillationRows: teacher?.rows,
    totals,
    distillationTotals,
    headSums,
    blocks,
    logitsStride: stride,
    logitsTensor: logits,

    upload(inputs, targetValues) {
      embedding.upload(inputs);
      gpu.write(targets, targetValues);
    },

    configureGates({ batchRows, ...settings }) {
      const pairs = context * (context + 1) / 2;
      const edgeWeight = 1 / (layers * heads * batchRows * pairs);
      for (const layer of attention) layer.configure({ ...settings, edgeWeight });
    },

    configureRows(count) {
      for (const layer of attention) layer.configureRows(count);
    },

    configureLoss({ weight, distill: distillWeight = 0 }) {
      crossEntropy.configure({ weight });
      distillation?.configure({ weight: weight * distillWeight });
    },

    forward(recorder, parameters, mode, { hook, countEdges = true } = {}) {
      const get = (name: string): Tensor => parameters.get(name)!;
      const done = doneOf(recorder, hook);
      const [firstBlock] = blocksOfModel;
      for (const { name, tensor, slices } of rounded) {
        for (const { start, count, rounding } of slices) {
          rounding.record(recorder, {
            values: rowsOf(get(name), start, count),
            rounded: rowsOf(tensor, start, count),
          });
        }
      }
      embedding.forward(recorder, {
        tokenEmbedding: get("wte.weight"),
        positionEmbedding: get("wpe.weight"),
        x: firstBlock.residualPre,
      });
      for (let layer = 0; layer < layers; layer++) {
        layerForward(recorder, parameters, mode, layer, { hook, countEdges });
        const block = blocksOfModel[layer];
        branchForward(recorder, parameters, mlpOut, {
          weights: `h.${layer}.mlp.c_proj`,
          x: block.mlpPost,
          name: `${block.name}.hook_mlp_out`,
          residual: block.residualMid,
          sum: blocksOfModel[layer + 1]?.residualPre ?? residualFinal,
        }, hook);
      }
      done(`blocks.${layers - 1}.hook_resid_post`);
      layerNorm.forward(recorder, {
        x: residualFinal,
        weight: get("ln_f.weight"),
        bias: get("ln_f.bias"),
        y: normFinal,
        statistics: statisticsFinal,
      });
      done("ln_final.hook_normalized");
    },

    keepAsTeacher(recorder) {
      recorder.copy(normFinal, teacher!.norm);
    },

    head(recorder, parameters, { backward, teacher: teacherParameters } = {}) {
      const embeddingTensor = weightOf(parameters, "wte.weight");
      for (let block = 0; block < blocks.length; block++) {
        const { first, count } = blocks[block];
        const ofBlock = (tensor: Tensor): Tensor => rowsOf(tensor, first, count);
        const student = rowsOf(logits, 0, count);
        const shared = { targets: ofBlock(targets) };
        recordLogits(recorder, parameters, block);
        let extra: Tensor | undefined;
        if (teacherParameters) {
          const tensors = {
            ...shared,
            teacher: rowsOf(teacher!.logits, 0, count),
            student,
            rows: ofBlock(teacher!.rows),
          };
          recordLogits(recorder, teacherParameters, block, true);
          distillation!.forward(recorder, tensors);
          if (backward) {
            distillation!.backward(recorder, { ...tensors, scale: backward.lossScale });
            extra = tensors.teacher;
          }
        }
        crossEntropy.record(
          recorder,
          { ...shared, logits: student, rows: ofBlock(lossRows) },
          backward && { scale: backward.lossScale, extra },
        );
        if (!backward) continue;
        const dembedding = backward.gradients.get("wte.weight")!;
        for (const { start, count: tokens, dx, dweight } of head[block]) {
          dx.record(recorder, {
            a: logits,
            b: rowsOf(embeddingTensor, start, tokens),
            c: rowsOf(scratch!.dnorm, first, count),
          });
          dweight.record(recorder, {
            a: logits,
            b: rowsOf(normFinal, first, count),
            c: rowsOf(dembedding, start, tokens),
          });
        }
      }
      crossEntropy.total(recorder, { rows: lossRows, totals });
      if (teacherParameters) {
        crossEntropy.total(recorder, { rows: teacher!.rows, totals: distillationTotals });
      }
    },

    logits(recorder, parameters, block) {
      recordLogits(recorder, parameters, block);
    },

    destroy() {
      const sums = [targets, lossRows, totals, distillationTotals, headSums];
      const ofTeacher = teacher ? [teacher.rows] : [];
      for (const tensor of [...buffers, ...rounded.map(({ tensor }) => tensor), ...sums, ...ofTeacher]) {
        destroyTensor(gpu, tensor);
      }
      for (const op of [embedding, ...attention, crossEntropy, distillation]) op?.destroy();
    },

    backward(recorder, parameters, gradients, mode, edgeScale, hook) {
      const get = (name: string): Tensor => parameters.get(name)!;
      const gradient = (name: string): Tensor => gradients!.get(name)!;
      const done = (name: string, tensor: Tensor): void => hook?.(name, tensor, recorder);
      /** What a layer norm's two parameters get, where parameters get any. */
      const ofNorm = (name: string) =>
        gradients && { dweight: gradient(`${name}.weight`), dbias: gradient(`${name}.bias`) };
      const { dresidual, dresidualMid, dnorm, dz, dqkv, dmlpPost, dmlpPre, delta } = scratch!;
      done("ln_final.hook_normalized", dnorm);
      layerNorm.backward(recorder, {
        x: residualFinal,
        weight: get("ln_f.weight"),
        statistics: statisticsFinal,
        dy: dnorm,
        dx: dresidual,
        parameters: ofNorm("ln_f"),
      });
      done(`blocks.${layers - 1}.hook_resid_post`, dresidual);
      for (let layer = layers - 1; layer >= 0; layer--) {
        if (recompute) {
          layerForward(recorder, parameters, mode, layer, { countEdges: false });
        }
        const block = blocksOfModel[layer];
        const { name } = block;
        const h = `h.${layer}`;
        const linear = (
          product: Awaited<ReturnType<typeof prepareLinear>>,
          name: string,
          tensors: { x: Tensor; dy: Tensor; dx: Tensor },
        ) => linearBackward(recorder, product, parameters, gradients, `${h}.${name}`, tensors);
        linear(mlpOut, "mlp.c_proj", { x: block.mlpPost, dy: dresidual, dx: dmlpPost });
        done(`${name}.mlp.hook_post`, dmlpPost);
        gelu.backward(recorder, { x: block.mlpPre, dy: dmlpPost, dx: dmlpPre });
        done(`${name}.mlp.hook_pre`, dmlpPre);
        linear(mlpIn, "mlp.c_fc", { x: block.norm2, dy: dmlpPre, dx: dnorm });
        done(`${name}.ln2.hook_normalized`, dnorm);
        layerNorm.backward(recorder, {
          x: block.residualMid,
          weight: get(`${h}.ln_2.weight`),
          statistics: block.statistics2,
          dy: dnorm,
          dresidual,
          dx: dresidualMid,
          parameters: ofNorm(`${h}.ln_2`),
        });
        done(`${name}.hook_resid_mid`, dresidualMid);
        linear(attentionLinear, "attn.c_proj", { x: block.z, dy: dresidualMid, dx: dz });
        done(`${name}.attn.hook_z`, dz);
        attention[layer].backward(recorder, mode, {
          qkv: block.qkv,
          y: block.z,
          dy: dz,
          logSumExp: block.logSumExp,
          edgeScale,
          delta,
          dqkv,
        });
        done(`${name}.attn.hook_qkv`, dqkv);
        linear(qkvLinear, "attn.c_attn", { x: block.norm1, dy: dqkv, dx: dnorm });
        done(`${name}.ln1.hook_normalized`, dnorm);
        layerNorm.backward(recorder, {
          x: block.residualPre,
          weight: get(`${h}.ln_1.weight`),
          statistics: block.statistics1,
          dy: dnorm,
          dresidual: dresidualMid,
          dx: dresidual,
          parameters: ofNorm(`${h}.ln_1`),
        });
        done(`${name}.hook_resid_pre`, dresidual);
      }
      if (!gradients) return;
      embedding.backward(recorder, {
        dx: dresidual,
        dtokenEmbedding: gradient("wte.weight"),
        dpositionEmbedding: gradient("wpe.weight"),
      });
    },
  };
}
