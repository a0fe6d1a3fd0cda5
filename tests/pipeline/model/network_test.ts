/**
 * A whole tiny GPT-2 against another implementation: logits, every activation named in the fixture, every gradient, and
 * ten steps of AdamW, dense and gated with the noise fixed (tests/fixtures/tiny_gpt2, made by PyTorch in float64).
 */
import { assert, assertEquals } from "@std/assert";
import { adamwReference } from "../../../kernels/adamw/reference.ts";
import { Gpu } from "../../../kernels/core/gpu.ts";
import { slicesOf } from "../../../kernels/core/tensor.ts";
import { HEAD_SUMS } from "../../../kernels/gated_attention/op.ts";
import { openWeights } from "../../../pipeline/model/load_weights.ts";
import { gpt2Config, type ModelConfig } from "../../../pipeline/model/config.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import type { ActivationHook } from "../../../pipeline/model/runner.ts";
import { createParameters, uploadParameters } from "../../../pipeline/model/parameters.ts";
import { openSafetensors } from "../../../pipeline/model/safetensors.ts";
import { createTrainer, type GateObjective } from "../../../pipeline/training/trainer.ts";
import { assertClose } from "../../support/compare.ts";
import { randomWeights, referenceStep, type Weights } from "../../support/reference_training.ts";
import { seeded } from "../../support/seeded.ts";

const FOLDER = new URL("../../fixtures/tiny_gpt2/", import.meta.url).pathname;
const expected = JSON.parse(await Deno.readTextFile(FOLDER + "expected.json"));
const batches = JSON.parse(await Deno.readTextFile(FOLDER + "batch.json"));
const s = expected.settings;
const BATCH = 3;
const CONTEXT = 13;

interface FixtureBatch {
  inputs: number[][];
  targets: number[][];
}
const microBatch = ({ inputs, targets }: FixtureBatch) => ({
  inputs: Uint32Array.from(inputs.flat()),
  targets: Uint32Array.from(targets.flat()),
});

const gates: GateObjective = {
  bias: s.gateBias,
  temperature: s.temperature,
  saturationWeight: s.rho,
  saturationBound: s.saturationBound,
  lambdaStart: s.lambda,
  geco: { scale: 1, alpha: 0.9, rate: 0, gain: 0, lowest: 0, highest: 10 },
};

/** The fixture's model on a device, with the network that runs it. */
async function openFixture(
  options: { maxBindingBytes?: number; half?: boolean; keep?: boolean } = {},
) {
  const gpu = await Gpu.open({ maxBindingBytes: options.maxBindingBytes });
  const config = await readModelConfig(FOLDER);
  const weights = await openWeights(FOLDER, config);
  const parameters = createParameters(gpu, weights.parameters);
  const start = new Map<string, Float32Array>();
  for (const { name } of weights.parameters) start.set(name, await weights.read(name));
  await uploadParameters(gpu, parameters, (name) => Promise.resolve(start.get(name)!));
  const network = await prepareNetwork(gpu, config, {
    batch: BATCH,
    context: CONTEXT,
    training: true,
    distill: true,
    half: options.half,
    keep: options.keep,
  });
  const trainer = (gated: boolean, clip = s.maxGradientNorm) =>
    createTrainer(gpu, {
      network,
      parameters,
      seed: s.noiseSeed,
      accumulate: 1,
      gates: gated ? gates : undefined,
      optimiser: { beta1: s.beta1, beta2: s.beta2, epsilon: s.epsilon, weightDecay: s.weightDecay, clip },
    });
  return { gpu, network, parameters, trainer, start };
}

