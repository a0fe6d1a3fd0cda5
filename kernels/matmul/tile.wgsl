// What the three tiled products share: their operands, and how a row of a tile of C is written.
@group(0) @binding(0) var<storage, read> a: array<vec4f>;
@group(0) @binding(1) var<storage, read> b: array<vec4f>;
@group(0) @binding(2) var<storage, read> bias: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> c: array<vec4f>;

// Stores the eight elements (c0, c1) of one row from column 4 * `column` on, as far as they are inside C.
fn store(row: u32, column: u32, c0: vec4f, c1: vec4f) {
  if (row >= M) { return; }
  let at = row * C_STRIDE4 + C_COLUMN4 + column;
  var value0 = c0;
  if (BIAS) { value0 += bias[column]; }
  if (ACCUMULATE) { value0 += c[at]; }
  c[at] = value0;
  if (column + 1u >= N4) { return; }
  var value1 = c1;
  if (BIAS) { value1 += bias[column + 1u]; }
  if (ACCUMULATE) { value1 += c[at + 1u]; }
  c[at + 1u] = value1;
}
