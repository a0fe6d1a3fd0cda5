/**
 * How much of the exchange of gradients is hidden behind backward, over a link of a given speed beneath the ranks (a delay, on
 * top of what moves the bytes). By itself one rank is measured among others that are as fast; under mpirun each rank is,
 * all on this machine's cores.
 *
 *     deno task overlap [--shape small|gpt2] [--ranks 2] [--rate 1e9] [--bucket 16777216] [--steps 4] [--shard-optimizer]
 *     mpirun -n 2 deno task overlap
 *
 * Of each step, after one that compiles: how long the link was busy with gradients; how long after the end of backward the
 * last sum was there, reading, adding and writing included, which is what is not hidden; and the share that is. The link
 * alone counts what was still to be moved then. Before each the ranks do a step without exchange, all at once, and from what
 * that takes the step is told as `deno task plan` does.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { Gpu } from "../../kernels/core/gpu.ts";
import { elementsOf } from "../../kernels/core/tensor.ts";
import { gpt2Config } from "../../pipeline/model/config.ts";
import { initialWeights } from "../../pipeline/model/initial_weights.ts";
import { prepareNetwork } from "../../pipeline/model/network.ts";
import { loadParameters } from "../../pipeline/model/parameters.ts";
import { countArithmetic, countStretches } from "../../pipeline/model/arithmetic.ts";
import { parametersOf } from "../../pipeline/model/trace.ts";
import { createExchange } from "../../pipeline/parallel/exchange.ts";
import { launchOf, openMpi } from "../../pipeline/parallel/mpi.ts";
import { createTrainer } from "../../pipeline/training/trainer.ts";
import { HOST, timeOfStep } from "../../pipeline/report/step_time.ts";
import { seeded } from "../support/seeded.ts";
import { amongEqual, type Busy, overLink } from "../support/slow_link.ts";
import { GPT2 } from "../support/gpt2.ts";

const SHAPES = {
  /** Layers of 12.6 MB, as a sixth of a GPT-2's, and an embedding that is as small beside them as in large models. */
  small: {
    config: gpt2Config({
      vocabularySize: 2000,
      contextLength: 128,
      width: 512,
      layers: 12,
      heads: 8,
      mlpWidth: 2048,
    }),
    batch: 1,
    context: 64,
  },
  gpt2: {
    config: GPT2,
    batch: 1,
    context: 64,
  },
} as const;

const flags = parseArgs(Deno.args, {
  string: ["shape", "ranks", "rate", "bucket", "steps"],
  boolean: ["shard-optimizer"],
  default: { shape: "small", ranks: "2", rate: "1e9", bucket: String(16 << 20), steps: "4" },
});
const chosen = SHAPES[flags.shape as keyof typeof SHAPES];
const [ranks, rate, bucketBytes, steps] = [flags.ranks, flags.rate, flags.bucket, flags.steps].map(Number);
if (!chosen || ![rate, bucketBytes, steps].every((value) => value > 0) || !(ranks > 1)) {
  console.error(
    "Usage: deno task overlap [--shape small|gpt2] [--ranks N] [--rate BYTES] [--bucket BYTES] [--steps N] [--shard-optimizer]",
  );
  Deno.exit(2);
}
const { config, batch, context } = chosen;
const launch = launchOf((name) => Deno.env.get(name));
const transport = launch ? openMpi(launch) : amongEqual(ranks);
const { rank, size } = transport;

const gpu = await Gpu.open();
const network = await prepareNetwork(gpu, config, { batch, context, training: true });
const shapes = parametersOf(config);
const parameters = await loadParameters(gpu, shapes, (name) => {
  const index = shapes.findIndex((shape) => shape.name === name);
  return Promise.resolve(initialWeights(shapes[index], { seed: 1, index }));
});
let busy: Busy[] = [];
const exchange = createExchange(overLink(transport, rate, (times) => busy.push(times)), { limit: 15 });
const shardOptimizer = flags["shard-optimizer"] === true;
const trainerOf = (accumulate: number, others: { exchange?: typeof exchange; bucketBytes?: number } = {}) =>
  createTrainer(gpu, {
    network,
    parameters,
    seed: 1,
    accumulate,
    shardOptimizer: shardOptimizer && others.exchange !== undefined,
    optimiser: { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.1, clip: 1 },
    ...others,
  });