/** The weights after the fixture's ten steps, in float64. */
function tenSteps(start: Weights, config: ModelConfig, gated: boolean): Map<string, Float64Array> {
  const weights = new Map<string, Float64Array>();
  for (const [name, values] of start) weights.set(name, Float64Array.from(values));
  const zeros = () =>
    new Map<string, Float64Array>([...weights].map(([name, { length }]) => [name, new Float64Array(length)]));
  const [first, second] = [zeros(), zeros()];
  for (let step = 0; step < 10; step++) {
    const gate = gated ? { ...gates, noise: { seed: s.noiseSeed, step } } : undefined;
    const objective = { config, weights, context: CONTEXT, gate, lambda: s.lambda };
    const { gradients } = referenceStep(objective, microBatch(batches.training[step]));
    const squares = [...gradients.values()].map((of) => of.reduce((sum, value) => sum + value * value, 0));
    const norm = Math.sqrt(squares.reduce((sum, of) => sum + of, 0));
    for (const { name, shape: [, columns = 1] } of parametersOf(config)) {
      const decayFrom = name.endsWith("c_attn.weight") ? 2 * columns / 3 : columns > 1 ? 0 : Infinity;
      const after = adamwReference({
        ...s,
        weight: weights.get(name)!,
        gradient: gradients.get(name)!,
        first: first.get(name)!,
        second: second.get(name)!,
        columns,
        decayFrom,
        step: step + 1,
        clipFactor: Math.min(1, s.maxGradientNorm / norm),
      });
      weights.set(name, after.weight);
      first.set(name, after.first);
      second.set(name, after.second);
    }
  }
  return weights;
}

for (const kind of ["dense", "gated"] as const) {
  Deno.test(`a tiny GPT-2, ${kind}: loss, edges, activations and every gradient equal PyTorch's`, async () => {
    const { gpu, network, parameters, trainer: createTrainer } = await openFixture({ keep: true });
    try {
      const fixture = await openSafetensors(`${FOLDER}expected_${kind}.safetensors`);
      const trainer = await createTrainer(kind === "gated");
      trainer.step(s.noiseStep, 0, [microBatch(batches)]);
      const [row] = await trainer.log.drain();
      const of = expected[kind];
      assertClose([row.totals[0] / row.totals[3]], [of.ce], { tolerance: 1e-6, name: "cross-entropy" });
      for (let layer = 0; layer < 2; layer++) {
        assertClose(
          await gpu.read(network.activations.get(`blocks.${layer}.hook_resid_post`)!),
          await fixture.read(`hidden.${layer + 1}`),
          { tolerance: 2e-6, name: `residual stream after block ${layer}` },
        );
      }
      if (kind === "gated") {
        const column = (name: typeof HEAD_SUMS[number]) =>
          Array.from(
            { length: 6 },
            (_, head) => row.headSums[head * HEAD_SUMS.length + HEAD_SUMS.indexOf(name)],
          );
        assertEquals(column("openUsed"), of.openCounts.flat());
        assertClose(
          column("openProbability").map((sum) => sum / of.causalPairs),
          of.expectedOpenByHead.flat(),
          {
            tolerance: 1e-6,
            name: "open probability of each head",
          },
        );
      }
      // Measured: 1.1e-6 dense (h.0.ln_1.weight), 7e-7 gated.
      for (const [name, gradient] of trainer.gradients) {
        const want = await fixture.read(`grad.transformer.${name}`);
        assertClose(await gpu.read(gradient), want, { tolerance: 5e-6, name: `gradient of ${name}` });
      }
      gpu.submit("logits", (recorder) => network.logits(recorder, parameters, 0));
      const logits = await gpu.read(network.logitsTensor);
      const want = await fixture.read("logits");
      const V = network.config.vocabularySize;
      const packed = Float32Array.from(
        { length: want.length },
        (_, n) => logits[Math.floor(n / V) * network.logitsStride + n % V],
      );
      assertClose(packed, want, { tolerance: 2e-6, name: "logits" });
    } finally {
      gpu.close();
    }
  });

  Deno.test(`a tiny GPT-2, ${kind}: ten steps of AdamW give PyTorch's losses, gradient norms and weights`, async () => {
    const { gpu, network, parameters, trainer: createTrainer, start } = await openFixture();
    try {
      const trainer = await createTrainer(kind === "gated");
      const rows = [];
      for (let step = 0; step < 10; step++) {
        trainer.step(step, s.learningRate, [microBatch(batches.training[step])]);
        rows.push(...await trainer.log.poll());
      }
      rows.push(...await trainer.log.drain());
      const training = expected[kind].training;
      // Measured: 5e-7 absolute in the losses (about 4.4), 4e-7 relative in the norms.
      rows.forEach((row, step) => {
        const at = `step ${step}`;
        assertClose([row.totals[0] / row.totals[3]], [training.ce[step]], {
          tolerance: 1e-6,
          name: `CE of ${at}`,
        });
        assertClose([row.update[0]], [training.gradientNorm[step]], {
          tolerance: 3e-6,
          name: `norm of ${at}`,
        });
      });
      const weights = tenSteps(start, network.config, kind === "gated");
      for (const [name, tensor] of parameters) {
        const want = weights.get(name)!;
        const of = training.finalWeights[`transformer.${name}`];
        // PyTorch's are kept as sums, which tie the float64 weights to them. Measured: 1.5e-10, of sums near 0.
        assertClose([want.reduce((sum, value) => sum + value, 0)], [of.sum], { tolerance: 1e-9, name });
        assertClose([want.reduce((sum, value) => sum + value * value, 0)], [of.sumOfSquares], {
          tolerance: 1e-9,
          name,
        });
        const got = await gpu.read(tensor);
        // Dense attention is blind to key biases: their gradient is rounding noise, which Adam scales up.
        const counts = (n: number): boolean =>
          kind === "gated" || !name.endsWith("c_attn.bias") || Math.floor(3 * n / want.length) !== 1;
        const moved = (values: ArrayLike<number>) =>
          Float64Array.from(want, (_, n) => counts(n) ? values[n] - start.get(name)![n] : 0);
        // Measured: 4.6e-5.
        assertClose(moved(got), moved(want), { tolerance: 2e-4, name: `what moved in ${name}` });
      }
    } finally {
      gpu.close();
    }
  });
}

