/**
 * What the adapter can do at most, as far as a kernel can tell: multiplications that need no memory, and a copy that needs
 * nothing else.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import { compile } from "../../kernels/core/kernel.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import { createStopwatch } from "../../kernels/core/stopwatch.ts";
import { destroyTensor } from "../../kernels/core/tensor.ts";
import { raiseClock } from "./harness.ts";

/** Measured limits of an adapter. */
export interface Ceilings {
  /** Multiply-adds in registers, counted as two operations each. */
  gflops: number;
  /** Bytes read and written by a copy. */
  gbps: number;
}

const CHAINS = 48;
const ITERATIONS = 1024;
/** Invocations that fill every processor, and bytes that no cache holds. */
const SIZES = {
  software: { invocations: 1 << 14, copyBytes: 64 << 20 },
  hardware: { invocations: 1 << 20, copyBytes: 512 << 20 },
};
const ROUNDS = 5;
/** A submission shorter than this is repeated within one, so that waiting for the device is a small part. */
const SHORTEST_MS = 50;

// Every chain waits only for itself, and its end is stored, so that nothing can be left out.
const ARITHMETIC = `
@group(0) @binding(0) var<storage, read> factors: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> results: array<vec4f>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  // One factor and one addend for all chains: with four of each an H100 reached 30 TFLOP/s where products reach 44, it is
  // thought because three registers were then read anew for each operation. As it stands now it has run on no GPU.
  let factor = factors[0].x;
  let addend = factors[1].x;
  $for c in 0..CHAINS {
  var chain$c = addend * f32(id.x + $cu);
  $}
  for (var n = 0u; n < ITERATIONS; n++) {
    $for c in 0..CHAINS {
    chain$c = fma(chain$c, factor, addend);
    $}
  }
  var sum = 0.0;
  $for c in 0..CHAINS {
  sum += chain$c;
  $}
  results[id.x] = vec4f(sum);
}`;

const COPY = `
@group(0) @binding(0) var<storage, read> source: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> results: array<vec4f>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var n = id.x; n < COUNT; n += groups.x * 64u) { results[n] = source[n]; }
}`;

/** Measures both limits, the best of several rounds. */
export async function measureCeilings(gpu: Gpu): Promise<Ceilings> {
  const { invocations, copyBytes: wanted } = SIZES[gpu.adapter.software ? "software" : "hardware"];
  const copyBytes = Math.min(wanted, 16 * Math.floor(gpu.maxBindingBytes / 16));
  const factors = gpu.tensor("factors", [8]);
  gpu.write(factors, Float32Array.of(0.5, 0.5, 0.5, 0.5, 1, 1, 1, 1));
  const results = gpu.tensor("results", [invocations, 4]);
  const arithmetic = await compile(gpu, {
    label: "arithmetic ceiling",
    source: ARITHMETIC,
    constants: { CHAINS, ITERATIONS },
  });
  const source = gpu.tensor("source", [copyBytes / 4]);
  const target = gpu.tensor("target", [copyBytes / 4]);
  const copy = await compile(gpu, {
    label: "copy ceiling",
    source: COPY,
    constants: { COUNT: copyBytes / 16 },
  });
  const stopwatch = createStopwatch(gpu);
  /** Seconds of one dispatch. */
  const best = async (record: (recorder: Recorder) => void): Promise<number> => {
    const run = async (repeats: number): Promise<number> =>
      await stopwatch.milliseconds((recorder) => {
        for (let n = 0; n < repeats; n++) record(recorder);
      }) / repeats;
    await run(1);
    await raiseClock(gpu, () => run(1));
    let repeats = 1;
    while (repeats * await run(repeats) < SHORTEST_MS) repeats *= 2;
    let least = Infinity;
    for (let n = 0; n < ROUNDS; n++) least = Math.min(least, await run(repeats));
    return least / 1000;
  };
  const seconds = await best((recorder) =>
    recorder.dispatch(arithmetic, { factors, results }, [invocations / 64])
  );
  const copySeconds = await best((recorder) => recorder.dispatch(copy, { source, results: target }, [4096]));
  stopwatch.destroy();
  for (const tensor of [factors, results, source, target]) destroyTensor(gpu, tensor);
  return {
    gflops: 2 * CHAINS * ITERATIONS * invocations / seconds / 1e9,
    gbps: 2 * copyBytes / copySeconds / 1e9,
  };
}
