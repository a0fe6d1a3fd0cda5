/**
 * One training step on the device: gradients of the objective, clipping, AdamW, and the multiplier. Nothing here waits
 * for the device; what a step measured is read from its log later.
 *
 *     objective = [E + ρ R + λ (CE + w KL)] / (1 + λ)
 *
 * with E the mean open probability over layers, heads and causal pairs, R the mean of relu(|g| − bound)², and λ moved
 * by GECO. Without gates (pre-training, the control) the objective is CE.
 *
 * @module
 */
import { type AdamWSettings, prepareAdamW, rowsOfSquares } from "../../kernels/adamw/op.ts";
import { allOrNothing } from "../../kernels/core/all_or_nothing.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import { destroyTensor, rows, type Tensor } from "../../kernels/core/tensor.ts";
import { IGNORED } from "../../kernels/core/targets.ts";
import { type GecoSettings, prepareGeco } from "../../kernels/geco/op.ts";
import { createDeviceLog, type DeviceLog } from "./device_log.ts";
import type { Network } from "../model/network.ts";
import { type Exchange, sharersOf } from "../parallel/exchange.ts";
import {
  type Bucket,
  type OwnedTensor,
  prepareDeviceGather,
  prepareDeviceSum,
} from "../parallel/device_sum.ts";
import { type Piece, piecesOf } from "../model/shards.ts";
import { createMoments, createMomentsOfPieces, type Moment, pieceOf } from "./moments.ts";
import type { Parameter } from "../model/op.ts";
import { stagesThatTrain } from "../model/stage.ts";
import { prepareTrainingPipeline, readAtFirst } from "./pipeline.ts";
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
  /**
   * The other ranks, each of which does its share of every step, of the stage of the model that the network is; left out: this
   * one does all.
   */
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
  /** The weights that are trained here, updated in place. */
  readonly parameters: Parameters;
  /** Theirs, of the last step's objective, before clipping. */
  readonly gradients: Parameters;
  /** AdamW's m; of a rank that keeps its share alone in pieces, by `name[first row:row behind the last]`. */
  readonly firstMoments: Parameters;
  /** AdamW's v. */
  readonly secondMoments: Parameters;
  /** All that is trained, at whichever stage. */
  readonly trained: readonly Parameter[];
  /** Whether {@link Trainer.read} is a call of all ranks. */
  readonly isSpread: boolean;
  /** A parameter's whole weights or moment, at rank 0; where ranks keep a part alone a call of all of them. */
  read(of: "weight" | Moment, name: string): Promise<Float32Array>;
  /** Writes a parameter's weights or moment, or what of it is here. */
  write(of: "weight" | Moment, name: string, values: Float32Array): void;
  /**
   * `multiplier` [4] (λ, the moving average of the scaled and clipped violation, CE − τ as last measured, 1 once measured) and what the device made of it,
   * `loss_scale` [1] and `edge_scale` [1], which the host could not compute to the same bits.
   */
  readonly controller: Parameters;
  /** What the steps left, read a few steps later. */
  readonly log: StepLog;
  /**
   * Submits step `step`, counted from 0, with the micro-batches of all ranks, of which each takes its share; among several
   * ranks resolves when the sums are made.
   *
   * @throws {RangeError} where there are not as many micro-batches as `accumulate` says
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

/** What has a row in the measure of the gradient's norm: a piece of a parameter, a slice of it, or all of it. */
interface NormRow {
  /** Of the parameter. */
  name: string;
  /** Of ranks that share the rows of a step the one that updates it, where they divide that among them. */
  owner: number;
}

/** A tensor's rows by the ranks that they belong to, those in a row together. */
function rowsByOwner(tensor: Tensor, owners: readonly number[]): OwnedTensor[] {
  const starts = [...owners.keys()].filter((at) => owners[at] !== owners[at - 1]);
  return starts.map((start, n) => ({
    tensor: rows(tensor, start, (starts[n + 1] ?? owners.length) - start),
    owner: owners[start],
  }));
}

