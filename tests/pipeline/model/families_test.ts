/**
 * A tiny model of every family against transformers: logits, every gradient, and five steps of AdamW, dense and gated
 * with the noise fixed (tests/fixtures/families, made in float64).
 */
import { assert, assertEquals } from "@std/assert";
import { crossEntropyGradientReference } from "../../../kernels/cross_entropy/reference.ts";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { openWeights } from "../../../pipeline/model/load_weights.ts";
import { FAMILIES } from "../../../pipeline/model/families.ts";
import { modelConfigToJson, parseModelConfig, readModelConfig } from "../../../pipeline/model/config_file.ts";
import { initialWeights } from "../../../pipeline/model/initial_weights.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import { destroyParameters, loadParameters } from "../../../pipeline/model/parameters.ts";
import { partOf, storedParameters } from "../../../pipeline/model/stored.ts";
import { referenceModel } from "../../../pipeline/model/reference_model.ts";
import { parametersOf, trace } from "../../../pipeline/model/trace.ts";
import { openSafetensors } from "../../../pipeline/model/safetensors.ts";
import { saveModel } from "../../../pipeline/model/save_weights.ts";
import { createTrainer, type GateObjective } from "../../../pipeline/training/trainer.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest } from "../../support/gpu.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { ADDITION, runMain } from "../../support/tiny_model.ts";

const FOLDER = new URL("../../fixtures/families/", import.meta.url).pathname;
const MODELS = Array.from(Deno.readDirSync(FOLDER)).filter(({ isDirectory }) => isDirectory)
  .map(({ name }) => name).toSorted();
const [BATCH, CONTEXT] = [2, 11];
/** Relative errors. Measured: 6.4e-7 of logits (Llama with scaled positions), 3e-7 of losses, */
const LOSSES = 5e-6;
/** and 2.2e-6 of gradients and their norms (Qwen3). */
const GRADIENTS = 1e-5;

interface Expected {
  settings: Record<string, number>;
  batches: { inputs: number[][]; targets: number[][] }[];
  dense: { losses: number[]; norms: number[] };
  gated: { losses: number[]; norms: number[] };
}

async function openFixture(gpu: Gpu, name: string, options: { keep?: boolean; recompute?: boolean } = {}) {
  const folder = FOLDER + name;
  const expected: Expected = JSON.parse(await Deno.readTextFile(`${folder}/expected.json`));
  const { settings: s } = expected;
  const config = await readModelConfig(folder);
  const weights = await openWeights(folder, config);
  const parameters = await loadParameters(gpu, weights.parameters, weights.read);
  const network = await prepareNetwork(gpu, config, {
    batch: BATCH,
    context: CONTEXT,
    training: true,
    ...options,
  });
  const gates: GateObjective = {
    bias: s.gateBias,
    temperature: s.temperature,
    saturationWeight: s.rho,
    saturationBound: s.saturationBound,
    lambdaStart: s.lambda,
    geco: { scale: 1, alpha: 0.9, rate: 0, gain: 0, lowest: 0, highest: 10 },
  };
  const trainer = (gated: boolean) =>
    createTrainer(gpu, {
      network,
      parameters,
      seed: s.noiseSeed,
      accumulate: 1,
      gates: gated ? gates : undefined,
      optimiser: {
        beta1: s.beta1,
        beta2: s.beta2,
        epsilon: s.epsilon,
        weightDecay: s.weightDecay,
        clip: s.maxGradientNorm,
      },
    });
  const batches = expected.batches.map(({ inputs, targets }) => ({
    inputs: Uint32Array.from(inputs.flat()),
    targets: Uint32Array.from(targets.flat()),
  }));
  const tensors = await openSafetensors(`${folder}/expected.safetensors`);
  const destroy = (): void => {
    network.destroy();
    destroyParameters(gpu, parameters);
  };
  return { config, expected, batches, tensors, network, parameters, trainer, destroy };
}