/** A head that has to be cut, as GPT-2's has: neither the embedding nor the logits of all rows fit into a binding. */
const CUT = { batch: 5, maxBindingBytes: 68_000, slices: [240, 24], blocks: [64, 1] } as const;
const CUT_CONFIG: ModelConfig = gpt2Config({
  vocabularySize: 264,
  contextLength: CONTEXT,
  width: 68,
  layers: 1,
  heads: 17,
  mlpWidth: 72,
});

Deno.test("a vocabulary and logits that must be cut give float64's losses and gradients, with a teacher too", async () => {
  const gpu = await Gpu.open({ maxBindingBytes: CUT.maxBindingBytes });
  try {
    const { vocabularySize, width } = CUT_CONFIG;
    const shape = { batch: CUT.batch, context: CONTEXT, training: true, distill: true };
    const network = await prepareNetwork(gpu, CUT_CONFIG, shape);
    assertEquals(network.blocks.map(({ count }) => count), [...CUT.blocks]);
    const slices = slicesOf(vocabularySize, width, gpu.maxBindingBytes).map(({ count }) => count);
    assertEquals(slices, [...CUT.slices]);
    const [weights, teacherWeights] = [randomWeights(CUT_CONFIG, 3), randomWeights(CUT_CONFIG, 4)];
    const [parameters, teacher] = [weights, teacherWeights].map((from) => {
      const tensors = createParameters(gpu, parametersOf(CUT_CONFIG));
      for (const [name, tensor] of tensors) gpu.write(tensor, from.get(name)!);
      return tensors;
    });
    const trainer = await createTrainer(gpu, {
      network,
      parameters,
      seed: 6,
      accumulate: 1,
      gates,
      distill: { teacher, weight: 0.5 },
      optimiser: { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, clip: 1 },
    });
    const random = seeded(8);
    const tokens = () =>
      Uint32Array.from({ length: CUT.batch * CONTEXT }, () => random.integer(vocabularySize));
    const rows = { inputs: tokens(), targets: tokens() };
    trainer.step(2, 0, [rows]);
    const [row] = await trainer.log.drain();
    const expected = referenceStep({
      config: CUT_CONFIG,
      weights,
      context: CONTEXT,
      gate: { ...gates, noise: { seed: 6, step: 2 } },
      lambda: gates.lambdaStart,
      distill: { teacher: teacherWeights, weight: 0.5 },
    }, rows);
    assert(expected.margin > 1e-5, `a gate stands ${expected.margin} from its threshold`);
    const [ce, kl] = [row.totals[0] / row.totals[3], row.distillationTotals[0] / row.distillationTotals[3]];
    assertClose([ce, kl], [expected.ce, expected.kl], { tolerance: 1e-6, name: "CE and KL" });
    for (const [name, gradient] of trainer.gradients) {
      // Measured: 1e-6, and 4e-7 for the logits below.
      assertClose(await gpu.read(gradient), expected.gradients.get(name)!, { tolerance: 5e-6, name });
    }
    gpu.submit("forward", (recorder) => network.forward(recorder, parameters, "sampled"));
    for (let block = 0; block < network.blocks.length; block++) {
      const { first, count } = network.blocks[block];
      gpu.submit("logits", (recorder) => network.logits(recorder, parameters, block));
      const logits = await gpu.read(network.logitsTensor, 0, count * vocabularySize);
      const want = expected.logits.subarray(first * vocabularySize, (first + count) * vocabularySize);
      assertClose(logits, want, { tolerance: 2e-6, name: `logits of block ${block}` });
    }
  } finally {
    gpu.close();
  }
});

