import type { Gpu } from "../../../kernels/core/gpu.ts";
import { logisticNoise, randomWord } from "../../../kernels/gated_attention/reference.ts";
import { openWeights } from "../../../pipeline/load_weights.ts";
import { readModelConfig } from "../../../pipeline/model_config.ts";
import { prepareNetwork } from "../../../pipeline/network.ts";
import { createParameters, uploadParameters } from "../../../pipeline/parameters.ts";
import { createTrainer } from "../../../pipeline/trainer.ts";
import { assertClose } from "../../support/compare.ts";
import { seeded } from "../../support/seeded.ts";
import type { BenchCase } from "../harness.ts";
import { jaxArray, openJax, ready } from "../peers/jax.ts";
import { type JaxState, jaxTrainingStep } from "../peers/jax_gpt.ts";

const MODEL = new URL("../../../data/english", import.meta.url).pathname;
const [B, T, BIAS, LAMBDA, SEED] = [8, 128, 3, 1, 4];

/** One optimiser step of the embedded English model, 8 rows of 128 tokens, gates sampled. */
export async function trainingStepCase(gpu: Gpu): Promise<BenchCase> {
  const config = await readModelConfig(MODEL);
  const weights = await openWeights(MODEL, config);
  const random = seeded(3);
  const draw = () => Uint32Array.from({ length: B * T }, () => random.integer(config.vocabularySize));
  const batch = { inputs: draw(), targets: draw() };

  const network = await prepareNetwork(gpu, config, { batch: B, context: T, training: true });
  const parameters = createParameters(gpu, weights.parameters);
  await uploadParameters(gpu, parameters, (name) => weights.read(name));
  const trainer = await createTrainer(gpu, {
    network,
    parameters,
    seed: SEED,
    accumulate: 1,
    gates: {
      bias: BIAS,
      temperature: 1,
      saturationWeight: 0,
      saturationBound: 6,
      lambdaStart: LAMBDA,
      geco: { scale: 1, alpha: 0.9, rate: 0, gain: 0, lowest: LAMBDA, highest: LAMBDA },
    },
    // No decay and no clipping, as the peer has none.
    optimiser: { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, clip: 1e9 },
  });

  await openJax();
  const oneHot = (tokens: Uint32Array) => {
    const values = new Float32Array(B * T * config.vocabularySize);
    tokens.forEach((token, n) => values[n * config.vocabularySize + token] = 1);
    return jaxArray(values, [B * T, config.vocabularySize]);
  };
  const { heads, layers } = config;
  const peerBatch = {
    inputs: oneHot(batch.inputs),
    targets: oneHot(batch.targets),
    noise: Array.from({ length: layers }, (_, layer) =>
      jaxArray(
        Float32Array.from({ length: B * heads * T * T }, (_, n) => {
          const [row, i, j] = [Math.floor(n / (T * T)), Math.floor(n / T) % T, n % T];
          return j > i ? 0 : logisticNoise(randomWord({ seed: SEED, step: 0, layer, row, i, j }));
        }),
        [B * heads, T, T],
      )),
    causal: jaxArray(
      Float32Array.from({ length: T * T }, (_, n) => n % T > Math.floor(n / T) ? -1e9 : 0),
      [T, T],
    ),
  };
  const entries = await Promise.all(
    weights.parameters.map(async ({ name, shape }) => [name, await weights.read(name), [...shape]] as const),
  );
  const tree = (values: (of: Float32Array) => Float32Array) =>
    Object.fromEntries(entries.map(([name, of, shape]) => [name, jaxArray(values(of), [...shape])]));
  const zeros = (of: Float32Array) => new Float32Array(of.length);
  const compiled = jaxTrainingStep(config, {
    batch: B,
    context: T,
    bias: BIAS,
    lambda: LAMBDA,
    learningRate: 1e-3,
  });
  const peerStep = (from: Omit<JaxState, "loss">): JaxState =>
    compiled(from, {
      inputs: peerBatch.inputs.ref,
      targets: peerBatch.targets.ref,
      noise: peerBatch.noise.map((array) => array.ref),
      causal: peerBatch.causal.ref,
    });
  let state: JaxState = peerStep({ weights: tree((of) => of), first: tree(zeros), second: tree(zeros) });

  let step = 0;
  return {
    name: `training step embedded B=${B} T=${T}`,
    tokens: B * T,
    ours: {
      async run() {
        if (trainer.log.waiting === trainer.log.capacity) await trainer.log.poll();
        trainer.step(step++, 1e-3, [batch]);
      },
      wait: () => gpu.sync(),
    },
    peers: {
      "jax-js": {
        run() {
          state.loss.dispose();
          state = peerStep(state);
        },
        wait: () => ready(state.loss, state.weights["wte.weight"]),
      },
    },
    async check() {
      // The first step's objective, which both have taken from the same weights, tokens and noise.
      trainer.step(step++, 1e-3, [batch]);
      const [row] = await trainer.log.drain();
      const ce = row.totals[0] / row.totals[3];
      const edges = layers * heads * B * T * (T + 1) / 2;
      let open = 0;
      for (let at = 0; at < row.headSums.length; at += 8) open += row.headSums[at];
      const ours = (open / edges + LAMBDA * ce) / (1 + LAMBDA);
      const peer = await state.loss.ref.data() as Float32Array;
      assertClose([ours], [peer[0]], { tolerance: 1e-5, name: "objective of the first step" });
    },
  };
}
