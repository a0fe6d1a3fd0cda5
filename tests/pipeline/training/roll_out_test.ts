/** Completions drawn through the gates of a step: what was drawn is what the step then trains, to the noise. */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { randomStream } from "../../../kernels/core/random.ts";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { HEAD_SUMS } from "../../../kernels/gated_attention/op.ts";
import { hardGates } from "../../../pipeline/model/gates.ts";
import { type Network, prepareNetwork } from "../../../pipeline/model/network.ts";
import { createParameters, type Parameters, uploadParameters } from "../../../pipeline/model/parameters.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { IGNORED } from "../../../kernels/core/targets.ts";
import { logProbabilities, measurePolicy, readLogits } from "../../../pipeline/training/policy.ts";
import { type RollOut, rollOut } from "../../../pipeline/training/roll_out.ts";
import { createTrainer, type MicroBatch, type Trainer } from "../../../pipeline/training/trainer.ts";
import { gpuTest } from "../../support/gpu.ts";
import { RUN_CONFIG } from "../../support/prepared_run.ts";
import { randomWeights, referenceLosses } from "../../support/reference_training.ts";
import { seeded } from "../../support/seeded.ts";

const [BATCH, CONTEXT, SEED] = [6, 7, 5];
const GATES = {
  bias: 0.4,
  temperature: 1,
  saturationWeight: 0,
  saturationBound: 6,
  lambdaStart: 1,
  geco: { scale: 1, alpha: 0.9, rate: 0.1, gain: 0, lowest: 0.1, highest: 10 },
};
const WEIGHTS = randomWeights(RUN_CONFIG, 1);

/** Rows of which the last three targets count; the second row has two of them alone. */
function prompts(batch: number, seed: number): MicroBatch {
  const random = seeded(seed);
  const inputs = Uint32Array.from(
    { length: batch * CONTEXT },
    () => random.integer(RUN_CONFIG.vocabularySize),
  );
  const targets = Uint32Array.from(inputs, (_, at) => {
    const [row, position] = [Math.floor(at / CONTEXT), at % CONTEXT];
    if (position < (row === 1 ? 5 : 4)) return IGNORED;
    return position + 1 < CONTEXT ? inputs[at + 1] : random.integer(RUN_CONFIG.vocabularySize);
  });
  return { inputs, targets };
}

async function prepared(
  gpu: Gpu,
  { batch = BATCH, logitsBytes }: { batch?: number; logitsBytes?: number } = {},
): Promise<{ network: Network; parameters: Parameters }> {
  const shapes = parametersOf(RUN_CONFIG);
  const parameters = createParameters(gpu, shapes);
  await uploadParameters(gpu, parameters, (name) => Promise.resolve(WEIGHTS.get(name)!));
  const shape = { batch, context: CONTEXT, training: true, weighted: true, logitsBytes };
  return { network: await prepareNetwork(gpu, RUN_CONFIG, shape), parameters };
}

async function withTrainer(
  gpu: Gpu,
  body: (trainer: Trainer, network: Network, parameters: Parameters) => Promise<void>,
): Promise<void> {
  const { network, parameters } = await prepared(gpu);
  const trainer = await createTrainer(gpu, {
    network,
    parameters,
    seed: SEED,
    accumulate: 2,
    gates: GATES,
    optimiser: { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, clip: 1 },
  });
  try {
    await body(trainer, network, parameters);
  } finally {
    trainer.destroy();
    network.destroy();
  }
}

const streams = (key: number) => (row: number) => randomStream(key, row);

/** Log-likelihoods of what was drawn as a pass of the training step had them. */
async function likelihoodsOf(gpu: Gpu, network: Network): Promise<number[]> {
  const rows = await gpu.read(network.lossRows);
  return Array.from({ length: rows.length / 4 }, (_, at) => -rows[4 * at]);
}

