/**
 * The time of a step that stages share, told before it is run: their passes one by one, as the stages do them.
 *
 * @module
 */
import { stageActions, type StageShape } from "../model/stage.ts";
import type { HOST } from "./step_time.ts";

/** What a stage does of a micro-batch. */
export interface StageWork {
  /** Seconds. */
  forward: number;
  backward: number;
  /** Bytes of its gradients, which as many ranks as there are pipelines add up behind their last backward. */
  gradients: number;
}

/** A step as stages do it. */
export interface StagedStep {
  stages: readonly StageWork[];
  microBatches: number;
  pipelines: number;
  /** Bytes that pass between two stages with each micro-batch: a stream forward, with a teacher two, and one back. */
  stream: { forward: number; backward: number };
  /** Bytes of a tied embedding, which the last stage gets back from the first once; or 0. */
  embedding: number;
  /** How often it is sent for each micro-batch: once for each block of logits. */
  blocks: number;
  /** Bytes that a rank sends in a second, and gets in the same. */
  network: number;
  host: typeof HOST;
}

/** Seconds of a step of stages. */
export interface StagedTime {
  /** What the stage that has most to do computes. */
  compute: number;
  /** Until every stage has gone backward through all: with waiting for one another, and for what passes. */
  passes: number;
  /** From there to the end: gradients of several pipelines, which none of backward is taken to hide, and new weights. */
  exchange: number;
  /** All of it. */
  step: number;
}

/**
 * The time of a step. A stage begins a pass when it has ended the one before, has read what that sends, and has been sent what
 * this one begins with.
 */
export function timeOfStages(
  { stages, microBatches, pipelines, stream, embedding, blocks, network, host }: StagedStep,
): StagedTime {
  const last = stages.length - 1;
  const read = (bytes: number): number => bytes === 0 ? 0 : host.bucketSeconds + bytes / host.bytesPerSecond;
  /** When what a pass of a stage sends is there, by pass and micro-batch. */
  const there = new Map<string, number>();
  const keyOf = (kind: string, stage: number, microBatch: number): string => `${kind} ${stage} ${microBatch}`;
  const queues = stages.map((_, index) => {
    const shape: StageShape = { index, count: stages.length };
    return { actions: stageActions(shape, microBatches), free: 0 };
  });
  for (let left = 2 * microBatches * stages.length; left > 0;) {
    for (const [index, queue] of queues.entries()) {
      const [action] = queue.actions;
      if (!action) continue;
      const { kind, microBatch } = action;
      const from = kind === "forward" ? index - 1 : index + 1;
      const begins = from < 0 || from > last ? 0 : there.get(keyOf(kind, from, microBatch));
      if (begins === undefined) continue;
      queue.actions.shift();
      left--;
      const sends = index === (kind === "forward" ? last : 0) ? 0 : stream[kind];
      const ofHead = kind === "backward" && index === last && last > 0 ? blocks * embedding : 0;
      queue.free = Math.max(queue.free, begins) + stages[index][kind] + read(sends) +
        (ofHead === 0 ? 0 : blocks * read(embedding));
      there.set(keyOf(kind, index, microBatch), queue.free + (sends + ofHead) / network);
    }
  }
  const share = (pipelines - 1) / pipelines;
  const summed = (bytes: number): number => share === 0 ? 0 : read(bytes) + 2 * bytes * share / network;
  const passes = Math.max(...queues.map(({ free }) => free));
  const ends = queues.map(({ free }, index) => free + summed(stages[index].gradients));
  const step = Math.max(...ends) + read(embedding) + embedding / network;
  const compute = microBatches * Math.max(...stages.map(({ forward, backward }) => forward + backward));
  return { compute, passes, exchange: step - passes, step };
}
