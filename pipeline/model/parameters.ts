/**
 * A model's parameters on the device, by their Hugging Face names.
 *
 * @module
 */
import { allOrNothing } from "../../kernels/core/all_or_nothing.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import { INT8_BLOCK } from "../../kernels/core/int8.ts";
import { destroyTensor, type Tensor } from "../../kernels/core/tensor.ts";
import type { FrozenType } from "./op.ts";

/** Tensors by parameter name, for example `h.0.attn.c_attn.weight` [d, 3d]. */
export type Parameters = ReadonlyMap<string, Tensor>;

/** Name and shape of one parameter. */
export interface ParameterShape {
  /** Hugging Face name without the `transformer.` prefix. */
  name: string;
  /** Sizes of its axes; linear weights are [in, out]. */
  shape: readonly number[];
  /** How it lies on the device; left out: as f32. */
  stored?: FrozenType;
}

/** Tensors of zeros for every shape; `prefix` goes before the name in error messages. */
export function createParameters(gpu: Gpu, shapes: readonly ParameterShape[], prefix = ""): Parameters {
  return new Map(shapes.map(({ name, shape, stored }) => [name, gpu.tensor(prefix + name, shape, stored)]));
}

/** Bytes that are on their way to the device at once: a driver keeps what is written until the device has it. */
const PIECE_BYTES = 32 << 20;

/** Rows of a tensor that are written at once: a multiple of what int8 is written by. */
export function rowsOfPiece({ shape, length }: Tensor): number {
  const rowBytes = 4 * length / shape[0];
  return Math.max(1, Math.floor(PIECE_BYTES / rowBytes / INT8_BLOCK)) * INT8_BLOCK;
}

/** Told of what is written, waits for the device before more than {@link PIECE_BYTES} are on their way, but for one tensor. */
export function createPace(gpu: Gpu): (written: number) => Promise<void> {
  let underWay = 0;
  return async (written) => {
    underWay += written;
    if (underWay < PIECE_BYTES) return;
    await gpu.sync();
    underWay = 0;
  };
}

/** Writes a tensor's values piece by piece, so that beside them and the tensor nothing of its size is held. */
async function writeInPieces(
  gpu: Gpu,
  tensor: Tensor,
  values: Float32Array,
  pace: (written: number) => Promise<void>,
): Promise<void> {
  const piece = rowsOfPiece(tensor) * tensor.length / tensor.shape[0];
  for (let start = 0; start < values.length; start += piece) {
    const part = values.subarray(start, start + piece);
    gpu.write(tensor, part, start);
    await pace(part.byteLength);
  }
}

/**
 * Fills the parameters from `read`, one tensor in memory at a time.
 *
 * @param names of all that is read, in order; what has no tensor is let go. Left out: those of the parameters
 */
export async function uploadParameters(
  gpu: Gpu,
  parameters: Parameters,
  read: (name: string) => Promise<Float32Array>,
  names: Iterable<string> = parameters.keys(),
): Promise<void> {
  const pace = createPace(gpu);
  for (const name of names) {
    const values = await read(name);
    const tensor = parameters.get(name);
    if (tensor) await writeInPieces(gpu, tensor, values, pace);
  }
  await gpu.sync();
}

/** Tensors for every shape, filled from `read`; where that fails, none is left on the device. */
export function loadParameters(
  gpu: Gpu,
  shapes: readonly ParameterShape[],
  read: (name: string) => Promise<Float32Array>,
): Promise<Parameters> {
  return allOrNothing(async () => {
    const parameters = createParameters(gpu, shapes);
    await uploadParameters(gpu, parameters, read);
    return parameters;
  });
}

/** Copies every tensor of `source` over the one of the same name in `target`. */
export function copyParameters(gpu: Gpu, source: Parameters, target: Parameters): void {
  gpu.submit("copying parameters", (recorder) => {
    for (const [name, tensor] of source) recorder.copy(tensor, target.get(name)!);
  });
}

/** Frees every tensor. */
export function destroyParameters(gpu: Gpu, parameters: Parameters): void {
  for (const tensor of parameters.values()) destroyTensor(gpu, tensor);
}

/** What can be written to a file: name, shape, and a way to read the values when their turn comes. */
export function readableParameters(
  gpu: Gpu,
  parameters: Parameters,
  prefix = "",
): { name: string; shape: number[]; read: () => Promise<Float32Array> }[] {
  return [...parameters].map(([name, tensor]) => ({
    name: prefix + name,
    shape: [...tensor.shape],
    read: () => gpu.read(tensor),
  }));
}
