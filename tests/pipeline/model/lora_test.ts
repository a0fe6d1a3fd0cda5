/**
 * Adapters that peft saved, for tiny models of other fixtures (tests/fixtures/lora, made in float64): logits, every gradient of
 * theirs, five steps of AdamW on them, dense and gated with the noise fixed, and the merged weights.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { mergedWeights, openAdapter } from "../../../pipeline/model/adapter_files.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { openWeights } from "../../../pipeline/model/load_weights.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import { destroyParameters, loadParameters } from "../../../pipeline/model/parameters.ts";
import { memoryNeeds } from "../../../pipeline/model/needs.ts";
import { type NetworkShape } from "../../../pipeline/model/plan.ts";
import { referenceModel } from "../../../pipeline/model/reference_model.ts";
import { openSafetensors } from "../../../pipeline/model/safetensors.ts";
import { partOf, storedAdapters, storedParameters } from "../../../pipeline/model/stored.ts";
import { parametersOf, trace } from "../../../pipeline/model/trace.ts";
import { createTrainer } from "../../../pipeline/training/trainer.ts";
import { crossEntropyGradientReference } from "../../../kernels/cross_entropy/reference.ts";
import { assertClose } from "../../support/compare.ts";
import { fixtureGates } from "../../support/fixture_gates.ts";
import { assertRoundedReference } from "../../support/rounded_reference.ts";
import { gpuTest } from "../../support/gpu.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

const FIXTURES = new URL("../../fixtures/", import.meta.url).pathname;
const NAMES = ["gpt2", "llama", "gpt_neox"] as const;
const [BATCH, CONTEXT] = [2, 11];

interface Expected {
  base: string;
  settings: Record<string, number>;
  batches: { inputs: number[][]; targets: number[][] }[];
  dense: { losses: number[]; norms: number[] };
  gated: { losses: number[]; norms: number[] };
}

/** What a fixture holds. */
async function openFixture(name: string) {
  const folder = `${FIXTURES}lora/${name}`;
  const expected: Expected = JSON.parse(await Deno.readTextFile(`${folder}/expected.json`));
  const config = await readModelConfig(FIXTURES + expected.base);
  const base = await openWeights(FIXTURES + expected.base, config);
  const adapter = await openAdapter(folder, config);
  await adapter.verify();
  const tensors = await openSafetensors(`${folder}/expected.safetensors`);
  const batches = expected.batches.map(({ inputs, targets }) => ({
    inputs: Uint32Array.from(inputs.flat()),
    targets: Uint32Array.from(targets.flat()),
  }));
  const isOfAdapter = new Set(adapter.parameters.map(({ name }) => name));
  const read = (name: string) => isOfAdapter.has(name) ? adapter.read(name) : base.read(name);
  return { config, base, adapter, read, expected, tensors, batches };
}

/** Measured: 5.3e-6 of one tensor's gradient (Llama's keys, dense), less of logits, losses and norms. */
const SINGLE = { losses: 5e-6, gradients: 1e-5, norms: 1e-5 };
/**
 * What products read is stored as f16. Measured: 8.3e-3 of one tensor's gradient (Llama's keys), less of the rest; that is the
 * storage's own, see the float64 model that is rounded alike, below.
 */
const HALF = { losses: 3e-3, gradients: 1e-2, norms: 1e-2 };

