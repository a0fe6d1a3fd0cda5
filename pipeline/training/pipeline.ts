/**
 * A rank's stage at work between its neighbours: residual streams go on to the next stage and gradients come back, one
 * forward, one backward. Of a head that is the embedding the last stage sends what each block of logits adds to the gradient;
 * the first adds it before the embedding's own part, which is the order of one process, and sends the new weights back.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import { destroyTensor, elementsOf, reshape, rows, type Tensor } from "../../kernels/core/tensor.ts";
import { prepareAdditionTo } from "../../kernels/residual/op.ts";
import type { Network } from "../model/network.ts";
import type { Parameters } from "../model/parameters.ts";
import { ADDED_AT_ONCE, hasSharedHead, stageActions, stagesThatTrain } from "../model/stage.ts";
import type { Model } from "../model/trace.ts";
import { openDeviceLink } from "../parallel/device_link.ts";
import type { Stages } from "../parallel/exchange.ts";

/** What passes through a stage. All calls are of all stages, in the same order at each. */
export interface Pipeline {
  /** A pass of the selected micro-batch forward, of what the stage before sends, which is sent on. */
  forward(operation: string, record: (recorder: Recorder) => void): Promise<void>;
  /** Resolves when all that was sent has been received. */
  end(): Promise<void>;
  /** Frees what it holds. */
  destroy(): void;
}

/** The same for training. */
export interface TrainingPipeline extends Pipeline {
  /** All micro-batches of a step, forward and backward. */
  step(parts: StepParts): Promise<void>;
  /** Takes the new weights of a head that is trained elsewhere to where it is used. */
  shareHead(parameters: Parameters): Promise<void>;
}

/** What a stage does in a step. */
export interface StepParts {
  /** What it is called in errors. */
  operation: string;
  microBatches: number;
  /** Uploads and sets what a micro-batch needs, before anything of it is recorded. */
  upload(microBatch: number): void;
  /** The passes of a micro-batch forward, in order. */
  passes: readonly ((recorder: Recorder, microBatch: number) => void)[];
  /** The loss and its gradients, of a block of logits or all; called at the last stage. */
  head(recorder: Recorder, gradients: Parameters, block?: number): void;
  /** Added to. */
  gradients: Parameters;
  /** Submits backward of a micro-batch. */
  backward(microBatch: number): void | Promise<void>;
}

/** Prepares what passes forward through a rank's stage. */
export function preparePipeline(gpu: Gpu, network: Network, stages: Stages): Pipeline {
  const { forward, link } = openPipeline(gpu, network, stages, 0);
  return { forward, end: link.end, destroy: link.destroy };
}

/** @param shared elements of a head that passes too */
function openPipeline(gpu: Gpu, network: Network, stages: Stages, shared: number) {
  const { shape: { batch, context }, config: { width } } = network;
  const largest = Math.max(batch * context * width, shared);
  const piece = Math.min(ADDED_AT_ONCE, largest);
  const link = openDeviceLink(gpu, stages, { what: "what passes between stages", largest, piece });
  return {
    link,
    async forward(operation: string, record: (recorder: Recorder) => void): Promise<void> {
      const { input, output } = network.cut;
      if (input) await link.receive(stages.index - 1, input);
      gpu.submit(operation, record);
      if (output) await link.send(stages.index + 1, output);
    },
  };
}

