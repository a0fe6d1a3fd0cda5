/**
 * A training step as a whole against float64: what its parts are handed, and that they add up over micro-batches. The
 * kernels have their own tests; here two rows a micro-batch, two micro-batches a step, with other counts of targets.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { HEAD_SUMS } from "../../../kernels/gated_attention/op.ts";
import { gecoReference } from "../../../kernels/geco/reference.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import { createParameters, uploadParameters } from "../../../pipeline/model/parameters.ts";
import {
  createTrainer,
  type GateObjective,
  type MicroBatch,
  type Trainer,
} from "../../../pipeline/training/trainer.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest } from "../../support/gpu.ts";
import { RUN_CONFIG, RUN_SHAPE } from "../../support/prepared_run.ts";
import {
  headTotal,
  joinRows,
  randomWeights,
  type ReferenceGate,
  referenceLosses,
  referenceStep,
  type Rows,
} from "../../support/reference_training.ts";
import { seeded } from "../../support/seeded.ts";

const CONFIG = RUN_CONFIG;
const { context: CONTEXT, batch: BATCH } = RUN_SHAPE;
const IGNORED = 0xffffffff;
const SEED = 5;
const WEIGHTS = randomWeights(CONFIG, 1);
const TEACHER = randomWeights(CONFIG, 2);
const GATES: GateObjective = {
  bias: 0.4,
  temperature: 0.8,
  saturationWeight: 0.03,
  saturationBound: 1,
  lambdaStart: 0.6,
  geco: { scale: 0.5, alpha: 0.5, rate: 1, gain: 1.5, lowest: 0.2, highest: 1.4 },
};
const DISTILL_WEIGHT = 0.7;

/** Random tokens, of whose targets a share is ignored. */
function randomBatch(seed: number, ignored: number): MicroBatch {
  const random = seeded(seed);
  const token = () => random.integer(CONFIG.vocabularySize);
  const length = BATCH * CONTEXT;
  return {
    inputs: Uint32Array.from({ length }, token),
    targets: Uint32Array.from({ length }, () => random.uniform() < ignored ? IGNORED : token()),
  };
}

/** Micro-batches of which one counts about twice as many targets as the other. */
const MICRO_BATCHES = [randomBatch(11, 0.6), randomBatch(12, 0.1)];
const PROBES = [randomBatch(21, 0.3), randomBatch(22, 0.3)];

async function withTrainer(
  gpu: Gpu,
  options: { gated: boolean; distill: boolean; half?: boolean; weighted?: boolean },
  body: (trainer: Trainer) => Promise<void>,
): Promise<void> {
  const shapes = parametersOf(CONFIG);
  const [parameters, teacher] = [createParameters(gpu, shapes), createParameters(gpu, shapes, "teacher's ")];
  await uploadParameters(gpu, parameters, (name) => Promise.resolve(WEIGHTS.get(name)!));
  await uploadParameters(gpu, teacher, (name) => Promise.resolve(TEACHER.get(name)!));
  const { distill, half, weighted } = options;
  const shape = { batch: BATCH, context: CONTEXT, training: true, distill, half, weighted };
  const network = await prepareNetwork(gpu, CONFIG, shape);
  const trainer = await createTrainer(gpu, {
    network,
    parameters,
    seed: SEED,
    accumulate: MICRO_BATCHES.length,
    gates: options.gated ? GATES : undefined,
    distill: options.distill ? { teacher, weight: DISTILL_WEIGHT } : undefined,
    optimiser: { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, clip: 1 },
  });
  try {
    await body(trainer);
  } finally {
    trainer.destroy();
    network.destroy();
  }
}

/** The objective of a step in float64, all its rows at once. */
function reference(
  { step, lambda, gated = true, distill = true }: {
    step: number;
    lambda: number;
    gated?: boolean;
    distill?: boolean;
  },
) {
  const gate: ReferenceGate = { ...GATES, noise: { seed: SEED, step } };
  const result = referenceStep({
    config: CONFIG,
    weights: WEIGHTS,
    context: CONTEXT,
    gate: gated ? gate : undefined,
    lambda,
    distill: distill ? { teacher: TEACHER, weight: DISTILL_WEIGHT } : undefined,
  }, joinRows(MICRO_BATCHES));
  assert(result.margin > 1e-4, `a gate stands ${result.margin} from its threshold`);
  return result;
}

async function lastRow(trainer: Trainer) {
  return (await trainer.log.drain()).at(-1)!;
}

