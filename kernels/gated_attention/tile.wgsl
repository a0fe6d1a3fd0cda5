// What the three tiled kernels share. A workgroup of 16 x 16 invocations works on tiles of 64 x 64 edges: the products
// of two sets of 64 rows (queries with keys, dy with values), and the product of such a tile with 64 rows.
//
// Invocation (x, y) holds edges of rows 4 y .. 4 y + 3 and columns 4 x .. 4 x + 3. Operands go through workgroup memory in
// slabs, so that each element that was loaded serves 64 edges: a slab of DEPTH elements of 64 rows, turned so that rows
// lie side by side, or 16 whole rows. Of each term an invocation reads 2 vectors for 4 multiplications of vectors.
const SIDE = 64u;
const DEPTH = 16u;
const QUERY = 0u;
const KEY = 1u;
const VALUE = 2u;
const GRADIENT = 3u;

var<workgroup> slab_a: array<vec4f, 256>;
var<workgroup> slab_b: array<vec4f, SLAB>;
// Rows are one vector longer than 16, so that they begin in different banks.
const ROW = 17u;
var<workgroup> tile: array<vec4f, SIDE * ROW>;
// Whether any element of the tile is not zero.
var<workgroup> present: atomic<u32>;

// 0. A CPU driver is not told: it unrolls loops of few turns, and would compile these kernels for a minute.
fn none() -> u32 { return select(0u, gate.layer >> 31u, ROLLED); }

// `head` is a query head; keys and values are those that it reads.
struct Place { batch: u32, head: u32, index: u32, x: u32, y: u32 }

// Four rows of four edges.
struct Edges { r0: vec4f, r1: vec4f, r2: vec4f, r3: vec4f }

// Four rows of one result, of which each invocation holds vectors x, x + 16, ...
struct Rows {
  $for g in 0..GROUPS {
  $for s in 0..4 {
  r$s_$g: vec4f,
  $}
  $}
}

// Four elements of a row of queries, keys, values or dy; past the head's size 0, past the last row that row.
fn operand(which: u32, place: Place, row: u32, chunk: u32) -> vec4f {
  if (chunk >= CHUNKS) { return vec4f(); }
  let t = place.batch * T + min(row, T - 1u);
  $if BACKWARD {
  if (which == GRADIENT) { return dy[result_at(t, place.head) + chunk]; }
  $}
  var at = query_at(t, place.head);
  if (which == KEY) { at = key_at(t, key_head_of(place.head)); }
  if (which == VALUE) { at = value_at(t, key_head_of(place.head)); }
  return qkv[at + chunk];
}

// The products of rows first_a .. + 63 of one operand with rows first_b .. + 63 of another.
fn products(a: u32, first_a: u32, b: u32, first_b: u32, place: Place) -> Edges {
  var edges = Edges();
  let row = place.index / 4u;
  let chunk = place.index % 4u;
  for (var start = 0u; start < CHUNKS; start += DEPTH / 4u) {
    let of_a = operand(a, place, first_a + row, start + chunk);
    let of_b = operand(b, place, first_b + row, start + chunk);
    workgroupBarrier();
    $for c in 0..4 {
    slab_a[(4u * chunk + $cu) * 16u + row / 4u][row % 4u] = of_a[$c];
    slab_b[(4u * chunk + $cu) * 16u + row / 4u][row % 4u] = of_b[$c];
    $}
    workgroupBarrier();
    for (var d = 0u; d < DEPTH + none(); d++) {
      let x = slab_a[d * 16u + place.y];
      let y = slab_b[d * 16u + place.x];
      $for s in 0..4 {
      edges.r$s = fma(vec4f(x[$s]), y, edges.r$s);
      $}
    }
  }
  return edges;
}

// Puts edges into the tile, and notes whether any is not zero. A barrier must stand between this and what read it last.
fn put(edges: Edges, place: Place) {
  $for s in 0..4 {
  tile[(4u * place.y + $su) * ROW + place.x] = edges.r$s;
  $}
  let all = abs(edges.r0) + abs(edges.r1) + abs(edges.r2) + abs(edges.r3);
  if (any(all > vec4f())) { atomicStore(&present, 1u); }
}

// Adds the tile's product with rows first .. + 63 of an operand, which its columns stand for.
fn add_product(which: u32, first: u32, place: Place, before: Rows) -> Rows {
  var rows = before;
  for (var start = 0u; start < SIDE + none(); start += DEPTH) {
    workgroupBarrier();
    for (var n = place.index; n < DEPTH * CHUNKS; n += 256u) {
      slab_b[n] = operand(which, place, first + start + n / CHUNKS, n % CHUNKS);
    }
    workgroupBarrier();
    for (var q = 0u; q < DEPTH / 4u + none(); q++) {
      $for s in 0..4 {
      let t$s = tile[(4u * place.y + $su) * ROW + start / 4u + q];
      $}
      $for c in 0..4 {
      $for g in 0..GROUPS {
      let v$c_$g = slab_b[(4u * q + $cu) * CHUNKS + min(place.x + 16u * $gu, CHUNKS - 1u)];
      $for s in 0..4 {
      rows.r$s_$g = fma(vec4f(t$s[$c]), v$c_$g, rows.r$s_$g);
      $}
      $}
      $}
    }
  }
  return rows;
}
