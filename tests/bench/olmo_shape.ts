/**
 * OLMo-7B's true shape with random weights made on the fly: a frozen base as f16 or int8, adapters of rank 16 beside
 * queries, keys, values and outputs, activations computed anew. Trains gated steps of one row, evaluates once, and
 * says what the process took beside what the plan says. What of it has been run stands in docs/results.md.
 *
 *     deno task olmo-shape [--frozen f16|int8] [--steps 3] [--layers 32] [--context 64]
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { Gpu } from "../../kernels/core/gpu.ts";
import { randomStream } from "../../kernels/core/random.ts";
import { textureCapacity } from "../../kernels/core/textures.ts";
import { elementsOf } from "../../kernels/core/tensor.ts";
import { adaptersFor } from "../../pipeline/model/adapters.ts";
import type { ModelConfig } from "../../pipeline/model/config.ts";
import { readModelConfig } from "../../pipeline/model/config_file.ts";
import { initialWeights } from "../../pipeline/model/initial_weights.ts";
import { prepareNetwork } from "../../pipeline/model/network.ts";
import { createParameters, rowsOfPiece } from "../../pipeline/model/parameters.ts";
import { memoryNeeds, PROGRAM_BYTES } from "../../pipeline/model/needs.ts";
import { type NetworkShape } from "../../pipeline/model/plan.ts";
import { amount } from "../../pipeline/training/memory_budget.ts";
import { evaluate } from "../../pipeline/training/evaluate.ts";
import { createTrainer } from "../../pipeline/training/trainer.ts";

/** allenai/OLMo-7B-hf's config.json, as far as it decides sizes. */
const OLMO = {
  model_type: "olmo",
  vocab_size: 50304,
  max_position_embeddings: 2048,
  hidden_size: 4096,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 32,
  intermediate_size: 11008,
  hidden_act: "silu",
  rope_theta: 10000,
  attention_bias: false,
  clip_qkv: null,
  tie_word_embeddings: false,
};
const BATCH = 1;
/** Random numbers that every frozen matrix is cut from: drawing seven billion would take longer than a step. */
const POOL = 1 << 22;

const flags = parseArgs(Deno.args, {
  string: ["frozen", "steps", "layers", "context"],
  default: { frozen: "f16", steps: "3", layers: "32", context: "64" },
});
const frozen = (["f16", "int8"] as const).find((type) => type === flags.frozen);
const [steps, layers, context] = [flags.steps, flags.layers, flags.context].map(Number);
if (
  frozen === undefined || ![steps, layers, context].every((count) => Number.isInteger(count) && count > 0)
) {
  console.error("Usage: deno task olmo-shape [--frozen f16|int8] [--steps N] [--layers N] [--context N]");
  Deno.exit(2);
}
const config = await configOf({ ...OLMO, num_hidden_layers: layers });

