/** Gradients are summed over ranks while backward goes on, and none before it stands. */
import { assert, assertEquals } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { adaptersFor } from "../../../pipeline/model/adapters.ts";
import type { ModelConfig } from "../../../pipeline/model/config.ts";
import { hardGates } from "../../../pipeline/model/gates.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import { createParameters, destroyParameters, loadParameters } from "../../../pipeline/model/parameters.ts";
import type { NetworkShape } from "../../../pipeline/model/plan.ts";
import { initialWeights } from "../../../pipeline/model/initial_weights.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { createExchange } from "../../../pipeline/parallel/exchange.ts";
import type { Transport } from "../../../pipeline/parallel/transport.ts";
import { createTrainer, type Trainer } from "../../../pipeline/training/trainer.ts";
import { gpuTest } from "../../support/gpu.ts";
import { RUN_CONFIG, RUN_SHAPE } from "../../support/prepared_run.ts";
import { ranksInProcess } from "../../support/ranks_in_process.ts";
import { seeded } from "../../support/seeded.ts";

const { batch: BATCH, context: CONTEXT } = RUN_SHAPE;
const UNTIED: ModelConfig = { ...RUN_CONFIG, tied: false };
const ADAPTERS = adaptersFor(RUN_CONFIG, {
  rank: 4,
  alpha: 8,
  rankStabilised: false,
  targets: ["query", "value"],
});

function load(gpu: Gpu, config: ModelConfig, shape: NetworkShape) {
  const parameters = parametersOf(config, shape);
  return loadParameters(gpu, parameters, (name) => {
    const index = parameters.findIndex((parameter) => parameter.name === name);
    return Promise.resolve(initialWeights(parameters[index], { seed: 5, index }));
  });
}

function microBatch(seed: number) {
  const random = seeded(seed);
  const tokens = () =>
    Uint32Array.from({ length: BATCH * CONTEXT }, () => random.integer(RUN_CONFIG.vocabularySize));
  return { inputs: tokens(), targets: tokens() };
}

for (
  const [what, config, shape] of [
    ["a model", RUN_CONFIG, {}],
    ["one whose head is no embedding", UNTIED, {}],
    ["one that computes activations anew", RUN_CONFIG, { recompute: true }],
    ["adapters", RUN_CONFIG, { adapters: ADAPTERS, train: "lora" }],
  ] as const
) {
  gpuTest(`of ${what} every gradient stands behind the stretch of backward that says so`, async (gpu) => {
    const whole: NetworkShape = { batch: BATCH, context: CONTEXT, training: true, ...shape };
    const parameters = await load(gpu, config, whole);
    const network = await prepareNetwork(gpu, config, whole);
    const trained = network.model.parameters.filter(({ trainable }) => trainable);
    const gradients = createParameters(gpu, trained.map(({ name, shape }) => ({ name, shape })));
    const edgeScale = gpu.tensor("edge scale", [1]);
    const lossScale = gpu.tensor("loss scale", [1]);
    gpu.write(lossScale, Float32Array.of(1));
    const { inputs, targets } = microBatch(1);
    network.upload(inputs, targets);
    network.configureGates(hardGates(1, BATCH));
    network.configureLoss({ weight: 1 / targets.length });
    const stretches = network.stretches(1);
    assert(stretches.length >= RUN_CONFIG.layers, `${stretches.length} stretches`);
    assertEquals(
      stretches.flatMap(({ complete }) => complete).toSorted(),
      trained.map(({ name }) => name).toSorted(),
    );
    const standing = new Map<string, Float32Array>();
    for (const [n, stretch] of stretches.entries()) {
      gpu.submit("a stretch", (recorder) => {
        if (n === 0) {
          network.forward(recorder, parameters, "deterministic");
          network.head(recorder, parameters, { backward: { gradients, lossScale } });
        }
        network.backward(recorder, parameters, gradients, "deterministic", edgeScale, undefined, stretch);
      });
      for (const name of stretch.complete) standing.set(name, await gpu.read(gradients.get(name)!));
    }
    for (const [name, tensor] of gradients) {
      assertEquals(standing.get(name), await gpu.read(tensor), name);
      // B of an adapter begins at 0, and so does A's gradient.
      assert(standing.get(name)!.some((value) => value !== 0) || name.endsWith("lora_A.weight"), name);
    }
    // One stretch where so many bytes never stand.
    assertEquals(network.stretches(1e9).map(({ first }) => first), [0]);
    network.destroy();
    for (const set of [parameters, gradients]) destroyParameters(gpu, set);
  });
}

