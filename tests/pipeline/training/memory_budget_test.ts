import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { UserError } from "../../../pipeline/errors.ts";
import { gpt2Config, type ModelConfig } from "../../../pipeline/model/config.ts";
import { initialWeights } from "../../../pipeline/model/initial_weights.ts";
import {
  budgetMemory,
  checkLeastMemory,
  describeNeeds,
  type MemorySettings,
  whatToLower,
} from "../../../pipeline/training/memory_budget.ts";
import { textureCapacity } from "../../../kernels/core/textures.ts";
import { adaptersFor } from "../../../pipeline/model/adapters.ts";
import { memoryNeeds, ofTeacherAlone } from "../../../pipeline/model/needs.ts";
import { type NetworkShape } from "../../../pipeline/model/plan.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import { createParameters, uploadParameters } from "../../../pipeline/model/parameters.ts";
import { SPARSIFY, type SparsifySettings } from "../../../pipeline/settings.ts";
import { parseCommand } from "../../../pipeline/settings/parse.ts";
import { defaultsOf } from "../../../pipeline/settings/resolve.ts";
import { resumedSettings } from "../../../pipeline/settings/resume.ts";
import { createTrainer } from "../../../pipeline/training/trainer.ts";
import { gpuTest } from "../../support/gpu.ts";
import { seeded } from "../../support/seeded.ts";

const CONFIG = gpt2Config({
  vocabularySize: 61,
  contextLength: 32,
  width: 16,
  layers: 4,
  heads: 2,
  mlpWidth: 64,
});
const SETTINGS: MemorySettings = { batch: 2, context: 32, recompute: false, dtype: "f32", memory: "auto" };

/** Every gradient of two gated, distilled micro-batches, and the bytes that the device held for them. */
async function gradientsOf(gpu: Gpu, options: Partial<NetworkShape>) {
  const before = gpu.allocatedBytes;
  const [batch, context] = [2, 32];
  const network = await prepareNetwork(gpu, CONFIG, {
    batch,
    context,
    training: true,
    distill: true,
    ...options,
  });
  const shapes = network.model.parameters;
  const random = (seed: number) => (name: string) => {
    const index = shapes.findIndex((shape) => shape.name === name);
    return Promise.resolve(initialWeights(shapes[index], { seed, index }).map((x) => 5 * x));
  };
  const parameters = createParameters(gpu, shapes);
  const ofTeacher = createParameters(gpu, ofTeacherAlone(shapes, options), "teacher's ");
  await uploadParameters(gpu, parameters, random(1));
  await uploadParameters(gpu, ofTeacher, random(2));
  const frozen = shapes.filter(({ trainable }) => !trainable);
  const teacher = new Map([
    ...frozen.map(({ name }) => [name, parameters.get(name)!] as const),
    ...ofTeacher,
  ]);
  const trainer = await createTrainer(gpu, {
    network,
    parameters,
    seed: 3,
    accumulate: 2,
    distill: { teacher, weight: 0.5 },
    gates: {
      bias: 1,
      temperature: 1,
      saturationWeight: 0.01,
      saturationBound: 6,
      lambdaStart: 1,
      geco: { scale: 0.03, alpha: 0.9, rate: 0, gain: 0, lowest: 1, highest: 1 },
    },
    optimiser: { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, clip: 1 },
  });
  const tokens = seeded(4);
  const microBatch = () => ({
    inputs: Uint32Array.from({ length: batch * context }, () => tokens.integer(61)),
    targets: Uint32Array.from({ length: batch * context }, () => tokens.integer(61)),
  });
  trainer.step(0, 1e-3, [microBatch(), microBatch()]);
  const gradients = new Map<string, Float32Array>();
  for (const [name, tensor] of trainer.gradients) gradients.set(name, await gpu.read(tensor));
  return { gradients, held: gpu.allocatedBytes - before };
}

const LORA = {
  adapters: adaptersFor(CONFIG, {
    rank: 4,
    alpha: 8,
    rankStabilised: false,
    targets: ["query", "output", "down"],
  }),
  train: "lora",
} as const;

