/**
 * A device with all that is done on it: tensors made, written and read, work recorded and submitted.
 *
 * @module
 */
import { Device, DeviceError, type DeviceOptions, openDevice } from "./device.ts";
import { dequantise, INT8_BLOCK, quantise } from "./int8.ts";
import { Recorder } from "./recorder.ts";
import { checkTensor, createTensor, elementBytes, type ElementType, type Tensor } from "./tensor.ts";

/** Compiled candidates with what they compute on. */
export interface Contest {
  /** By name: records dispatches, and nothing else. */
  candidates: ReadonlyMap<string, (recorder: Recorder) => void>;
  /** Frees what they compute on. */
  destroy(): void;
}

/** Measures, and remembers. */
export interface Tuner {
  /**
   * The name of the fastest candidate for `key`: as remembered, else measured now.
   *
   * @param names the candidates
   * @param prepare called where they must be measured; gives undefined where they cannot be
   * @returns undefined when it is not known and cannot be measured, or the time for measuring is used up
   */
  choose(
    gpu: Gpu,
    key: string,
    names: readonly string[],
    prepare: () => Promise<Contest | undefined>,
  ): Promise<string | undefined>;
}

/** An open device, with its way to submit work and read results. */
export class Gpu extends Device {
  /** Chooses between variants of kernels by measuring; without one they are chosen by rule. */
  tuner: Tuner | undefined;
  /** What is being recorded. */
  #recording: string | undefined;

  /**
   * Opens the machine's high-performance adapter, or another.
   *
   * @throws {AdapterError} when there is no adapter, none such, or it refuses a device; the message says what to install,
   * or which there are
   */
  static async open(options: DeviceOptions = {}): Promise<Gpu> {
    return new Gpu(await openDevice(options));
  }

  /**
   * A new tensor of zeros.
   *
   * @param label name in error messages
   * @param shape axes from slowest to fastest
   * @throws {DeviceError} when it is larger than a buffer can be
   */
  tensor(label: string, shape: readonly number[], type: ElementType = "f32"): Tensor {
    return this.scoped(`allocating ${label}`, () => createTensor(this, label, shape, type));
  }

  /**
   * Writes `data` to the tensor's elements from `start` on, in order with later submissions. Of an f16 tensor an even
   * number, from an even one on; of an int8 one whole rows, from the first of a block on.
   */
  write(tensor: Tensor, data: Float32Array | Uint32Array, start = 0): void {
    if (start + data.length > tensor.length) {
      throw new RangeError(
        `Cannot write ${tensor.label} as its length is ${tensor.length}: ${start} + ${data.length} elements`,
      );
    }
    this.#refuseWhileRecording(`writing ${tensor.label}`);
    checkTensor(tensor);
    this.textures.written(tensor.buffer);
    const stored = tensor.type === "f16"
      ? Float16Array.from(data)
      : tensor.type === "int8"
      ? this.#writeScales(tensor, data as Float32Array, start)
      : data;
    this.device.queue.writeBuffer(
      tensor.buffer,
      tensor.offset + elementBytes(tensor.type) * start,
      stored.buffer as ArrayBuffer,
      stored.byteOffset,
      stored.byteLength,
    );
  }

  /** Writes the scales of elements of an int8 matrix from `start` on, and returns what is stored of these. */
  #writeScales(tensor: Tensor, data: Float32Array, start: number): Int8Array {
    const [, columns] = tensor.shape;
    const block = INT8_BLOCK * columns;
    if (start % block !== 0 || data.length % columns !== 0) {
      throw new RangeError(
        `Cannot write ${tensor.label} as int8 is written by rows of ${columns} in blocks of ${INT8_BLOCK}: ` +
          `${start} + ${data.length} elements`,
      );
    }
    const { values, scales } = quantise(data, data.length / columns, columns);
    this.write(tensor.scales!, scales, start / block * columns);
    return values;
  }

  /**
   * Records with `record` and submits what it recorded. `operation` names the work in any error it causes. Nothing may be
   * written or submitted while it records: that would come before what is being recorded.
   *
   * @param timestampWrites where the device notes when dispatches, which must then be all there is, begin and end
   */
  submit(
    operation: string,
    record: (recorder: Recorder) => void,
    timestampWrites?: GPUComputePassTimestampWrites,
  ): void {
    this.check();
    this.#refuseWhileRecording(operation);
    this.#recording = operation;
    try {
      this.scoped(operation, () => {
        const recorder = new Recorder(this, operation, timestampWrites);
        record(recorder);
        this.device.queue.submit([recorder.finish()]);
      });
    } catch (error) {
      // Copies that were recorded are never made.
      this.textures.expire();
      throw error;
    } finally {
      this.#recording = undefined;
      this.textures.submitted();
    }
  }

  #refuseWhileRecording(operation: string): void {
    if (this.#recording === undefined) return;
    throw new RangeError(
      `Cannot start ${operation} while ${this.#recording} is being recorded, as it would come before that`,
    );
  }

  /**
   * The tensor's elements, or `length` of them (all that are left, where left out) from `start` on, after all submitted
   * work; of an int8 one by fours. Waits for the device: not for use inside a step.
   */
  async read(tensor: Tensor, start = 0, length?: number): Promise<Float32Array> {
    const bytes = await this.#readBytes(tensor, start, length ?? tensor.length - start);
    if (tensor.type === "int8") {
      const scales = await this.read(tensor.scales!);
      return dequantise(new Int8Array(bytes), scales, tensor.shape[1], start);
    }
    return tensor.type === "f16" ? Float32Array.from(new Float16Array(bytes)) : new Float32Array(bytes);
  }

  /** As {@link Gpu.read}, for a tensor of unsigned integers. */
  async readUint32(tensor: Tensor): Promise<Uint32Array> {
    return new Uint32Array(await this.#readBytes(tensor, 0, tensor.length));
  }

  async #readBytes(tensor: Tensor, first: number, length: number): Promise<ArrayBuffer> {
    this.check();
    checkTensor(tensor);
    if (first < 0 || length < 0 || first + length > tensor.length) {
      throw new RangeError(
        `Cannot read ${tensor.label} as its length is ${tensor.length}: ${first} + ${length} elements`,
      );
    }
    const size = elementBytes(tensor.type);
    const result = new Uint8Array(size * length);
    const pieceBytes = Math.min(result.length, 64 << 20);
    const staging = this.device.createBuffer({
      label: `staging for ${tensor.label}`,
      size: pieceBytes,
      usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
    });
    try {
      for (let start = 0; start < result.length; start += pieceBytes) {
        const bytes = Math.min(pieceBytes, result.length - start);
        this.scoped(`reading ${tensor.label}`, () => {
          const encoder = this.device.createCommandEncoder();
          encoder.copyBufferToBuffer(tensor.buffer, tensor.offset + size * first + start, staging, 0, bytes);
          this.device.queue.submit([encoder.finish()]);
        });
        try {
          await staging.mapAsync(GPUMapMode.READ, 0, bytes);
          result.set(new Uint8Array(staging.getMappedRange(0, bytes)), start);
          staging.unmap();
        } catch (error) {
          // Why it failed, such as a lost device, is told by promises that settle after this one.
          await new Promise((resolve) => setTimeout(resolve));
          this.check();
          throw new DeviceError(`Cannot read ${tensor.label}: ${(error as Error).message}`);
        }
      }
    } finally {
      staging.destroy();
    }
    this.check();
    return result.buffer;
  }
}
