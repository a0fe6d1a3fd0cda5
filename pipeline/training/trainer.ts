/**
 * One training step on the device: gradients of the objective, clipping, AdamW, and the multiplier. Nothing here waits
 * for the device; what a step measured is read from its log later.
 *
 *     objective = [E + ρ R + λ (CE + w KL − τ)] / (1 + λ)
 *
 * with E the mean open probability over layers, heads and causal pairs, R the mean of relu(|g| − bound)², and λ moved
 * by GECO. Without gates (pre-training, the control) the objective is CE.
 *
 * @module
 */
import { type AdamWSettings, prepareAdamW } from "../../kernels/adamw/op.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import { destroyTensor, rows, type Tensor } from "../../kernels/core/tensor.ts";
import { IGNORED_TARGET } from "../../kernels/cross_entropy/op.ts";
import { type GecoSettings, prepareGeco } from "../../kernels/geco/op.ts";
import { createDeviceLog, type DeviceLog } from "./device_log.ts";
import type { Network } from "../model/network.ts";
import type { Exchange } from "../parallel/exchange.ts";
import {
  type Bucket,
  type OwnedTensor,
  prepareDeviceGather,
  prepareDeviceSum,
} from "../parallel/device_sum.ts";
import { type Piece, piecesOf } from "../model/shards.ts";
import { createMoments, createMomentsOfPieces, type Moment, pieceOf } from "./moments.ts";
import type { Parameter } from "../model/op.ts";
import { createParameters, destroyParameters, type Parameters } from "../model/parameters.ts";
import type { Stretch } from "../model/schedule.ts";
import { cutBatch } from "../text/batches.ts";

/** One micro-batch, each [B · T]; a target of 0xffffffff does not count. */
export interface MicroBatch {
  /** Tokens that are read. */
  inputs: Uint32Array;
  /** The token behind each. */
  targets: Uint32Array;
  /** What each position's gradient of the loss is multiplied by, where the network is weighted; 1 where left out. */
  weights?: Float32Array;
}

/** How gates are trained. */
export interface GateObjective {
  /** b in g = l + b. */
  bias: number;
  /** τg of the straight-through relaxation. */
  temperature: number;
  /** ρ. */
  saturationWeight: number;
  /** Gate logit beyond which they are pulled back. */
  saturationBound: number;
  /** λ at the start. */
  lambdaStart: number;
  /** Step, counted from 0, with which gates begin to act and λ to move; training before it is dense. Left out: the first. */
  from?: number;
  /** The controller of λ. */
  geco: Omit<GecoSettings, "targetLoss">;
}

/** What a trainer is made of. */
export interface TrainerOptions {
  /** Compiled for training; its shape is that of a micro-batch. */
  network: Network;
  /** All that the network reads; those that are trained are updated in place. */
  parameters: Parameters;
  /** Keys the gates' noise. */
  seed: number;
  /** Micro-batches to a step, those of all ranks together. */
  accumulate: number;
  /** The other ranks, each of which does its share of every step; left out: this one does all. */
  exchange?: Exchange;
  /** Each rank keeps the moments of its share of the parameters alone, and updates those: the same bits. */
  shardOptimizer?: boolean;
  /** Bytes of gradients that ranks sum at once while backward goes on, at least; left out: 16 MiB. */
  bucketBytes?: number;
  /** Left out: dense training. */
  gates?: GateObjective;
  /** A frozen dense model and the weight w of KL(teacher ‖ student). */
  distill?: { teacher: Parameters; weight: number };
  /** Constants of AdamW. */
  optimiser: Omit<AdamWSettings, "learningRate" | "step">;
  /** What the learning rate is multiplied by for embeddings, and for queries, keys and values; 1 where left out. */
  rates?: { embedding?: number; attention?: number };
}

/** What each step leaves in the log; see {@link Network} for the sums. */
export type StepLog = DeviceLog<
  "totals" | "distillationTotals" | "headSums" | "update" | "multiplier" | "lossScale" | "edgeScale"
>;

