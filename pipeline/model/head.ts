/**
 * From the final norm to the loss: logits in blocks of positions and slices of the vocabulary, since neither may be
 * larger than a binding; cross-entropy; the divergence from a teacher; and the gradients of both.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import {
  destroyTensor,
  rows as rowsOf,
  type Slice,
  slicesOf,
  type Tensor,
} from "../../kernels/core/tensor.ts";
import { prepareCrossEntropy } from "../../kernels/cross_entropy/op.ts";
import { prepareDistillation } from "../../kernels/distillation/op.ts";
import { type MatmulConfig, prepareMatmul } from "../../kernels/matmul/op.ts";
import type { Parameters } from "./parameters.ts";
import type { MemoryPlan, NetworkShape } from "./plan.ts";
import type { Model } from "./trace.ts";

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

/** What the head works on. */
export interface HeadTensors {
  /** The final norm's output [B · T, d]. */
  final: Tensor;
  /** Its gradient, where there is training. */
  dfinal?: Tensor;
  /** Logits of one block [rows of the block, stride]. */
  logits: Tensor;
  /** A teacher's, where there is one. */
  teacherFinal?: Tensor;
  teacherLogits?: Tensor;
}

/** A compiled head. */
export interface Head {
  /** Loss of each position [BT, 4]: cross-entropy, 1 if no logit exceeds the target's, log-sum-exp, 1 if counted. */
  readonly lossRows: Tensor;
  /** KL of each position [BT, 4], where there is a teacher. */
  readonly distillationRows: Tensor | undefined;
  /** Sums of (cross-entropy, correct, 0, counted) [4]; added to by {@link Head.record}. */
  readonly totals: Tensor;
  /** Sums of (KL, ., 0, counted) [4]. */
  readonly distillationTotals: Tensor;
  /**
   * Uploads what each position should predict [B · T]; 0xffffffff does not count. `weights` [B · T]: what each one's gradient is
   * multiplied by, in a network prepared for it; 1 where left out.
   *
   * @throws {RangeError} on weights that the network was not prepared for
   */
  upload(targets: Uint32Array, weights?: Float32Array): void;
  /** Sets how the next submissions weigh the loss. */
  configure(settings: LossSettings): void;
  /** Logits of one block. */
  recordLogits(recorder: Recorder, parameters: Parameters, block: number): void;
  /**
   * The loss; with `backward` also its gradient into the matrix of logits and the final norm. `block`: only of this one, all
   * of which must be recorded in their order.
   */
  record(
    recorder: Recorder,
    parameters: Parameters,
    options?: { backward?: HeadBackward; teacher?: Parameters; block?: number },
  ): void;
  /** Frees what it holds beside its tensors. */
  destroy(): void;
}

/** Compiled logits of some rows. */
export interface Logits {
  /** Overwrites `logits` [rows, stride] by the products of `final` [rows, d] with the rows of `matrix` [V, d]. */
  record(recorder: Recorder, tensors: Record<"final" | "matrix" | "logits", Tensor>): void;
}

/**
 * Compiles logits, in slices of the vocabulary.
 *
 * @param half which operands are f16: `a` the final norm, `b` the matrix
 */
async function prepareLogitsOf(
  gpu: Gpu,
  { rows, width, stride, slices, half }: {
    rows: number;
    width: number;
    stride: number;
    slices: readonly Slice[];
    half: MatmulConfig["half"];
  },
): Promise<Logits> {
  const products = await Promise.all(slices.map(async (slice) => ({
    ...slice,
    product: await prepareMatmul(gpu, {
      layout: "nt",
      m: rows,
      n: slice.count,
      k: width,
      cStride: stride,
      cColumn: slice.start,
      half,
    }),
  })));
  return {
    record(recorder, { final, matrix, logits }) {
      for (const { start, count, product } of products) {
        product.record(recorder, { a: final, b: rowsOf(matrix, start, count), c: logits });
      }
    },
  };
}