async function compareWithPeft(
  gpu: Gpu,
  name: string,
  kind: "dense" | "gated",
  shape: Partial<NetworkShape> = {},
): Promise<void> {
  const { config, adapter, read: readStored, expected, tensors, batches } = await openFixture(name);
  const { settings: s } = expected;
  const { adapters } = adapter;
  const tolerance = shape.half ? HALF : SINGLE;
  const options = { adapters, train: "lora" } as const;
  const parameters = await loadParameters(gpu, parametersOf(config, options), readStored);
  const network = await prepareNetwork(gpu, config, {
    batch: BATCH,
    context: CONTEXT,
    training: true,
    ...options,
    ...shape,
  });
  const newTrainer = () =>
    createTrainer(gpu, {
      network,
      parameters,
      seed: s.noiseSeed,
      accumulate: 1,
      gates: kind === "gated" ? fixtureGates(s) : undefined,
      optimiser: {
        beta1: s.beta1,
        beta2: s.beta2,
        epsilon: s.epsilon,
        weightDecay: s.weightDecay,
        clip: s.maxGradientNorm,
      },
    });
  const trainer = await newTrainer();
  try {
    assertEquals([...trainer.gradients.keys()], adapter.parameters.map(({ name }) => name));
    const stays = network.model.parameters.filter(({ trainable }) => !trainable).map(({ name }) => name);
    const read = async () => {
      const values: Float32Array[] = [];
      for (const name of stays) values.push(await gpu.read(parameters.get(name)!));
      return values;
    };
    const frozen = await read();
    trainer.step(0, 0, [batches[0]]);
    await trainer.log.drain();
    if (shape.keep) {
      gpu.submit("logits", (recorder) => network.logits(recorder, parameters, 0));
      const logits = await gpu.read(network.logitsTensor);
      const { vocabularySize: V } = config;
      const want = await tensors.read(`${kind}.logits`);
      const packed = want.map((_, n) => logits[Math.floor(n / V) * network.logitsStride + n % V]);
      assertClose(packed, want, { tolerance: tolerance.losses, name: "logits" });
    }
    for (const stored of storedAdapters(config, adapters)) {
      const gradient = await gpu.read(trainer.gradients.get(stored.parameter.name)!);
      for (const [n, tensor] of stored.tensors.entries()) {
        const want = await tensors.read(`${kind}.gradient.${tensor.savedAs}`);
        assertClose(tensor.toFile(partOf(stored, n, gradient)), want, {
          tolerance: tolerance.gradients,
          name: `gradient of ${tensor.savedAs}`,
        });
      }
    }
    const anew = await newTrainer();
    batches.forEach((batch, step) => anew.step(step, s.learningRate, [batch]));
    const rows = await anew.log.drain();
    const losses = rows.map(({ totals: [ce, , , count] }) => ce / count);
    assertClose(losses, expected[kind].losses, { tolerance: tolerance.losses, name: "losses" });
    const norms = rows.map(({ update: [norm] }) => norm);
    assertClose(norms, expected[kind].norms, { tolerance: tolerance.norms, name: "gradient norms" });
    anew.destroy();
    assert(stays.length > 0);
    assertEquals(await read(), frozen, "what is frozen stays");
  } finally {
    trainer.destroy();
    network.destroy();
    destroyParameters(gpu, parameters);
  }
}

for (const name of NAMES) {
  for (const kind of ["dense", "gated"] as const) {
    gpuTest(
      `${name}, ${kind}: logits, every gradient and five steps of AdamW equal peft's`,
      (gpu) => compareWithPeft(gpu, name, kind, { keep: true }),
    );
  }
  gpuTest(
    `${name}, gated: computing activations anew changes nothing of that`,
    (gpu) => compareWithPeft(gpu, name, "gated", { recompute: true }),
  );
}

for (const kind of ["dense", "gated"] as const) {
  gpuTest(
    `llama with adapters, ${kind}, stored as f16: logits and their gradients equal the float64 model's that is rounded there`,
    async (gpu) => {
      const { config, adapter: { adapters }, read, expected: { settings: s }, batches } = await openFixture(
        "llama",
      );
      const options = { adapters, train: "lora" } as const;
      const parameters = await loadParameters(gpu, parametersOf(config, options), read);
      const shape = { batch: BATCH, context: CONTEXT, training: true, half: true, keep: true };
      const network = await prepareNetwork(gpu, config, { ...shape, ...options });
      const { beta1, beta2, epsilon, weightDecay, maxGradientNorm: clip } = s;
      const gates = kind === "gated" ? fixtureGates(s) : undefined;
      const trainer = await createTrainer(gpu, {
        network,
        parameters,
        seed: s.noiseSeed,
        accumulate: 1,
        gates,
        optimiser: { beta1, beta2, epsilon, weightDecay, clip },
      });
      try {
        // Measured: 2.7e-4 of logits (gated), 1.7e-3 of one tensor's gradient (B of keys, dense; gated 1.5e-3, B of queries).
        const tolerances = { logits: 1e-3, gradients: 3e-3 };
        await assertRoundedReference(
          gpu,
          { network, parameters, trainer, gates, batch: batches[0] },
          tolerances,
        );
      } finally {
        trainer.destroy();
        network.destroy();
        destroyParameters(gpu, parameters);
      }
    },
  );
}

gpuTest(
  "llama, gated, stored as f16: gradients and five steps of AdamW equal peft's",
  (gpu) => compareWithPeft(gpu, "llama", "gated", { half: true }),
);