/** A model in training. */
export interface Trainer {
  /** The weights that are trained, updated in place. */
  readonly parameters: Parameters;
  /** Theirs, of the last step's objective, before clipping. */
  readonly gradients: Parameters;
  /** AdamW's m; of a rank that keeps its share alone in pieces, by `name[first row:row behind the last]`. */
  readonly firstMoments: Parameters;
  /** AdamW's v. */
  readonly secondMoments: Parameters;
  /** A parameter's whole moment; where each rank keeps its share alone, a call of all ranks. */
  readMoment(of: Moment, name: string): Promise<Float32Array>;
  /** Writes a parameter's moment, or this rank's share of it. */
  writeMoment(of: Moment, name: string, values: Float32Array): void;
  /**
   * `multiplier` [4] (λ, its moving average, CE − τ as last measured, 1 once measured) and what the device made of it,
   * `loss_scale` [1] and `edge_scale` [1], which the host could not compute to the same bits.
   */
  readonly controller: Parameters;
  /** What the steps left, read a few steps later. */
  readonly log: StepLog;
  /**
   * Submits step `step`, counted from 0, with the micro-batches of all ranks, of which each takes its share; among several
   * ranks resolves when the sums are made.
   */
  step(step: number, learningRate: number, microBatches: readonly MicroBatch[]): void | Promise<void>;
  /**
   * Submits a measurement of the constraint: the cross-entropy with deterministic gates on `probe` against
   * `targetLoss`. The multiplier follows the latest measurement at every step after the first. The probe has as many rows
   * as the network or more, which several ranks share.
   */
  measureConstraint(probe: MicroBatch, targetLoss: number): void | Promise<void>;
  /**
   * Takes a measurement that was made elsewhere in place of the cross-entropy's, of which less is better too: the multiplier
   * follows how far it lies above its target. Not among several ranks.
   */
  takeConstraint(measured: number, target: number): void;
  /**
   * Sets the network's gates to what they are in a step, counted from 0, for its n-th micro-batch, noise and all: what is
   * drawn from the network then is drawn through the very gates that the step trains.
   */
  configureGates(step: number, microBatch: number): void;
  /** Frees all of this but the network and its parameters. */
  destroy(): void;
}

const LOG_CAPACITY = 8;
export const BUCKET_BYTES = 16 << 20;

/** The pieces of all parameters, each with the rank that updates it. */
function partsOfPieces(parameters: Parameters, pieces: readonly Piece[]): OwnedTensor[] {
  return pieces.map((piece) => ({ tensor: pieceOf(parameters.get(piece.name)!, piece), owner: piece.owner }));
}

/** A tensor's rows, one for each piece, by the ranks that pieces belong to. */
function rowsByOwner(tensor: Tensor, pieces: readonly Piece[]): OwnedTensor[] {
  return [...Map.groupBy(pieces.keys(), (at) => pieces[at].owner)]
    .map(([owner, of]) => ({ tensor: rows(tensor, of[0], of.length), owner }));
}