for (
  const [what, part] of [
    ["all", {}],
    ["adapters", LORA],
    ["adapters of a teacher too", { ...LORA, teacherAdapted: true }],
    ["attention's products", { train: "attention" }],
  ] as const
) {
  gpuTest(
    `training ${what}: activations that share memory, or are computed anew, give every gradient to the bit, in what was announced`,
    async (gpu) => {
      const kept = await gradientsOf(gpu, { ...part, keep: true });
      for (const recompute of [false, true]) {
        const options = { ...part, recompute };
        const { gradients, held } = await gradientsOf(gpu, options);
        assert(held < kept.held);
        for (const [name, values] of kept.gradients) {
          assertEquals(gradients.get(name), values, `${name}, ${JSON.stringify(options)}`);
        }
        // Beside what is planned stand tokens, targets, losses, partial sums and the log: 20 KB here.
        const { total } = memoryNeeds(
          CONFIG,
          { batch: 2, context: 32, training: true, distill: true, ...options },
          gpu.maxBindingBytes,
        );
        assert(held >= total && held < total + 24_000, `${held} bytes held, ${total} announced`);
      }
    },
  );
}

gpuTest("adapters of a rank that is no multiple of 4 are not stored beside f16", async (gpu) => {
  const trained = {
    adapters: adaptersFor(CONFIG, { rank: 6, alpha: 8, rankStabilised: false, targets: ["query"] }),
    train: "lora",
  } as const;
  await budgetMemory(gpu, CONFIG, SETTINGS, false, trained);
  const half = { ...SETTINGS, dtype: "f16" } as const;
  const error = await assertRejects(() => budgetMemory(gpu, CONFIG, half, false, trained), UserError);
  assertStringIncludes(error.message, "--dtype f16 as ranks of adapters must be multiples of 4: 6");
  const shape = { batch: 1, context: 8, training: true, half: true, ...trained };
  await assertRejects(() => prepareNetwork(gpu, CONFIG, shape), RangeError, "multiples of 4: 6");
});

gpuTest("auto takes the largest batch that stays within the memory it is given", async (gpu) => {
  const totalOf = (batch: number) =>
    memoryNeeds(CONFIG, { batch, context: 32, training: true }, gpu.maxBindingBytes, textureCapacity(gpu))
      .total;
  const { batch, needs } = await budgetMemory(gpu, CONFIG, {
    ...SETTINGS,
    batch: "auto",
    memory: totalOf(13) / 1e9,
  });
  assertEquals(batch, 13);
  assertEquals(needs.total, totalOf(13));
  const free = await budgetMemory(gpu, CONFIG, { ...SETTINGS, batch: "auto" });
  assertEquals(free.batch, 1024);
});

Deno.test("a run that fits on no device is refused without one", () => {
  const shape = { batch: 2, context: 32, training: true, distill: true };
  const least = memoryNeeds(CONFIG, shape, 128 << 20).total;
  const settings = { ...SETTINGS, distill: 1 };
  checkLeastMemory(CONFIG, { ...settings, memory: least / 1e9 });
  checkLeastMemory(CONFIG, { ...settings, memory: "auto" });
  assertThrows(
    () => checkLeastMemory(CONFIG, { ...settings, memory: (least - 1) / 1e9 }),
    UserError,
    "Cannot train with a batch of 2 as it needs ",
  );
  // Of auto one row is enough.
  checkLeastMemory(CONFIG, { ...settings, batch: "auto", memory: (least - 1) / 1e9 });
});

gpuTest("a run that does not fit is refused with what it needs and what to lower", async (gpu) => {
  const tooMuch = { ...SETTINGS, memory: 0.0005, distill: 1 };
  const error = await assertRejects(() => budgetMemory(gpu, CONFIG, tooMuch), UserError);
  const { total } = memoryNeeds(
    CONFIG,
    { batch: 2, context: 32, training: true, distill: true },
    gpu.maxBindingBytes,
    textureCapacity(gpu),
  );
  assertEquals(
    error.message,
    `Cannot train with a batch of 2 as it needs ${(total / 1e6).toFixed(1)} MB and there are 0.5 MB: ` +
      "lower --batch 2 and raise --accumulate, or lower --context 32, or give --recompute, or give --dtype f16, or leave out --distill",
  );
  // An MLP's activations of 2 x 32 positions are then eight times what a binding holds.
  const width = 64 * Math.floor(8 * gpu.maxBindingBytes / (2 * 32 * 4 * 4) / 64);
  const wide = { ...CONFIG, width, mlpWidth: 4 * width };
  const binding = await assertRejects(
    () => budgetMemory(gpu, wide, { ...SETTINGS, memory: 1e6, recompute: true }),
    UserError,
  );
  assertStringIncludes(
    binding.message,
    `one activation takes ${(2 * 32 * 4 * 4 * width / 1e9).toFixed(1)} GB and a binding holds`,
  );
});

