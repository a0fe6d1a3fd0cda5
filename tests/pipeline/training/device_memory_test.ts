/** Whoever allocates on the device frees all of it. */
import { assertEquals, assertRejects } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { readAttention } from "../../../pipeline/model/attention_pattern.ts";
import { prepareInterventions } from "../../../pipeline/circuits/interventions.ts";
import { evaluate } from "../../../pipeline/training/evaluate.ts";
import { adaptersFor } from "../../../pipeline/model/adapters.ts";
import type { NetworkShape } from "../../../pipeline/model/plan.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { type Network, prepareNetwork } from "../../../pipeline/model/network.ts";
import { createParameters, loadParameters, type Parameters } from "../../../pipeline/model/parameters.ts";
import { createTrainer } from "../../../pipeline/training/trainer.ts";
import { assertLeavesNothing } from "../../support/device_memory.ts";
import { gpuTest } from "../../support/gpu.ts";
import { RUN_CONFIG, RUN_SHAPE } from "../../support/prepared_run.ts";
import { seeded } from "../../support/seeded.ts";

// As other tests have it, so that its kernels are compiled once.
const CONFIG = RUN_CONFIG;
const { batch: BATCH, context: CONTEXT } = RUN_SHAPE;
const TRAINING: NetworkShape = { batch: BATCH, context: CONTEXT, training: true };
const ADAPTERS = adaptersFor(CONFIG, { rank: 4, alpha: 8, rankStabilised: false, targets: ["all-linear"] });
const tokens = seeded(1);

/** Random tokens, of which all count. */
function microBatch(batch = BATCH) {
  const random = () =>
    Uint32Array.from({ length: batch * CONTEXT }, () => tokens.integer(CONFIG.vocabularySize));
  return { inputs: random(), targets: random() };
}

/** A network that lives while `body` runs, and of which nothing may be left; the weights it is run with outlive it. */
async function withNetwork(
  gpu: Gpu,
  shape: NetworkShape,
  body: (network: Network, parameters: Parameters, teacher: Parameters) => Promise<void>,
): Promise<void> {
  const [parameters, teacher] = ["", "teacher's "].map((prefix) =>
    createParameters(gpu, parametersOf(CONFIG, shape), prefix)
  );
  await assertLeavesNothing(gpu, async () => {
    const network = await prepareNetwork(gpu, CONFIG, shape);
    await body(network, parameters, teacher);
    network.destroy();
  });
}

/** A gated step, with a teacher where the network has room for one, and a measurement of the constraint. */
async function train(gpu: Gpu, network: Network, parameters: Parameters, teacher: Parameters): Promise<void> {
  const trainer = await createTrainer(gpu, {
    network,
    parameters,
    seed: 1,
    accumulate: 1,
    distill: network.shape.distill ? { teacher, weight: 0.5 } : undefined,
    gates: {
      bias: 1,
      temperature: 1,
      saturationWeight: 0,
      saturationBound: 0,
      lambdaStart: 1,
      geco: { scale: 1, alpha: 0.9, rate: 0.1, gain: 0, lowest: 0, highest: 10 },
    },
    optimiser: { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, clip: 1 },
  });
  trainer.measureConstraint(microBatch(), 3);
  trainer.step(0, 1e-3, [microBatch()]);
  const rows = await trainer.log.drain();
  assertEquals(rows.map(({ step }) => step), [0]);
  trainer.destroy();
}

for (
  const [what, shape] of [
    ["for training", TRAINING],
    ["that recomputes", { ...TRAINING, recompute: true }],
    ["in half precision", { ...TRAINING, half: true }],
    ["with a teacher", { ...TRAINING, distill: true }],
    ["with a teacher in half precision", { ...TRAINING, distill: true, half: true }],
    ["with adapters", { ...TRAINING, adapters: ADAPTERS, train: "lora", half: true }],
  ] as const
) {
  gpuTest(`a network ${what} and its trainer free all that they held`, async (gpu) => {
    await withNetwork(gpu, shape, (...args) => train(gpu, ...args));
  });
}

gpuTest("a trainer frees all that it held while its network lives on", async (gpu) => {
  await withNetwork(gpu, TRAINING, async (network, parameters, teacher) => {
    // What is bound of the network alone stays bound for the next trainer.
    await train(gpu, network, parameters, teacher);
    await assertLeavesNothing(gpu, () => train(gpu, network, parameters, teacher));
  });
});

gpuTest("a network that only runs forward frees all that it held", async (gpu) => {
  await withNetwork(gpu, { ...TRAINING, training: false }, async (network, parameters) => {
    const { inputs, targets } = microBatch();
    network.upload(inputs, targets);
    gpu.submit("forward", (recorder) => {
      network.forward(recorder, parameters, "dense");
      network.head(recorder, parameters);
    });
    await gpu.sync();
  });
});

gpuTest("an evaluation frees what it held beside its network, also where it fails", async (gpu) => {
  await withNetwork(gpu, { ...TRAINING, training: false }, async (network, parameters) => {
    const measure = (count: number) =>
      evaluate(gpu, network, parameters, {
        mode: "deterministic",
        gateBias: 1,
        batches: Array.from({ length: count }, () => ({ ...microBatch(), rows: BATCH })),
      });
    await measure(1);
    await assertLeavesNothing(gpu, async () => assertEquals((await measure(5)).tokens, 5 * BATCH * CONTEXT));
    await assertLeavesNothing(gpu, async () => {
      await assertRejects(() => measure(0), RangeError, "0 given");
    });
  });
});

gpuTest("reading attention frees what it held beside its network", async (gpu) => {
  await withNetwork(gpu, { ...TRAINING, batch: 1, training: false }, async (network, parameters) => {
    const read = () => readAttention(gpu, network, parameters, [1, 2, 3], { gateBias: 0.5 });
    await read();
    await assertLeavesNothing(gpu, async () => assertEquals((await read()).layers.length, 2));
  });
});

gpuTest("weights that cannot be read leave nothing of those that were", async (gpu) => {
  const [first] = parametersOf(CONFIG);
  await assertLeavesNothing(gpu, async () => {
    const read = (name: string) =>
      name === first.name
        ? Promise.resolve(new Float32Array(first.shape[0] * first.shape[1]))
        : Promise.reject(new Error(`no ${name}`));
    await assertRejects(() => loadParameters(gpu, parametersOf(CONFIG), read), Error, "no ");
  });
});

gpuTest("interventions free all that they held", async (gpu) => {
  const parameters = createParameters(gpu, parametersOf(CONFIG));
  await assertLeavesNothing(gpu, async () => {
    const model = await prepareInterventions(gpu, { config: CONFIG, parameters }, { batch: 1, positions: 3 });
    const { logits } = await model.run([[1, 2, 3]], {
      replace: [
        { activation: "blocks.0.attn.hook_gates", by: "zero" },
        { activation: "blocks.1.attn.hook_z", by: { prompts: [[3, 2, 1]] } },
      ],
      read: ["blocks.1.attn.hook_pattern"],
    });
    assertEquals(logits.length, CONFIG.vocabularySize);
    model.destroy();
  });
});
