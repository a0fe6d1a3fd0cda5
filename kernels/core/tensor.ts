/**
 * Tensors: a typed region of a device buffer with a name and a shape. They hold no logic of their own; operations
 * take them as named inputs and outputs.
 *
 * @module
 */
import { freed, madeFor } from "./all_or_nothing.ts";
import type { Device } from "./device.ts";
import { INT8_BLOCK, scaleRows } from "./int8.ts";

/**
 * The element types that kernels use: four bytes each, two for `f16` and one for `int8`, in which only storage is: kernels
 * compute with float32 (half.ts, int8.ts).
 */
export type ElementType = "f32" | "u32" | "f16" | "int8";

/** Bytes of one element. */
export function elementBytes(type: ElementType): 1 | 2 | 4 {
  return type === "int8" ? 1 : type === "f16" ? 2 : 4;
}

/** A region of a device buffer. The last axis is the fastest. */
export interface Tensor {
  /** Name in error messages. */
  readonly label: string;
  /** Sizes of the axes, from slowest to fastest. */
  readonly shape: readonly number[];
  /** Of its elements. */
  readonly type: ElementType;
  /** Number of elements. */
  readonly length: number;
  /** Bytes of its elements. */
  readonly byteLength: number;
  /** The buffer that it is a region of. */
  readonly buffer: GPUBuffer;
  /** Bytes from the start of the buffer. */
  readonly offset: number;
  /** Of an int8 matrix [rows, columns]: its scales [⌈rows / 128⌉, columns], f32. */
  readonly scales?: Tensor;
}

/** Every binding's offset must be a multiple of this many bytes (WebGPU's portable limit). */
export const BINDING_ALIGNMENT = 256;

/** Creates the buffer behind `gpu.tensor`. */
export function createTensor(
  gpu: Device,
  label: string,
  shape: readonly number[],
  type: ElementType,
): Tensor {
  if (type === "int8") return createInt8(gpu, label, shape);
  return createOne(gpu, label, shape, type);
}

/** A matrix and its scales. */
function createInt8(gpu: Device, label: string, shape: readonly number[]): Tensor {
  if (shape.length !== 2) {
    throw new RangeError(`Cannot create tensor ${label} as int8 is for matrices: [${shape.join(", ")}]`);
  }
  const [rowCount, columns] = shape;
  const matrix = createOne(gpu, label, shape, "int8");
  return { ...matrix, scales: createOne(gpu, `scales of ${label}`, [scaleRows(rowCount), columns], "f32") };
}

/** Elements of a shape, the product of its axes. */
export function elementsOf(shape: readonly number[]): number {
  return shape.reduce((product, axis) => product * axis, 1);
}

function createOne(gpu: Device, label: string, shape: readonly number[], type: ElementType): Tensor {
  const length = elementsOf(shape);
  if (!Number.isSafeInteger(length) || length < 1) {
    throw new RangeError(
      `Cannot create tensor ${label} as its axes must be positive integers: [${shape.join(", ")}]`,
    );
  }
  const byteLength = elementBytes(type) * length;
  if (byteLength > gpu.device.limits.maxBufferSize) {
    throw new RangeError(
      `Cannot create tensor ${label} as the adapter's buffers hold ${gpu.device.limits.maxBufferSize} bytes: ${byteLength}`,
    );
  }
  return madeFor(label, (): Tensor => {
    const buffer = gpu.device.createBuffer({
      label,
      size: Math.ceil(byteLength / 16) * 16,
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    });
    gpu.allocatedBytes += byteLength;
    return { label, shape, type, length, byteLength, buffer, offset: 0 };
  }, (tensor) => destroyTensor(gpu, tensor));
}

const destroyed = new WeakSet<GPUBuffer>();

/**
 * To be called before a tensor is used: WebGPU would refuse it later, under another name, and fail its whole device.
 *
 * @throws {RangeError} when it was destroyed
 */
export function checkTensor({ label, buffer }: Tensor): void {
  if (!destroyed.has(buffer)) return;
  throw new RangeError(
    `Cannot use the tensor ${label} as it was destroyed, or the network, engine or model that it is of`,
  );
}

