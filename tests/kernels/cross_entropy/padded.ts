/**
 * Logits as the device holds them: rows with padding columns that no kernel may take for logits.
 *
 * @module
 */

/** Rows (row, V) laid out with a stride, and garbage in the columns past V. */
export function padded(logits: Float32Array, V: number, stride: number): Float32Array {
  const rows = logits.length / V;
  const result = new Float32Array(rows * stride).fill(1e9);
  for (let row = 0; row < rows; row++) result.set(logits.subarray(row * V, (row + 1) * V), row * stride);
  return result;
}

/** The first V columns of each row. */
export function unpadded(values: Float32Array, V: number, stride: number): Float32Array {
  const rows = values.length / stride;
  return Float32Array.from({ length: rows * V }, (_, n) => values[Math.floor(n / V) * stride + n % V]);
}

/** Column `n` of a matrix with four columns, such as the rows of losses. */
export function column(rows: Float32Array, n: number): Float32Array {
  return rows.filter((_, at) => at % 4 === n);
}
