/**
 * How a model's parameters stand in the files of its family: under which names, transposed or not, and which of ours are
 * several tensors there.
 *
 * @module
 */
import { elementsOf } from "../../kernels/core/tensor.ts";
import type { Adapters } from "./adapters.ts";
import type { ModelConfig } from "./config.ts";
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

const AS_IT_IS: Pick<StoredTensor, "fromFile" | "toFile"> = {
  fromFile: (values) => values,
  toFile: (values) => values,
};

/**
 * A tensor whose columns stand in another order, or as rows, in the file.
 *
 * @param columns ours, of each column of the file
 */
function moved(
  rows: number,
  columns: Uint32Array,
  transposed: boolean,
): Pick<StoredTensor, "fromFile" | "toFile"> {
  const [ofColumn, ofRow] = transposed ? [rows, 1] : [1, columns.length];
  /** Copies every element from or to its place in the file. */
  function move(values: Float32Array, toFile: boolean): Float32Array {
    const result = new Float32Array(values.length);
    for (let column = 0; column < columns.length; column++) {
      let ours = columns[column];
      let theirs = column * ofColumn;
      for (let row = 0; row < rows; row++) {
        if (toFile) result[theirs] = values[ours];
        else result[ours] = values[theirs];
        ours += columns.length;
        theirs += ofRow;
      }
    }
    return result;
  }
  return { fromFile: (values) => move(values, false), toFile: (values) => move(values, true) };
}

/** What peft puts before the path of every module that it adapts. */
export const ADAPTED = "base_model.model";

/** Every parameter of a model with the tensors that its files hold for it. */
export function storedParameters(config: ModelConfig): StoredParameter[] {
  return storedAs(config, parametersOf(config));
}

/** Every parameter of a model's adapters with the tensors that peft's files hold for it. */
export function storedAdapters(config: ModelConfig, adapters: Adapters): StoredParameter[] {
  return storedAs(config, parametersOf(config, { adapters }).filter(({ adapter }) => adapter));
}

function storedAs(config: ModelConfig, parameters: readonly Parameter[]): StoredParameter[] {
  const { names, prefix, transposed, byHead = false } = familyOf(config);
  const { headSize } = config;
  /** Ours, of column n of theirs where query, key and value of one head stand behind those of another. */
  const columnByHead = (n: number): number => {
    const [head, part] = [Math.floor(n / (3 * headSize)), Math.floor(n / headSize) % 3];
    return (part * config.heads + head) * headSize + n % headSize;
  };
  return parameters.map((parameter) => {
    const { name, shape, kind, adapter, parts = [{ name, columns: shape.at(-1)! }] } = parameter;
    const rows = shape.length === 2 ? shape[0] : 1;
    // Adapters are torch.nn.Linear in all families.
    const isTransposed = kind === "matrix" && (transposed || adapter === true);
    const isByHead = byHead && name.includes(`.${names.qkv.name}.`) && !name.endsWith(".lora_A.weight");
    const tensors = parts.map(({ name, columns }): StoredTensor => ({
      name,
      savedAs: name === `${names.head}.weight` ? name : `${adapter ? `${ADAPTED}.` : ""}${prefix}.${name}`,
      shape: kind === "vector" ? [columns] : isTransposed ? [columns, rows] : [rows, columns],
      ...(isTransposed || isByHead
        ? moved(
          rows,
          Uint32Array.from({ length: columns }, (_, n) => isByHead ? columnByHead(n) : n),
          isTransposed,
        )
        : AS_IT_IS),
    }));
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
  const widths = tensors.map(({ shape }) => elementsOf(shape) / rows);
  const first = widths.slice(0, n).reduce((sum, width) => sum + width, 0);
  const part = new Float32Array(rows * widths[n]);
  for (let row = 0; row < rows; row++) {
    part.set(values.subarray(row * total + first, row * total + first + widths[n]), row * widths[n]);
  }
  return part;
}
