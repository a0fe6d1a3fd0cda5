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

/**
 * Prepares something again and again, its first buffer refused, its second, and so on, and asserts each time that nothing
 * is left.
 *
 * @returns what is prepared when none is refused any more
 */
export async function refuseEachBuffer<Result>(gpu: Gpu, prepare: () => Promise<Result>): Promise<Result> {
  const { device } = gpu;
  const { createBuffer } = device;
  for (let refused = 0;; refused++) {
    using buffers = watchBuffers(gpu);
    const bytes = gpu.allocatedBytes;
    const watched = device.createBuffer;
    device.createBuffer = (descriptor) => {
      if (buffers.created.length === refused) throw new RangeError(`refused ${descriptor.label}`);
      return watched.call(device, descriptor);
    };
    try {
      const prepared = await prepare();
      assert(refused > 0, "nothing was made");
      return prepared;
    } catch (error) {
      if (!(error instanceof RangeError && error.message.startsWith("refused "))) throw error;
      assertEquals([buffers.live(), gpu.allocatedBytes], [[], bytes], error.message);
      // Nor has anyone used what was freed.
      await gpu.sync();
    } finally {
      device.createBuffer = createBuffer;
    }
  }
}
