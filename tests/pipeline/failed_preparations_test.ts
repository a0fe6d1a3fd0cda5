/** Of what cannot be prepared nothing is left on the device, whichever of its buffers is refused. */
import { assertEquals, assertRejects } from "@std/assert";
import type { ModelConfig } from "../../pipeline/model/config.ts";
import { createCircuitEngine } from "../../pipeline/circuits/engine.ts";
import { prepareInterventions } from "../../pipeline/circuits/interventions.ts";
import { loadModel } from "../../pipeline/load_model.ts";
import { prepareDecoder } from "../../pipeline/model/decoder.ts";
import { prepareNetwork } from "../../pipeline/model/network.ts";
import { destroyParameters } from "../../pipeline/model/parameters.ts";
import { createTrainer } from "../../pipeline/training/trainer.ts";
import { randomModel, randomSet, TINY } from "../support/circuit_models.ts";
import { assertLeavesNothing, refuseEachBuffer } from "../support/device_memory.ts";
import { gpuTest } from "../support/gpu.ts";

const CONFIG: ModelConfig = { ...TINY, layers: 1, gate: { bias: 0.3, temperature: 1 } };
const SHAPE = { batch: 2, context: 8, training: true, distill: true } as const;

gpuTest("nothing is left of a network, and what is trained with it", async (gpu) => {
  await assertLeavesNothing(gpu, async () => {
    const halved = await refuseEachBuffer(gpu, () => prepareNetwork(gpu, CONFIG, { ...SHAPE, half: true }));
    halved.destroy();
    const network = await prepareNetwork(gpu, CONFIG, SHAPE);
    const { parameters } = randomModel(gpu, CONFIG);
    const trainer = await refuseEachBuffer(gpu, () =>
      createTrainer(gpu, {
        network,
        parameters,
        seed: 1,
        accumulate: 1,
        optimiser: { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, clip: 1 },
      }));
    trainer.destroy();
    network.destroy();
    destroyParameters(gpu, parameters);
  });
});

gpuTest("nothing is left of a network that is too large, again and again", async (gpu) => {
  const large = { ...CONFIG, contextLength: 1 << 16 };
  const bytes = gpu.allocatedBytes;
  for (let attempt = 0; attempt < 2; attempt++) {
    await assertRejects(
      () => prepareNetwork(gpu, large, { batch: 512, context: 1 << 15, training: false }),
      RangeError,
      "as the adapter's buffers hold",
    );
    assertEquals(gpu.allocatedBytes, bytes);
  }
});

gpuTest("nothing is left of what looks into a model, and a decoder of it", async (gpu) => {
  const model = randomModel(gpu, CONFIG);
  const set = randomSet(CONFIG, { pairs: 2, positions: 4 });
  for (
    const prepare of [
      () => createCircuitEngine(gpu, model, { set }),
      () => prepareInterventions(gpu, model, { batch: 1, positions: 4 }),
      () => prepareDecoder(gpu, CONFIG),
    ]
  ) {
    await assertLeavesNothing(
      gpu,
      async () => (await refuseEachBuffer<{ destroy(): void }>(gpu, prepare)).destroy(),
    );
  }
});

gpuTest("nothing is left of a model that is loaded", async (gpu) => {
  const folder = new URL("../../data/addition", import.meta.url).pathname;
  await assertLeavesNothing(
    gpu,
    async () => (await refuseEachBuffer(gpu, () => loadModel(folder, { gpu }))).destroy(),
  );
});
