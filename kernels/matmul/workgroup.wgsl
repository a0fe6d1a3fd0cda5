// The same three products for a GPU: a workgroup of LANES_X x LANES_Y invocations computes a tile of ROWS x COLUMNS of C.
// Slabs of A and B, DEPTH terms deep, go through workgroup memory, where each element that was loaded once serves a whole
// row or column of the tile. There are two of each: while one is multiplied the next is on its way from memory, and it is
// stored into the other, so that a slab costs one barrier. Each invocation keeps 4 ROW_GROUPS x 4 COLUMN_GROUPS elements of
// C in registers, for each term of which it reads ROW_GROUPS + COLUMN_GROUPS vectors: at 8 x 8 16 multiplications of vectors
// for 4 loads.
//
// The terms of two slabs are written out, so that every index but the invocation's own is constant: naga gives every loop a
// counter of its own that no compiler can see the end of, so that a loop is never unrolled and pays for the counter each time
// round, and it clamps every index that is not constant.
//
// slab_a[side][k / 4][k % 4][m] and slab_b[side][k / 4][k % 4][n] lie along m and n. An operand that lies along k in memory
// (A of nn and nt, B of nt) is turned as it is stored; its rows are one vector longer, so that what a subgroup stores lies in
// different banks. Loads out of range are clamped, stores are guarded, and no term past K is added: the sums are those of the
// other variants to the bit.
const ROWS4 = ROWS / 4u;
const COLUMNS4 = COLUMNS / 4u;
const DEPTH = 4u * DEPTH4;
const INVOCATIONS = LANES_X * LANES_Y;
const SLABS = (K + DEPTH - 1u) / DEPTH;
const WHOLE = K / DEPTH;
struct RowOfA {
  at: array<array<vec4f, LANES_Y>, ROW_GROUPS>,
  $if PADDED_A {
  pad: vec4f,
  $}
}
struct RowOfB {
  at: array<array<vec4f, LANES_X>, COLUMN_GROUPS>,
  $if PADDED_B {
  pad: vec4f,
  $}
}
var<workgroup> slab_a: array<array<array<RowOfA, 4>, DEPTH4>, 2>;
var<workgroup> slab_b: array<array<array<RowOfB, 4>, DEPTH4>, 2>;

// The n-th four elements of A's slab from term k0 on, for a tile that begins at row.
fn load_a(n: u32, k0: u32, row: u32) -> vec4f {
  if (A_ALONG_K) {
    let m = min(row + n / DEPTH4, M - 1u);
    let k = k0 / 4u + n % DEPTH4;
    return a[m * A_STRIDE4 + a_first() + select(k, min(k, K4 - 1u), WHOLE < SLABS)];
  }
  let k = k0 + n / ROWS4;
  return a[select(k, min(k, K - 1u), WHOLE < SLABS) * A_STRIDE4 + a_first() + min(row / 4u + n % ROWS4, M4 - 1u)];
}

fn load_b(n: u32, k0: u32, column: u32) -> vec4f {
  if (B_ALONG_K) {
    let at = min(column + n / DEPTH4, N - 1u);
    let k = k0 / 4u + n % DEPTH4;
    return b[at * B_STRIDE4 + b_first() + select(k, min(k, K4 - 1u), WHOLE < SLABS)];
  }
  let k = k0 + n / COLUMNS4;
  return b[select(k, min(k, K - 1u), WHOLE < SLABS) * B_STRIDE4 + b_first() + min(column / 4u + n % COLUMNS4, N4 - 1u)];
}

fn put_a(side: u32, n: u32, value: vec4f) {
  if (A_ALONG_K) {
    let m = n / DEPTH4;
    $for c in 0..4 {
    slab_a[side][n % DEPTH4][$c].at[m / (4u * LANES_Y)][m / 4u % LANES_Y][m % 4u] = value[$c];
    $}
  } else {
    slab_a[side][n / (4u * ROWS4)][n / ROWS4 % 4u].at[n / LANES_Y % ROW_GROUPS][n % LANES_Y] = value;
  }
}