const random = seeded(rank);
const microBatches = Array.from({ length: size }, () => {
  const tokens = () =>
    Uint32Array.from({ length: batch * context }, () => random.integer(config.vocabularySize));
  return { inputs: tokens(), targets: tokens() };
});

const alone = await trainerOf(1);

/** Seconds of a step of one micro-batch without an exchange, all ranks at once. */
async function timeAlone(step: number): Promise<number> {
  if (launch) await exchange.agree();
  const start = performance.now();
  await alone.step(step, 1e-4, [microBatches[0]]);
  await alone.log.drain();
  return (performance.now() - start) / 1000;
}

const parts = { train: "all" } as const;
const { forward, recomputed, backward } = countArithmetic(config, { batch, context }, parts);
const stretches = countStretches(config, { batch, context }, parts, bucketBytes);
const plannedFrom = (compute: number) =>
  timeOfStep({
    ranks: size,
    compute,
    flop: forward + recomputed + backward,
    stretches,
    network: rate,
    host: HOST,
    isApart: !gpu.adapter.software,
    shardOptimizer,
  });
const trainer = await trainerOf(size, { exchange, bucketBytes });

/** When what was submitted last as part of a step was done. */
let backwardEnd: Promise<number> = Promise.resolve(0);
/** When sums were all there: what is submitted next. */
let summed = 0;
const { submit } = gpu;
gpu.submit = (operation, record, timestampWrites) => {
  if (operation.startsWith("norm")) summed = performance.now();
  submit.call(gpu, operation, record, timestampWrites);
  if (operation.startsWith("step")) {
    backwardEnd = gpu.device.queue.onSubmittedWorkDone().then(() => performance.now());
  }
};

const bytes = 4 *
  shapes.reduce((sum, { shape }) => sum + elementsOf(shape), 0);
console.log(
  `rank ${rank} of ${size}${launch ? ` by ${(transport as ReturnType<typeof openMpi>).version}` : ""}: ${
    (bytes / 1e6).toFixed(0)
  } MB of gradients in ${network.stretches(bucketBytes).length} buckets, link of ${rate / 1e9} GB/s`,
);
/** Seconds of steps, without exchange and with it, one behind the other: what else the machine does drifts. */
const pairs: { compute: number; took: number }[] = [];
for (let step = 0; step <= steps; step++) {
  const compute = await timeAlone(step);
  busy = [];
  summed = 0;
  const start = performance.now();
  await trainer.step(step, 1e-4, microBatches);
  await trainer.log.drain();
  const end = performance.now();
  const done = await backwardEnd;
  if (step === 0) continue;
  pairs.push({ compute, took: (end - start) / 1000 });
  const ofGradients = busy.filter(({ start }) => start <= summed);
  const sum = (of: (times: Busy) => number): number =>
    ofGradients.reduce((total, times) => total + of(times), 0);
  const link = sum(({ start, end }) => end - start);
  const behind = sum(({ start, end }) => Math.max(0, end - Math.max(start, done)));
  const exposed = Math.max(0, summed - done);
  const share = (part: number): string => `${(100 * Math.max(0, 1 - part / link)).toFixed(1)} %`;
  console.log(
    `rank ${rank} step ${step}: ${(end - start).toFixed(0)} ms, link busy ${link.toFixed(0)} ms, ` +
      `sums there ${exposed.toFixed(0)} ms after backward: ${share(exposed)} hidden, of the link alone ${
        share(behind)
      }`,
  );
}
const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
const error = median(pairs.map(({ compute, took }) => 100 * (plannedFrom(compute).step / took - 1)));
const compute = median(pairs.map(({ compute }) => compute));
const { step, exchange: exchanged, hidden } = plannedFrom(compute);
console.log(
  `rank ${rank}: ${median(pairs.map(({ took }) => 1000 * took)).toFixed(0)} ms a step, planned ${
    (1000 * step).toFixed(0)
  } ms from ${(1000 * compute).toFixed(0)} ms without exchange, of whose ${
    (1000 * exchanged).toFixed(0)
  } ms ${(1000 * hidden).toFixed(0)} are hidden; step by step off by ${error.toFixed(1)} %`,
);
alone.destroy();
trainer.destroy();
network.destroy();
gpu.close();
if (launch) await exchange.close();
Deno.exit(0);
