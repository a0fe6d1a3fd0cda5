/**
 * Tensors of the device summed over ranks: read, added, and written back, some megabytes at a time.
 *
 * @module
 */
import { DeviceError } from "../../kernels/core/device.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Tensor } from "../../kernels/core/tensor.ts";
import type { Exchange } from "./exchange.ts";

/** Float32 values that are on their way at once, at most. */
const CHUNK = 16 << 20;

/** A part of a tensor in a chunk. */
interface Part {
  tensor: Tensor;
  /** Its first element in the tensor, and in the chunk. */
  start: number;
  at: number;
  length: number;
}

/** The elements of all tensors one behind the other, cut into chunks. */
function cut(tensors: readonly Tensor[], chunk: number): Part[][] {
  const chunks: Part[][] = [];
  let free = 0;
  for (const tensor of tensors) {
    for (let start = 0; start < tensor.length;) {
      if (free === 0) {
        chunks.push([]);
        free = chunk;
      }
      const length = Math.min(free, tensor.length - start);
      chunks.at(-1)!.push({ tensor, start, at: chunk - free, length });
      start += length;
      free -= length;
    }
  }
  return chunks;
}

/** A sum over ranks that is made again and again. */
export interface DeviceSum {
  /** Replaces every tensor by its sum over the ranks, behind all that was submitted. */
  run(): Promise<void>;
  /** Frees what it holds beside the tensors. */
  destroy(): void;
}

/**
 * Prepares the sum of tensors over ranks.
 *
 * @param tensors of float32, in the same order at every rank
 * @param options `what`: for errors; `chunk`: values at once, for tests
 */
export function prepareDeviceSum(
  gpu: Gpu,
  exchange: Exchange,
  tensors: readonly Tensor[],
  { what, chunk = CHUNK }: { what: string; chunk?: number },
): DeviceSum {
  const elements = tensors.reduce((sum, { length }) => sum + length, 0);
  const chunks = cut(tensors, Math.min(chunk, elements));
  /** Values of a chunk; what is behind the last tensor stays zero. */
  const lengthOf = (parts: readonly Part[]): number => {
    const { at, length } = parts.at(-1)!;
    return Math.ceil((at + length) / exchange.size) * exchange.size;
  };
  const staging = gpu.device.createBuffer({
    label: `staging for ${what}`,
    size: 4 * Math.min(chunk, elements),
    usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
  });

  async function read(parts: readonly Part[], values: Float32Array): Promise<void> {
    const bytes = 4 * (parts.at(-1)!.at + parts.at(-1)!.length);
    gpu.submit(`reading ${what}`, (recorder) => {
      for (const { tensor, start, at, length } of parts) {
        const offset = tensor.offset + 4 * start;
        recorder.copyToBuffer({ ...tensor, length, byteLength: 4 * length, offset }, staging, 4 * at);
      }
    });
    try {
      await staging.mapAsync(GPUMapMode.READ, 0, bytes);
      values.set(new Float32Array(staging.getMappedRange(0, bytes)));
      staging.unmap();
    } catch (error) {
      // Why it failed, such as a lost device, is told by promises that settle after this one.
      await new Promise((resolve) => setTimeout(resolve));
      gpu.check();
      throw new DeviceError(`Cannot read ${what}: ${(error as Error).message}`);
    }
  }

  return {
    async run() {
      for (const parts of chunks) {
        const values = new Float32Array(lengthOf(parts));
        await read(parts, values);
        await exchange.sum(values, what);
        for (const { tensor, start, at, length } of parts) {
          gpu.write(tensor, values.subarray(at, at + length), start);
        }
      }
    },
    destroy: () => staging.destroy(),
  };
}