for (const name of NAMES) {
  Deno.test(`${name}: the float64 model has peft's logits and every gradient of the adapters`, async () => {
    const { config, adapter, read, tensors, batches: [{ inputs, targets }] } = await openFixture(name);
    const { adapters } = adapter;
    const model = trace(config, { batch: BATCH, context: CONTEXT, adapters });
    const weights = new Map<string, Float32Array>();
    for (const { name } of model.parameters) weights.set(name, await read(name));
    const { logits, backward } = referenceModel(model, weights, inputs);
    // Transformers has norms, rotary angles and the softmax in float32 whatever the model is in.
    const close = (found: ArrayLike<number>, want: ArrayLike<number>, name: string): void =>
      assertClose(found, want, { tolerance: 3e-6, name });
    close(logits, await tensors.read("dense.logits"), "logits");
    const gradients = backward(
      crossEntropyGradientReference(logits, targets, config.vocabularySize, 1 / targets.length),
    );
    for (const stored of storedAdapters(config, adapters)) {
      const gradient = Float32Array.from(gradients.get(stored.parameter.name)!);
      for (const [n, tensor] of stored.tensors.entries()) {
        const want = await tensors.read(`dense.gradient.${tensor.savedAs}`);
        close(tensor.toFile(partOf(stored, n, gradient)), want, `gradient of ${tensor.savedAs}`);
      }
    }
  });

  Deno.test(`${name}: merged weights are peft's, and those that are not adapted the base's`, async () => {
    const { config, base, adapter, tensors } = await openFixture(name);
    const merged = mergedWeights(base, adapter);
    let adapted = 0;
    for (const stored of storedParameters(config)) {
      const values = await merged.read(stored.parameter.name);
      for (const [n, tensor] of stored.tensors.entries()) {
        const found = tensor.toFile(partOf(stored, n, values));
        if (!tensors.entries.has(`merged.${tensor.savedAs}`)) {
          const own = await base.read(stored.parameter.name);
          assertEquals(found, tensor.toFile(partOf(stored, n, own)), tensor.savedAs);
          continue;
        }
        adapted++;
        // Measured: 0.
        assertClose(found, await tensors.read(`merged.${tensor.savedAs}`), {
          tolerance: 1e-7,
          name: tensor.savedAs,
        });
      }
    }
    assertEquals(adapted, Object.keys(adapter.adapters).length);
  });
}

Deno.test("only what is trained has gradients and moments, and a teacher only what it does not share", async () => {
  const { config, adapter: { adapters } } = await openFixture("llama");
  const shape = { batch: 2, context: 8, training: true, distill: true };
  const needs = (more: Partial<NetworkShape>) => memoryNeeds(config, { ...shape, ...more }, Infinity);
  const bytes = (parameters: { shape: readonly number[] }[]) =>
    parameters.reduce((sum, { shape }) => sum + 4 * shape.reduce((a, b) => a * b), 0);
  const all = bytes([...parametersOf(config)]);
  const ofAdapters = bytes(parametersOf(config, { adapters }).filter(({ adapter }) => adapter));
  assert(ofAdapters > 0 && ofAdapters < all / 2);
  const lora = needs({ adapters, train: "lora" });
  assertEquals(lora.weights, all + ofAdapters);
  assertEquals([lora.gradients, lora.moments, lora.teacher], [ofAdapters, 2 * ofAdapters, 0]);
  assertEquals(needs({ adapters, train: "lora", teacherAdapted: true }).teacher, ofAdapters);
  const attention = needs({ train: "attention" });
  const products = bytes(
    parametersOf(config).filter(({ name }) => /self_attn\.\w+_proj\.weight$/.test(name)),
  );
  assertEquals([attention.gradients, attention.teacher], [products, products]);
  const whole = needs({});
  assertEquals([whole.gradients, whole.moments, whole.teacher], [all, 2 * all, all]);
  assertEquals(whole.buffers.reduce((a, b) => a + b), whole.total);
});

Deno.test("an adapter that names no model, itself, or one that leads back to it, is refused", async () => {
  await using folder = await temporaryFolder();
  const source = `${FIXTURES}lora/llama`;
  const asks = JSON.parse(await Deno.readTextFile(`${source}/adapter_config.json`));
  /** A folder with an adapter, whose model is `model`, and no weights. */
  const write = async (name: string, model: string): Promise<string> => {
    const path = join(folder.path, name);
    await Deno.mkdir(path);
    await Deno.copyFile(`${FIXTURES}families/llama/config.json`, join(path, "config.json"));
    await Deno.copyFile(`${source}/adapter_model.safetensors`, join(path, "adapter_model.safetensors"));
    const config = JSON.stringify({ ...asks, base_model_name_or_path: model });
    await Deno.writeTextFile(join(path, "adapter_config.json"), config);
    return path;
  };
  const cases: [string, string][] = [
    [await write("none", ""), "which it does not name, is not there"],
    [await write("itself", "."), "leads back to it: ."],
    [await write("one", "../other"), "leads back to it: ../other"],
    [await write("other", "../one"), "leads back to it: ../one"],
  ];
  for (const [path, message] of cases) {
    await assertRejects(async () => openWeights(path, await readModelConfig(path)), Error, message);
  }
});