/** Compiles the logits of some rows of a model, float32 but for a matrix that lies there as f16. */
export function prepareLogits(
  gpu: Gpu,
  { head: { stored }, config: { vocabularySize, width } }: Pick<Model, "head" | "config">,
  { rows, stride }: { rows: number; stride: number },
): Promise<Logits> {
  const slices = slicesOf(vocabularySize, width, gpu.maxBindingBytes, slicedAs(stored === "f16"));
  return prepareLogitsOf(gpu, { rows, width, stride, slices, half: stored === "f16" ? ["b"] : [] });
}

/** Bytes of an element of the matrix of logits, of the smallest and largest of what is cut alike. */
const slicedAs = (half: boolean, frozen = half): { smallest: number; largest: number } => ({
  smallest: half ? 2 : 4,
  largest: frozen ? 2 : 4,
});

/** In place of a head at a stage that has none: sums and losses that stay 0. */
export function absentHead(gpu: Gpu, rows: number): Head {
  const absent = (): never => {
    throw new RangeError("Cannot make logits at a stage that is not the last");
  };
  const [lossRows, totals, distillationTotals] = [
    gpu.tensor("loss rows", [rows, 4]),
    gpu.tensor("loss totals", [4]),
    gpu.tensor("distillation totals", [4]),
  ];
  return {
    lossRows,
    distillationRows: undefined,
    totals,
    distillationTotals,
    upload() {},
    configure() {},
    recordLogits: absent,
    record: absent,
    destroy() {
      for (const tensor of [lossRows, totals, distillationTotals]) destroyTensor(gpu, tensor);
    },
  };
}

/**
 * Compiles the head of a model.
 *
 * @param weightOf the matrix of logits as products read it: rounded, where that was asked for
 */