Deno.test("stored in half precision, loss and gradients are those in single to float16's rounding", async () => {
  const { gpu, parameters, trainer: createTrainer } = await openFixture({
    half: true,
    maxBindingBytes: 4096 * 4,
  });
  try {
    const fixture = await openSafetensors(`${FOLDER}expected_gated.safetensors`);
    const trainer = await createTrainer(true);
    const before = await gpu.read(parameters.get("wte.weight")!);
    trainer.step(s.noiseStep, 0, [microBatch(batches)]);
    const [row] = await trainer.log.drain();
    // Measured: 3.7e-5.
    assertClose([row.totals[0] / row.totals[3]], [expected.gated.ce], {
      tolerance: 1e-4,
      name: "cross-entropy",
    });
    for (const [name, gradient] of trainer.gradients) {
      const want = await fixture.read(`grad.transformer.${name}`);
      // float16 rounds to 2^-11. Measured: 2.5e-3.
      assertClose(await gpu.read(gradient), want, { tolerance: 1e-2, name: `gradient of ${name}` });
    }
    // What is trained is not rounded.
    assertEquals(await gpu.read(parameters.get("wte.weight")!), before);
    assert(before.some((value) => Math.f16round(value) !== value));
  } finally {
    gpu.close();
  }
});

Deno.test("a hook sees every activation by its name, changes no bit by looking, and can replace what it sees", async () => {
  const { gpu, network, parameters } = await openFixture();
  try {
    const { inputs, targets } = microBatch(batches);
    network.upload(inputs, targets);
    const normFinal = network.activations.get("ln_final.hook_normalized")!;
    const forward = async (hook?: ActivationHook) => {
      gpu.submit("forward", (recorder) => network.forward(recorder, parameters, "dense", { hook }));
      return await gpu.read(normFinal);
    };
    const alone = await forward();
    const seen: string[] = [];
    assertEquals(await forward((name) => seen.push(name)), alone);
    const named = [...network.activations.keys()].filter((name) => /hook_/.test(name));
    // The end of one layer is the beginning of the next: seen once.
    assertEquals(seen.toSorted(), named.filter((name) => name !== "blocks.0.hook_resid_post").toSorted());
    const changed = await forward((name, tensor, recorder) => {
      if (name === "blocks.1.mlp.hook_pre") recorder.clear(tensor);
    });
    assert(changed.some((value, n) => value !== alone[n]));
  } finally {
    gpu.close();
  }
});
