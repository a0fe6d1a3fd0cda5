import type { Gpu } from "../../../kernels/core/gpu.ts";
import { logisticNoise, randomWord } from "../../../kernels/gated_attention/reference.ts";
import { openWeights } from "../../../pipeline/model/load_weights.ts";
import { budgetMemory } from "../../../pipeline/training/memory_budget.ts";
import { gpt2Config, type ModelConfig } from "../../../pipeline/model/config.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { type Network, prepareNetwork } from "../../../pipeline/model/network.ts";
import { createParameters, uploadParameters } from "../../../pipeline/model/parameters.ts";
import { createTrainer, type MicroBatch, type Trainer } from "../../../pipeline/training/trainer.ts";
import { assertClose } from "../../support/compare.ts";
import { seeded } from "../../support/seeded.ts";
import { fill } from "../data.ts";
import { type BenchCase, candidate, type Peer } from "../harness.ts";
import { jaxArray, openJax, ready } from "../peers/jax.ts";
import { type JaxState, jaxTrainingStep } from "../peers/jax_gpt.ts";
import { type Torch, torchPeers } from "../peers/torch.ts";

const MODEL = new URL("../../../data/english", import.meta.url).pathname;
const [BIAS, LAMBDA, SEED, LEARNING_RATE] = [3, 1, 4, 1e-3];

/** GPT-2's architecture at OLMo-7B's sizes, two layers of it. */
export const OLMO_2_LAYERS: ModelConfig = gpt2Config({
  vocabularySize: 50304,
  contextLength: 2048,
  width: 4096,
  layers: 2,
  heads: 32,
  mlpWidth: 11008,
});

/** How much is trained at once, and in what type activations are stored. */
export interface StepShape {
  batch: number;
  context: number;
  dtype?: "f32" | "f16";
}

/** A trainer with gates sampled at random tokens. */
export interface Step {
  trainer: Trainer;
  network: Network;
  batch: MicroBatch;
  /** Submits the next step. */
  take(): Promise<void>;
}

/** Prepares a step; weights are random unless `read` gives them. */
export async function prepareStep(
  gpu: Gpu,
  config: ModelConfig,
  { batch: B, context: T, dtype = "f32" }: StepShape,
  read?: (name: string) => Promise<Float32Array>,
): Promise<Step> {
  await budgetMemory(gpu, config, { batch: B, context: T, dtype, recompute: false, memory: "auto" });
  const shapes = parametersOf(config);
  const random = seeded(3);
  const draw = () => Uint32Array.from({ length: B * T }, () => random.integer(config.vocabularySize));
  const batch = { inputs: draw(), targets: draw() };
  const network = await prepareNetwork(gpu, config, {
    batch: B,
    context: T,
    training: true,
    half: dtype === "f16",
  });
  const parameters = createParameters(gpu, shapes);
  const rough = (name: string): Promise<Float32Array> => {
    const { length } = parameters.get(name)!;
    if (/\bln_\w+\.weight$/.test(name)) return Promise.resolve(new Float32Array(length).fill(1));
    return Promise.resolve(fill(1, length, 0.02));
  };
  await uploadParameters(gpu, parameters, read ?? rough);
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
    // No decay and no clipping, as jax-js has none here.
    optimiser: { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, clip: 1e9 },
  });
  let step = 0;
  return {
    trainer,
    network,
    batch,
    async take() {
      if (trainer.log.waiting === trainer.log.capacity) await trainer.log.poll();
      trainer.step(step++, LEARNING_RATE, [batch]);
    },
  };
}

/** Takes the first step and gives its cross-entropy and mean open probability. */
async function firstStep(
  { trainer, take }: Step,
  { layers, heads }: ModelConfig,
  { batch: B, context: T }: StepShape,
): Promise<{ ce: number; open: number }> {
  await take();
  const [row] = await trainer.log.drain();
  let open = 0;
  for (let at = 0; at < row.headSums.length; at += 8) open += row.headSums[at];
  return { ce: row.totals[0] / row.totals[3], open: open / (layers * heads * B * T * (T + 1) / 2) };
}

/**
 * Multiply-adds of forward and backward, counted as two operations: 6 for each weight of a product and token, 2 · 7 · D
 * for each causal pair and head.
 */
