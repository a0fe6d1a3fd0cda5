/**
 * What the adapter can do at most, as far as a kernel can tell: multiplications that need no memory, and a copy that needs
 * nothing else.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import { compile } from "../../kernels/core/kernel.ts";
import { destroyTensor } from "../../kernels/core/tensor.ts";

/** Measured limits of an adapter. */
export interface Ceilings {
  /** Multiply-adds in registers, counted as two operations each. */
  gflops: number;
  /** Bytes read and written by a copy. */
  gbps: number;
}

const CHAINS = 12;
const ITERATIONS = 1024;
const INVOCATIONS = 1 << 14;
const COPY_BYTES = 64 << 20;
const ROUNDS = 5;

// Every chain waits only for itself, and its end is stored, so that nothing can be left out.
const ARITHMETIC = `
@group(0) @binding(0) var<storage, read> factors: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> results: array<vec4f>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let factor = factors[0];
  let addend = factors[1];
  $for c in 0..CHAINS {
  var chain$c = addend * f32(id.x + $cu);
  $}
  for (var n = 0u; n < ITERATIONS; n++) {
    $for c in 0..CHAINS {
    chain$c = fma(chain$c, factor, addend);
    $}
  }
  var sum = vec4f();
  $for c in 0..CHAINS {
  sum += chain$c;
  $}
  results[id.x] = sum;
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
  const factors = gpu.tensor("factors", [8]);
  gpu.write(factors, Float32Array.of(0.5, 0.5, 0.5, 0.5, 1, 1, 1, 1));
  const results = gpu.tensor("results", [INVOCATIONS, 4]);
  const arithmetic = await compile(gpu, {
    label: "arithmetic ceiling",
    source: ARITHMETIC,
    constants: { CHAINS, ITERATIONS },
  });
  const source = gpu.tensor("source", [COPY_BYTES / 4]);
  const target = gpu.tensor("target", [COPY_BYTES / 4]);
  const copy = await compile(gpu, {
    label: "copy ceiling",
    source: COPY,
    constants: { COUNT: COPY_BYTES / 16 },
  });
  const best = async (record: Parameters<Gpu["submit"]>[1]): Promise<number> => {
    let least = Infinity;
    for (let n = 0; n < ROUNDS; n++) {
      const started = performance.now();
      gpu.submit("ceiling", record);
      await gpu.sync();
      least = Math.min(least, performance.now() - started);
    }
    return least / 1000;
  };
  const seconds = await best((recorder) =>
    recorder.dispatch(arithmetic, { factors, results }, [INVOCATIONS / 64])
  );
  const copySeconds = await best((recorder) => recorder.dispatch(copy, { source, results: target }, [4096]));
  for (const tensor of [factors, results, source, target]) destroyTensor(gpu, tensor);
  return {
    gflops: 2 * 4 * CHAINS * ITERATIONS * INVOCATIONS / seconds / 1e9,
    gbps: 2 * COPY_BYTES / copySeconds / 1e9,
  };
}
