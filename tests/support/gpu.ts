/**
 * One device shared by the tests of a file, and short ways to put arrays on it.
 *
 * @module
 */
import { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import type { Tensor } from "../../kernels/core/tensor.ts";

let shared: Promise<Gpu> | undefined;

/** The device, opened on first use and closed behind the file's last test. */
export function testGpu(): Promise<Gpu> {
  return shared ??= Gpu.open();
}

// A driver whose threads are at work when the process ends can take it down with a signal.
Deno.test.afterAll(async () => await (await shared)?.end());

/** A tensor with these values. */
export function upload(
  gpu: Gpu,
  label: string,
  values: Float32Array | Uint32Array,
  shape?: number[],
): Tensor {
  const tensor = gpu.tensor(label, shape ?? [values.length], values instanceof Uint32Array ? "u32" : "f32");
  gpu.write(tensor, values);
  return tensor;
}

/** A tensor full of a value that no kernel writes, to show elements that were left out. */
export function poisoned(gpu: Gpu, label: string, shape: number[]): Tensor {
  const tensor = gpu.tensor(label, shape);
  gpu.write(tensor, new Float32Array(tensor.length).fill(-12345.678));
  return tensor;
}

/** Submits what `record` records and reads one tensor. */
export async function runAndRead(
  gpu: Gpu,
  output: Tensor,
  record: (recorder: Recorder) => void,
): Promise<Float32Array> {
  gpu.submit("test", record);
  return await gpu.read(output);
}

/** A test on the shared device, which stays open between tests. */
export function gpuTest(name: string, body: (gpu: Gpu) => Promise<void>, { ignore = false } = {}): void {
  Deno.test({
    name,
    ignore,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => await body(await testGpu()),
  });
}
