/**
 * The device: opened once, with every limit it needs asked for by name, and with every asynchronous failure turned
 * into an exception that names the operation under way.
 *
 * @module
 */
import { BindGroups } from "./bind_groups.ts";
import { Recorder } from "./recorder.ts";
import type { Tuner } from "./tuner.ts";
import { createTensor, elementBytes, type ElementType, type Tensor } from "./tensor.ts";

/** No adapter could be had, or it lacks something we cannot do without. */
export class AdapterError extends Error {
  override name = "AdapterError";
}

/** The device failed: lost, out of memory, or an operation it refused. The message names the operation. */
export class DeviceError extends Error {
  override name = "DeviceError";
}

/** The device had not enough memory for an operation. */
export class OutOfMemoryError extends DeviceError {
  override name = "OutOfMemoryError";
}

/** Which adapter the numbers come from; goes into every run's config.json. */
export interface AdapterDescription {
  /** For people, for example `llvmpipe (LLVM 15.0.6, 256 bits)`. */
  name: string;
  vendor: string;
  architecture: string;
  /** True for a CPU driver such as llvmpipe. */
  software: boolean;
}

const WANTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

const NO_ADAPTER = "Cannot open a GPU as WebGPU requires: no adapter was found. " +
  "Install your GPU's Vulkan driver, or the software driver (Debian: apt-get install mesa-vulkan-drivers libvulkan1).";

/** An open device with its limits, its pipelines (cached by source) and its way to submit work and read results. */
export class Gpu {
  readonly device: GPUDevice;
  readonly adapter: AdapterDescription;
  /** Largest number of bytes one storage binding may hold; larger tensors are bound in slices. */
  readonly maxBindingBytes: number;
  /** Pipelines by label and source; filled by `compile` in kernel.ts. */
  readonly pipelines: Map<string, Promise<unknown>> = new Map();
  /** What kernels were bound to; filled by {@link Kernel.bind}, without the groups of destroyed buffers. */
  readonly bindGroups: BindGroups = new BindGroups();
  /** Chooses between variants of kernels by measuring; without one they are chosen by rule. */
  tuner: Tuner | undefined;
  /** Bytes of every tensor and uniform that was created and not destroyed. */
  allocatedBytes = 0;
  #failure: DeviceError | undefined;
  #closed = false;

