/**
 * How long the device works on something, by its own clock where it has one: waiting for it takes longer than the work
 * does, under Deno about 11 ms whatever the work (docs/log.md).
 *
 * @module
 */
import type { Gpu } from "./gpu.ts";
import type { Recorder } from "./recorder.ts";
import type { Tensor } from "./tensor.ts";

/** Made by {@link createStopwatch}. */
export interface Stopwatch {
  /** A time shorter than this many milliseconds is mostly error. */
  readonly shortest: number;
  /** Runs the dispatches that `record` records, and nothing else, and tells how many milliseconds they took. */
  milliseconds(record: (recorder: Recorder) => void): Promise<number>;
  /** Frees what it holds on the device. */
  destroy(): void;
}

/** A stopwatch for this device. */
export function createStopwatch(gpu: Gpu): Stopwatch {
  return gpu.device.features.has("timestamp-query") ? deviceClock(gpu) : wallClock(gpu);
}

const OPERATION = "measuring a kernel";

function wallClock(gpu: Gpu): Stopwatch {
  return {
    shortest: 500,
    async milliseconds(record) {
      await gpu.sync();
      const started = performance.now();
      gpu.submit(OPERATION, record);
      await gpu.sync();
      return performance.now() - started;
    },
    destroy() {},
  };
}

function deviceClock(gpu: Gpu): Stopwatch {
  const { device } = gpu;
  const querySet = device.createQuerySet({ type: "timestamp", count: 2 });
  const buffer = device.createBuffer({
    label: "time stamps",
    size: 16,
    usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
  });
  const stamps: Tensor = {
    label: "time stamps",
    shape: [4],
    type: "u32",
    length: 4,
    byteLength: 16,
    buffer,
    offset: 0,
  };
  return {
    shortest: 1,
    async milliseconds(record) {
      gpu.submit(OPERATION, record, { querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 });
      const encoder = device.createCommandEncoder({ label: "time stamps" });
      encoder.resolveQuerySet(querySet, 0, 2, buffer, 0);
      device.queue.submit([encoder.finish()]);
      const words = await gpu.readUint32(stamps);
      const [begin, end] = new BigUint64Array(words.buffer);
      return Number(end - begin) / 1e6;
    },
    destroy() {
      querySet.destroy();
      buffer.destroy();
    },
  };
}
