/**
 * Models whose frozen weights lie on the device as f16 or int8: they compute what the same weights in float32 do, and take
 * what the plan says.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { adaptersFor } from "../../../pipeline/model/adapters.ts";
import type { ModelConfig } from "../../../pipeline/model/config.ts";
import { gpt2Config } from "../../../pipeline/model/config.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { initialWeights } from "../../../pipeline/model/initial_weights.ts";
import { hardGates } from "../../../pipeline/model/gates.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import type { FrozenType } from "../../../pipeline/model/op.ts";
import {
  createParameters,
  destroyParameters,
  loadParameters,
  type Parameters,
} from "../../../pipeline/model/parameters.ts";
import { memoryNeeds } from "../../../pipeline/model/needs.ts";
import { type NetworkShape } from "../../../pipeline/model/plan.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { assertClose, relativeError } from "../../support/compare.ts";
import { gpuTest } from "../../support/gpu.ts";
import { seeded } from "../../support/seeded.ts";

const [BATCH, CONTEXT] = [2, 6];

/** Biases, norms behind, heads untied: what families differ in by what is frozen. The choices of a fixture in sizes that can be stored by fours. */
async function configOf(family: string): Promise<ModelConfig> {
  const fixture = await readModelConfig(
    new URL(`../../fixtures/families/${family}`, import.meta.url).pathname,
  );
  const config = { ...fixture, vocabularySize: 37, width: 16, headSize: 8, mlpWidth: 24, contextLength: 16 };
  return config;
}

const FAMILIES = ["gpt_neox", "qwen2", "olmo2"] as const;
const GPT2 = gpt2Config({
  vocabularySize: 37,
  contextLength: 16,
  width: 16,
  layers: 2,
  heads: 2,
  mlpWidth: 24,
});

function tokensOf({ vocabularySize }: ModelConfig): { inputs: Uint32Array; targets: Uint32Array } {
  const random = seeded(5);
  const draw = () => Uint32Array.from({ length: BATCH * CONTEXT }, () => random.integer(vocabularySize));
  return { inputs: draw(), targets: draw() };
}

/** Logits, and the gradients of what is trained. */
async function run(gpu: Gpu, config: ModelConfig, shape: Partial<NetworkShape>, parameters: Parameters) {
  const network = await prepareNetwork(gpu, config, {
    batch: BATCH,
    context: CONTEXT,
    training: true,
    ...shape,
  });
  const trained = network.model.parameters.filter(({ trainable }) => trainable);
  const gradients = createParameters(gpu, trained);
  const scale = gpu.tensor("scale", [1]);
  gpu.write(scale, Float32Array.of(1));
  const { inputs, targets } = tokensOf(config);
  network.upload(inputs, targets);
  network.configureGates({ ...hardGates(0, BATCH), temperature: 1 });
  network.configureRows(BATCH);
  network.configureLoss({ weight: 1 / inputs.length });
  gpu.submit("run", (recorder) => {
    network.forward(recorder, parameters, "deterministic");
    network.logits(recorder, parameters, 0);
  });
  const logits = await gpu.read(network.logitsTensor);
  gpu.submit("gradients", (recorder) => {
    network.forward(recorder, parameters, "deterministic");
    network.head(recorder, parameters, { backward: { gradients, lossScale: scale } });
    network.backward(recorder, parameters, gradients, "deterministic", scale);
  });
  const found = new Map<string, Float32Array>();
  for (const [name, tensor] of gradients) found.set(name, await gpu.read(tensor));
  network.destroy();
  destroyParameters(gpu, gradients);
  return { logits, gradients: found };
}

/** Weights with a few larger than the rest of their columns, as trained ones have. */
function weightsOf(
  config: ModelConfig,
  options: Partial<NetworkShape>,
): (name: string) => Promise<Float32Array> {
  const parameters = parametersOf(config, options);
  return (name) => {
    const index = parameters.findIndex((parameter) => parameter.name === name);
    const values = initialWeights(parameters[index], { seed: 4, index });
    const isUp = name.includes("lora_B");
    return Promise.resolve(
      values.map((value, n) =>
        isUp ? Math.sin(n) / 9 : value === 1 ? 1 : 6 * value + (n % 31 === 0 ? 0.3 : 0)
      ),
    );
  };
}