interface Trained {
  weights: Float32Array[];
  rows: Awaited<ReturnType<Trainer["log"]["drain"]>>;
}

/** Trains two ranks for three steps of four micro-batches; `transportOf`: what a rank's bytes are moved by. */
async function trainTwo(
  gpu: Gpu,
  { asGpu = false, ...options }: {
    bucketBytes: number;
    shardOptimizer?: boolean;
    /** Steps are submitted as to a GPU. */
    asGpu?: boolean;
  },
  transportOf: (transport: Transport) => Transport = (transport) => transport,
): Promise<Trained[]> {
  const shape: NetworkShape = { batch: BATCH, context: CONTEXT, training: true };
  const ranks = await Promise.all(
    ranksInProcess(2).map(async (transport) => {
      const network = await prepareNetwork(gpu, RUN_CONFIG, shape);
      const parameters = await load(gpu, RUN_CONFIG, shape);
      const trainer = await createTrainer(gpu, {
        network,
        parameters,
        seed: 1,
        accumulate: 4,
        exchange: createExchange(transportOf(transport), { limit: 1 }),
        optimiser: { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.1, clip: 0.5 },
        ...options,
      });
      return { network, parameters, trainer };
    }),
  );
  const adapter = gpu.adapter as { software: boolean };
  const { software } = adapter;
  adapter.software &&= !asGpu;
  try {
    await Promise.all(ranks.map(async ({ trainer }) => {
      for (let step = 0; step < 3; step++) {
        await trainer.step(step, 1e-2, [0, 1, 2, 3].map((n) => microBatch(10 * step + n)));
      }
    }));
  } finally {
    adapter.software = software;
  }
  return await Promise.all(ranks.map(async ({ network, parameters, trainer }) => {
    const rows = await trainer.log.drain();
    const weights = await Promise.all([...parameters.values()].map((tensor) => gpu.read(tensor)));
    trainer.destroy();
    network.destroy();
    destroyParameters(gpu, parameters);
    return { weights, rows };
  }));
}

gpuTest("gradients summed in many buckets are those summed in one, to the bit", async (gpu) => {
  const one = await trainTwo(gpu, { bucketBytes: 1e9 });
  assertEquals(one[1], one[0]);
  for (const shardOptimizer of [false, true]) {
    assertEquals(await trainTwo(gpu, { bucketBytes: 1000, shardOptimizer }), one);
  }
});

gpuTest("a driver that holds no thread is given all stretches at once, to the same bits", async (gpu) => {
  const one = await trainTwo(gpu, { bucketBytes: 1e9 });
  for (const shardOptimizer of [false, true]) {
    const trained = await trainTwo(gpu, { bucketBytes: 1000, shardOptimizer, asGpu: true });
    assertEquals(trained, one);
  }
});

gpuTest("the device has the next stretch of backward before the gradients of one are moved", async (gpu) => {
  const { submit } = gpu;
  const waiting: (() => void)[] = [];
  let inStep = 0;
  let moved = 0;
  gpu.submit = (operation, record, timestampWrites) => {
    submit.call(gpu, operation, record, timestampWrites);
    inStep += operation === "step 1" ? 1 : 0;
    for (const wake of waiting.splice(0)) wake();
  };
  const shape: NetworkShape = { batch: BATCH, context: CONTEXT, training: true };
  const network = await prepareNetwork(gpu, RUN_CONFIG, shape);
  const stretches = network.stretches(1000).length;
  network.destroy();
  assert(stretches > 2, `${stretches} stretches`);
  try {
    await trainTwo(gpu, { bucketBytes: 1000 }, (transport) => {
      let own = 0;
      return {
        ...transport,
        async allToAll(send, receive) {
          // Of both ranks: one micro-batch at once, and stretches up to the one behind what is moved. Where the next stretch
          // waited for that, it would never come.
          const submitted = () => inStep >= 2 * (1 + Math.min(own + 1, stretches));
          for (own++; !submitted();) await new Promise<void>((resolve) => waiting.push(resolve));
          moved++;
          await transport.allToAll(send, receive);
        },
      };
    });
  } finally {
    gpu.submit = submit;
  }
  assertEquals(moved, 3 * 2 * stretches);
});