async function assertGradients(gpu: Gpu, trainer: Trainer, expected: ReadonlyMap<string, Float64Array>) {
  for (const [name, gradient] of trainer.gradients) {
    // Measured: 3.8e-6 (h.0.ln_1.weight, with a teacher).
    assertClose(await gpu.read(gradient), expected.get(name)!, {
      tolerance: 1e-5,
      name: `gradient of ${name}`,
    });
  }
}

for (
  const [name, options] of [
    ["dense", { gated: false, distill: false }],
    ["gated", { gated: true, distill: false }],
    ["gated, with a teacher", { gated: true, distill: true }],
  ] as const
) {
  gpuTest(
    `${name}: a step of two micro-batches has float64's sums and gradients of all rows at once`,
    async (gpu) => {
      await withTrainer(gpu, options, async (trainer) => {
        // The second step shows what the first left behind.
        for (const step of [4, 5]) {
          trainer.step(step, 0, MICRO_BATCHES);
          const row = await lastRow(trainer);
          const expected = reference({ step, lambda: GATES.lambdaStart, ...options });
          assertClose([row.totals[0] / row.totals[3]], [expected.ce], { tolerance: 1e-6, name: "CE" });
          assertEquals([row.totals[1], row.totals[3]], [expected.correct, expected.counted]);
          if (options.distill) {
            const kl = row.distillationTotals[0] / row.distillationTotals[3];
            assertClose([kl], [expected.kl], { tolerance: 1e-6, name: "KL" });
          }
          if (options.gated) {
            expected.heads.forEach((head, n) => {
              const sum = (of: typeof HEAD_SUMS[number]) =>
                row.headSums[n * HEAD_SUMS.length + HEAD_SUMS.indexOf(of)];
              assertEquals([sum("openUsed"), sum("open"), sum("dead")], [
                head.openUsed,
                head.open,
                head.dead,
              ]);
              assertClose(
                [sum("openProbability"), sum("saturation")],
                [head.openProbability, head.saturation],
                { tolerance: 1e-6, name: `sums of head ${n}` },
              );
            });
            const pairs = CONTEXT * (CONTEXT + 1) / 2 * BATCH * MICRO_BATCHES.length;
            const open = headTotal(expected.heads, "openUsed") / (CONFIG.layers * CONFIG.heads * pairs);
            assert(open > 0.2 && open < 0.8, `share of open edges: ${open}`);
          }
          await assertGradients(gpu, trainer, expected.gradients);
          const norm = Math.hypot(...[...expected.gradients.values()].flatMap((values) => [...values]));
          // Measured: 1.2e-6; above, 9.6e-8 for CE, 6.5e-8 for KL, 2.9e-7 for the heads.
          assertClose([row.update[0]], [norm], { tolerance: 5e-6, name: "gradient norm" });
        }
      });
    },
  );
}

gpuTest("a step of more or fewer micro-batches than the trainer takes is refused", async (gpu) => {
  await withTrainer(gpu, { gated: false, distill: false }, (trainer) => {
    for (const count of [1, 3]) {
      const microBatches = new Array<MicroBatch>(count).fill(MICRO_BATCHES[0]);
      assertThrows(
        () => trainer.step(0, 1e-3, microBatches),
        RangeError,
        `${count} micro-batches as this trainer`,
      );
    }
    return Promise.resolve();
  });
});

gpuTest("stored in half precision, a teacher has its own weights", async (gpu) => {
  await withTrainer(gpu, { gated: true, distill: true, half: true }, async (trainer) => {
    trainer.step(4, 0, MICRO_BATCHES);
    const { distillationTotals } = await lastRow(trainer);
    const { kl } = reference({ step: 4, lambda: GATES.lambdaStart });
    // float16 rounds to 2^-11, which a gate near its threshold may feel. Measured: 3.9e-4.
    assertClose([distillationTotals[0] / distillationTotals[3]], [kl], { tolerance: 1e-2, name: "KL" });
  });
});

