/**
 * What AdamW keeps beside the weights that it trains, whole at one rank or in pieces at several.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import { destroyTensor, rows, type Tensor } from "../../kernels/core/tensor.ts";
import {
  createParameters,
  destroyParameters,
  type Parameters,
  type ParameterShape,
} from "../model/parameters.ts";
import type { Piece } from "../model/shards.ts";
import { prepareDeviceGather } from "../parallel/device_sum.ts";
import type { Exchange } from "../parallel/exchange.ts";

/** The moving average of the gradient, and that of its square. */
export type Moment = "first" | "second";

/** The moments of all that is trained. */
export interface Moments extends Record<Moment, Parameters> {
  /** Those of a piece, which must be here. */
  ofPiece(piece: Piece): Record<Moment, Tensor>;
  /** A parameter's whole moment; among ranks that have pieces of it a call of all of them. */
  read(of: Moment, name: string): Promise<Float32Array>;
  /** Writes a parameter's moment, or what of it is here. */
  write(of: Moment, name: string, values: Float32Array): void;
  /** Frees them. */
  destroy(): void;
}

/** A piece of a parameter, or of what has its shape. */
export const pieceOf = (tensor: Tensor, { start, count }: Piece): Tensor => rows(tensor, start, count);

/** A piece, for people. */
const labelOf = ({ name, start, count }: Piece): string => `${name}[${start}:${start + count}]`;

/** Of a piece, the first element in its parameter. */
const firstOf = ({ start, count, length }: Piece): number => start * length / count;

function create(
  gpu: Gpu,
  shapes: readonly ParameterShape[],
): Record<Moment, Parameters> & { destroy(): void } {
  const [first, second] = ["first", "second"].map((of) => createParameters(gpu, shapes, `${of} moment of `));
  return {
    first,
    second,
    destroy() {
      for (const set of [first, second]) destroyParameters(gpu, set);
    },
  };
}

/** Moments of zeros for every parameter, whole. */
export function createMoments(gpu: Gpu, shapes: readonly ParameterShape[]): Moments {
  const sets = create(gpu, shapes);
  return {
    ...sets,
    ofPiece: (piece) => ({
      first: pieceOf(sets.first.get(piece.name)!, piece),
      second: pieceOf(sets.second.get(piece.name)!, piece),
    }),
    read: (of, name) => gpu.read(sets[of].get(name)!),
    write: (of, name, values) => gpu.write(sets[of].get(name)!, values),
  };
}

/** Moments of zeros for the pieces that are this rank's, named `name[first row:row behind the last]`. */
export function createMomentsOfPieces(
  gpu: Gpu,
  exchange: Exchange,
  shapes: readonly ParameterShape[],
  pieces: readonly Piece[],
): Moments {
  const shapeOf = new Map(shapes.map(({ name, shape }) => [name, shape]));
  const own = pieces.filter(({ owner }) => owner === exchange.rank);
  const sets = create(
    gpu,
    own.map((piece) => ({
      name: labelOf(piece),
      shape: [piece.count, ...shapeOf.get(piece.name)!.slice(1)],
    })),
  );
  return {
    ...sets,

    ofPiece: (piece) => ({
      first: sets.first.get(labelOf(piece))!,
      second: sets.second.get(labelOf(piece))!,
    }),

    async read(of, name) {
      const ofName = pieces.filter((piece) => piece.name === name);
      // Room for the other ranks' pieces, for as long as it takes.
      const whole = gpu.tensor(`${of} moment of ${name}`, shapeOf.get(name)!);
      const gather = prepareDeviceGather(
        gpu,
        exchange,
        ofName.map((piece) => ({ tensor: pieceOf(whole, piece), owner: piece.owner })),
        { what: whole.label },
      );
      try {
        gpu.submit(`gathering the ${whole.label}`, (recorder) => {
          for (const piece of ofName) {
            const tensor = sets[of].get(labelOf(piece));
            if (tensor) recorder.copy(tensor, whole, firstOf(piece));
          }
        });
        await gather.run();
        return await gpu.read(whole);
      } finally {
        gather.destroy();
        destroyTensor(gpu, whole);
      }
    },

    write(of, name, values) {
      for (const piece of own) {
        if (piece.name !== name) continue;
        const first = firstOf(piece);
        gpu.write(sets[of].get(labelOf(piece))!, values.subarray(first, first + piece.length));
      }
    },
  };
}