gpuTest("a model whose sizes do not go with f16 is refused before anything is compiled", async (gpu) => {
  const halved = (config: Partial<ModelConfig>) =>
    assertRejects(
      () => budgetMemory(gpu, { ...CONFIG, ...config }, { ...SETTINGS, dtype: "f16" }),
      UserError,
    );
  const { message } = await halved({ mlpWidth: 62 });
  assertStringIncludes(
    message,
    "Cannot train with --dtype f16 as width, head size and MLP width must be multiples of 4: 16, 8, 62",
  );
  const positions = { kind: "rotary", theta: 1e4, share: 0.5 } as const;
  const turned = await halved({ positions });
  assertStringIncludes(turned.message, "what turns of each head must be a multiple of 8: 4");
});

Deno.test("what a run takes is told by what it is for", () => {
  const parts = { weights: 1e6, copies: 0, teacher: 2e6, gradients: 3e6, moments: 40e6, activations: 5e9 };
  const needs = { ...parts, frozen: 0, textures: 256e6, total: 5.302e9, largestBinding: 0, buffers: [] };
  assertEquals(
    describeNeeds({ batch: 2, needs }),
    "device memory 5.3 GB with a batch of 2: weights 1.0 MB, teacher 2.0 MB, gradients 3.0 MB, moments 40 MB, " +
      "activations 5.0 GB, textures 256 MB",
  );
  assertStringIncludes(
    describeNeeds({ batch: 2, needs, stages: 4 }),
    "device memory 5.3 GB with a batch of 2 at the one of 4 stages that takes most: weights",
  );
});

gpuTest(
  "what is told of are the parts of what is needed, as many bytes as there are weights",
  async (gpu) => {
    const { needs } = await budgetMemory(gpu, CONFIG, { ...SETTINGS, distill: 1 });
    // Tokens and positions; two norms, queries, keys and values, projection and MLP of each layer; the last norm.
    const layer = 4 * 16 + 17 * 48 + 17 * 16 + 17 * 64 + 65 * 16;
    const weights = 4 * ((61 + 32) * 16 + 4 * layer + 2 * 16);
    const { teacher, gradients, moments, copies, activations, textures, total } = needs;
    assertEquals([needs.weights, teacher, gradients, moments, copies], [
      weights,
      weights,
      weights,
      2 * weights,
      0,
    ]);
    const held = 5 * weights + activations;
    assertEquals(textures, gpu.adapter.software ? held : 0, "a CPU driver reads copies");
    assertEquals(total, held + textures);
  },
);

gpuTest("a device is asked for buffers before they are needed", async (gpu) => {
  assertEquals(await gpu.canHold([1024, 1 << 20]), true);
  assertEquals(await gpu.canHold([gpu.device.limits.maxBufferSize + 16]), false);
  gpu.check();
});

Deno.test("a run that goes on is told only what it may be given", () => {
  const own = defaultsOf(SPARSIFY) as unknown as SparsifySettings;
  const advice = whatToLower(SETTINGS, true);
  const { given } = parseCommand(SPARSIFY, advice.match(/--[a-z-]+/g)!);
  assertEquals(given, { recompute: true });
  assertEquals(resumedSettings<typeof SPARSIFY>(own, given, "run").recompute, true);
  assertStringIncludes(
    whatToLower({ ...SETTINGS, recompute: true }, true),
    "begin another run with a smaller --batch",
  );
  assertStringIncludes(whatToLower(SETTINGS), "lower --batch 2 and raise --accumulate");
});
