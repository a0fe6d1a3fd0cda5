/**
 * How what an optimiser keeps is divided among ranks: each parameter in pieces of rows, each piece at one rank.
 *
 * @module
 */
import { BINDING_ALIGNMENT, elementsOf } from "../../kernels/core/tensor.ts";

/** Rows of a parameter, which one rank updates. */
export interface Piece {
  /** The parameter's name. */
  name: string;
  /** Its first row, and how many; of a vector elements. */
  start: number;
  count: number;
  /** Elements. */
  length: number;
  /** The rank. */
  owner: number;
}

/** Pieces of all parameters for each rank: the more, the more alike the shares. */
const PIECES_OF_RANK = 64;

/**
 * Divides parameters into pieces of about a 64th of a rank's share, of which each goes to the rank that has least. Bindings
 * can start at any, and none is larger than a binding.
 *
 * @returns pieces by owner, each owner's in the order of the parameters
 */
export function piecesOf(
  parameters: readonly { name: string; shape: readonly number[] }[],
  ranks: number,
  maxBindingBytes: number,
): Piece[] {
  const total = parameters.reduce((sum, { shape }) => sum + elementsOf(shape), 0);
  const usual = Math.min(Math.ceil(total / (PIECES_OF_RANK * ranks)), maxBindingBytes / 4);
  const loads = new Array<number>(ranks).fill(0);
  const pieces = parameters.flatMap(({ name, shape }) => {
    const rows = shape[0];
    const width = elementsOf(shape) / rows;
    let step = 1;
    while (4 * step * width % BINDING_ALIGNMENT !== 0) step *= 2;
    const most = Math.max(step, Math.floor(usual / width / step) * step);
    const of: Piece[] = [];
    for (let start = 0; start < rows; start += most) {
      const count = Math.min(most, rows - start);
      const owner = loads.indexOf(Math.min(...loads));
      loads[owner] += count * width;
      of.push({ name, start, count, length: count * width, owner });
    }
    return of;
  });
  return pieces.sort((a, b) => a.owner - b.owner);
}

/** The pieces of the rank that has most. */
export function largestShare(pieces: readonly Piece[]): readonly Piece[] {
  const shares = [...Map.groupBy(pieces, ({ owner }) => owner).values()];
  const elements = (share: readonly Piece[]): number => share.reduce((sum, { length }) => sum + length, 0);
  return shares.reduce((most, share) => elements(share) > elements(most) ? share : most);
}
