/**
 * What the plan says beside what a device is asked for, for models that are too large for a test:
 * `deno task plan-allocated [folder of tests/fixtures/configs …]`. Nothing is trained: buffers are made, and counted.
 *
 * @module
 */
import { join } from "node:path";
import { Gpu } from "../../kernels/core/gpu.ts";
import { adaptersFor } from "../../pipeline/model/adapters.ts";
import { readModelConfig } from "../../pipeline/model/config_file.ts";
import { prepareNetwork } from "../../pipeline/model/network.ts";
import { createParameters, destroyParameters } from "../../pipeline/model/parameters.ts";
import { parametersOf } from "../../pipeline/model/trace.ts";
import { type TrainedParts, trainingNeeds } from "../../pipeline/model/needs.ts";
import { formatTable } from "../../pipeline/report/table.ts";
import { createTrainer } from "../../pipeline/training/trainer.ts";

const CONFIGS = join(import.meta.dirname!, "../fixtures/configs");
const SHAPE = { batch: 1, context: 128, recompute: true };

const gpu = await Gpu.open();
const rows = [["", "planned", "allocated", "more"]];
for (const name of Deno.args.length > 0 ? Deno.args : ["gpt2", "Llama-3.2-1B"]) {
  const config = await readModelConfig(join(CONFIGS, name));
  const targets = ["query", "key", "value", "output"];
  const adapters = adaptersFor(config, { rank: 64, alpha: 128, rankStabilised: false, targets });
  const ways: readonly (readonly [string, TrainedParts])[] = [
    ["everything", { train: "all", frozen: "f32" }],
    ["attention", { train: "attention", frozen: "f32" }],
    ...(["f32", "f16", "int8"] as const).map((frozen) =>
      [`LoRA 64 beside ${frozen}`, { train: "lora", adapters, frozen }] as const
    ),
  ];
  for (const [way, parts] of ways) {
    const planned = trainingNeeds(config, SHAPE, parts, gpu.maxBindingBytes).total;
    // Twice that would have to fit where a driver makes copies.
    if (planned > 8e9) {
      rows.push([`${name}, ${way}`, planned.toLocaleString("en-US"), "too large here", ""]);
      continue;
    }
    const before = gpu.allocatedBytes;
    const parameters = createParameters(gpu, parametersOf(config, parts));
    const network = await prepareNetwork(gpu, config, { ...SHAPE, ...parts, training: true });
    const trainer = await createTrainer(gpu, {
      network,
      parameters,
      seed: 1,
      accumulate: 1,
      optimiser: { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, clip: 1 },
    });
    const allocated = gpu.allocatedBytes - before;
    rows.push([
      `${name}, ${way}`,
      ...[planned, allocated].map((bytes) => bytes.toLocaleString("en-US")),
      `${(100 * (allocated / planned - 1)).toFixed(4)} %`,
    ]);
    trainer.destroy();
    network.destroy();
    destroyParameters(gpu, parameters);
  }
}
console.log(formatTable(rows));
gpu.close();
