/**
 * A model compiled for one shape of batch: forward, head and backward over parameters that the caller names. The same
 * network runs the model being trained, its frozen teacher and its dense control; they differ in their parameters and in
 * how gates are used. What it does is its schedule; what an operation does is its own affair.
 *
 * Shapes: B batch, T positions, d width, H heads, D head size, F MLP width, V vocabulary, L layers.
 *
 * @module
 */
import { allOrNothing } from "../../kernels/core/all_or_nothing.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import { destroyTensor, type Tensor, within } from "../../kernels/core/tensor.ts";
import { faultOfRanks } from "../../kernels/matmul/low_rank.ts";
import type { GateMode } from "../../kernels/gated_attention/op.ts";
import { prepareResidual } from "../../kernels/residual/op.ts";
import { faultOfFours, faultOfHalf, type ModelConfig } from "./config.ts";
import type { NetworkGates } from "./gates.ts";
import { absentHead, type HeadBackward, type LossSettings, prepareHead } from "./head.ts";
import { headValues } from "./logits.ts";
import type { Value } from "./op.ts";
import type { Parameters } from "./parameters.ts";
import { type NetworkShape, planActions } from "./plan.ts";
import { prepareRounded } from "./rounded.ts";
import { type ActivationHook, type Bindings, prepareSteps } from "./runner.ts";
import { schedule, type Stretch, stretchesOf } from "./schedule.ts";
import { type Cut, type ModelStage, stageOf } from "./stage.ts";
import { type Model, trace } from "./trace.ts";

