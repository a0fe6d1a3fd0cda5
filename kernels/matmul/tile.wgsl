// What the three tiled products share: their operands, and how a part of a row of a tile of C is written.
@group(0) @binding(0) var<storage, read> a: array<vec4f>;
@group(0) @binding(1) var<storage, read> b: array<vec4f>;
@group(0) @binding(2) var<storage, read> bias: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> c: array<vec4f>;

// Stores four elements of one row from column 4 * `column` on, where they are inside C.
fn store(row: u32, column: u32, sums: vec4f) {
  if (row >= M || column >= N4) { return; }
  let at = row * C_STRIDE4 + C_COLUMN4 + column;
  var value = sums;
  if (BIAS) { value += bias[column]; }
  if (ACCUMULATE) { value += c[at]; }
  c[at] = value;
}