  private constructor(device: GPUDevice, adapter: AdapterDescription, maxBindingBytes: number) {
    this.device = device;
    this.adapter = adapter;
    this.maxBindingBytes = maxBindingBytes;
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      this.#fail("an operation", (event as GPUUncapturedErrorEvent).error);
    });
    device.lost.then((info) => {
      const message = `device lost (${info.reason || "unknown"}): ${info.message}`;
      if (!this.#closed) this.#fail("the run", { message });
    });
  }

  /**
   * Opens the machine's high-performance adapter.
   *
   * @param options `maxBindingBytes` lowers the binding size below the adapter's own, to test slicing.
   * @throws {AdapterError} when there is no adapter or it refuses a device; the message says what to install.
   */
  static async open(options: { maxBindingBytes?: number } = {}): Promise<Gpu> {
    const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) throw new AdapterError(NO_ADAPTER);
    const requiredLimits: Record<string, number> = {};
    for (const limit of WANTED_LIMITS) requiredLimits[limit] = adapter.limits[limit] as number;
    const requiredFeatures: GPUFeatureName[] = adapter.features.has("timestamp-query")
      ? ["timestamp-query"]
      : [];
    let device: GPUDevice;
    try {
      device = await adapter.requestDevice({ requiredLimits, requiredFeatures });
    } catch (error) {
      throw new AdapterError(
        `Cannot open a device on ${adapter.info.description}: ${(error as Error).message}`,
      );
    }
    const { description, vendor, architecture } = adapter.info;
    const name = description || vendor || "unknown adapter";
    const software = /llvmpipe|lavapipe|swiftshader|basic render/i.test(name);
    const portable = Math.min(device.limits.maxStorageBufferBindingSize, device.limits.maxBufferSize);
    const maxBindingBytes = Math.min(options.maxBindingBytes ?? portable, portable);
    return new Gpu(device, { name, vendor, architecture, software }, maxBindingBytes);
  }

  #fail(operation: string, error: { message: string }): void {
    const failed = `Cannot complete ${operation} on ${this.adapter.name}`;
    this.#failure ??= error instanceof GPUOutOfMemoryError
      ? new OutOfMemoryError(`${failed}: out of device memory`)
      : new DeviceError(`${failed}: ${error.message.trim()}`);
  }

  /**
   * Runs `work`, which may not wait, and keeps what the device says against it under the operation's name, for the next
   * {@link Gpu.check} after a wait.
   */
  #scoped<Result>(operation: string, work: () => Result): Result {
    const filters = ["validation", "out-of-memory", "internal"] as const;
    for (const filter of filters) this.device.pushErrorScope(filter);
    try {
      return work();
    } finally {
      for (const _ of filters) {
        this.device.popErrorScope().then((error) => error && this.#fail(operation, error), () => {});
      }
    }
  }

  /** Throws what went wrong on the device since it was opened, if anything did. */
  check(): void {
    if (this.#failure) throw this.#failure;
  }

  /**
   * A new tensor of zeros.
   *
   * @param label name in error messages
   * @param shape axes from slowest to fastest
   * @throws {DeviceError} when it is larger than a buffer can be
   */
  tensor(label: string, shape: readonly number[], type: ElementType = "f32"): Tensor {
    return this.#scoped(`allocating ${label}`, () => createTensor(this, label, shape, type));
  }

  /** Whether buffers of these sizes can be held at once beside what is there; they are given back. */
  async canHold(sizes: readonly number[]): Promise<boolean> {
    const buffers: GPUBuffer[] = [];
    this.device.pushErrorScope("out-of-memory");
    this.device.pushErrorScope("validation");
    for (const size of sizes) {
      buffers.push(
        this.device.createBuffer({ size: Math.ceil(size / 16) * 16, usage: GPUBufferUsage.STORAGE }),
      );
    }
    const errors = await Promise.all([this.device.popErrorScope(), this.device.popErrorScope()]);
    for (const buffer of buffers) buffer.destroy();
    return errors.every((error) => error === null);
  }

  /**
   * Writes `data` to the tensor's elements from `start` on, in order with later submissions. Of an f16 tensor an even
   * number, from an even one on.
   */
  write(tensor: Tensor, data: Float32Array | Uint32Array, start = 0): void {
    if (start + data.length > tensor.length) {
      throw new RangeError(
        `Cannot write ${tensor.label} as its length is ${tensor.length}: ${start} + ${data.length} elements`,
      );
    }
    const stored = tensor.type === "f16" ? Float16Array.from(data) : data;
    this.device.queue.writeBuffer(
      tensor.buffer,
      tensor.offset + elementBytes(tensor.type) * start,
      stored.buffer as ArrayBuffer,
      stored.byteOffset,
      stored.byteLength,
    );
  }

  /**
   * Records with `record` and submits what it recorded. `operation` names the work in any error it causes.
   *
   * @param timestampWrites where the device notes when dispatches, which must then be all there is, begin and end
   */
  submit(
    operation: string,
    record: (recorder: Recorder) => void,
    timestampWrites?: GPUComputePassTimestampWrites,
  ): void {
    this.check();
    this.#scoped(operation, () => {
      const recorder = new Recorder(this.device, operation, timestampWrites);
      record(recorder);
      this.device.queue.submit([recorder.finish()]);
    });
  }

  /** Waits until everything submitted so far is done. */
  async sync(): Promise<void> {
    await this.device.queue.onSubmittedWorkDone();
    this.check();
  }

  /**
   * The tensor's elements, or `length` of them from `start` on, after all submitted work. Waits for the device: not for
   * use inside a step.
   */
  async read(tensor: Tensor, start = 0, length = tensor.length - start): Promise<Float32Array> {
    const bytes = await this.#readBytes(tensor, start, length);
    return tensor.type === "f16" ? Float32Array.from(new Float16Array(bytes)) : new Float32Array(bytes);
  }

  /** As {@link Gpu.read}, for a tensor of unsigned integers. */
  async readUint32(tensor: Tensor): Promise<Uint32Array> {
    return new Uint32Array(await this.#readBytes(tensor, 0, tensor.length));
  }

  async #readBytes(tensor: Tensor, first: number, length: number): Promise<ArrayBuffer> {
    this.check();
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
        this.#scoped(`reading ${tensor.label}`, () => {
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

  /** Destroys the device and everything on it. */
  close(): void {
    this.#closed = true;
    this.device.destroy();
  }
}