/** Allocates gradients and moments, and compiles the step. */
export async function createTrainer(gpu: Gpu, options: TrainerOptions): Promise<Trainer> {
  const { network, parameters, seed, accumulate, exchange, gates, distill, optimiser, rates = {} } = options;
  const { bucketBytes = BUCKET_BYTES } = options;
  const { batch, context } = network.shape;
  const { heads } = network.config;
  const traced = new Map(network.model.parameters.map((parameter) => [parameter.name, parameter]));
  const trained: Parameters = new Map([...parameters].filter(([name]) => traced.get(name)!.trainable));
  const shapes = [...trained].map(([name, { shape }]) => ({ name, shape }));
  const gradients = createParameters(gpu, shapes, "gradient of ");
  // Ranks measure the norm by pieces whether or not each keeps its own alone, so that both give the same bits.
  const pieces = exchange && piecesOf(shapes, exchange.size, gpu.maxBindingBytes);
  const sharded = options.shardOptimizer ? pieces : undefined;
  const moments = sharded
    ? createMomentsOfPieces(gpu, exchange!, shapes, sharded)
    : createMoments(gpu, shapes);
  const rateOf = ({ group }: Parameter): number => group === "other" ? 1 : rates[group] ?? 1;
  const constantsOf = (name: string) => {
    const parameter = traced.get(name)!;
    return { decayFrom: parameter.decayFrom, rate: rateOf(parameter) };
  };
  const isOwn = ({ owner }: Piece): boolean => sharded === undefined || owner === exchange!.rank;
  const optimised = pieces
    ? pieces.filter(isOwn).map((piece) => ({
      weight: pieceOf(parameters.get(piece.name)!, piece),
      gradient: pieceOf(gradients.get(piece.name)!, piece),
      ...moments.ofPiece(piece),
      ...constantsOf(piece.name),
    }))
    : shapes.map(({ name }) => ({
      weight: parameters.get(name)!,
      gradient: gradients.get(name)!,
      first: moments.first.get(name)!,
      second: moments.second.get(name)!,
      ...constantsOf(name),
    }));
  const adamw = await prepareAdamW(
    gpu,
    optimised,
    pieces && { first: pieces.findIndex(isOwn), of: pieces.length },
  );
  const geco = await prepareGeco(gpu);
  // A resumed run moves λ before it measures: only the target is told with each measurement.
  if (gates) geco.configure({ ...gates.geco, targetLoss: 0 });
  const multiplier = gpu.tensor("multiplier", [4]);
  const lossScale = gpu.tensor("loss scale", [1]);
  const edgeScale = gpu.tensor("edge scale", [1]);
  const updated = gpu.tensor("update", [4]);
  const from = gates?.from ?? 0;
  const isGated = (step: number): boolean => gates !== undefined && step >= from;

  const lambda = gates?.lambdaStart ?? 0;
  gpu.write(multiplier, new Float32Array([lambda, 0, 0, 0]));
  const writeScales = (gated: boolean): void => {
    gpu.write(lossScale, new Float32Array([gated ? lambda / (1 + lambda) : 1]));
    gpu.write(edgeScale, new Float32Array([gated ? 1 / (1 + lambda) : 0]));
  };
  writeScales(isGated(0));

  const log = createDeviceLog(
    gpu,
    {
      totals: network.totals,
      distillationTotals: network.distillationTotals,
      headSums: network.headSums,
      update: updated,
      multiplier,
      lossScale,
      edgeScale,
    },
    LOG_CAPACITY,
  );

  const { rank, size } = exchange ?? { rank: 0, size: 1 };
  const measured = [network.totals, network.distillationTotals, network.headSums];
  const stretches = exchange ? network.stretches(bucketBytes) : [];
  const sums = exchange && {
    step: prepareDeviceSum(
      gpu,
      exchange,
      stretches.map(({ complete }, n): Bucket => {
        // What a step measures stands behind its forward, as does the first of these.
        const all = n === 0 ? measured : [];
        if (!sharded) return { all: [...all, ...complete.map((name) => gradients.get(name)!)] };
        return {
          all,
          owned: partsOfPieces(gradients, sharded.filter(({ name }) => complete.includes(name))),
        };
      }),
      { what: "the gradients" },
    ),
    probe: prepareDeviceSum(gpu, exchange, [{ all: [network.totals] }], { what: "the constraint" }),
  };
  const gathers = sharded && {
    squares: prepareDeviceGather(gpu, exchange!, rowsByOwner(adamw.squares, sharded), {
      what: "the gradient's norm",
    }),
    weights: prepareDeviceGather(gpu, exchange!, partsOfPieces(trained, sharded), { what: "the weights" }),
  };

  function configureGates(step: number, firstRow: number): void {
    network.configureGates({
      seed,
      step,
      firstRow: firstRow * heads,
      bias: gates?.bias ?? 0,
      temperature: gates?.temperature ?? 1,
      saturationWeight: gates?.saturationWeight ?? 0,
      saturationBound: gates?.saturationBound ?? 0,
      batchRows: batch * accumulate,
    });
  }

  return {
    parameters: trained,
    gradients,
    firstMoments: moments.first,
    secondMoments: moments.second,
    readMoment: moments.read,
    writeMoment: moments.write,
    controller: new Map([["multiplier", multiplier], ["loss_scale", lossScale], ["edge_scale", edgeScale]]),
    log,

    step(step, learningRate, microBatches) {
      let counted = 0;
      for (const { targets } of microBatches) {
        for (const target of targets) if (target !== IGNORED_TARGET) counted++;
      }
      const gated = isGated(step);
      const mode = gated ? "sampled" : "dense";
      if (gated && step === from && from > 0) writeScales(true);
      network.configureRows(batch);
      network.configureLoss({ weight: 1 / counted, distill: distill?.weight });
      const first = rank * accumulate / size;
      const own = microBatches.slice(first, first + accumulate / size);
      const upload = (index: number): void => {
        const { inputs, targets, weights } = own[index];
        network.upload(inputs, targets, weights);
        // Noise is keyed by the row of the whole batch, whoever computes it.
        configureGates(step, (first + index) * batch);
      };
      const forward = (recorder: Recorder, index: number): void => {
        if (index === 0) {
          for (const gradient of gradients.values()) recorder.clear(gradient);
          for (const sum of measured) recorder.clear(sum);
        }
        if (distill) {
          network.forward(recorder, distill.teacher, "dense", { countEdges: false });
          network.keepAsTeacher(recorder);
        }
        network.forward(recorder, parameters, mode);
        network.head(recorder, parameters, {
          backward: { gradients, lossScale },
          teacher: distill?.teacher,
        });
      };
      const backward = (recorder: Recorder, stretch?: Stretch): void =>
        network.backward(recorder, parameters, gradients, mode, edgeScale, undefined, stretch);
      const update = (recorder: Recorder): void => {
        adamw.update(recorder, { update: updated });
        if (gated) geco.update(recorder, { state: multiplier, lossScale, edgeScale });
        log.record(recorder, step);
      };
      const alone = sums ? own.length - 1 : own.length;
      for (let index = 0; index < alone; index++) {
        upload(index);
        gpu.submit(`step ${step + 1}`, (recorder) => {
          forward(recorder, index);
          backward(recorder);
        });
      }
      adamw.configure({ ...optimiser, learningRate, step: step + 1 });
      if (!sums) {
        gpu.submit(`update of step ${step + 1}`, (recorder) => {
          adamw.measure(recorder);
          update(recorder);
        });
        return;
      }
      return (async () => {
        upload(alone);
        for (const [n, stretch] of stretches.entries()) {
          const { copied, read } = sums.step.begin(n, {
            operation: `step ${step + 1}`,
            record(recorder) {
              if (n === 0) forward(recorder, alone);
              backward(recorder, stretch);
            },
          });
          // A CPU driver holds this thread, which sums, from the next submission on until this one is done.
          await (gpu.adapter.software ? read : copied);
        }
        await sums.step.end();
        gpu.submit(`norm of step ${step + 1}`, (recorder) => adamw.measure(recorder));
        await gathers?.squares.run();
        gpu.submit(`update of step ${step + 1}`, update);
        await gathers?.weights.run();
      })();
    },

    measureConstraint(probe, targetLoss) {
      if (!gates) throw new RangeError("Cannot measure the constraint of dense training");
      configureGates(0, 0);
      geco.configure({ ...gates.geco, targetLoss });
      const take = (recorder: Recorder): void =>
        geco.measure(recorder, { totals: network.totals, state: multiplier });
      const measure = ({ inputs, targets }: MicroBatch, { isFirst }: { isFirst: boolean }): void => {
        network.upload(inputs, targets);
        gpu.submit("measuring the constraint", (recorder) => {
          if (isFirst) recorder.clear(network.totals);
          network.forward(recorder, parameters, "deterministic", { countEdges: false });
          network.head(recorder, parameters);
          if (!sums) take(recorder);
        });
      };
      if (!sums) return measure(probe, { isFirst: true });
      const parts = cutBatch({ ...probe, rows: probe.inputs.length / context }, { batch, context });
      const own = parts.filter((_, index) => index % size === rank);
      own.forEach((part, index) => measure(part, { isFirst: index === 0 }));
      if (own.length === 0) gpu.submit("no share of a probe", (recorder) => recorder.clear(network.totals));
      return sums.probe.run().then(() => gpu.submit("taking the constraint", take));
    },

    takeConstraint(measured, target) {
      if (!gates) throw new RangeError("Cannot take the constraint of dense training");
      if (exchange) {
        throw new RangeError("Cannot take a constraint that was measured by one of several ranks");
      }
      geco.configure({ ...gates.geco, targetLoss: target });
      gpu.write(network.totals, new Float32Array([measured, 0, 0, 1]));
      gpu.submit(
        "taking the constraint",
        (recorder) => geco.measure(recorder, { totals: network.totals, state: multiplier }),
      );
    },

    configureGates: (step, microBatch) => configureGates(step, microBatch * batch),

    destroy() {
      const ofRanks = [...Object.values(sums ?? {}), ...Object.values(gathers ?? {})];
      for (const part of [log, adamw, geco, moments, ...ofRanks]) part.destroy();
      destroyParameters(gpu, gradients);
      for (const tensor of [multiplier, lossScale, edgeScale, updated]) destroyTensor(gpu, tensor);
    },
  };
}
