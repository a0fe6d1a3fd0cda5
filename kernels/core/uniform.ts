/**
 * Small values that change from call to call: a uniform buffer with named fields.
 *
 * @module
 */
import { madeFor } from "./all_or_nothing.ts";
import type { Device } from "./device.ts";
import { checkTensor, destroyTensor, type Tensor } from "./tensor.ts";

/** A uniform buffer. A write takes effect for everything submitted after it. */
export interface Uniform<Name extends string> {
  readonly tensor: Tensor;
  set(values: Record<Name, number>): void;
  /** Frees the buffer. */
  destroy(): void;
}

/**
 * Creates a uniform buffer whose fields stand in the order of the WGSL struct, four bytes each.
 *
 * @param fields names and types in order
 */
export function createUniform<const Name extends string>(
  gpu: Device,
  label: string,
  fields: readonly (readonly [Name, "u32" | "f32"])[],
): Uniform<Name> {
  const byteLength = Math.ceil(fields.length / 4) * 16;
  const tensor = madeFor(label, (): Tensor => {
    const buffer = gpu.device.createBuffer({
      label,
      size: byteLength,
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    });
    gpu.allocatedBytes += byteLength;
    const length = byteLength / 4;
    return { label, shape: [length], type: "u32", length, byteLength, buffer, offset: 0 };
  }, (tensor) => destroyTensor(gpu, tensor));
  const bytes = new ArrayBuffer(byteLength);
  const floats = new Float32Array(bytes);
  const words = new Uint32Array(bytes);
  return {
    tensor,
    set(values) {
      checkTensor(tensor);
      fields.forEach(([name, type], index) => {
        if (type === "f32") floats[index] = values[name];
        else words[index] = values[name];
      });
      gpu.device.queue.writeBuffer(tensor.buffer, 0, bytes);
    },
    destroy: () => destroyTensor(gpu, tensor),
  };
}
