/**
 * What is lost where weights lie on the device in less than float32.
 *
 * @module
 */
import { dequantise, INT8_BLOCK, quantise } from "../../kernels/core/int8.ts";
import type { Tensor } from "../../kernels/core/tensor.ts";
import { inputError } from "../errors.ts";
import type { Parameters } from "./parameters.ts";

/** The error of all that has been seen. */
export interface RoundingError {
  /**
   * Takes the values of a parameter, and gives them back.
   *
   * @throws {UserError} naming the tensor, where float16 cannot hold one of them
   */
  of(name: string, values: Float32Array): Float32Array;
  /** √(Σ (w − ŵ)² / Σ w²) over what is not float32, with ŵ what lies there. */
  readonly relative: number;
  /** In words. */
  text(): string;
}

/** Largest value of float16. */
const LARGEST_HALF = 65504;

/** Begins with nothing seen, of parameters as they lie on the device. */
export function createRoundingError(parameters: Parameters): RoundingError {
  let [squares, errors] = [0, 0];
  const relative = (): number => squares === 0 ? 0 : Math.sqrt(errors / squares);
  return {
    of(name, values) {
      const tensor = parameters.get(name)!;
      if (tensor.type !== "f16" && tensor.type !== "int8") return values;
      forEachPiece(tensor, values, (piece, stored) => {
        for (let n = 0; n < piece.length; n++) {
          if (!Number.isFinite(stored[n])) {
            throw inputError(
              `Cannot store ${name} as float16 as its values must lie within ${LARGEST_HALF}: ${piece[n]}`,
            );
          }
          squares += piece[n] ** 2;
          errors += (piece[n] - stored[n]) ** 2;
        }
      });
      return values;
    },
    get relative() {
      return relative();
    },
    text: () =>
      errors === 0 ? "nothing is lost" : `off by ${relative().toExponential(1)} of their size (RMS)`,
  };
}

/** Runs of a matrix's rows with what the device holds of them. */
function forEachPiece(
  { type, shape }: Tensor,
  values: Float32Array,
  use: (piece: Float32Array, stored: ArrayLike<number>) => void,
): void {
  const columns = values.length / shape[0];
  for (let row = 0; row < shape[0]; row += INT8_BLOCK) {
    const piece = values.subarray(row * columns, (row + INT8_BLOCK) * columns);
    if (type === "f16") use(piece, Float16Array.from(piece));
    else {
      const { values: stored, scales } = quantise(piece, piece.length / columns, columns);
      use(piece, dequantise(stored, scales, columns));
    }
  }
}