for (const name of MODELS) {
  for (const kind of ["dense", "gated"] as const) {
    gpuTest(
      `${name}, ${kind}: logits, every gradient and five steps of AdamW equal transformers'`,
      async (gpu) => {
        // The final norm must stand behind backward.
        const fixture = await openFixture(gpu, name, { keep: true });
        const { config, expected, batches, tensors, network, parameters } = fixture;
        const trainer = await fixture.trainer(kind === "gated");
        try {
          trainer.step(0, 0, [batches[0]]);
          gpu.submit("logits", (recorder) => network.logits(recorder, parameters, 0));
          const logits = await gpu.read(network.logitsTensor);
          const want = await tensors.read(`${kind}.logits`);
          const { vocabularySize: V } = config;
          const packed = Float32Array.from(
            want,
            (_, n) => logits[Math.floor(n / V) * network.logitsStride + n % V],
          );
          assertClose(packed, want, { tolerance: LOSSES, name: "logits" });
          for (const stored of storedParameters(config)) {
            const gradient = await gpu.read(trainer.gradients.get(stored.parameter.name)!);
            for (const [n, tensor] of stored.tensors.entries()) {
              const want = await tensors.read(`${kind}.gradient.${tensor.savedAs}`);
              const found = tensor.toFile(partOf(stored, n, gradient));
              assertClose(found, want, { tolerance: GRADIENTS, name: `gradient of ${tensor.savedAs}` });
            }
          }
          await trainer.log.drain();
        } finally {
          trainer.destroy();
        }
        const anew = await fixture.trainer(kind === "gated");
        try {
          batches.forEach((batch, step) => anew.step(step, expected.settings.learningRate, [batch]));
          const rows = await anew.log.drain();
          assertClose(
            rows.map(({ totals: [ce, , , count] }) => ce / count),
            expected[kind].losses,
            { tolerance: LOSSES, name: "losses" },
          );
          assertClose(rows.map(({ update: [norm] }) => norm), expected[kind].norms, {
            tolerance: GRADIENTS,
            name: "gradient norms",
          });
        } finally {
          anew.destroy();
          fixture.destroy();
        }
      },
    );
  }
}

for (const name of MODELS) {
  Deno.test(`${name}: the float64 model has transformers' logits and every gradient`, async () => {
    const folder = FOLDER + name;
    const { batches: [{ inputs, targets }] }: Expected = JSON.parse(
      await Deno.readTextFile(`${folder}/expected.json`),
    );
    const config = await readModelConfig(folder);
    const source = await openWeights(folder, config);
    const weights = new Map<string, Float32Array>();
    for (const { name } of source.parameters) weights.set(name, await source.read(name));
    const model = trace(config, { batch: BATCH, context: CONTEXT });
    const { logits, backward } = referenceModel(model, weights, inputs.flat());
    const tensors = await openSafetensors(`${folder}/expected.safetensors`);
    // Transformers has norms, rotary angles and the softmax in float32 whatever the model is in. Measured: 1.1e-6.
    const close = (found: ArrayLike<number>, want: ArrayLike<number>, name: string): void =>
      assertClose(found, want, { tolerance: 3e-6, name });
    close(logits, await tensors.read("dense.logits"), "logits");
    const counted = targets.flat().filter((target) => target < config.vocabularySize).length;
    const gradients = backward(
      crossEntropyGradientReference(logits, targets.flat(), config.vocabularySize, 1 / counted),
    );
    for (const stored of storedParameters(config)) {
      const gradient = Float32Array.from(gradients.get(stored.parameter.name)!);
      for (const [n, tensor] of stored.tensors.entries()) {
        const want = await tensors.read(`dense.gradient.${tensor.savedAs}`);
        close(tensor.toFile(partOf(stored, n, gradient)), want, `gradient of ${tensor.savedAs}`);
      }
    }
  });
}

Deno.test("every family has a fixture, and its config.json is written as it is read", async () => {
  const seen = new Set<string>(["gpt2"]);
  for (const name of MODELS) {
    const config = await readModelConfig(FOLDER + name);
    seen.add(config.architecture!.family);
    const again = parseModelConfig(JSON.parse(JSON.stringify(modelConfigToJson(config))), "config.json");
    assert(JSON.stringify(again) === JSON.stringify(config), JSON.stringify([again, config]));
  }
  for (const family of FAMILIES.keys()) assert(seen.has(family), family);
});

Deno.test("a Llama is made sparse by the command, saved under its family's names, and read again", async () => {
  await using folder = await temporaryFolder();
  const [model, runs] = [`${folder.path}/llama`, `${folder.path}/runs`];
  const { architecture } = await readModelConfig(`${FOLDER}llama`);
  const config = {
    vocabularySize: 13,
    contextLength: 8,
    width: 16,
    layers: 2,
    heads: 4,
    keyValueHeads: 2,
    headSize: 6,
    mlpWidth: 24,
    layerNormEpsilon: 1e-6,
    architecture,
  };
  const tensors = parametersOf(config).map((parameter, index) => ({
    ...parameter,
    read: () => Promise.resolve(initialWeights(parameter, { seed: 3, index })),
  }));
  await saveModel(model, { config, tensors, type: "F32", tokenizer: ADDITION.tokenizer });
  // deno-fmt-ignore
  const { code, stderr } = await runMain(["sparsify", "--model", model, "--data", ADDITION.data, "--context", "8", "--batch",
    "16", "--steps", "6", "--no-control", "--validation-tokens", "256", "--eval-tokens", "256", "--runs", runs, "--name",
    "run"]);
  assertEquals(code, 0, stderr);
  const saved = `${runs}/run/model`;
  const again = await readModelConfig(saved);
  assertEquals(again.architecture, architecture);
  assertEquals(again.gate?.temperature, 1);
  const { entries } = await openSafetensors(`${saved}/model.safetensors`);
  assertEquals(entries.get("model.layers.1.self_attn.k_proj.weight")?.shape, [12, 16]);
  await (await openWeights(saved, again)).verify();
});
