/**
 * Ten steps of the embedded models' training, down to the bits, and the same steps broken off and gone on with: what
 * tests/fixtures/frozen_bits keeps, so that a change that means to change nothing can show that it does not.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import { readModelConfig } from "../../pipeline/model/config_file.ts";
import { openWeights } from "../../pipeline/model/load_weights.ts";
import { prepareNetwork } from "../../pipeline/model/network.ts";
import { destroyParameters, loadParameters, type Parameters } from "../../pipeline/model/parameters.ts";
import { createTrainer, type Trainer } from "../../pipeline/training/trainer.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
const STEPS = 10;
/** Behind which a resumed run begins. */
const BROKEN_AFTER = 5;
/** The multiplier follows what is measured before these steps. */
const MEASURED_BEFORE = [4, 8];
const LEARNING_RATE = 1e-3;
const TARGET_LOSS = 4;

/** What is trained, and how. */
export const FROZEN_RUNS = {
  "english": { model: "english", batch: 2, context: 32, half: false },
  "english, f16": { model: "english", batch: 2, context: 32, half: true },
  "addition": { model: "addition", batch: 16, context: 8, half: false },
  "addition, f16": { model: "addition", batch: 16, context: 8, half: true },
} as const;

/** A run's bits. */
export interface FrozenBits {
  /** Mean cross-entropy of each step, before its update. */
  losses: number[];
  /** Gradient norm of each step, before clipping. */
  norms: number[];
  /** SHA-256 over the weights, both moments and the controller after the last step. */
  state: string;
  /** The same after a run that was broken off behind step 5 and went on with another network and trainer. */
  resumedState: string;
}

/** What computed them: bits are compared only where all of this is the same. */
export interface FrozenOn {
  /** With LLVM's version and the vectors' bits, where it is Mesa's llvmpipe. */
  adapter: string;
  deno: string;
}

/** What is at hand. */
export function computedOn(gpu: Gpu): FrozenOn {
  return { adapter: gpu.adapter.name, deno: Deno.version.deno };
}

/** Everything that a run goes on from, in a fixed order. */
function stateOf(trainer: Trainer): Parameters[] {
  const { parameters, firstMoments, secondMoments, controller } = trainer;
  return [parameters, firstMoments, secondMoments, controller];
}

async function readState(gpu: Gpu, trainer: Trainer): Promise<Float32Array[]> {
  const values = [];
  for (const tensor of stateOf(trainer).flatMap((of) => [...of.values()])) {
    values.push(await gpu.read(tensor));
  }
  return values;
}

async function digestOf(arrays: readonly Float32Array[]): Promise<string> {
  const bytes = await new Blob(arrays.map((array) => array as Float32Array<ArrayBuffer>)).arrayBuffer();
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

/** Trains one of {@link FROZEN_RUNS}, once through and once broken off. */
export async function frozenBits(gpu: Gpu, name: keyof typeof FROZEN_RUNS): Promise<FrozenBits> {
  const { model, batch, context, half } = FROZEN_RUNS[name];
  const folder = `${ROOT}data/${model}`;
  const config = await readModelConfig(folder);
  const weights = await openWeights(folder, config);
  // Tokens by a linear congruence: what is learnt does not matter here.
  let state = 12345;
  const token = (): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % config.vocabularySize;
  };
  const batches = Array.from({ length: STEPS + 1 }, () => {
    const inputs = Uint32Array.from({ length: batch * context }, token);
    return { inputs, targets: Uint32Array.from(inputs, token) };
  });

  /** Trains from step `first` to before `end`, from a state where one is given. */
  async function train(first: number, end: number, from?: readonly Float32Array[]) {
    const network = await prepareNetwork(gpu, config, { batch, context, training: true, half });
    const parameters = await loadParameters(gpu, weights.parameters, weights.read);
    const trainer = await createTrainer(gpu, {
      network,
      parameters,
      seed: 7,
      accumulate: 1,
      gates: {
        bias: 3,
        temperature: 1,
        saturationWeight: 0.01,
        saturationBound: 6,
        lambdaStart: 0.3,
        geco: { scale: 0.03, alpha: 0.9, rate: 0.015, gain: 1.5, lowest: 0.02, highest: 5 },
      },
      optimiser: { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.01, clip: 1 },
    });
    try {
      const tensors = stateOf(trainer).flatMap((of) => [...of.values()]);
      from?.forEach((values, n) => gpu.write(tensors[n], values));
      const rows = [];
      for (let step = first; step < end; step++) {
        if (MEASURED_BEFORE.includes(step)) trainer.measureConstraint(batches[STEPS], TARGET_LOSS);
        trainer.step(step, LEARNING_RATE, [batches[step]]);
        rows.push(...await trainer.log.drain());
      }
      return { rows, state: await readState(gpu, trainer) };
    } finally {
      trainer.destroy();
      network.destroy();
      destroyParameters(gpu, parameters);
    }
  }

  const through = await train(0, STEPS);
  const begun = await train(0, BROKEN_AFTER);
  const resumed = await train(BROKEN_AFTER, STEPS, begun.state);
  return {
    losses: through.rows.map(({ totals: [ce, , , count] }) => ce / count),
    norms: through.rows.map(({ update: [norm] }) => norm),
    state: await digestOf(through.state),
    resumedState: await digestOf(resumed.state),
  };
}
