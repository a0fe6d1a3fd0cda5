/**
 * What attribution costs at GPT-2 124M's shape, with random weights: seconds of EAP and EAP-IG over those of one training
 * step on as many tokens, and device memory of both. The training step is forward and backward alone, without the
 * optimiser.
 *
 *     deno run --no-check --allow-read --allow-env tests/bench/circuits_cost.ts [prompts 32] [steps 5] [tokens 15]
 *
 * @module
 */
import { Gpu } from "../../kernels/core/gpu.ts";
import { createCircuitEngine } from "../../pipeline/circuits/engine.ts";
import { parametersOf } from "../../pipeline/model/trace.ts";
import { planMemory } from "../../pipeline/model/plan.ts";
import { prepareNetwork } from "../../pipeline/model/network.ts";
import { createParameters, destroyParameters } from "../../pipeline/model/parameters.ts";
import { randomSet } from "../support/circuit_models.ts";
import { normals } from "../support/seeded.ts";
import { GPT2 } from "../support/gpt2.ts";

const config = GPT2;
const REPETITIONS = 1;
const MIB = 2 ** 20;

/** The shortest of a few runs, in seconds, after one that compiles. */
async function seconds(body: () => Promise<unknown>): Promise<number> {
  await body();
  let best = Infinity;
  for (let n = 0; n < REPETITIONS; n++) {
    const start = performance.now();
    await body();
    best = Math.min(best, (performance.now() - start) / 1000);
  }
  return best;
}

if (import.meta.main) {
  const [prompts = 32, steps = 5, positions = 15] = Deno.args.map(Number);
  const gpu = await Gpu.open();
  const shapes = parametersOf(config);
  const parameters = createParameters(gpu, shapes);
  const some = normals(1, 1 << 20, 0.02);
  for (const tensor of parameters.values()) {
    for (let at = 0; at < tensor.length; at += some.length) {
      gpu.write(tensor, some.subarray(0, Math.min(some.length, tensor.length - at)), at);
    }
  }
  const weights = gpu.allocatedBytes;

  const gradients = createParameters(gpu, shapes, "gradient of ");
  const shape = { batch: prompts, context: positions, training: true };
  const network = await prepareNetwork(gpu, config, shape);
  const one = gpu.tensor("loss scale", [1]);
  gpu.write(one, Float32Array.of(1));
  const tokens = Uint32Array.from(
    { length: prompts * positions },
    (_, n) => (7919 * n) % config.vocabularySize,
  );
  network.upload(tokens, tokens);
  network.configureLoss({ weight: 1 / tokens.length });
  const training = await seconds(async () => {
    gpu.submit("training step", (recorder) => {
      network.forward(recorder, parameters, "dense", { countEdges: false });
      network.head(recorder, parameters, { backward: { gradients, lossScale: one } });
      network.backward(recorder, parameters, gradients, "dense", one);
    });
    await gpu.sync();
  });
  const activations = planMemory(config, shape, gpu.maxBindingBytes).buffers.reduce((a, b) => a + b, 0);
  network.destroy();
  destroyParameters(gpu, gradients);

  const set = randomSet(config, { pairs: prompts, positions });
  const engine = await createCircuitEngine(gpu, { config, parameters }, { set });
  const eap = await seconds(() => engine.attribute({ name: "eap" }));
  const integrated = await seconds(() => engine.attribute({ name: "eap-ig", steps }));
  const run = await seconds(() => engine.run(new Uint8Array(engine.graph.edges).fill(1)));
  const rows: [string, number, number][] = [
    ["training step", training, (4 * weights + activations) / MIB],
    ["EAP", eap, (weights + engine.bytes) / MIB],
    [`EAP-IG, ${steps} steps`, integrated, (weights + engine.bytes) / MIB],
    ["edge-patched run", run, (weights + engine.bytes) / MIB],
  ];
  console.log(
    `${gpu.adapter.name}: ${engine.graph.edges} edges, ${prompts} pairs of ${positions} tokens, ` +
      `${engine.batch} in a batch`,
  );
  for (const [name, time, mib] of rows) {
    console.log(
      `${name.padEnd(20)} ${time.toFixed(2).padStart(8)} s ${
        (time / training).toFixed(2).padStart(7)
      } steps ` +
        `${mib.toFixed(0).padStart(6)} MiB`,
    );
  }
  gpu.close();
}