/**
 * Allocates gradients and moments, and compiles the step; where it cannot, nothing is left of them on the device.
 *
 * @example Steps of dense training on one batch
 * ```ts
 * import assert from "node:assert/strict";
 * import { createTrainer, loadModel, prepareNetwork } from "../../mod.ts";
 *
 * using model = await loadModel("data/addition");
 * const { gpu, config, parameters } = model;
 * const network = await prepareNetwork(gpu, config, { batch: 1, context: 7, training: true });
 * const trainer = await createTrainer(gpu, {
 *   network,
 *   parameters,
 *   seed: 1,
 *   accumulate: 1,
 *   optimiser: { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, clip: 1 },
 * });
 * const tokens = Uint32Array.from(model.tokenizer.encode("12+34=46"));
 * const before = await trainer.read("weight", "wte.weight");
 * for (let step = 0; step < 3; step++) {
 *   await trainer.step(step, 1e-4, [{ inputs: tokens.slice(0, 7), targets: tokens.slice(1) }]);
 * }
 * assert.notDeepEqual(await trainer.read("weight", "wte.weight"), before);
 * trainer.destroy();
 * network.destroy();
 * ```
 */
export function createTrainer(gpu: Gpu, options: TrainerOptions): Promise<Trainer> {
  return allOrNothing(() => create(gpu, options));
}

