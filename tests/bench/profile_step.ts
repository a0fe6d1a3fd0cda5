/**
 * `deno task profile-step`: where the training step of the embedded model spends its time, by operation. Each operation
 * is recorded alone as often as the step records it, at the step's shapes.
 *
 * @module
 */
import process from "node:process";
import { Gpu } from "../../kernels/core/gpu.ts";
import { Recorder } from "../../kernels/core/recorder.ts";
import { openWeights } from "../../pipeline/model/load_weights.ts";
import { readModelConfig } from "../../pipeline/model/config_file.ts";
import { prepareNetwork } from "../../pipeline/model/network.ts";
import { createParameters, uploadParameters } from "../../pipeline/model/parameters.ts";
import { quietMesa } from "../../pipeline/command_line.ts";
import { formatTable } from "../../pipeline/report/table.ts";
import { createTrainer } from "../../pipeline/training/trainer.ts";
import { seeded } from "../support/seeded.ts";

quietMesa();
const folder = new URL("../../data/english", import.meta.url).pathname;
const [batch, context] = [8, 128];
const gpu = await Gpu.open();
const config = await readModelConfig(folder);
const weights = await openWeights(folder, config);
const network = await prepareNetwork(gpu, config, { batch, context, training: true });
const parameters = createParameters(gpu, weights.parameters);
await uploadParameters(gpu, parameters, (name) => weights.read(name));
const trainer = await createTrainer(gpu, {
  network,
  parameters,
  seed: 1,
  accumulate: 1,
  gates: {
    bias: 3,
    temperature: 1,
    saturationWeight: 0.01,
    saturationBound: 6,
    lambdaStart: 1,
    geco: { scale: 0.03, alpha: 0.9, rate: 0, gain: 0, lowest: 1, highest: 1 },
  },
  optimiser: { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, clip: 1 },
});
const random = seeded(1);
const tokens = () =>
  Uint32Array.from({ length: batch * context }, () => random.integer(config.vocabularySize));
const data = { inputs: tokens(), targets: tokens() };

// Which kernels a step records, in order: the recorder's dispatches, seen from outside.
const dispatches: { label: string; replay: (recorder: Recorder) => void }[] = [];
const { dispatch } = Recorder.prototype;
let watching = false;
Recorder.prototype.dispatch = function (...args) {
  if (watching) {
    dispatches.push({
      label: args[0].label,
      replay: (recorder) => dispatch.apply(recorder, args),
    });
  }
  return dispatch.apply(this, args);
};
for (let step = 0; step < 3; step++) {
  watching = step === 2;
  trainer.step(step, 1e-3, [data]);
  await trainer.log.drain();
}
watching = false;

// The whole step: by the wall, and by the processor, which other work beside hardly lengthens.
const processor = (): number =>
  Object.values(process.cpuUsage()).reduce((sum, microseconds) => sum + microseconds);
const whole = { wall: Infinity, processor: Infinity };
for (let round = 0; round < 4; round++) {
  const [started, used] = [performance.now(), processor()];
  for (let step = 0; step < 3; step++) trainer.step(3 + step, 1e-3, [data]);
  await trainer.log.drain();
  whole.wall = Math.min(whole.wall, (performance.now() - started) / 3);
  whole.processor = Math.min(whole.processor, (processor() - used) / 3000);
}

const RUNS = 5;
async function milliseconds(record: (recorder: Recorder) => void): Promise<number> {
  const times: number[] = [];
  for (let n = 0; n < RUNS; n++) {
    await gpu.sync();
    const started = performance.now();
    gpu.submit("profile", record);
    await gpu.sync();
    times.push(performance.now() - started);
  }
  return times.sort((a, b) => a - b)[RUNS >> 1];
}
const latency = await milliseconds(() => {});
const byLabel = Map.groupBy(dispatches, ({ label }) => label);
const rows: [string, number, number][] = [];
for (const [label, of] of byLabel) {
  const time = await milliseconds((recorder) => of.forEach(({ replay }) => replay(recorder)));
  rows.push([label, of.length, Math.max(0, time - latency)]);
}
rows.sort((a, b) => b[2] - a[2]);
const total = rows.reduce((sum, [, , time]) => sum + time, 0);
console.log(
  `${gpu.adapter.name}, ${batch} x ${context} tokens; an empty submission takes ${latency.toFixed(1)} ms`,
);
console.log(formatTable([
  ["kernel", "dispatches", "ms", "share"],
  ...rows.map((
    [label, count, time],
  ) => [label, String(count), time.toFixed(1), `${(100 * time / total).toFixed(1)} %`]),
  ["sum", String(dispatches.length), total.toFixed(1), ""],
]));
console.log(
  `a step: ${whole.wall.toFixed(0)} ms, ${
    whole.processor.toFixed(0)
  } ms of all processors; the least of 4 times 3`,
);
const wanted = rows.filter(([label]) => /^(matmul|gated attention)/.test(label)).reduce(
  (sum, [, , time]) => sum + time,
  0,
);
console.log(`matmul and gated attention: ${(100 * wanted / total).toFixed(1)} %`);
Deno.exit(0);