/** What a config.json says. */
async function configOf(json: object): Promise<ModelConfig> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify(json));
    return await readModelConfig(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/**
 * The process's resident memory in bytes, and the most that was seen of it, ten times a second where the driver leaves the
 * thread free: a peak within one wait for it is missed.
 */
const resident = { before: Deno.memoryUsage().rss, most: 0 };
const looking = setInterval(look, 100);

function look(): number {
  const { rss } = Deno.memoryUsage();
  resident.most = Math.max(resident.most, rss);
  return rss;
}

/** The same for people. */
function residentNow(): string {
  return `resident ${amount(look())}, at most ${amount(resident.most)}`;
}

const adapters = adaptersFor(config, {
  rank: 16,
  alpha: 32,
  rankStabilised: false,
  targets: ["query", "key", "value", "output"],
});
const shape: NetworkShape = {
  batch: BATCH,
  context,
  training: true,
  recompute: true,
  adapters,
  train: "lora",
  frozen,
};
const gpu = await Gpu.open();
const needs = memoryNeeds(config, shape, gpu.maxBindingBytes, textureCapacity(gpu));
/** Of the system's memory, which a GPU's own is not. */
const plannedOfProcess = gpu.adapter.software ? needs.total + PROGRAM_BYTES : undefined;
console.error(
  `planned: ${amount(needs.total)} (weights ${amount(needs.weights)}, gradients ${
    amount(needs.gradients)
  }, moments ${amount(needs.moments)}, activations ${amount(needs.activations)}, textures ${
    amount(needs.textures)
  })${plannedOfProcess === undefined ? "" : `, ${amount(plannedOfProcess)} with the program`}`,
);
const started = performance.now();
const seconds = (): string => `${((performance.now() - started) / 1000).toFixed(0)} s`;
const network = await prepareNetwork(gpu, config, shape);
const { parameters: all } = network.model;
const parameters = createParameters(gpu, all);
const random = randomStream(1);
const pool = Float32Array.from({ length: POOL }, () => {
  // The sum of four uniform numbers, near enough to a normal one of deviation 0.02.
  let sum = -2;
  for (let n = 0; n < 4; n++) sum += random.below(1 << 24) / (1 << 24);
  return 0.0346 * sum;
});

/** Rows of a frozen matrix, each cut from the pool at a place of its own. */
function randomRows(rows: number, columns: number): Float32Array {
  const values = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const from = random.below(POOL - columns);
    values.set(pool.subarray(from, from + columns), row * columns);
  }
  return values;
}
for (const [index, parameter] of all.entries()) {
  const tensor = parameters.get(parameter.name)!;
  if (parameter.kind === "vector" || parameter.adapter) {
    gpu.write(tensor, initialWeights(parameter, { seed: 1, index }));
    continue;
  }
  // No matrix is ever whole in the process's memory as float32.
  const [rows, columns] = parameter.shape;
  const piece = rowsOfPiece(tensor);
  for (let row = 0; row < rows; row += piece) {
    gpu.write(tensor, randomRows(Math.min(piece, rows - row), columns), row * columns);
    await gpu.sync();
  }
}
console.error(`${seconds()}: ${amount(gpu.allocatedBytes)} on the device, ${residentNow()}`);

const trainer = await createTrainer(gpu, {
  network,
  parameters,
  seed: 1,
  accumulate: 1,
  gates: {
    bias: 0,
    temperature: 1,
    saturationWeight: 1e-3,
    saturationBound: 6,
    lambdaStart: 0.4,
    geco: { scale: 0.03, alpha: 0.9, rate: 0.015, gain: 0, lowest: 0.02, highest: 5 },
  },
  optimiser: { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, clip: 1 },
});
const draw = (): Uint32Array =>
  Uint32Array.from({ length: context }, () => random.below(config.vocabularySize));
for (let step = 0; step < steps; step++) {
  trainer.step(step, 1e-4, [{ inputs: draw(), targets: draw() }]);
  const [row] = await trainer.log.drain();
  const [ce, , , count] = row.totals;
  console.error(
    `${seconds()}: step ${step + 1}, loss ${(ce / count).toFixed(4)} (chance ${
      Math.log(config.vocabularySize).toFixed(4)
    }), gradient norm ${row.update[0].toExponential(2)}, ${residentNow()}`,
  );
}
const evaluated = await evaluate(gpu, network, parameters, {
  mode: "deterministic",
  gateBias: 0,
  batches: [{ inputs: draw(), targets: draw(), rows: BATCH }],
});
look();
clearInterval(looking);
const told = {
  adapter: gpu.adapter.name,
  frozen,
  layers: config.layers,
  parameters: all.reduce((sum, { shape }) => sum + elementsOf(shape), 0),
  steps,
  context,
  seconds: (performance.now() - started) / 1000,
  evaluated: { ce: evaluated.ce, open_fraction: evaluated.openFraction },
  planned_bytes: needs.total,
  planned_process_bytes: plannedOfProcess ?? null,
  device_bytes: gpu.allocatedBytes,
  process_bytes_at_most: resident.most,
  process_bytes_before: resident.before,
};
console.log(JSON.stringify(told));
gpu.close();