gpuTest(
  "a step trains what was drawn through its very gates, so that likelihoods are the same",
  async (gpu) => {
    await withTrainer(gpu, async (trainer, network, parameters) => {
      const drawn: RollOut[] = [];
      const step = 3;
      for (const microBatch of [0, 1]) {
        trainer.configureGates(step, microBatch);
        const options = { mode: "sampled", random: streams(microBatch) } as const;
        drawn.push(await rollOut(gpu, network, parameters, prompts(BATCH, 1), options));
      }
      /** Open edges of a pass over what was drawn for the second micro-batch, noise and all. */
      const openEdges = async (ofStep: number, microBatch: number): Promise<number[]> => {
        trainer.configureGates(ofStep, microBatch);
        network.configureRows(BATCH);
        network.upload(drawn[1].inputs, drawn[1].targets);
        gpu.submit("counting", (recorder) => {
          recorder.clear(network.headSums);
          network.forward(recorder, parameters, "sampled");
          network.head(recorder, parameters);
        });
        const sums = await gpu.read(network.headSums);
        return [...sums].filter((_, at) => at % HEAD_SUMS.length === HEAD_SUMS.indexOf("openUsed"));
      };
      // The second micro-batch's gates still hold: the pass over whole rows has the bits of those over parts of them.
      network.upload(drawn[1].inputs, drawn[1].targets);
      const logits = await readLogits(gpu, network, parameters, "sampled");
      drawn[1].targets.forEach((token, at) => {
        if (token === IGNORED) return;
        assertEquals(logProbabilities(logits(at))[token], drawn[1].logLikelihoods[at]);
      });
      const open = await openEdges(step, 1);
      const likelihoods = await likelihoodsOf(gpu, network);
      trainer.step(step, 0, drawn.map(({ inputs, targets }) => ({ inputs, targets })));
      const [row] = await trainer.log.drain();
      // The last micro-batch's rows are those that the step leaves.
      const trained = await likelihoodsOf(gpu, network);
      assertEquals(trained, likelihoods);
      drawn[1].logLikelihoods.forEach((of, at) => {
        if (drawn[1].targets[at] === IGNORED) return assertEquals(of, 0);
        // float32 beside float64 of the same logits. Measured: 4e-7.
        assertAlmostEquals(trained[at], of, 2e-6, `position ${at}`);
      });
      const mean = drawn.reduce(
        (sum, { logLikelihoods }) => sum + logLikelihoods.reduce((a, b) => a + b, 0),
        0,
      );
      // Measured: 3.5e-6.
      assertAlmostEquals(row.totals[0], -mean, 2e-5);

      // Through the gates of another step, or of another micro-batch, it would have been other noise.
      for (const [ofStep, microBatch] of [[step + 1, 1], [step, 0]]) {
        const others = await openEdges(ofStep, microBatch);
        const likelihoodsThen = await likelihoodsOf(gpu, network);
        assert(open.some((edges, head) => edges !== others[head]), "other noise opens other edges");
        assert(likelihoodsThen.some((of, at) => Math.abs(of - trained[at]) > 1e-2), "and tells other tokens");
      }
    });
  },
);

gpuTest(
  "what is drawn stands behind its prompt, and alone where all of it is right it is rewarded",
  async (gpu) => {
    for (const logitsBytes of [undefined, 64 * 4 * 16]) {
      // A hundred and sixty-eight positions are one block of logits, or three.
      const batch = 24;
      const { network, parameters } = await prepared(gpu, { batch, logitsBytes });
      assertEquals(network.blocks.length, logitsBytes ? 3 : 1);
      network.configureGates(hardGates(GATES.bias, batch));
      const asked = prompts(batch, 2);
      const options = { mode: "deterministic", random: streams(9) } as const;
      const { inputs, targets, rewards } = await rollOut(gpu, network, parameters, asked, options);
      inputs.forEach((token, at) => {
        const before = at % CONTEXT === 0 ? IGNORED : targets[at - 1];
        assertEquals(token, before === IGNORED ? asked.inputs[at] : before);
      });
      assertEquals(
        targets.map((target) => Number(target === IGNORED)),
        asked.targets.map((target) => Number(target === IGNORED)),
      );
      assertEquals([...rewards], new Array(batch).fill(0), "none of three random tokens of 13 is right");
      // Told that what it draws is right it is rewarded for it, but where one token is said to be another.
      const right: MicroBatch = { inputs: asked.inputs, targets: targets.slice() };
      right.targets[4 * CONTEXT - 1] = (targets[4 * CONTEXT - 1] + 1) % RUN_CONFIG.vocabularySize;
      right.targets[5 * CONTEXT - 3] = (targets[5 * CONTEXT - 3] + 1) % RUN_CONFIG.vocabularySize;
      const again = await rollOut(gpu, network, parameters, right, options);
      assertEquals(again.targets, targets, "the same numbers draw the same tokens");
      assertEquals(
        [...again.rewards],
        Array.from({ length: batch }, (_, row) => Number(row !== 3 && row !== 4)),
      );
      network.destroy();
    }
  },
);

