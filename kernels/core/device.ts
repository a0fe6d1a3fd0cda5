/**
 * The device: opened once, with every limit it needs asked for by name, and with every asynchronous failure turned
 * into an exception that names the operation under way. It knows nothing of what is built on it: tensors, kernels,
 * recorders; {@link Gpu} joins them.
 *
 * @module
 */
import { type AdapterDescription, AdapterError, findAdapter } from "./gpu_adapters.ts";
import { BindGroups } from "./bind_groups.ts";
import { NO_TEXTURES, type TextureLimits, textureLimits, Textures } from "./textures.ts";

/** The device failed: lost, out of memory, or an operation it refused. The message names the operation. */
export class DeviceError extends Error {
  /** For telling it apart where classes do not reach. */
  override name = "DeviceError";
}

/** The device had not enough memory for an operation. */
export class OutOfMemoryError extends DeviceError {
  override name = "OutOfMemoryError";
}

const WANTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;
/** Of a CPU driver, whose kernels read by texture (textures.ts). */
const CPU_LIMITS = [...WANTED_LIMITS, "maxStorageTexturesPerShaderStage"] as const;

/** What a {@link Device} is made of. */
export interface OpenedDevice {
  /** WebGPU's own object. */
  device: GPUDevice;
  /** What it is a device of. */
  adapter: AdapterDescription;
  /** Largest number of bytes one storage binding may hold. */
  maxBindingBytes: number;
  /** Lanes of a CPU driver's vectors, which are its subgroups; undefined where they are not known, and on a GPU. */
  lanes: number | undefined;
  /** What its kernels can read by texture: nothing on a GPU. */
  textureLimits: TextureLimits;
}

/** How a device is opened. */
export interface DeviceOptions {
  /** Which adapter, as {@link findAdapter} takes it: a part of its name, or its number; left out: the fastest. */
  adapter?: string;
  /** Lowers the binding size below the adapter's own, to test slicing. */
  maxBindingBytes?: number;
  /** False leaves a CPU driver's subgroups out, to test what adapters without known ones do. */
  subgroups?: boolean;
  /** Of a CPU driver that can read less by texture than this one, to test what is done there. */
  textureLimits?: TextureLimits;
}

/**
 * Opens an adapter.
 *
 * @throws {AdapterError} when there is no adapter, none such, or it refuses a device; the message says what to install,
 * or which there are
 */
export async function openDevice(options: DeviceOptions = {}): Promise<OpenedDevice> {
  for (let left = ATTEMPTS - 1; left > 0; left--) {
    try {
      return await openOnce(options);
    } catch (error) {
      if (!(error instanceof RefusedError)) throw error;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
  return await openOnce(options);
}

/** An adapter was there and refused a device. */
class RefusedError extends AdapterError {}

/**
 * How often a device is asked for, and the time between. Of fourteen processes that opened an H100 at one moment one got
 * OpenGL's adapter instead of Vulkan's, and that one no device.
 */
const [ATTEMPTS, PAUSE_MS] = [3, 250];

async function openOnce(options: DeviceOptions): Promise<OpenedDevice> {
  const { adapter, description } = await findAdapter(options.adapter);
  const requiredLimits: Record<string, number> = {};
  for (const limit of description.software ? CPU_LIMITS : WANTED_LIMITS) {
    requiredLimits[limit] = adapter.limits[limit] as number;
  }
  const { subgroupMinSize, subgroupMaxSize } = adapter.info;
  const requiredFeatures: GPUFeatureName[] = adapter.features.has("timestamp-query")
    ? ["timestamp-query"]
    : [];
  const request = (...more: GPUFeatureName[]) =>
    adapter.requestDevice({ requiredLimits, requiredFeatures: [...requiredFeatures, ...more] });
  let device: GPUDevice;
  try {
    // Deno does not list this feature among an adapter's, but gives it to who asks.
    device = description.software && subgroupMinSize === subgroupMaxSize && options.subgroups !== false
      ? await request("subgroups").catch(() => request())
      : await request();
  } catch (error) {
    throw new RefusedError(
      `Cannot open a device on ${description.name}: ${(error as Error).message}`,
    );
  }
  const lanes = device.features.has("subgroups") ? subgroupMaxSize : undefined;
  const portable = Math.min(device.limits.maxStorageBufferBindingSize, device.limits.maxBufferSize);
  const maxBindingBytes = Math.min(options.maxBindingBytes ?? portable, portable);
  return {
    device,
    adapter: description,
    maxBindingBytes,
    lanes,
    textureLimits: description.software ? options.textureLimits ?? await textureLimits(device) : NO_TEXTURES,
  };
}

/** An open device with its limits, what is kept for it, and what went wrong on it. */
export class Device {
  /** WebGPU's own object. */
  readonly device: GPUDevice;
  /** What it is a device of. */
  readonly adapter: AdapterDescription;
  /** Largest number of bytes one storage binding may hold; larger tensors are bound in slices. */
  readonly maxBindingBytes: number;
  /** Lanes of a CPU driver's vectors, which are its subgroups; undefined where they are not known, and on a GPU. */
  readonly lanes: number | undefined;
  /** Pipelines by label and source; filled by `compile` in kernel.ts. */
  readonly pipelines: Map<string, Promise<unknown>> = new Map();
  /** What kernels were bound to; filled by {@link Kernel.bind}, without the groups of destroyed buffers. */
  readonly bindGroups: BindGroups = new BindGroups();
  /** What a CPU driver's kernels read by texture. */
  readonly textures: Textures;
  /** What kernels can read by texture: nothing on a GPU. */
  readonly textureLimits: TextureLimits;
  /** Bytes of every tensor and uniform that was created and not destroyed. */
  allocatedBytes = 0;
  #failure: DeviceError | undefined;
  #closed = false;

  /** Use {@link Gpu.open}. */
  protected constructor({ device, adapter, maxBindingBytes, lanes, textureLimits }: OpenedDevice) {
    this.device = device;
    this.adapter = adapter;
    this.maxBindingBytes = maxBindingBytes;
    this.lanes = lanes;
    this.textureLimits = textureLimits;
    this.textures = new Textures(device, (texture) => this.bindGroups.drop(texture));
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
    // What was written waits in memory of its own until something is submitted.
    this.device.queue.submit([]);
    await this.device.queue.onSubmittedWorkDone();
    this.check();
  }

  /** Destroys the device and everything on it. What is still at work on it goes on in the driver for as long as it takes. */
  close(): void {
    this.#closed = true;
    this.device.destroy();
  }

  /**
   * Waits for what is at work, destroys the device and waits until that is done: a process that ends while its driver is at
   * work may be ended by a signal.
   */
  async end(): Promise<void> {
    // Of one that is lost nothing more is heard.
    const done = this.device.queue.onSubmittedWorkDone().catch(() => {});
    await Promise.race([done, this.device.lost]);
    this.close();
    await this.device.lost;
  }
}
