// The same three products for a GPU: a workgroup of 16 x 16 invocations computes a tile of ROWS x COLUMNS of C. Slabs of
// A and B, DEPTH terms deep, go through workgroup memory, where each element that was loaded once serves a whole row or
// column of the tile; the next slab is on its way from memory while this one is multiplied. Each invocation keeps
// 4 ROW_GROUPS x 4 COLUMN_GROUPS elements of C in registers, for each term of which it reads ROW_GROUPS + COLUMN_GROUPS
// vectors: at 8 x 8 16 multiplications of vectors for 4 loads.
//
// slab_a[k][m] and slab_b[k][n] lie along m and n. An operand that lies along k in memory (A of nn and nt, B of nt) is
// turned as it is stored. Loads out of range are clamped, stores are guarded, and no term past K is added: the sums are
// those of the other variants to the bit.
const ROWS4 = ROWS / 4u;
const COLUMNS4 = COLUMNS / 4u;
const DEPTH4 = DEPTH / 4u;
var<workgroup> slab_a: array<vec4f, DEPTH * ROWS4>;
var<workgroup> slab_b: array<vec4f, DEPTH * COLUMNS4>;

// The n-th four elements of A's slab from term k0 on, for a tile that begins at row.
fn load_a(n: u32, k0: u32, row: u32) -> vec4f {
  if (A_ALONG_K) {
    let m = min(row + n / DEPTH4, M - 1u);
    return a[m * A_STRIDE4 + a_first() + min(k0 / 4u + n % DEPTH4, K4 - 1u)];
  }
  let k = min(k0 + n / ROWS4, K - 1u);
  return a[k * A_STRIDE4 + a_first() + min(row / 4u + n % ROWS4, M4 - 1u)];
}

fn load_b(n: u32, k0: u32, column: u32) -> vec4f {
  if (B_ALONG_K) {
    let at = min(column + n / DEPTH4, N - 1u);
    return b[at * B_STRIDE4 + b_first() + min(k0 / 4u + n % DEPTH4, K4 - 1u)];
  }
  let k = min(k0 + n / COLUMNS4, K - 1u);
  return b[k * B_STRIDE4 + b_first() + min(column / 4u + n % COLUMNS4, N4 - 1u)];
}

fn put_a(n: u32, value: vec4f) {
  if (A_ALONG_K) {
    let m = n / DEPTH4;
    let k = 4u * (n % DEPTH4);
    $for c in 0..4 {
    slab_a[(k + $cu) * ROWS4 + m / 4u][m % 4u] = value[$c];
    $}
  } else {
    slab_a[n] = value;
  }
}

fn put_b(n: u32, value: vec4f) {
  if (B_ALONG_K) {
    let column = n / DEPTH4;
    let k = 4u * (n % DEPTH4);
    $for c in 0..4 {
    slab_b[(k + $cu) * COLUMNS4 + column / 4u][column % 4u] = value[$c];
    $}
  } else {
    slab_b[n] = value;
  }
}

@compute @workgroup_size(16, 16)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
  @builtin(local_invocation_index) index: u32,
) {
  $if BATCHED {
  batch = group.z;
  $}
  let row = group.y * ROWS;
  let column = group.x * COLUMNS;
  $for i in 0..ROW_GROUPS {
  $for s in 0..4 {
  $for j in 0..COLUMN_GROUPS {
  var c$i_$s_$j = vec4f();
  $}
  $}
  $}
  $for n in 0..LOADS_A {
  var a$n = load_a(index + 256u * $nu, 0u, row);
  $}
  $for n in 0..LOADS_B {
  var b$n = load_b(index + 256u * $nu, 0u, column);
  $}
  for (var k0 = 0u; k0 < K; k0 += DEPTH) {
    workgroupBarrier();
    $for n in 0..LOADS_A {
    put_a(index + 256u * $nu, a$n);
    $}
    $for n in 0..LOADS_B {
    put_b(index + 256u * $nu, b$n);
    $}
    workgroupBarrier();
    if (k0 + DEPTH < K) {
      $for n in 0..LOADS_A {
      a$n = load_a(index + 256u * $nu, k0 + DEPTH, row);
      $}
      $for n in 0..LOADS_B {
      b$n = load_b(index + 256u * $nu, k0 + DEPTH, column);
      $}
    }
    // Where DEPTH divides K the bound is constant, and the loop can be unrolled.
    let terms = select(DEPTH, min(DEPTH, K - k0), K % DEPTH != 0u);
    for (var k = 0u; k < terms; k++) {
      $for i in 0..ROW_GROUPS {
      let x$i = slab_a[k * ROWS4 + 16u * $iu + lane.y];
      $}
      $for j in 0..COLUMN_GROUPS {
      let y$j = slab_b[k * COLUMNS4 + 16u * $ju + lane.x];
      $}
      $for i in 0..ROW_GROUPS {
      $for s in 0..4 {
      $for j in 0..COLUMN_GROUPS {
      c$i_$s_$j = fma(vec4f(x$i[$s]), y$j, c$i_$s_$j);
      $}
      $}
      $}
    }
  }
  $for i in 0..ROW_GROUPS {
  $for s in 0..4 {
  $for j in 0..COLUMN_GROUPS {
  store(row + 4u * (16u * $iu + lane.y) + $su, column / 4u + 16u * $ju + lane.x, c$i_$s_$j);
  $}
  $}
  $}
}
