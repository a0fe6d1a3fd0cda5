/**
 * Records dispatches and copies into one command buffer. Dispatches share a compute pass, in which each sees what the
 * ones before it wrote; a copy ends the pass and the next dispatch opens another.
 *
 * @module
 */
import type { Bindings, Kernel } from "./kernel.ts";
import type { Device } from "./device.ts";
import { checkTensor, elementBytes, type Tensor } from "./tensor.ts";

/** Workgroups along x, y and z. */
export type Grid = readonly [number, number?, number?];

/** WebGPU's portable limit on workgroups along one axis. */
export const MAX_WORKGROUPS = 65535;

/** Workgroups for `count` invocations that loop with a stride of the whole grid when there are too many. */
export function linearGrid(count: number, workgroupSize: number): Grid {
  return [Math.min(Math.ceil(count / workgroupSize), MAX_WORKGROUPS)];
}

/** Made by {@link Gpu.submit}. */
export class Recorder {
  readonly #encoder: GPUCommandEncoder;
  #pass: GPUComputePassEncoder | undefined;
  /** When set, the next pass notes when it begins. */
  #begins: GPUComputePassTimestampWrites | undefined;

  /**
   * Begins a command buffer.
   *
   * @param timestampWrites where the device notes when what is recorded begins and ends
   */
  constructor(
    private readonly device: Device,
    label: string,
    private readonly timestampWrites?: GPUComputePassTimestampWrites,
  ) {
    this.#encoder = device.device.createCommandEncoder({ label });
    if (timestampWrites) {
      const { querySet, beginningOfPassWriteIndex } = timestampWrites;
      this.#begins = { querySet, beginningOfPassWriteIndex };
      this.#openPass();
    }
  }

  /**
   * Runs the kernel over `grid` workgroups with its variables bound to tensors by name.
   *
   * @throws {RangeError} when there are too many along an axis
   */
  dispatch(kernel: Kernel, bindings: Bindings, grid: Grid): void {
    if (grid.some((count = 1) => count > MAX_WORKGROUPS)) {
      throw new RangeError(
        `Cannot run ${kernel.label} as a grid holds ${MAX_WORKGROUPS} workgroups along an axis: ${
          grid.join(" x ")
        }`,
      );
    }
    const { group, shadows } = kernel.bind(bindings);
    for (const { shadow, tensor } of shadows) {
      if (!shadow.stale) continue;
      this.#endPass();
      this.device.textures.refresh(this.#encoder, shadow, tensor);
    }
    const pass = this.#openPass();
    pass.setPipeline(kernel.pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(grid[0], grid[1] ?? 1, grid[2] ?? 1);
    kernel.wrote(bindings);
  }

  /**
   * Copies `source` over `target` from its element `start` on.
   *
   * @throws {RangeError} when it would end past the target, or they have elements of another type
   */
  copy(source: Tensor, target: Tensor, start = 0): void {
    if (source.type !== target.type) {
      throw new RangeError(
        `Cannot copy ${source.label} to ${target.label} as its elements are ${target.type}: ${source.type}`,
      );
    }
    if (start + source.length > target.length) {
      throw new RangeError(
        `Cannot copy ${source.label} to ${target.label} as its length is ${target.length}: ${start} + ${source.length}`,
      );
    }
    for (const tensor of [source, target]) checkTensor(tensor);
    this.#endPass();
    this.device.textures.written(target.buffer);
    this.#encoder.copyBufferToBuffer(
      source.buffer,
      source.offset,
      target.buffer,
      target.offset + elementBytes(target.type) * start,
      source.byteLength,
    );
  }

  /** Copies the tensor to a plain buffer from byte `at` on, such as one that is mapped for reading afterwards. */
  copyToBuffer(source: Tensor, target: GPUBuffer, at = 0): void {
    checkTensor(source);
    this.#endPass();
    this.device.textures.written(target);
    this.#encoder.copyBufferToBuffer(source.buffer, source.offset, target, at, source.byteLength);
  }

  /** Sets every element to zero. */
  clear(tensor: Tensor): void {
    checkTensor(tensor);
    this.#endPass();
    this.device.textures.written(tensor.buffer);
    this.#encoder.clearBuffer(tensor.buffer, tensor.offset, tensor.byteLength);
  }

  #openPass(): GPUComputePassEncoder {
    this.#pass ??= this.#encoder.beginComputePass({ timestampWrites: this.#begins });
    this.#begins = undefined;
    return this.#pass;
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = undefined;
  }

  /** The command buffer with everything recorded. */
  finish(): GPUCommandBuffer {
    this.#endPass();
    if (this.timestampWrites) {
      // A pass of its own: which of those with dispatches is the last is not known when it begins.
      const { querySet, endOfPassWriteIndex } = this.timestampWrites;
      this.#begins = { querySet, endOfPassWriteIndex };
      this.#openPass();
      this.#endPass();
    }
    return this.#encoder.finish();
  }
}