function operationsOf(config: ModelConfig, { batch: B, context: T }: StepShape): number {
  const { layers, width, mlpWidth, vocabularySize } = config;
  const weights = layers * (4 * width * width + 2 * width * mlpWidth) + vocabularySize * width;
  return 6 * weights * B * T + layers * width * B * T * (T + 1) / 2 * 2 * 7;
}

/** One optimiser step of the embedded English model, 8 rows of 128 tokens, gates sampled. */
export async function embeddedStepCase(gpu: Gpu, torch?: Torch): Promise<BenchCase> {
  const config = await readModelConfig(MODEL);
  const weights = await openWeights(MODEL, config);
  const shape: StepShape = { batch: 8, context: 128 };
  const step = await prepareStep(gpu, config, shape, (name) => weights.read(name));
  const { batch: B, context: T } = shape;
  let objective = NaN;

  async function jax(): Promise<Peer> {
    await openJax();
    const { batch } = step;
    const oneHot = (tokens: Uint32Array) => {
      const values = new Float32Array(B * T * config.vocabularySize);
      tokens.forEach((token, n) => values[n * config.vocabularySize + token] = 1);
      return jaxArray(values, [B * T, config.vocabularySize]);
    };
    const { heads, layers } = config;
    const inputs = {
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
      weights.parameters.map(async ({ name, shape }) =>
        [name, await weights.read(name), [...shape]] as const
      ),
    );
    const tree = (values: (of: Float32Array) => Float32Array) =>
      Object.fromEntries(entries.map(([name, of, shape]) => [name, jaxArray(values(of), [...shape])]));
    const zeros = (of: Float32Array) => new Float32Array(of.length);
    const compiled = jaxTrainingStep(config, {
      batch: B,
      context: T,
      bias: BIAS,
      lambda: LAMBDA,
      learningRate: LEARNING_RATE,
    });
    const advance = (from: Omit<JaxState, "loss">): JaxState =>
      compiled(from, {
        inputs: inputs.inputs.ref,
        targets: inputs.targets.ref,
        noise: inputs.noise.map((array) => array.ref),
        causal: inputs.causal.ref,
      });
    let state: JaxState = advance({ weights: tree((of) => of), first: tree(zeros), second: tree(zeros) });
    return {
      ...candidate(() => {
        state.loss.dispose();
        state = advance(state);
      }, () => ready(state.loss, state.weights["wte.weight"])),
      // The first step's objective, which both have taken from the same weights, tokens and noise.
      async check() {
        const theirs = await state.loss.ref.data() as Float32Array;
        assertClose([objective], [theirs[0]], { tolerance: 1e-5, name: "objective of the first step" });
      },
      destroy() {
        state.loss.dispose();
        for (const set of [state.weights, state.first, state.second]) {
          for (const array of Object.values(set)) array.dispose();
        }
        for (const array of [inputs.inputs, inputs.targets, inputs.causal, ...inputs.noise]) array.dispose();
      },
    };
  }

  return {
    operations: operationsOf(config, shape),
    tokens: B * T,
    ours: candidate(step.take, () => gpu.sync()),
    peers: {
      "jax-js": jax,
      ...torchPeers(torch, {
        kind: "training step",
        config,
        batch: B,
        context: T,
        bias: BIAS,
        lambda: LAMBDA,
      }),
    },
    async check() {
      const { ce, open } = await firstStep(step, config, shape);
      objective = (open + LAMBDA * ce) / (1 + LAMBDA);
    },
  };
}

/** The cross-entropy of random weights over V tokens stands this near ln V, relatively: 0.016 at GPT-2's shape. */
const RANDOM_LOSS_TOLERANCE = 0.05;

/** One optimiser step of a model with random weights, gates sampled. */
export async function trainingStepCase(
  gpu: Gpu,
  config: ModelConfig,
  shape: StepShape,
  torch?: Torch,
): Promise<BenchCase> {
  const step = await prepareStep(gpu, config, shape);
  const { batch, context } = shape;
  return {
    operations: operationsOf(config, shape),
    tokens: batch * context,
    ours: candidate(step.take, () => gpu.sync()),
    peers: torchPeers(torch, { kind: "training step", config, batch, context, bias: BIAS, lambda: LAMBDA }),
    async check() {
      const { ce } = await firstStep(step, config, shape);
      const expected = Math.log(config.vocabularySize);
      assertClose([ce], [expected], { tolerance: RANDOM_LOSS_TOLERANCE, name: "loss of random weights" });
    },
  };
}