fn put_b(side: u32, n: u32, value: vec4f) {
  if (B_ALONG_K) {
    let column = n / DEPTH4;
    $for c in 0..4 {
    slab_b[side][n % DEPTH4][$c].at[column / (4u * LANES_X)][column / 4u % LANES_X][column % 4u] = value[$c];
    $}
  } else {
    slab_b[side][n / (4u * COLUMNS4)][n / COLUMNS4 % 4u].at[n / LANES_X % COLUMN_GROUPS][n % LANES_X] = value;
  }
}

@compute @workgroup_size(INVOCATIONS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32) {
  $if BATCHED {
  batch = group.z;
  $}
  let row = group.y * ROWS;
  let column = group.x * COLUMNS;
  // 32 invocations, a subgroup on most GPUs, stand 8 high and 4 wide, neighbours on one row of A and the next pair on the
  // same columns of B: reads of workgroup memory by which lanes i and i ^ 1, or i and i ^ 2, want the same are joined.
  let y = index / 2u % 8u + 8u * (index / 32u % (LANES_Y / 8u));
  let x = index % 2u + 2u * (index / 16u % 2u) + 4u * (index / 32u / (LANES_Y / 8u));
  $for i in 0..ROW_GROUPS {
  $for s in 0..4 {
  $for j in 0..COLUMN_GROUPS {
  var c$i_$s_$j = vec4f();
  $}
  $}
  $}
  $for n in 0..LOADS_A {
  put_a(0u, index + INVOCATIONS * $nu, load_a(index + INVOCATIONS * $nu, 0u, row));
  $}
  $for n in 0..LOADS_B {
  put_b(0u, index + INVOCATIONS * $nu, load_b(index + INVOCATIONS * $nu, 0u, column));
  $}
  workgroupBarrier();
  for (var slab = 0u; slab < WHOLE; slab += 2u) {
    $for p in 0..2 {
    if (slab + $pu >= WHOLE) { break; }
    // After the last slab it is loaded once more, and nobody reads it: cheaper than asking each time.
    let next$p = min(slab + $pu + 1u, SLABS - 1u) * DEPTH;
    $for n in 0..LOADS_A {
    let a$p_$n = load_a(index + INVOCATIONS * $nu, next$p, row);
    $}
    $for n in 0..LOADS_B {
    let b$p_$n = load_b(index + INVOCATIONS * $nu, next$p, column);
    $}
    $for q in 0..DEPTH4 {
    $for k in 0..4 {
    $for i in 0..ROW_GROUPS {
    let x$p_$q_$k_$i = slab_a[$p][$q][$k].at[$i][y];
    $}
    $for j in 0..COLUMN_GROUPS {
    let y$p_$q_$k_$j = slab_b[$p][$q][$k].at[$j][x];
    $}
    $for i in 0..ROW_GROUPS {
    $for s in 0..4 {
    $for j in 0..COLUMN_GROUPS {
    c$i_$s_$j = fma(vec4f(x$p_$q_$k_$i[$s]), y$p_$q_$k_$j, c$i_$s_$j);
    $}
    $}
    $}
    $}
    $}
    $for n in 0..LOADS_A {
    put_a(1u - $pu, index + INVOCATIONS * $nu, a$p_$n);
    $}
    $for n in 0..LOADS_B {
    put_b(1u - $pu, index + INVOCATIONS * $nu, b$p_$n);
    $}
    workgroupBarrier();
    $}
  }
  $if TAIL {
  for (var k = 0u; k < K % DEPTH; k++) {
    $for i in 0..ROW_GROUPS {
    let x$i = slab_a[WHOLE % 2u][k / 4u][k % 4u].at[$i][y];
    $}
    $for j in 0..COLUMN_GROUPS {
    let y$j = slab_b[WHOLE % 2u][k / 4u][k % 4u].at[$j][x];
    $}
    $for i in 0..ROW_GROUPS {
    $for s in 0..4 {
    $for j in 0..COLUMN_GROUPS {
    c$i_$s_$j = fma(vec4f(x$i[$s]), y$j, c$i_$s_$j);
    $}
    $}
    $}
  }
  $}
  $for i in 0..ROW_GROUPS {
  $for s in 0..4 {
  $for j in 0..COLUMN_GROUPS {
  store(row + 4u * (LANES_Y * $iu + y) + $su, column / 4u + LANES_X * $ju + x, c$i_$s_$j);
  $}
  $}
  $}
}
