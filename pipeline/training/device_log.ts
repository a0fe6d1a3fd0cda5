/**
 * Small results read back without waiting: each step copies its tensors into one row of a buffer on the device, and
 * full buffers are mapped while later steps run.
 *
 * @module
 */
import { DeviceError } from "../../kernels/core/device.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import { destroyTensor, type Tensor } from "../../kernels/core/tensor.ts";

/** One row as read back: the values of each source by name. */
export type LogRow<Name extends string> = { step: number } & Record<Name, Float32Array>;

/** A log of the named tensors, one row a step. */
export interface DeviceLog<Name extends string> {
  /** Copies the sources' present values into the next row. */
  record(recorder: Recorder, step: number): void;
  /**
   * Starts reading the rows recorded since the last call, and returns those whose reading is done. Waits only for the
   * reading before last, which bounds how far the host runs ahead of the device.
   */
  poll(): Promise<LogRow<Name>[]>;
  /** Waits for every recorded row. */
  drain(): Promise<LogRow<Name>[]>;
  /** Rows recorded and not yet handed to a reading. */
  readonly waiting: number;
  /** Rows that fit before {@link DeviceLog.poll} must be called. */
  readonly capacity: number;
  /** Frees the log's rows; what is being read then still arrives. */
  destroy(): void;
}

/** Creates a log of `sources` with room for `capacity` steps between two polls. */
export function createDeviceLog<Name extends string>(
  gpu: Gpu,
  sources: Record<Name, Tensor>,
  capacity: number,
): DeviceLog<Name> {
  const names = Object.keys(sources) as Name[];
  const starts = new Map<Name, number>();
  let rowLength = 0;
  for (const name of names) {
    starts.set(name, rowLength);
    rowLength += sources[name].length;
  }
  const rows = gpu.tensor("device log", [capacity, rowLength]);
  let steps: number[] = [];
  const readings: Promise<LogRow<Name>[]>[] = [];

  async function valuesOf(staging: GPUBuffer): Promise<Float32Array> {
    try {
      await staging.mapAsync(GPUMapMode.READ);
      return new Float32Array(staging.getMappedRange().slice(0));
    } catch (error) {
      // Why it failed, such as a lost device, is told by promises that settle after this one.
      await new Promise((resolve) => setTimeout(resolve));
      gpu.check();
      throw new DeviceError(`Cannot read the device log: ${(error as Error).message}`);
    }
  }

  async function read(recorded: number[]): Promise<LogRow<Name>[]> {
    const staging = gpu.device.createBuffer({
      label: "device log staging",
      size: rows.byteLength,
      usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
    });
    let values: Float32Array;
    try {
      gpu.submit("reading the device log", (recorder) => recorder.copyToBuffer(rows, staging));
      values = await valuesOf(staging);
    } finally {
      staging.destroy();
    }
    return recorded.map((step, row) => {
      const result = { step } as LogRow<Name>;
      for (const name of names) {
        const at = row * rowLength + starts.get(name)!;
        Object.assign(result, { [name]: values.subarray(at, at + sources[name].length) });
      }
      return result;
    });
  }

  function start(): void {
    if (steps.length === 0) return;
    const reading = read(steps);
    // A failure is thrown where the reading is awaited; until then it must not count as unhandled.
    reading.catch(() => {});
    readings.push(reading);
    steps = [];
  }

  return {
    capacity,
    get waiting() {
      return steps.length;
    },
    record(recorder, step) {
      if (steps.length === capacity) {
        throw new RangeError(`Cannot log step ${step} as ${capacity} rows wait: poll first`);
      }
      for (const name of names) {
        recorder.copy(sources[name], rows, steps.length * rowLength + starts.get(name)!);
      }
      steps.push(step);
    },
    async poll() {
      start();
      const done: LogRow<Name>[] = [];
      while (readings.length > 1) done.push(...await readings.shift()!);
      return done;
    },
    async drain() {
      start();
      const done: LogRow<Name>[] = [];
      while (readings.length > 0) done.push(...await readings.shift()!);
      return done;
    },
    destroy: () => destroyTensor(gpu, rows),
  };
}