/** The same weights in float32: what the smaller types hold. */
async function heldBy(gpu: Gpu, parameters: Parameters): Promise<Parameters> {
  const copies = createParameters(gpu, [...parameters].map(([name, { shape }]) => ({ name, shape })));
  for (const [name, tensor] of parameters) gpu.write(copies.get(name)!, await gpu.read(tensor));
  return copies;
}

async function compare(gpu: Gpu, config: ModelConfig, frozen: FrozenType, options: Partial<NetworkShape>) {
  const shape = { ...options, frozen };
  const stored = parametersOf(config, shape);
  assert(stored.some((parameter) => parameter.stored === frozen), "something lies there so");
  assert(
    stored.every(({ trainable, kind, stored }) => stored === "f32" || (!trainable && kind !== "vector")),
  );
  const parameters = await loadParameters(gpu, stored, weightsOf(config, options));
  const copies = await heldBy(gpu, parameters);
  const found = await run(gpu, config, shape, parameters);
  const want = await run(gpu, config, options, copies);
  // The terms and their order are the same: measured 0 with f16, 2.3e-7 with int8.
  assertClose(found.logits, want.logits, { tolerance: 2e-6, name: `${config.family}, ${frozen}: logits` });
  assertEquals([...found.gradients.keys()], [...want.gradients.keys()]);
  for (const [name, gradient] of found.gradients) {
    assertClose(gradient, want.gradients.get(name)!, {
      tolerance: 1e-5,
      name: `${config.family}, ${frozen}: ${name}`,
    });
  }
  for (const set of [parameters, copies]) destroyParameters(gpu, set);
  return want;
}

for (const frozen of ["f16", "int8"] as const) {
  gpuTest(
    `frozen weights as ${frozen} give what the same weights in float32 give`,
    async (gpu) => {
      for (const config of [GPT2, ...await Promise.all(FAMILIES.map(configOf))]) {
        await compare(gpu, config, frozen, { train: "attention" });
      }
    },
  );

  gpuTest(
    `adapters beside frozen weights as ${frozen}, also where activations are computed anew or f16`,
    async (gpu) => {
      const config = await configOf("llama");
      const adapters = adaptersFor(config, {
        rank: 4,
        alpha: 8,
        rankStabilised: false,
        targets: ["query", "key", "value", "output"],
      });
      const lora = { adapters, train: "lora" } as const;
      const plain = await compare(gpu, config, frozen, lora);
      assertEquals(await compare(gpu, config, frozen, { ...lora, recompute: true }), plain);
      // Products read the frozen weights as they lie there: those are rounded once more in the model that it is held against.
      const parameters = await loadParameters(
        gpu,
        parametersOf(config, { ...lora, frozen }),
        weightsOf(config, lora),
      );
      const half = await run(gpu, config, { ...lora, frozen, half: true }, parameters);
      const error = relativeError(half.logits, plain.logits);
      // Measured: 3.6e-4.
      assert(error > 0 && error < 2e-3, `${error}`);
      destroyParameters(gpu, parameters);
    },
  );
}

gpuTest("what frozen weights take is what is planned, to the byte", async (gpu) => {
  const config = await configOf("llama");
  const adapters = adaptersFor(config, {
    rank: 4,
    alpha: 8,
    rankStabilised: false,
    targets: ["query", "value"],
  });
  for (const frozen of ["f32", "f16", "int8"] as const) {
    const shape: NetworkShape = {
      batch: BATCH,
      context: CONTEXT,
      training: true,
      train: "lora",
      adapters,
      frozen,
    };
    const before = gpu.allocatedBytes;
    const parameters = createParameters(gpu, parametersOf(config, shape));
    const { weights } = memoryNeeds(config, shape, gpu.maxBindingBytes);
    assertEquals(gpu.allocatedBytes - before, weights, frozen);
    destroyParameters(gpu, parameters);
    assertEquals(gpu.allocatedBytes, before);
  }
});

gpuTest("sizes that are not stored by fours are refused", async (gpu) => {
  const config = gpt2Config({
    vocabularySize: 37,
    contextLength: 16,
    width: 18,
    layers: 1,
    heads: 3,
    mlpWidth: 24,
  });
  await assertRejects(
    () =>
      prepareNetwork(gpu, config, {
        batch: 1,
        context: 4,
        training: true,
        train: "attention",
        frozen: "int8",
      }),
    RangeError,
    "Cannot store frozen weights as int8 as width, head size and MLP width must be multiples of 4: 18, 6, 24",
  );
});