/** Prepares what passes through a rank's stage in training, for which its network must be. */
export async function prepareTrainingPipeline(
  gpu: Gpu,
  network: Network,
  stages: Stages,
): Promise<TrainingPipeline> {
  const { index, count } = stages;
  const { model: { head }, stage, blocks } = network;
  const shape = network.shape.stage!;
  const shared = hasSharedHead(network.model, count) ? elementsOf(head.shape) : 0;
  const { link, forward } = openPipeline(gpu, network, stages, shared);
  const dhead = stage.headIsElsewhere ? gpu.tensor("gradient of the head", head.shape) : undefined;
  const addition = index === 0 && shared > 0 ? await prepareAddition(gpu, shared) : undefined;

  async function backward(submit: () => void | Promise<void>): Promise<void> {
    const { doutput, dinput } = network.cut;
    if (doutput) await link.receive(index + 1, doutput);
    await submit();
    if (dinput) await link.send(index - 1, dinput);
  }

  /** The loss; a gradient that goes elsewhere block by block, as one process adds it. */
  async function lossOf({ operation, head: record, gradients }: StepParts): Promise<void> {
    if (!dhead) return gpu.submit(operation, (recorder) => record(recorder, gradients));
    const all: Parameters = new Map([...gradients, [head.name, dhead]]);
    for (const block of blocks.keys()) {
      gpu.submit(operation, (recorder) => {
        recorder.clear(dhead);
        record(recorder, all, block);
      });
      await link.send(0, dhead);
    }
  }

  return {
    forward,
    end: link.end,

    async step(parts) {
      for (const { kind, microBatch } of stageActions(shape, parts.microBatches)) {
        network.select(microBatch % shape.inFlight!);
        parts.upload(microBatch);
        if (kind === "forward") {
          for (const pass of parts.passes) {
            await forward(parts.operation, (recorder) => pass(recorder, microBatch));
          }
          if (stage.hasHead) await lossOf(parts);
          continue;
        }
        for (const _ of addition ? blocks : []) {
          await link.receivePieces(
            count - 1,
            shared,
            (values, start) => addition!.add(values, parts.gradients.get(head.name)!, start),
          );
        }
        await backward(() => parts.backward(microBatch));
      }
      network.select(0);
      await link.end();
    },

    async shareHead(parameters) {
      if (shared === 0) return;
      const tensor = parameters.get(head.name)!;
      if (index === 0) await link.send(count - 1, tensor);
      if (index === count - 1) await link.receive(0, tensor);
      await link.end();
    },

    destroy() {
      link.destroy();
      addition?.destroy();
      if (dhead) destroyTensor(gpu, dhead);
    },
  };
}

/** Adds values to a place in a tensor of so many elements, as many at once as a link gives. */
async function prepareAddition(gpu: Gpu, length: number) {
  const most = Math.min(ADDED_AT_ONCE, length);
  const additions = new Map(
    await Promise.all(
      [...new Set([most, length % most || most])].map(async (count) =>
        [count, await prepareAdditionTo(gpu, { length: count })] as const
      ),
    ),
  );
  const piece = gpu.tensor("part of a gradient", [most]);
  return {
    add(values: Float32Array, to: Tensor, start: number): void {
      const [a, sum] = [rows(piece, 0, values.length), rows(reshape(to, [length]), start, values.length)];
      gpu.write(a, values);
      gpu.submit(
        "adding a part of a gradient",
        (recorder) => additions.get(values.length)!.record(recorder, { a, sum }),
      );
    },
    destroy: () => destroyTensor(gpu, piece),
  };
}

/**
 * What the stage that trains a parameter reads of it, or of what has its shape, at rank 0; a call of all ranks.
 *
 * @param stages left out: there are none, and it is read here
 * @param options `byAll`: whether all pipelines read, and not the first alone
 */
export async function readAtFirst(
  model: Model,
  stages: Stages | undefined,
  name: string,
  read: () => Promise<Float32Array>,
  { byAll = false }: { byAll?: boolean } = {},
): Promise<Float32Array> {
  if (!stages) return await read();
  const { shape } = model.parameters.find((parameter) => parameter.name === name)!;
  const isNeeded = byAll || stages.pipeline === 0;
  return await stages.toFirst(
    stagesThatTrain(model, stages.count).get(name)!,
    () => isNeeded ? read() : Promise.resolve(new Float32Array()),
    elementsOf(shape),
    name,
  );
}
