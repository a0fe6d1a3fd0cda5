/**
 * Records dispatches and copies into one command buffer. Dispatches share a compute pass, in which each sees what the
 * ones before it wrote; a copy ends the pass and the next dispatch opens another.
 *
 * @module
 */
import type { Bindings, Kernel } from "./kernel.ts";
import { elementBytes, type Tensor } from "./tensor.ts";

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

  /**
   * Begins a command buffer.
   *
   * @param timestampWrites where the device notes when the dispatches begin and end; nothing may then be copied
   */
  constructor(
    device: GPUDevice,
    label: string,
    private readonly timestampWrites?: GPUComputePassTimestampWrites,
  ) {
    this.#encoder = device.createCommandEncoder({ label });
  }

  /** Runs the kernel over `grid` workgroups with its variables bound to tensors by name. */
  dispatch(kernel: Kernel, bindings: Bindings, grid: Grid): void {
    this.#pass ??= this.#encoder.beginComputePass({ timestampWrites: this.timestampWrites });
    this.#pass.setPipeline(kernel.pipeline);
    this.#pass.setBindGroup(0, kernel.bind(bindings));
    this.#pass.dispatchWorkgroups(grid[0], grid[1] ?? 1, grid[2] ?? 1);
  }

  /**
   * Copies `source` over `target` from its element `start` on.
   *
   * @throws {RangeError} when it would end past the target
   */
  copy(source: Tensor, target: Tensor, start = 0): void {
    if (start + source.length > target.length) {
      throw new RangeError(
        `Cannot copy ${source.label} to ${target.label} as its length is ${target.length}: ${start} + ${source.length}`,
      );
    }
    this.#endPass();
    this.#encoder.copyBufferToBuffer(
      source.buffer,
      source.offset,
      target.buffer,
      target.offset + elementBytes(target.type) * start,
      source.byteLength,
    );
  }

  /** Copies the tensor to the start of a plain buffer, such as one that is mapped for reading afterwards. */
  copyToBuffer(source: Tensor, target: GPUBuffer): void {
    this.#endPass();
    this.#encoder.copyBufferToBuffer(source.buffer, source.offset, target, 0, source.byteLength);
  }

  /** Sets every element to zero. */
  clear(tensor: Tensor): void {
    this.#endPass();
    this.#encoder.clearBuffer(tensor.buffer, tensor.offset, tensor.byteLength);
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = undefined;
  }

  /** The command buffer with everything recorded. */
  finish(): GPUCommandBuffer {
    this.#endPass();
    return this.#encoder.finish();
  }
}
