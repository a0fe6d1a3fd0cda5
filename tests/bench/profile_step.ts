/**
 * `deno task profile-step [english|gpt2|olmo] [--batch N] [--context N] [--dtype f16]`: where a training step spends its
 * time, by operation: the embedded model's, GPT-2 124M's or that of two layers of OLMo-7B's sizes. Each operation is
 * recorded alone as often as the step records it, at the step's shapes.
 *
 * @module
 */
import process from "node:process";
import { parseArgs } from "@std/cli/parse-args";
import { Gpu } from "../../kernels/core/gpu.ts";
import { Recorder } from "../../kernels/core/recorder.ts";
import { createStopwatch } from "../../kernels/core/stopwatch.ts";
import { createTuner } from "../../kernels/core/tuner.ts";
import { prepareMesa } from "../../pipeline/command_line.ts";
import { readModelConfig } from "../../pipeline/model/config_file.ts";
import { openWeights } from "../../pipeline/model/load_weights.ts";
import { formatTable } from "../../pipeline/report/table.ts";
import { GPT2 } from "../support/gpt2.ts";
import { OLMO_2_LAYERS, prepareStep } from "./cases/training_step.ts";

const ENGLISH = new URL("../../data/english", import.meta.url).pathname;

const flags = parseArgs(Deno.args, { string: ["batch", "context", "dtype"] });
const what = String(flags._[0] ?? "english");
const of = {
  english: { batch: 8, context: 128, config: () => readModelConfig(ENGLISH) },
  gpt2: { batch: 8, context: 1024, config: () => Promise.resolve(GPT2) },
  olmo: { batch: 1, context: 2048, config: () => Promise.resolve(OLMO_2_LAYERS) },
}[what];
const dtype = (["f32", "f16"] as const).find((type) => type === (flags.dtype ?? "f32"));
const [batch, context] = [Number(flags.batch ?? of?.batch), Number(flags.context ?? of?.context)];
if (!of || !dtype || ![batch, context].every((count) => Number.isInteger(count) && count > 0)) {
  console.error(
    "Usage: deno task profile-step [english|gpt2|olmo] [--batch N] [--context N] [--dtype f32|f16]",
  );
  Deno.exit(2);
}

prepareMesa();
const gpu = await Gpu.open();
// Every product in the variant that is the fastest here, as in a run that has been started before.
let chosen: ReadonlyMap<string, string> = new Map();
gpu.tuner = createTuner({
  known: chosen,
  seconds: Infinity,
  onFound(known) {
    chosen = known;
  },
});
const config = await of.config();
const weights = what === "english" ? await openWeights(ENGLISH, config) : undefined;
const step = await prepareStep(
  gpu,
  config,
  { batch, context, dtype },
  weights && ((name) => weights.read(name)),
);
const { trainer } = step;

// Which kernels a step records, in order: the recorder's dispatches, seen from outside.
const dispatches: { label: string; replay: (recorder: Recorder) => void }[] = [];
const { dispatch } = Recorder.prototype;
let watching = false;
Recorder.prototype.dispatch = function (...args) {
  if (watching) {
    dispatches.push({
      // Of products, which differ in size, each size by itself.
      label: args[0].label.startsWith("matmul")
        ? `${args[0].label}, ${args[2].join(" x ")} workgroups`
        : args[0].label,
      replay: (recorder) => dispatch.apply(recorder, args),
    });
  }
  return dispatch.apply(this, args);
};
for (let n = 0; n < 3; n++) {
  watching = n === 2;
  await step.take();
  await trainer.log.drain();
}
watching = false;

// The whole step: by the wall, and by the processor, which other work beside hardly lengthens.
const processor = (): number =>
  Object.values(process.cpuUsage()).reduce((sum, microseconds) => sum + microseconds);
const whole = { wall: Infinity, processor: Infinity };
for (let round = 0; round < 4; round++) {
  const [started, used] = [performance.now(), processor()];
  for (let n = 0; n < 3; n++) await step.take();
  await trainer.log.drain();
  whole.wall = Math.min(whole.wall, (performance.now() - started) / 3);
  whole.processor = Math.min(whole.processor, (processor() - used) / 3000);
}

const RUNS = 5;
const stopwatch = createStopwatch(gpu);
async function milliseconds(record: (recorder: Recorder) => void): Promise<number> {
  const times: number[] = [];
  for (let n = 0; n < RUNS; n++) times.push(await stopwatch.milliseconds(record));
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
  `${gpu.adapter.name}, ${batch} x ${context} tokens; an empty submission takes ${latency.toFixed(2)} ms`,
);
console.log(formatTable([
  ["kernel", "dispatches", "ms", "share"],
  ...rows.map((
    [label, count, time],
  ) => [label, String(count), time.toFixed(2), `${(100 * time / total).toFixed(1)} %`]),
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
for (const [kernel, variant] of chosen) console.log(`${kernel}: ${variant}`);
console.log(`matmul and gated attention: ${(100 * wanted / total).toFixed(1)} %`);
Deno.exit(0);