gpuTest("tokens are drawn as often as they are likely", async (gpu) => {
  const batch = 600;
  const { network, parameters } = await prepared(gpu, { batch });
  const one = prompts(1, 4);
  const many = (of: Uint32Array) =>
    Uint32Array.from({ length: batch * CONTEXT }, (_, at) => of[at % CONTEXT]);
  const asked = { inputs: many(one.inputs), targets: many(one.targets) };
  const { targets } = await rollOut(gpu, network, parameters, asked, { mode: "dense", random: streams(3) });
  const { logits } = referenceLosses({ config: RUN_CONFIG, weights: WEIGHTS, context: CONTEXT }, one);
  const V = RUN_CONFIG.vocabularySize;
  const likely = logProbabilities(logits.slice(4 * V, 5 * V)).map(Math.exp);
  likely.forEach((probability, token) => {
    const share = Array.from({ length: batch }, (_, row) => targets[row * CONTEXT + 4])
      .filter((drawn) => drawn === token).length / batch;
    // Four standard deviations.
    const most = 4 * Math.sqrt(probability * (1 - probability) / batch) + 1 / batch;
    assert(Math.abs(share - probability) < most, `token ${token}: ${share} of ${probability}`);
  });
  assert(likely.filter((probability) => probability > 0.1).length > 1, "one token is not all");
  network.destroy();
});

gpuTest("entropy and divergence of a policy are float64's over the positions that count", async (gpu) => {
  const { network, parameters } = await prepared(gpu);
  const others = createParameters(gpu, parametersOf(RUN_CONFIG));
  const otherWeights = randomWeights(RUN_CONFIG, 2);
  await uploadParameters(gpu, others, (name) => Promise.resolve(otherWeights.get(name)!));
  network.configureGates(hardGates(GATES.bias, BATCH));
  // Of the second batch one row is padding that would count.
  const batches = [{ ...prompts(BATCH, 15), rows: BATCH }, { ...prompts(BATCH, 16), rows: BATCH - 1 }];
  const found = await measurePolicy(gpu, network, batches, { parameters, mode: "deterministic" }, {
    parameters: others,
    mode: "dense",
  });
  let [entropy, divergence, tokens] = [0, 0, 0];
  const V = RUN_CONFIG.vocabularySize;
  for (const batch of batches) {
    const of = { config: RUN_CONFIG, context: CONTEXT };
    const own = referenceLosses({ ...of, weights: WEIGHTS, gate: { bias: GATES.bias } }, batch);
    const other = referenceLosses({ ...of, weights: otherWeights }, batch);
    assert(own.margin > 1e-4, `a gate stands ${own.margin} from its threshold`);
    for (let at = 0; at < batch.rows * CONTEXT; at++) {
      if (batch.targets[at] === IGNORED) continue;
      const [p, q] = [own, other].map(({ logits }) => {
        const row = [...logits.slice(at * V, (at + 1) * V)].map(Math.exp);
        const sum = row.reduce((a, b) => a + b, 0);
        return row.map((value) => value / sum);
      });
      p.forEach((probability, token) => {
        entropy -= probability * Math.log(probability);
        divergence += probability * Math.log(probability / q[token]);
      });
      tokens++;
    }
  }
  // Measured: 3.5e-8.
  assertAlmostEquals(found.entropy, entropy / tokens, 1e-6);
  assertAlmostEquals(found.divergence, divergence / tokens, 1e-6);
  network.destroy();
});