/** Frees the tensor's buffer, and what kernels keep of it. A second call does nothing. */
export function destroyTensor(gpu: Device, tensor: Tensor): void {
  if (destroyed.has(tensor.buffer)) return;
  destroyed.add(tensor.buffer);
  if (tensor.scales) destroyTensor(gpu, tensor.scales);
  gpu.allocatedBytes -= tensor.byteLength;
  gpu.bindGroups.drop(tensor.buffer);
  gpu.textures.drop(tensor.buffer);
  tensor.buffer.destroy();
  freed(tensor.buffer);
}

/**
 * Rows `start` to `start + count` of a tensor's first axis, on the same buffer.
 *
 * @throws {RangeError} when the first byte is not aligned as bindings must be, or the rows are not there
 */
export function rows(tensor: Tensor, start: number, count: number): Tensor {
  const [total, ...rest] = tensor.shape;
  const rowLength = tensor.length / total;
  const offset = tensor.offset + elementBytes(tensor.type) * start * rowLength;
  if (start < 0 || count < 1 || start + count > total) {
    throw new RangeError(
      `Cannot slice ${tensor.label} as it has ${total} rows: ${start} to ${start + count}`,
    );
  }
  if (offset % BINDING_ALIGNMENT !== 0) {
    throw new RangeError(
      `Cannot slice ${tensor.label} as bindings start at multiples of ${BINDING_ALIGNMENT} bytes: ${offset}`,
    );
  }
  const length = count * rowLength;
  const label = `${tensor.label}[${start}:${start + count}]`;
  if (tensor.scales && start % INT8_BLOCK !== 0) {
    throw new RangeError(
      `Cannot slice ${tensor.label} as its scales are of ${INT8_BLOCK} rows each: from ${start} on`,
    );
  }
  return {
    ...tensor,
    ...(tensor.scales && { scales: rows(tensor.scales, start / INT8_BLOCK, scaleRows(count)) }),
    label,
    shape: [count, ...rest],
    length,
    byteLength: elementBytes(tensor.type) * length,
    offset,
  };
}

/** The tensor under another shape of the same length. */
export function reshape(tensor: Tensor, shape: readonly number[]): Tensor {
  const length = elementsOf(shape);
  if (length !== tensor.length) {
    throw new RangeError(
      `Cannot reshape ${tensor.label} of [${tensor.shape.join(", ")}] to [${shape.join(", ")}]`,
    );
  }
  return { ...tensor, shape };
}

/**
 * A tensor of another name, shape and type over the first elements of `tensor`'s region, for tensors that take turns in it.
 *
 * @throws {RangeError} when it is larger than the region
 */
export function within(
  tensor: Tensor,
  label: string,
  shape: readonly number[],
  type: ElementType = "f32",
): Tensor {
  const length = elementsOf(shape);
  const byteLength = elementBytes(type) * length;
  if (byteLength > tensor.byteLength) {
    throw new RangeError(
      `Cannot place ${label} in ${tensor.label} as that has ${tensor.byteLength} bytes: ${byteLength}`,
    );
  }
  return { ...tensor, label, shape, type, length, byteLength };
}

/** A run of consecutive rows that fits one binding. */
export interface Slice {
  start: number;
  count: number;
}

/**
 * Cuts the rows of a matrix into as few runs as fit `maxBindingBytes` each, every run starting at an aligned byte and
 * at a multiple of four rows, so that the rows may be columns of a product read four at a time.
 *
 * @param rowCount rows of the matrix
 * @param rowLength elements in a row
 * @param stored bytes of the smallest and the largest element that the matrix is stored in anywhere; and what every run
 * must start at a multiple of, 4 or one of its multiples
 */
export function slicesOf(
  rowCount: number,
  rowLength: number,
  maxBindingBytes: number,
  { smallest = 4, largest = 4, multiple = 4 }: {
    smallest?: number;
    largest?: number;
    multiple?: number;
  } = {},
): Slice[] {
  const rowBytes = largest * rowLength;
  let step = multiple;
  while ((step * smallest * rowLength) % BINDING_ALIGNMENT !== 0) step += multiple;
  let count = Math.floor(maxBindingBytes / rowBytes);
  if (count < rowCount) count = Math.floor(count / step) * step;
  if (count < 1) {
    throw new RangeError(`Cannot slice rows of ${rowBytes} bytes into bindings of ${maxBindingBytes} bytes`);
  }
  const slices: Slice[] = [];
  for (let start = 0; start < rowCount; start += count) {
    slices.push({ start, count: Math.min(count, rowCount - start) });
  }
  return slices;
}