export async function prepareHead(
  gpu: Gpu,
  { head: matrix, config }: Model,
  { distill = false, half = false, weighted = false }: NetworkShape,
  { blocks, logitsStride: stride }: MemoryPlan,
  tensors: HeadTensors,
  weightOf: (parameters: Parameters, name: string) => Tensor,
): Promise<Head> {
  const { vocabularySize, width } = config;
  const { final, logits } = tensors;
  const [rows] = final.shape;
  // As products read it: what is frozen may be f16 as it lies there.
  const frozenHalf = matrix.stored === "f16";
  const halfMatrix = half || frozenHalf;
  const slices = slicesOf(vocabularySize, width, gpu.maxBindingBytes, slicedAs(halfMatrix, frozenHalf));
  const crossEntropy = await prepareCrossEntropy(gpu, { rows, vocabularySize, stride, weighted });
  const distillation = distill ? await prepareDistillation(gpu, { vocabularySize, stride }) : undefined;
  const logitsOf = (rows: number, of: { matrix: boolean }) =>
    prepareLogitsOf(gpu, {
      rows,
      width,
      stride,
      slices,
      half: [...(half ? ["a" as const] : []), ...(of.matrix ? ["b" as const] : [])],
    });
  const products = await Promise.all(
    blocks.map(async ({ count }) => ({
      logits: await logitsOf(count, { matrix: halfMatrix }),
      // The student's weights have taken the place of the teacher's rounded ones by then.
      teacherLogits: distill ? await logitsOf(count, { matrix: frozenHalf }) : undefined,
      gradients: await Promise.all(slices.map(async (slice, index) => ({
        ...slice,
        dx: await prepareMatmul(gpu, {
          layout: "nn",
          m: count,
          n: width,
          k: slice.count,
          aStride: stride,
          aColumn: slice.start,
          accumulate: index > 0,
          half: halfMatrix ? ["b"] : [],
        }),
        dweight: !matrix.trainable ? undefined : await prepareMatmul(gpu, {
          layout: "tn",
          m: slice.count,
          n: width,
          k: count,
          aStride: stride,
          aColumn: slice.start,
          accumulate: true,
          half: half ? ["b"] : [],
        }),
      }))),
    })),
  );
  const targets = gpu.tensor("targets", [rows], "u32");
  const weights = weighted ? gpu.tensor("weights of positions", [rows]) : undefined;
  const lossRows = gpu.tensor("loss rows", [rows, 4]);
  const totals = gpu.tensor("loss totals", [4]);
  const distillationTotals = gpu.tensor("distillation totals", [4]);
  const distillationRows = distill ? gpu.tensor("distillation rows", [rows, 4]) : undefined;

  function recordLogits(recorder: Recorder, parameters: Parameters, block: number): void {
    const { first, count } = blocks[block];
    products[block].logits.record(recorder, {
      final: rowsOf(final, first, count),
      matrix: weightOf(parameters, matrix.name),
      logits,
    });
  }

  function recordTeacherLogits(recorder: Recorder, parameters: Parameters, block: number): void {
    const { first, count } = blocks[block];
    products[block].teacherLogits!.record(recorder, {
      final: rowsOf(tensors.teacherFinal!, first, count),
      matrix: parameters.get(matrix.name)!,
      logits: tensors.teacherLogits!,
    });
  }

  return {
    lossRows,
    distillationRows,
    totals,
    distillationTotals,
    recordLogits,

    upload(values, ofPositions) {
      gpu.write(targets, values);
      if (weights) gpu.write(weights, ofPositions ?? new Float32Array(rows).fill(1));
      else if (ofPositions) {
        throw new RangeError("Cannot weigh positions as the network was prepared without `weighted`");
      }
    },

    configure({ weight, distill: distillWeight = 0 }) {
      crossEntropy.configure({ weight });
      distillation?.configure({ weight: weight * distillWeight });
    },

    record(recorder, parameters, { backward, teacher, block: only } = {}) {
      for (const [block, { first, count }] of blocks.entries()) {
        if (only !== undefined && block !== only) continue;
        const ofBlock = (tensor: Tensor): Tensor => rowsOf(tensor, first, count);
        const student = rowsOf(logits, 0, count);
        const shared = { targets: ofBlock(targets) };
        recordLogits(recorder, parameters, block);
        let extra: Tensor | undefined;
        if (teacher) {
          const compared = {
            ...shared,
            teacher: rowsOf(tensors.teacherLogits!, 0, count),
            student,
            rows: ofBlock(distillationRows!),
          };
          recordTeacherLogits(recorder, teacher, block);
          distillation!.forward(recorder, compared);
          if (backward) {
            distillation!.backward(recorder, { ...compared, scale: backward.lossScale });
            extra = compared.teacher;
          }
        }
        crossEntropy.record(
          recorder,
          { ...shared, logits: student, rows: ofBlock(lossRows) },
          backward && { scale: backward.lossScale, extra, weights: weights && ofBlock(weights) },
        );
        if (!backward) continue;
        // None where it is frozen.
        const dmatrix = backward.gradients.get(matrix.name);
        for (const { start, count: tokens, dx, dweight } of products[block].gradients) {
          dx.record(recorder, {
            a: logits,
            b: rowsOf(weightOf(parameters, matrix.name), start, tokens),
            c: ofBlock(tensors.dfinal!),
          });
          if (dmatrix) {
            dweight?.record(recorder, { a: logits, b: ofBlock(final), c: rowsOf(dmatrix, start, tokens) });
          }
        }
      }
      if (only !== undefined && only < blocks.length - 1) return;
      crossEntropy.total(recorder, { rows: lossRows, totals });
      if (teacher) crossEntropy.total(recorder, { rows: distillationRows!, totals: distillationTotals });
    },

    destroy() {
      const held = [
        targets,
        lossRows,
        totals,
        distillationTotals,
        ...(distillationRows ? [distillationRows] : []),
        ...(weights ? [weights] : []),
      ];
      for (const tensor of held) destroyTensor(gpu, tensor);
      for (const op of [crossEntropy, distillation]) op?.destroy();
    },
  };
}
