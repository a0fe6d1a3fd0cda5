/**
 * `deno task attention-variants [gpt2|olmo]`: what each kernel of attention takes in each of its variants on this device,
 * for a layer of GPT-2 124M at 8 x 1024 or of OLMo-7B's shape at 1 x 2048.
 *
 * @module
 */
import { Gpu } from "../../kernels/core/gpu.ts";
import { createStopwatch } from "../../kernels/core/stopwatch.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import { prepareGatedAttention } from "../../kernels/gated_attention/op.ts";
import { prepareMesa } from "../../pipeline/command_line.ts";
import { formatTable } from "../../pipeline/report/table.ts";
import { raiseClock } from "./harness.ts";

const SHAPES: Record<string, { batch: number; positions: number; heads: number; headSize: number }> = {
  gpt2: { batch: 8, positions: 1024, heads: 12, headSize: 64 },
  olmo: { batch: 1, positions: 2048, heads: 32, headSize: 128 },
};
/** Rounds in which the variants take turns, of which the least counts, and runs of each in a round. */
const [ROUNDS, RUNS] = [5, 10];
/** Products of heads' rows for each pair of positions. */
const PRODUCTS: Record<string, number> = { forward: 2, query: 3, value: 4 };

const what = String(Deno.args[0] ?? "gpt2");
const shape = SHAPES[what];
if (!shape) {
  console.error("Usage: deno task attention-variants [gpt2|olmo]");
  Deno.exit(2);
}
prepareMesa();
const gpu = await Gpu.open();
const stopwatch = createStopwatch(gpu);
const { batch, positions, heads, headSize } = shape;
const pairs = batch * heads * positions * (positions + 1) / 2;
const rows: string[][] = [];
// A tuner that tells what it measures.
gpu.tuner = {
  async choose(_gpu, key, _names, prepare) {
    const contest = await prepare();
    if (!contest) throw new Error(`Cannot measure ${key}: the device cannot hold it`);
    const candidates = [...contest.candidates];
    const runs = (record: (recorder: Recorder) => void) =>
      stopwatch.milliseconds((recorder) => {
        for (let n = 0; n < RUNS; n++) record(recorder);
      });
    // The first run compiles.
    for (const [, record] of candidates) await stopwatch.milliseconds(record);
    await raiseClock(gpu, () => runs(candidates[0][1]));
    const least = candidates.map(() => Infinity);
    for (let round = 0; round < ROUNDS; round++) {
      for (const [index, [, record]] of candidates.entries()) {
        least[index] = Math.min(least[index], await runs(record) / RUNS);
      }
    }
    const [label] = key.split(` ${batch} x `);
    const operations = 2 * PRODUCTS[label.split(" ").at(-1)!] * headSize * pairs;
    for (const [index, [name]] of candidates.entries()) {
      rows.push([label, name, least[index].toFixed(3), (operations / (1e9 * least[index])).toFixed(1)]);
    }
    contest.destroy();
    return undefined;
  },
};
await prepareGatedAttention(gpu, { ...shape, layer: 0 });
console.log(`${gpu.adapter.name}: ${JSON.stringify(shape)}`);
console.log(formatTable([["kernel", "variant", "ms a layer", "TFLOP/s"], ...rows]));
gpu.close();
