// What all variants share: their operands, and how a part of a row of a tile of C is written.
@group(0) @binding(0) var<storage, read> a: array<ELEMENT>;
@group(0) @binding(1) var<storage, read> b: array<ELEMENT>;
@group(0) @binding(2) var<storage, read_write> c: array<ELEMENT>;
$if BIAS {
@group(0) @binding(3) var<storage, read> bias: array<ELEMENT>;
$}
$if RESIDUAL {
@group(0) @binding(4) var<storage, read> residual: array<ELEMENT>;
$}
$if GELU {
@group(0) @binding(5) var<storage, read_write> activated: array<ELEMENT>;
$}

// Which of several products this is, where there are several: a variable that `main` sets, else the constant 0.
$if BATCHED {
var<private> batch: u32;
$}
$if ALONE {
const batch = 0u;
$}

// Where row 0 of this product's matrices begins.
fn a_first() -> u32 { return A_COLUMN + batch * A_STEP; }
fn b_first() -> u32 { return B_COLUMN + batch * B_STEP; }
fn c_first() -> u32 { return C_COLUMN + batch * C_STEP; }

// Stores an element of C, `at` being its index and `of_bias` that of its bias; with its bias, what stood there or flows
// past, and what GELU makes of it. What stood there is added first, as where what flows past is added by itself.
fn store_at(at: u32, of_bias: u32, sums: ELEMENT) {
  var value = sums;
  $if SCALED {
  value *= SCALE;
  $}
  $if BIAS {
  value += bias[of_bias];
  $}
  $if ACCUMULATE {
  value += c[at];
  $}
  $if RESIDUAL {
  value += residual[at];
  $}
  c[at] = value;
  $if GELU {
  activated[at] = gelu(value);
  $}
}

$if TILED {
// Stores four elements of one row from column 4 * `column` on, where they are inside C.
fn store(row: u32, column: u32, sums: vec4f) {
  if (row < M && column < N4) { store_at(row * C_STRIDE4 + c_first() + column, batch * N4 + column, sums); }
}
$}
