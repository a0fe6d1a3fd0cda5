/**
 * How a model's parameters stand in the files of its family: under which names, transposed or not, and which of ours are
 * several tensors there.
 *
 * @module
 */
import { type ModelConfig, shapeOf } from "./config.ts";
import { familyOf } from "./families.ts";
import type { Parameter } from "./op.ts";
import { parametersOf } from "./trace.ts";

/** A tensor of a family's files. */
export interface StoredTensor {
  /** Without the prefix. */
  readonly name: string;
  /** With it, as it is saved. */
  readonly savedAs: string;
  readonly shape: readonly number[];
  /** Its elements in our order, a row of `columns` for each row of the parameter. */
  fromFile(values: Float32Array): Float32Array;
  toFile(values: Float32Array): Float32Array;
}

/** A parameter and what it is made of. */
export interface StoredParameter {
  readonly parameter: Parameter;
  readonly tensors: readonly StoredTensor[];
}

/** Where each element of a tensor of the file, of these sizes, stands in our order. */
type Place = (index: number) => number;

function permuted(place: Place): Pick<StoredTensor, "fromFile" | "toFile"> {
  return {
    fromFile(values) {
      const ours = new Float32Array(values.length);
      for (let n = 0; n < values.length; n++) ours[place(n)] = values[n];
      return ours;
    },
    toFile(values) {
      const theirs = new Float32Array(values.length);
      for (let n = 0; n < values.length; n++) theirs[n] = values[place(n)];
      return theirs;
    },
  };
}

const asItIs: Pick<StoredTensor, "fromFile" | "toFile"> = {
  fromFile: (values) => values,
  toFile: (values) => values,
};

/** Every parameter of a model with the tensors that its files hold for it. */
export function storedParameters(config: ModelConfig): StoredParameter[] {
  const family = familyOf(config);
  const { names } = family;
  const { headSize } = shapeOf(config);
  const isByHead = (name: string): boolean =>
    family.byHead === true && new RegExp(`\\.${RegExp.escape(names.qkv.name)}\\.(weight|bias)$`).test(name);
  return parametersOf(config).map((parameter) => {
    const { name, shape, kind, parts = [{ name, columns: shape.at(-1)! }] } = parameter;
    const rows = shape.length === 2 ? shape[0] : 1;
    const transposed = kind === "matrix" && family.transposed;
    const tensors = parts.map(({ name, columns }): StoredTensor => {
      /** Ours, of column n of theirs: by head they stand query, key, value of one head after the other. */
      const columnOf = (n: number): number => {
        if (!isByHead(parameter.name)) return n;
        const [head, part, at] = [
          Math.floor(n / (3 * headSize)),
          Math.floor(n / headSize) % 3,
          n % headSize,
        ];
        return (part * config.heads + head) * headSize + at;
      };
      const moved = transposed || isByHead(parameter.name);
      return {
        name,
        savedAs: name === `${names.head}.weight` ? name : `${family.prefix}.${name}`,
        shape: kind === "vector" ? [columns] : transposed ? [columns, rows] : [rows, columns],
        ...(moved
          ? permuted((index) => {
            const [row, column] = transposed
              ? [index % rows, Math.floor(index / rows)]
              : [Math.floor(index / columns), index % columns];
            return row * columns + columnOf(column);
          })
          : asItIs),
      };
    });
    return { parameter, tensors };
  });
}

/** A parameter from its parts, each with its own columns in our order. */
export function joinParts(
  { parameter: { shape }, tensors }: StoredParameter,
  parts: readonly Float32Array[],
): Float32Array {
  if (tensors.length === 1) return parts[0];
  const total = shape.at(-1)!;
  const rows = shape.length === 2 ? shape[0] : 1;
  const joined = new Float32Array(rows * total);
  let first = 0;
  for (const part of parts) {
    const columns = part.length / rows;
    for (let row = 0; row < rows; row++) {
      joined.set(part.subarray(row * columns, (row + 1) * columns), row * total + first);
    }
    first += columns;
  }
  return joined;
}

/** The n-th part of a parameter's values. */
export function partOf(
  { parameter: { shape }, tensors }: StoredParameter,
  n: number,
  values: Float32Array,
): Float32Array {
  if (tensors.length === 1) return values;
  const total = shape.at(-1)!;
  const rows = shape.length === 2 ? shape[0] : 1;
  const widths = tensors.map(({ shape }) => shape.reduce((product, axis) => product * axis, 1) / rows);
  const first = widths.slice(0, n).reduce((sum, width) => sum + width, 0);
  const part = new Float32Array(rows * widths[n]);
  for (let row = 0; row < rows; row++) {
    part.set(values.subarray(row * total + first, row * total + first + widths[n]), row * widths[n]);
  }
  return part;
}
