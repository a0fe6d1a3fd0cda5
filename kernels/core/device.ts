/**
 * The device: opened once, with every limit it needs asked for by name, and with every asynchronous failure turned
 * into an exception that names the operation under way. It knows nothing of what is built on it: tensors, kernels,
 * recorders; {@link Gpu} joins them.
 *
 * @module
 */
import { BindGroups } from "./bind_groups.ts";

/** No adapter could be had, or it lacks something we cannot do without. */
export class AdapterError extends Error {
  /** For telling it apart where classes do not reach. */
  override name = "AdapterError";
}

/** The device failed: lost, out of memory, or an operation it refused. The message names the operation. */
export class DeviceError extends Error {
  /** For telling it apart where classes do not reach. */
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
  /** As WebGPU says it; may be empty. */
  vendor: string;
  /** As WebGPU says it; may be empty. */
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

/** What a {@link Device} is made of. */
export interface OpenedDevice {
  /** WebGPU's own object. */
  device: GPUDevice;
  /** What it is a device of. */
  adapter: AdapterDescription;
  /** Largest number of bytes one storage binding may hold. */
  maxBindingBytes: number;
}

/**
 * Opens the machine's high-performance adapter.
 *
 * @param options `maxBindingBytes` lowers the binding size below the adapter's own, to test slicing.
 * @throws {AdapterError} when there is no adapter or it refuses a device; the message says what to install.
 */
export async function openDevice(options: { maxBindingBytes?: number } = {}): Promise<OpenedDevice> {
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
  return { device, adapter: { name, vendor, architecture, software }, maxBindingBytes };
}

/** An open device with its limits, what is kept for it, and what went wrong on it. */
export class Device {
  /** WebGPU's own object. */
  readonly device: GPUDevice;
  /** What it is a device of. */
  readonly adapter: AdapterDescription;
  /** Largest number of bytes one storage binding may hold; larger tensors are bound in slices. */
  readonly maxBindingBytes: number;
  /** Pipelines by label and source; filled by `compile` in kernel.ts. */
  readonly pipelines: Map<string, Promise<unknown>> = new Map();
  /** What kernels were bound to; filled by {@link Kernel.bind}, without the groups of destroyed buffers. */
  readonly bindGroups: BindGroups = new BindGroups();
  /** Bytes of every tensor and uniform that was created and not destroyed. */
  allocatedBytes = 0;
  #failure: DeviceError | undefined;
  #closed = false;

  /** Use {@link Gpu.open}. */
  protected constructor({ device, adapter, maxBindingBytes }: OpenedDevice) {
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

  #fail(operation: string, error: { message: string }): void {
    const failed = `Cannot complete ${operation} on ${this.adapter.name}`;
    this.#failure ??= error instanceof GPUOutOfMemoryError
      ? new OutOfMemoryError(`${failed}: out of device memory`)
      : new DeviceError(`${failed}: ${error.message.trim()}`);
  }

  /**
   * Runs `work`, which may not wait, and keeps what the device says against it under the operation's name, for the next
   * {@link Device.check} after a wait.
   */
  protected scoped<Result>(operation: string, work: () => Result): Result {
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

  /** Waits until everything submitted so far is done. */
  async sync(): Promise<void> {
    await this.device.queue.onSubmittedWorkDone();
    this.check();
  }

  /** Destroys the device and everything on it. */
  close(): void {
    this.#closed = true;
    this.device.destroy();
  }
}