/** A compiled network with its activations. */
export interface Network {
  /** What it is compiled for. */
  readonly shape: NetworkShape;
  /** Whose sizes it has. */
  readonly config: ModelConfig;
  /** The model that it runs, or of which it runs a stage. */
  readonly model: Model;
  /** What of that it runs. */
  readonly stage: ModelStage;
  /** Of the micro-batch that is selected. */
  readonly cut: Cut;
  /** What is recorded from now on is of this one of the micro-batches in flight, from 0; the first, until told otherwise. */
  select(slot: number): void;
  /**
   * Activations by TransformerLens's names, with `(batch · position)` as the first axis: `blocks.N.hook_resid_pre`
   * [BT, d], `blocks.N.ln1.hook_normalized` [BT, d], `blocks.N.attn.hook_qkv` [BT, 3, H, D], `blocks.N.attn.hook_z`
   * [BT, H, D], `blocks.N.hook_attn_out` [BT, d], `blocks.N.hook_resid_mid`, `blocks.N.ln2.hook_normalized`,
   * `blocks.N.mlp.hook_pre` [BT, F], `blocks.N.mlp.hook_post`, `blocks.N.hook_mlp_out`, `blocks.N.hook_resid_post`,
   * `ln_final.hook_normalized`. Tensors whose values are not needed at the same time share memory: read them in a hook,
   * or prepare the network with `keep`. Other families have further ones ({@link Network.model}).
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
  /**
   * Uploads inputs and targets, each [B · T]; a target of 0xffffffff does not count. `weights` [B · T]: what each position's
   * gradient of the loss is multiplied by, where the network is `weighted`; 1 where left out. Losses know nothing of it.
   *
   * @throws {RangeError} on weights of a network that is not
   */
  upload(inputs: Uint32Array, targets: Uint32Array, weights?: Float32Array): void;
  /** Sets what the gates see in the next submissions. */
  configureGates(settings: NetworkGates): void;
  /** Counts only the first `rows` of the batch in `headSums`. */
  configureRows(rows: number): void;
  /** Sets how the next submissions weigh the loss. */
  configureLoss(settings: LossSettings): void;
  /**
   * Everything up to the final norm. `hook` sees each activation as it is computed, and may replace it; `countEdges: false`
   * leaves `headSums` alone.
   */
  forward(
    recorder: Recorder,
    parameters: Parameters,
    mode: GateMode,
    options?: { hook?: ActivationHook; countEdges?: boolean },
  ): void;
  /** Keeps the final norm's output as the teacher's, for the next {@link Network.head}. */
  keepAsTeacher(recorder: Recorder): void;
  /**
   * Loss from the final norm; with `backward` also its gradient into the head and the final norm. `block`: only of this one of
   * {@link Network.blocks}, all of which must be recorded in their order.
   */
  head(
    recorder: Recorder,
    parameters: Parameters,
    options?: { backward?: HeadBackward; teacher?: Parameters; block?: number },
  ): void;
  /**
   * Adds every parameter's gradient to `gradients`, where it has one there, after {@link Network.head} with `backward`.
   * Without `gradients`, only activations get theirs. `hook` sees them as they are computed, by the names of what they are gradients of:
   * `ln_final.hook_normalized` (before anything else: it may be filled there), `blocks.N.attn.hook_qkv`,
   * `blocks.N.attn.hook_z`, `blocks.N.ln1.hook_normalized`, `blocks.N.ln2.hook_normalized`,
   * `blocks.N.mlp.hook_pre`, `blocks.N.mlp.hook_post`, `blocks.N.hook_resid_pre`, `blocks.N.hook_resid_mid` and
   * `blocks.N.hook_resid_post` of the last block. Layers share their tensors: use them in the hook.
   * `stretch`: only that part of it, all of which must be recorded in their order.
   */
  backward(
    recorder: Recorder,
    parameters: Parameters,
    gradients: Parameters | undefined,
    mode: GateMode,
    edgeScale: Tensor,
    hook?: ActivationHook,
    stretch?: Stretch,
  ): void;
  /** Cuts backward where gradients of so many bytes stand that did not before; those of everything that is trained. */
  stretches(bytes: number): Stretch[];
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

/**
 * Compiles a network and allocates its activations; where it cannot, nothing is left of them on the device.
 *
 * @throws {RangeError} when the context is longer than the model's positions, or sizes do not go with `half`
 */
export function prepareNetwork(gpu: Gpu, config: ModelConfig, shape: NetworkShape): Promise<Network> {
  return allOrNothing(() => prepare(gpu, config, shape));
}

async function prepare(gpu: Gpu, config: ModelConfig, shape: NetworkShape): Promise<Network> {
  const { width, heads, layers } = config;
  const { batch, context, training, distill = false, half = false, adapters = {}, frozen = "f32" } = shape;
  if (context > config.contextLength) {
    throw new RangeError(
      `Cannot prepare a context of ${context} as the model's positions end at ${config.contextLength}`,
    );
  }
  const fault = half ? faultOfHalf(config) ?? faultOfRanks(Object.values(adapters)) : undefined;
  if (fault) throw new RangeError(`Cannot store activations as f16 as ${fault}`);
  const faultOfFrozen = frozen === "f32" ? undefined : faultOfFours(config);
  if (faultOfFrozen) throw new RangeError(`Cannot store frozen weights as ${frozen} as ${faultOfFrozen}`);
  const model = trace(config, { ...shape, maxBindingBytes: gpu.maxBindingBytes });
  const stage = stageOf(model, shape.stage);
  const { steps } = stage;
  const scheduled = schedule(model, shape);
  const { forward, doutput, backward, dinput } = scheduled;
  const plan = planActions(model, scheduled, shape, gpu.maxBindingBytes);
  const runner = await prepareSteps(gpu, forward, { training });
  const sumOfGradients = backward.some(({ kind }) => kind === "add")
    ? await prepareResidual(gpu, { length: batch * context * width })
    : undefined;

  const buffers = plan.buffers.map((bytes, n) => gpu.tensor(`activations ${n}`, [bytes / 4]));
  const slots = Array.from({ length: shape.stage?.inFlight ?? 1 }, (_, slot) =>
    new Map(
      [...plan.tensors].map(([name, { shape, type, buffer, buffersOfOthers }]) => {
        const of = slot === 0 ? buffer : buffersOfOthers?.[slot - 1] ?? buffer;
        return [name, within(buffers[of], name, shape, type)] as const;
      }),
    ));
  let tensors = slots[0];
  const tensorOf = ({ name }: Value): Tensor => tensors.get(name)!;
  const activations = new Map(
    steps.flatMap(({ writes }) => Object.values(writes)).map((value) => [value.name, tensorOf(value)]),
  );
  for (let layer = 1; layer < layers; layer++) {
    const pre = activations.get(`blocks.${layer}.hook_resid_pre`);
    if (pre) activations.set(`blocks.${layer - 1}.hook_resid_post`, pre);
  }
  const rounded = await prepareRounded(
    gpu,
    half ? stage.parameters.filter(({ readByProducts, stored }) => readByProducts && stored === "f32") : [],
  );
  /** A weight as products read it: rounded where that was asked for, by the latest forward. */
  const weightOf = (parameters: Parameters, name: string): Tensor =>
    rounded.tensors.get(name) ?? parameters.get(name)!;
  const { logits, teacherLogits, teacherFinal } = headValues(model, shape, plan);
  const final = tensorOf(model.final.writes.y);
  const head = !stage.hasHead
    ? absentHead(gpu, batch * context)
    : await prepareHead(gpu, model, shape, plan, {
      final,
      logits: tensorOf(logits),
      ...(training ? { dfinal: tensorOf(doutput) } : {}),
      ...(distill ? { teacherFinal: tensorOf(teacherFinal), teacherLogits: tensorOf(teacherLogits) } : {}),
    }, weightOf);
  const headSums = gpu.tensor("head sums", [layers, heads, 8]);

  const bind = (parameters: Parameters): Bindings => ({ tensorOf, parameters, weightOf });

  return {
    shape,
    config,
    model,
    stage,
    activations,
    get cut() {
      return {
        ...(stage.input ? { input: tensorOf(stage.input) } : {}),
        ...(stage.hasHead ? {} : { output: tensorOf(stage.output) }),
        ...(training && !stage.hasHead ? { doutput: tensorOf(doutput) } : {}),
        ...(training && dinput ? { dinput: tensorOf(dinput) } : {}),
      };
    },
    select(slot) {
      tensors = slots[slot];
    },
    lossRows: head.lossRows,
    distillationRows: head.distillationRows,
    totals: head.totals,
    distillationTotals: head.distillationTotals,
    headSums,
    blocks: plan.blocks,
    logitsStride: plan.logitsStride,
    logitsTensor: tensorOf(logits),

    upload(inputs, targets, weights) {
      for (const op of runner.ops) op.upload?.(inputs);
      head.upload(targets, weights);
    },

    configureGates({ batchRows, ...settings }) {
      const pairs = context * (context + 1) / 2;
      const edgeWeight = 1 / (layers * heads * batchRows * pairs);
      for (const op of runner.ops) op.configureGates?.({ ...settings, edgeWeight });
    },

    configureRows(count) {
      for (const op of runner.ops) op.configureRows?.(count);
    },

    configureLoss: head.configure,

    forward(recorder, parameters, mode, { hook, countEdges = true } = {}) {
      rounded.record(recorder, parameters);
      const pass = { mode, headSums: countEdges ? headSums : undefined };
      const bindings = bind(parameters);
      for (const group of forward) runner.run(recorder, group, bindings, pass, hook);
    },

    keepAsTeacher(recorder) {
      recorder.copy(final, tensorOf(teacherFinal));
    },

    head: head.record,
    logits: head.recordLogits,

    stretches: (bytes) => stretchesOf(backward, stage.trained, bytes),

    backward(recorder, parameters, gradients, mode, edgeScale, hook, stretch) {
      const pass = { mode, edgeScale };
      const bindings = bind(parameters);
      for (const action of stretch ? backward.slice(stretch.first, stretch.end) : backward) {
        if (action.kind === "again") runner.run(recorder, action.group, bindings, pass);
        if (action.kind === "differentiate") {
          runner.differentiate(recorder, action, bindings, gradients, pass);
        }
        if (action.kind === "seen") hook?.(action.value.name, tensorOf(action.gradient), recorder);
        if (action.kind === "add") {
          const { a, b, sum } = action;
          sumOfGradients!.forward(recorder, { a: tensorOf(a), b: tensorOf(b), sum: tensorOf(sum) });
        }
      }
    },

    destroy() {
      for (const tensor of [...buffers, headSums]) destroyTensor(gpu, tensor);
      for (const part of [rounded, runner, head]) part.destroy();
    },
  };
}
