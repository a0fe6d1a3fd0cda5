/**
 * Tensors of the device sent from one stage of a pipeline to another, while it goes on with what is submitted behind them.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Tensor } from "../../kernels/core/tensor.ts";
import { createReader, type Part, partsBetween } from "./device_reader.ts";
import type { Stages } from "./exchange.ts";

/** Bytes that are on their way to a stage at once, at most, or those of one tensor where that is larger. */
const ON_THE_WAY = 128 << 20;

/** A rank's ways to the other stages. Both sides name the same tensors, of float32, in the same order. */
export interface DeviceLink {
  /**
   * Sends a tensor, behind all that was submitted. There is room for one, whoever receives when.
   *
   * @returns when it has been read, which Deno's mapAsync puts off until all that is submitted meanwhile is done
   */
  send(stage: number, tensor: Tensor): Promise<void>;
  /** Overwrites a tensor by what a stage sends next, behind all that was submitted. */
  receive(stage: number, tensor: Tensor): Promise<void>;
  /**
   * Receives a tensor of so many elements in pieces, each of which is used before the next comes.
   *
   * @param use is told where in the tensor they begin
   */
  receivePieces(
    stage: number,
    length: number,
    use: (values: Float32Array<ArrayBuffer>, start: number) => void,
  ): Promise<void>;
  /** Resolves when all that was sent has been received. */
  end(): Promise<void>;
  /** Frees what it holds. */
  destroy(): void;
}

/** How a link moves tensors; the same at all stages. */
export interface DeviceLinkOptions {
  /** What is sent, for errors. */
  what: string;
  /** Elements of the largest tensor. */
  largest: number;
  /** Elements that are moved at once. */
  piece: number;
  /** Bytes that are on their way to a stage at once; for tests. */
  onTheWay?: number;
}

/** Opens a rank's ways to the other stages. */
export function openDeviceLink(
  gpu: Gpu,
  stages: Stages,
  { what, largest, piece, onTheWay = ON_THE_WAY }: DeviceLinkOptions,
): DeviceLink {
  // A stage that waited for room until the next receives could be what that one waits for.
  const room = Math.max(onTheWay, 4 * piece * Math.ceil(largest / piece));
  /** One to each stage, so that messages to it keep their order. */
  const readers = new Map<number, ReturnType<typeof createReader>>();
  const received = new Float32Array(piece);

  function readerTo(stage: number): ReturnType<typeof createReader> {
    const found = readers.get(stage);
    if (found) return found;
    const reader = createReader(gpu, { what, size: piece, onTheWay: room, ahead: true });
    readers.set(stage, reader);
    return reader;
  }

  async function receivePieces(
    stage: number,
    length: number,
    use: (values: Float32Array<ArrayBuffer>, start: number) => void,
  ): Promise<void> {
    for (let start = 0; start < length; start += piece) {
      const values = received.subarray(0, Math.min(piece, length - start));
      await stages.receive(stage, values, what);
      use(values, start);
    }
  }

  return {
    receivePieces,

    send(stage, tensor) {
      const chunks: Part[][] = [];
      for (let from = 0; from < tensor.length; from += piece) {
        chunks.push(partsBetween([tensor], from, Math.min(from + piece, tensor.length)));
      }
      const { read } = readerTo(stage).read(chunks, async (values, n) => {
        await stages.send(stage, values.subarray(0, chunks[n][0].length), what);
      });
      return read;
    },

    receive: (stage, tensor) =>
      receivePieces(stage, tensor.length, (values, start) => gpu.write(tensor, values, start)),

    async end() {
      await Promise.all([...readers.values()].map((reader) => reader.end()));
    },

    destroy() {
      for (const reader of readers.values()) reader.destroy();
    },
  };
}