async function create(gpu: Gpu, options: TrainerOptions): Promise<Trainer> {
  const { network, parameters, seed, accumulate, exchange, gates, distill, optimiser, rates = {} } = options;
  const { bucketBytes = BUCKET_BYTES } = options;
  const { batch, context } = network.shape;
  const { heads } = network.config;
  const { model, stage } = network;
  const { stages } = exchange ?? {};
  const sharers = sharersOf(exchange);
  const traced = new Map(model.parameters.map((parameter) => [parameter.name, parameter]));
  const trained: Parameters = new Map(stage.trained.map(({ name }) => [name, parameters.get(name)!]));
  const shapes = [...trained].map(([name, { shape }]) => ({ name, shape }));
  const gradients = createParameters(gpu, shapes, "gradient of ");
  const allTrained = model.parameters.filter(({ trainable }) => trainable);
  const stageThatTrains = stagesThatTrain(model, stages?.count ?? 1);
  // Ranks measure the norm by pieces whether or not each keeps its own alone, so that both give the same bits.
  const pieces = sharers.exchange && piecesOf(allTrained, sharers.size, gpu.maxBindingBytes);
  const sharded = options.shardOptimizer ? pieces?.filter(({ name }) => trained.has(name)) : undefined;
  const moments = sharded
    ? createMomentsOfPieces(gpu, sharers.exchange!, shapes, sharded)
    : createMoments(gpu, shapes);
  const rateOf = ({ group }: Parameter): number => group === "other" ? 1 : rates[group] ?? 1;
  const constantsOf = (name: string) => {
    const parameter = traced.get(name)!;
    return { decayFrom: parameter.decayFrom, rate: rateOf(parameter) };
  };
  const isOwn = ({ name, owner }: NormRow): boolean =>
    trained.has(name) && (sharded === undefined || owner === sharers.rank);
  const normRows: readonly NormRow[] = pieces ??
    allTrained.flatMap(({ name, shape }) =>
      Array.from({ length: rowsOfSquares(shape, gpu.maxBindingBytes) }, () => ({ name, owner: 0 }))
    );
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
  const ownRows = [...normRows.keys()].filter((at) => isOwn(normRows[at]));
  const adamw = await prepareAdamW(gpu, optimised, { rows: ownRows, of: normRows.length });
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

  const { rank, size } = sharers;
  const measured = [network.totals, network.distillationTotals, network.headSums];
  const stretches = sharers.exchange ? network.stretches(bucketBytes) : [];
  const sums = sharers.exchange &&
    prepareDeviceSum(
      gpu,
      sharers.exchange,
      stretches.map(({ complete }, n): Bucket => {
        // What a step measures stands behind its forward, as does the first of these; stages have a part of it each.
        const all = n === 0 && !stages ? measured : [];
        if (!sharded) return { all: [...all, ...complete.map((name) => gradients.get(name)!)] };
        return {
          all,
          owned: partsOfPieces(gradients, sharded.filter(({ name }) => complete.includes(name))),
        };
      }),
      { what: "the gradients" },
    );
  const probeSum = exchange &&
    prepareDeviceSum(gpu, exchange, [{ all: [network.totals] }], { what: "the constraint" });
  /** The rank that has a row of the norm's measure; of ranks that have the same the first. */
  const ownerOf = ({ name, owner }: NormRow): number =>
    (sharded ? owner : 0) * (stages?.count ?? 1) + stageThatTrains.get(name)!;
  const squaresGather = exchange && (sharded || stages)
    ? prepareDeviceGather(gpu, exchange, rowsByOwner(adamw.squares, normRows.map(ownerOf)), {
      what: "the gradient's norm",
    })
    : undefined;
  const weightsGather = sharded &&
    prepareDeviceGather(gpu, sharers.exchange!, partsOfPieces(trained, sharded), { what: "the weights" });
  const pipeline = stages && await prepareTrainingPipeline(gpu, network, stages);
  const stagesSum = exchange && stages &&
    prepareDeviceSum(gpu, exchange, [{ all: measured }], { what: "what a step measures" });

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
    trained: allTrained,
    isSpread: sharded !== undefined || stages !== undefined,
    async read(of, name) {
      const read = (): Promise<Float32Array> =>
        of === "weight" ? gpu.read(trained.get(name)!) : moments.read(of, name);
      // Of shares of a moment every pipeline has one.
      return await readAtFirst(model, stages, name, read, {
        byAll: sharded !== undefined && of !== "weight",
      });
    },
    write(of, name, values) {
      if (of !== "weight") {
        if (trained.has(name)) moments.write(of, name, values);
        return;
      }
      // A head that is trained elsewhere is here too.
      const tensor = parameters.get(name);
      if (tensor) gpu.write(tensor, values);
    },
    controller: new Map([["multiplier", multiplier], ["loss_scale", lossScale], ["edge_scale", edgeScale]]),
    log,

    step(step, learningRate, microBatches) {
      if (microBatches.length !== accumulate) {
        throw new RangeError(
          `Cannot take a step of ${microBatches.length} micro-batches as this trainer takes ${accumulate}`,
        );
      }
      let counted = 0;
      for (const { targets } of microBatches) {
        for (const target of targets) if (target !== IGNORED) counted++;
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
      const clear = (recorder: Recorder): void => {
        for (const gradient of gradients.values()) recorder.clear(gradient);
        for (const sum of measured) recorder.clear(sum);
      };
      const teach = (recorder: Recorder, { teacher }: { teacher: Parameters }): void => {
        network.forward(recorder, teacher, "dense", { countEdges: false });
        if (stage.hasHead) network.keepAsTeacher(recorder);
      };
      const head = (recorder: Recorder, gradients: Parameters, block?: number): void =>
        network.head(recorder, parameters, {
          backward: { gradients, lossScale },
          teacher: distill?.teacher,
          block,
        });
      const forward = (recorder: Recorder, index: number): void => {
        if (index === 0) clear(recorder);
        if (distill) teach(recorder, distill);
        network.forward(recorder, parameters, mode);
        head(recorder, gradients);
      };
      const backward = (recorder: Recorder, stretch?: Stretch): void =>
        network.backward(recorder, parameters, gradients, mode, edgeScale, undefined, stretch);
      const update = (recorder: Recorder): void => {
        adamw.update(recorder, { update: updated });
        if (gated) geco.update(recorder, { state: multiplier, lossScale, edgeScale });
        log.record(recorder, step);
      };
      adamw.configure({ ...optimiser, learningRate, step: step + 1 });
      const operation = `step ${step + 1}`;
      /** Backward of the last micro-batch, whose gradients are summed as they come to stand. */
      const backwardAndSum = async (first: (recorder: Recorder) => void = () => {}): Promise<void> => {
        for (const [n, stretch] of stretches.entries()) {
          const { copied, read } = sums!.begin(n, {
            operation,
            record(recorder) {
              if (n === 0) first(recorder);
              backward(recorder, stretch);
            },
          });
          // A CPU driver holds this thread, which sums, from the next submission on until this one is done.
          await (gpu.adapter.software ? read : copied);
        }
      };
      const finish = async (): Promise<void> => {
        await sums?.end();
        await stagesSum?.run();
        gpu.submit(`norm of ${operation}`, (recorder) => adamw.measure(recorder));
        await squaresGather?.run();
        gpu.submit(`update of ${operation}`, update);
        await weightsGather?.run();
        await pipeline?.shareHead(parameters);
      };
      if (pipeline) {
        return pipeline.step({
          operation,
          microBatches: own.length,
          upload,
          passes: [
            ...(distill ? [(recorder: Recorder) => teach(recorder, distill)] : []),
            (recorder, index) => {
              if (index === 0) clear(recorder);
              network.forward(recorder, parameters, mode);
            },
          ],
          head,
          gradients,
          backward: (index) =>
            sums && index === own.length - 1
              ? backwardAndSum()
              : gpu.submit(operation, (recorder) => backward(recorder)),
        }).then(finish);
      }
      const alone = sums ? own.length - 1 : own.length;
      for (let index = 0; index < alone; index++) {
        upload(index);
        gpu.submit(operation, (recorder) => {
          forward(recorder, index);
          backward(recorder);
        });
      }
      if (!sums) {
        gpu.submit(`update of ${operation}`, (recorder) => {
          adamw.measure(recorder);
          update(recorder);
        });
        return;
      }
      upload(alone);
      return backwardAndSum((recorder) => forward(recorder, alone)).then(finish);
    },

    measureConstraint(probe, targetLoss) {
      if (!gates) throw new RangeError("Cannot measure the constraint of dense training");
      configureGates(0, 0);
      geco.configure({ ...gates.geco, targetLoss });
      const take = (recorder: Recorder): void =>
        geco.measure(recorder, { totals: network.totals, state: multiplier });
      const operation = "measuring the constraint";
      const record = (recorder: Recorder, { isFirst }: { isFirst: boolean }): void => {
        if (isFirst) recorder.clear(network.totals);
        network.forward(recorder, parameters, "deterministic", { countEdges: false });
        if (stage.hasHead) network.head(recorder, parameters);
        if (!probeSum) take(recorder);
      };
      if (!probeSum) {
        network.upload(probe.inputs, probe.targets);
        return gpu.submit(operation, (recorder) => record(recorder, { isFirst: true }));
      }
      const parts = cutBatch({ ...probe, rows: probe.inputs.length / context }, { batch, context });
      const own = parts.filter((_, index) => index % size === rank);
      return (async () => {
        for (const [index, { inputs, targets }] of own.entries()) {
          const recordPart = (recorder: Recorder): void => record(recorder, { isFirst: index === 0 });
          network.upload(inputs, targets);
          if (pipeline) await pipeline.forward(operation, recordPart);
          else gpu.submit(operation, recordPart);
        }
        if (own.length === 0) gpu.submit("no share of a probe", (recorder) => recorder.clear(network.totals));
        await pipeline?.end();
        await probeSum.run();
        gpu.submit("taking the constraint", take);
      })();
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
      const ofRanks = [sums, probeSum, stagesSum, squaresGather, weightsGather, pipeline];
      for (const part of [log, adamw, geco, moments, ...ofRanks]) part?.destroy();
      destroyParameters(gpu, gradients);
      for (const tensor of [multiplier, lossScale, edgeScale, updated]) destroyTensor(gpu, tensor);
    },
  };
}
