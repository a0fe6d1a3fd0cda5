/**
 * Storage of frozen matrices as int8, with one scale for each column and block of 128 rows: for linear weights [in, out],
 * each output's weights from 128 inputs. A kernel is written for float32; which of its matrices are int8 is said when it
 * is compiled, and its source is changed so that what it reads is multiplied by its scale as it is loaded.
 *
 *     scale = max |w| over the block's column;   stored = round(127 w / scale);   read = stored / 127 · scale
 *
 * @module
 */
import { freeBinding, replaceReads, storageElement } from "./wgsl.ts";

/** Rows that share a scale in each column. */
export const INT8_BLOCK = 128;
/** Bytes of scales for each element. */
export const INT8_SCALE_BYTES = 4 / INT8_BLOCK;

/** A matrix [rows, columns] as int8. */
export interface Quantised {
  /** Row by row, from -127 to 127. */
  values: Int8Array<ArrayBuffer>;
  /** [⌈rows / 128⌉, columns]. */
  scales: Float32Array<ArrayBuffer>;
}

/** Rows of scales that a matrix has. */
export function scaleRows(rows: number): number {
  return Math.ceil(rows / INT8_BLOCK);
}

/**
 * A matrix [rows, columns] as int8: each element is off by at most half a 127th of its scale.
 *
 * @throws {RangeError} when there are more or fewer values than that, or one that is not finite, which would be stored as 0
 */
export function quantise(values: Float32Array, rows: number, columns: number): Quantised {
  if (values.length !== rows * columns) {
    throw new RangeError(`Cannot quantise [${rows}, ${columns}] as there are ${values.length} values`);
  }
  const scales = new Float32Array(scaleRows(rows) * columns);
  const stored = new Int8Array(rows * columns);
  for (let block = 0; block < scaleRows(rows); block++) {
    const ofBlock = scales.subarray(block * columns, (block + 1) * columns);
    const [first, end] = [block * INT8_BLOCK, Math.min(rows, (block + 1) * INT8_BLOCK)];
    for (let row = first; row < end; row++) {
      for (let column = 0, at = row * columns; column < columns; column++, at++) {
        const size = Math.abs(values[at]);
        if (!(size < Infinity)) {
          throw new RangeError(
            `Cannot quantise [${rows}, ${columns}] as values must be finite: element ${at} is ${values[at]}`,
          );
        }
        if (size > ofBlock[column]) ofBlock[column] = size;
      }
    }
    for (let row = first; row < end; row++) {
      for (let column = 0, at = row * columns; column < columns; column++, at++) {
        const scale = ofBlock[column];
        if (scale > 0) stored[at] = Math.round(127 * values[at] / scale);
      }
    }
  }
  return { values: stored, scales };
}

/**
 * The values that kernels read, of elements from `first` on.
 *
 * @param scales of the whole matrix, which has `columns` columns
 */
export function dequantise(
  values: Int8Array,
  scales: Float32Array,
  columns: number,
  first = 0,
): Float32Array<ArrayBuffer> {
  return Float32Array.from(values, (value, n) => {
    const at = first + n;
    return Math.fround(value / 127) *
      scales[Math.floor(at / (INT8_BLOCK * columns)) * columns + at % columns];
  });
}

/** The name under which a kernel binds the scales of one of its matrices. */
export function scalesName(name: string): string {
  return `${name}_scales`;
}

/**
 * The source with matrices held as int8, each beside its scales. They must be read only, and declared as `array<vec4f>`, or
 * as `array<ELEMENT>` with ELEMENT a vec4f.
 *
 * @param rowLengths by the name of the matrix: vectors of four in a row of it, as WGSL
 * @throws {SyntaxError} when one is not declared, or in another way
 */
export function storeInInt8(source: string, rowLengths: Readonly<Record<string, string>>): string {
  let result = source;
  for (const [name, rowLength] of Object.entries(rowLengths)) {
    const { declaration, element } = storageElement(result, name);
    if (element !== "vec4f" || declaration.includes("read_write")) {
      throw new SyntaxError(
        `Cannot store ${name} in int8 as it must be a read array of vec4f: ${declaration}`,
      );
    }
    const scales = scalesName(name);
    const binding = freeBinding(result);
    result = replaceReads(result, name, (index) => `dequantised_${name}(${index})`)
      .replace(declaration, declaration.replace(/<\w+>$/, "<u32>"));
    result = `@group(0) @binding(${binding}) var<storage, read> ${scales}: array<vec4f>;
fn dequantised_${name}(at: u32) -> vec4f {
  let row = at / ${rowLength};
  return unpack4x8snorm(${name}[at]) * ${scales}[row / ${INT8_BLOCK}u * ${rowLength} + at % ${rowLength}];
}
${result}`;
  }
  return result;
}