gpuTest(
  "positions of a step have weights of their own, of either sign, and where none are given count alike",
  async (gpu) => {
    const random = seeded(31);
    const weighted = MICRO_BATCHES.map((batch) => ({
      ...batch,
      weights: Float32Array.from(batch.targets, () => 2 * random.normal()),
    }));
    const rows = {
      ...joinRows(weighted),
      weights: weighted.flatMap(({ weights }) => [...weights]),
    };
    const gate: ReferenceGate = { ...GATES, noise: { seed: SEED, step: 4 } };
    const lambda = GATES.lambdaStart;
    const expected = referenceStep(
      { config: CONFIG, weights: WEIGHTS, context: CONTEXT, gate, lambda },
      rows,
    );
    await withTrainer(gpu, { gated: true, distill: false, weighted: true }, async (trainer) => {
      trainer.step(4, 0, weighted);
      assertClose([(await lastRow(trainer)).totals[0]], [expected.ce * expected.counted], {
        tolerance: 1e-6,
        name: "the loss, which knows nothing of weights",
      });
      await assertGradients(gpu, trainer, expected.gradients);
      trainer.step(4, 0, MICRO_BATCHES);
      await assertGradients(gpu, trainer, reference({ step: 4, lambda, distill: false }).gradients);
    });
    await withTrainer(gpu, { gated: true, distill: false }, (trainer) => {
      assertThrows(() => trainer.step(4, 0, weighted), RangeError, "prepared without `weighted`");
      return Promise.resolve();
    });
  },
);

gpuTest(
  "a constraint that was measured elsewhere moves λ as the loss does, and dense training has none",
  async (gpu) => {
    await withTrainer(gpu, { gated: true, distill: false }, async (trainer) => {
      let state = { lambda: GATES.lambdaStart, average: 0 };
      for (const [step, [measured, target]] of [[0.4, 0.1], [0.05, 0.1], [0.05, 0.3]].entries()) {
        trainer.takeConstraint(measured, target);
        trainer.step(step, 0, MICRO_BATCHES);
        const row = await lastRow(trainer);
        const { acting, ...moved } = gecoReference(state, measured - target, GATES.geco);
        state = moved;
        assertClose(
          [...row.multiplier, row.lossScale[0]],
          [state.lambda, state.average, measured - target, 1, acting / (1 + acting)],
          { tolerance: 1e-6, name: `the controller after step ${step}` },
        );
      }
    });
    await withTrainer(gpu, { gated: false, distill: false }, (trainer) => {
      assertThrows(() => trainer.takeConstraint(1, 0), RangeError, "the constraint of dense training");
      return Promise.resolve();
    });
  },
);

/** CE with hard gates, less the target. */
function violation(probe: Rows, targetLoss: number): number {
  const gate = { bias: GATES.bias };
  const { ce, margin } = referenceLosses({ config: CONFIG, weights: WEIGHTS, context: CONTEXT, gate }, probe);
  assert(margin > 1e-4, `a gate stands ${margin} from its threshold`);
  return ce - targetLoss;
}

gpuTest(
  "λ follows the constraint as measured last, without noise, within its bounds, and acts on the next step",
  async (gpu) => {
    await withTrainer(gpu, { gated: true, distill: false }, async (trainer) => {
      const { lowest, highest } = GATES.geco;
      let state = { lambda: GATES.lambdaStart, average: 0 };
      let acting = GATES.lambdaStart;
      let measured: number | undefined;
      const seen: number[] = [];
      // Far above what can be reached, so that λ falls to its floor, then far below.
      const targets = new Map([[1, 9], [5, 0.1]]);
      for (let step = 0; step < 12; step++) {
        const target = targets.get(step);
        if (target !== undefined) {
          const probe = PROBES[step === 1 ? 0 : 1];
          trainer.measureConstraint(probe, target);
          measured = violation(probe, target);
        }
        trainer.step(step, 0, MICRO_BATCHES);
        const row = await lastRow(trainer);
        if (step === 0 || step === 2 || step === 6) {
          // What acted is what the step before had left.
          const { ce, gradients } = reference({ step, lambda: acting, distill: false });
          assertClose([row.totals[0] / row.totals[3]], [ce], { tolerance: 1e-6, name: `CE of step ${step}` });
          await assertGradients(gpu, trainer, gradients);
        }
        if (measured !== undefined) ({ acting, ...state } = gecoReference(state, measured, GATES.geco));
        const { lambda, average } = state;
        // Measured: 6.2e-8.
        assertClose(
          [...row.multiplier, row.lossScale[0], row.edgeScale[0]],
          [
            lambda,
            average,
            measured ?? 0,
            measured === undefined ? 0 : 1,
            acting / (1 + acting),
            1 / (1 + acting),
          ],
          { tolerance: 1e-6, name: `the controller after step ${step}` },
        );
        seen.push(lambda);
      }
      assertEquals([Math.min(...seen), Math.max(...seen)], [lowest, highest], "both bounds were come to");
      assert(new Set(seen).size > 4, `λ moved: ${seen}`);
    });
  },
);
