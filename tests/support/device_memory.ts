/**
 * What is held on a device, by the device's own account: every buffer that it was asked for, however that is counted.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { Gpu } from "../../kernels/core/gpu.ts";

/** Buffers made while a device is watched. */
export interface BufferWatch extends Disposable {
  /** Labels of all of them, in order. */
  readonly created: string[];
  /** Labels of those that were not destroyed. */
  live(): string[];
}

/** Watches a device's buffers until it is disposed of. */
export function watchBuffers({ device }: Gpu): BufferWatch {
  const created: string[] = [];
  const live = new Set<GPUBuffer>();
  const createBuffer = device.createBuffer;
  device.createBuffer = (descriptor) => {
    const buffer = createBuffer.call(device, descriptor);
    created.push(buffer.label);
    live.add(buffer);
    const destroy = buffer.destroy;
    buffer.destroy = () => {
      live.delete(buffer);
      return destroy.call(buffer);
    };
    return buffer;
  };
  return {
    created,
    live: () => [...live].map(({ label }) => label),
    [Symbol.dispose]() {
      device.createBuffer = createBuffer;
    },
  };
}

/** Runs `body`, which must make buffers, and asserts that no buffer, counted byte or bind group of it is left. */
export async function assertLeavesNothing(gpu: Gpu, body: () => Promise<void>): Promise<void> {
  const held = () => ({ bytes: gpu.allocatedBytes, bindGroups: gpu.bindGroups.size });
  const before = held();
  using buffers = watchBuffers(gpu);
  await body();
  assert(buffers.created.length > 0, "nothing was made");
  assertEquals(buffers.live(), [], "buffers that are left");
  assertEquals(held(), before);
}
