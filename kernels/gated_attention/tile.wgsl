// What the three tiled kernels share. A workgroup of LANES_X x 16 invocations works on tiles of 64 x 64 edges: the
// products of two sets of 64 rows (queries with keys, dy with values), and the product of such a tile with 64 rows.
//
// Invocation (x, y) holds edges of rows 4 y .. 4 y + 3 and, for each j below COLUMNS, columns 4 (x + LANES_X j) .. + 3.
// Operands go through workgroup memory in slabs, so that each element that was loaded serves 64 edges: a slab of DEPTH
// elements of 64 rows, turned so that rows lie side by side, or ROWS whole rows. Of each term an invocation reads
// 1 + COLUMNS vectors for 4 COLUMNS multiplications of vectors. The larger a slab, the fewer barriers.
//
// Four QUADS terms are written out and arrays are nested so that their indices are constant wherever they can be: naga
// gives every loop a counter of its own, for which it is never unrolled, and clamps every index that is not constant.
const SIDE = 64u;
const QUERY = 0u;
const KEY = 1u;
const VALUE = 2u;
const GRADIENT = 3u;
const INVOCATIONS = 16u * LANES_X;
// Tiles that rows are cut in. Workgroups are counted by head, then by row of the batch, then by tile, the tile with the most
// to do first: GPUs begin them in this order, and none is left with long work when the others have ended.
const TILES = (T + SIDE - 1u) / SIDE;
// Turns of a loop over 64 rows, and over one whole slab of the second operand.
const TURNS = 16u / QUADS;
const SLAB_TURNS = ROWS / (4u * QUADS);

// Rows are one vector longer than they must be, so that those stored together begin in different banks; so are fours of
// rows, of which eight are read together when the slab is a tile.
struct RowOfA { at: array<array<vec4f, QUADS>, TURNS>, pad: vec4f }
struct FourOfA { row: array<RowOfA, 4>, pad: vec4f }
struct RowOfB { at: array<array<vec4f, LANES_X>, VECTORS>, pad: vec4f }
// The first operand's slab; once the products are made, the tile.
var<workgroup> slab_a: array<array<FourOfA, QUADS>, TURNS>;
var<workgroup> slab_b: array<array<array<RowOfB, 4>, QUADS>, SLAB_TURNS>;
// Whether any element of the tile is not zero; of the one and the other tile where there are two.
var<workgroup> present: array<atomic<u32>, 2>;

// 0. A CPU driver is not told: it unrolls loops of few turns, and would compile these kernels for a minute.
fn none() -> u32 { return select(0u, gate.layer >> 31u, ROLLED); }

// `head` is a query head; keys and values are those that it reads.
struct Place { batch: u32, head: u32, index: u32, x: u32, y: u32 }

// 32 invocations, a subgroup on most GPUs, stand 8 high and 4 wide: reads of workgroup memory by which lanes i and i ^ 1,
// or i and i ^ 2, want the same are joined.
fn place_of(batch: u32, head: u32, index: u32) -> Place {
  let y = index / 2u % 8u + 8u * (index / 32u % 2u);
  let x = index % 2u + 2u * (index / 16u % 2u) + 4u * (index / 64u);
  return Place(batch, head, index, x, y);
}

// The row of a tile that is an invocation's s-th, and the column that is its c-th in its j-th four.
fn row_of(place: Place, s: u32) -> u32 { return 4u * place.y + s; }
fn column_of(place: Place, j: u32, c: u32) -> u32 { return 4u * (place.x + LANES_X * j) + c; }

// An invocation's edges: four rows, COLUMNS times four columns.
struct Edges {
  $for s in 0..4 {
  $for j in 0..COLUMNS {
  r$s_$j: vec4f,
  $}
  $}
}

// The same rows of one result, of which each invocation holds vectors x, x + LANES_X, ...
struct Rows {
  $for s in 0..4 {
  $for g in 0..GROUPS {
  r$s_$g: vec4f,
  $}
  $}
}

// Four elements of a row of queries, keys, values or dy; past the head's size 0, past the last row that row.
fn operand(which: u32, place: Place, row: u32, chunk: u32) -> vec4f {
  if (CHUNKS % (DEPTH / 4u) != 0u && chunk >= CHUNKS) { return vec4f(); }
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
  // 32 invocations load two vectors of each of 16 rows: whole sectors of memory, and few banks twice when they are stored.
  $for l in 0..LOADS {
  let n$l = place.index + INVOCATIONS * $lu;
  let row$l = n$l % 16u + 16u * (n$l / 32u % 4u);
  let chunk$l = n$l / 16u % 2u + 2u * (n$l / 128u);
  var of_a$l = operand(a, place, first_a + row$l, chunk$l);
  var of_b$l = operand(b, place, first_b + row$l, chunk$l);
  $}
  for (var start = 0u; start < CHUNKS; start += DEPTH / 4u) {
    workgroupBarrier();
    $for l in 0..LOADS {
    $for c in 0..4 {
    slab_a[chunk$l / QUADS][chunk$l % QUADS].row[$c].at[row$l / (4u * QUADS)][row$l / 4u % QUADS][row$l % 4u] = of_a$l[$c];
    slab_b[chunk$l / QUADS][chunk$l % QUADS][$c].at[row$l / (4u * LANES_X)][row$l / 4u % LANES_X][row$l % 4u] = of_b$l[$c];
    $}
    $}
    workgroupBarrier();
    // The next slab is on its way while this one is multiplied.
    if (DEPTH < 4u * CHUNKS && start + DEPTH / 4u < CHUNKS) {
      $for l in 0..LOADS {
      of_a$l = operand(a, place, first_a + row$l, start + DEPTH / 4u + chunk$l);
      of_b$l = operand(b, place, first_b + row$l, start + DEPTH / 4u + chunk$l);
      $}
    }
    for (var turn = 0u; turn < DEPTH / (4u * QUADS) + none(); turn++) {
      $for q in 0..QUADS {
      $for c in 0..4 {
      let x$q_$c = slab_a[turn][$q].row[$c].at[place.y / QUADS][place.y % QUADS];
      $for j in 0..COLUMNS {
      let y$q_$c_$j = slab_b[turn][$q][$c].at[$j][place.x];
      $}
      $for s in 0..4 {
      $for j in 0..COLUMNS {
      edges.r$s_$j = fma(vec4f(x$q_$c[$s]), y$q_$c_$j, edges.r$s_$j);
      $}
      $}
      $}
      $}
    }
  }
  return edges;
}

// The tile's four edges from column 4 `chunk` on.
fn tile_at(row: u32, chunk: u32) -> vec4f {
  return slab_a[row / (4u * QUADS)][row / 4u % QUADS].row[row % 4u].at[chunk / QUADS][chunk % QUADS];
}

fn set_tile(row: u32, chunk: u32, edges: vec4f) {
  slab_a[row / (4u * QUADS)][row / 4u % QUADS].row[row % 4u].at[chunk / QUADS][chunk % QUADS] = edges;
}

// Puts edges into the tile. A barrier must stand between this and what read slab_a last.
fn put(edges: Edges, place: Place) {
  $for s in 0..4 {
  $for j in 0..COLUMNS {
  set_tile(row_of(place, $su), place.x + LANES_X * $ju, edges.r$s_$j);
  $}
  $}
}

// Whether any edge is not zero, by its bits: NaN is not.
fn any_of(edges: Edges) -> bool {
  var all = vec4u();
  $for s in 0..4 {
  $for j in 0..COLUMNS {
  all |= bitcast<vec4u>(edges.r$s_$j);
  $}
  $}
  return any((all & vec4u(0x7fffffffu)) != vec4u());
}

// What an invocation loads of ROWS whole rows.
struct Loaded {
  $for l in 0..ROW_LOADS {
  v$l: vec4f,
  $}
}

// Rows first .. + ROWS - 1 of an operand, on their way to slab_b.
fn load_rows(which: u32, first: u32, place: Place) -> Loaded {
  var loaded = Loaded();
  $for l in 0..ROW_LOADS {
  let n$l = place.index + INVOCATIONS * $lu;
  loaded.v$l = operand(which, place, first + n$l / CHUNKS, n$l % CHUNKS);
  $}
  return loaded;
}

// Adds the tile's product with rows first .. + 63 of an operand, which its columns stand for and of which ROWS were loaded
// before. A barrier must stand between this and what wrote the tile, or read slab_b, last.
fn add_product(which: u32, first: u32, loaded: Loaded, place: Place, before: Rows) -> Rows {
  var rows = before;
  var next = loaded;
  for (var start = 0u; start < SIDE + none(); start += ROWS) {
    if (start > 0u) { workgroupBarrier(); }
    $for l in 0..ROW_LOADS {
    let n$l = place.index + INVOCATIONS * $lu;
    if (ROWS * CHUNKS % INVOCATIONS == 0u || n$l < ROWS * CHUNKS) {
      let row = n$l / CHUNKS;
      let chunk = n$l % CHUNKS;
      slab_b[row / (4u * QUADS)][row / 4u % QUADS][row % 4u].at[chunk / LANES_X][chunk % LANES_X] = next.v$l;
    }
    $}
    workgroupBarrier();
    if (ROWS < SIDE && start + ROWS < SIDE) { next = load_rows(which, first + start + ROWS, place); }
    for (var turn = 0u; turn < SLAB_TURNS + none(); turn++) {
      $for q in 0..QUADS {
      $for s in 0..4 {
      let t$q_$s = slab_a[place.y / QUADS][place.y % QUADS].row[$s].at[start / (4u * QUADS) + turn][$q];
      $}
      $for c in 0..4 {
      $for g in 0..GROUPS {
      let v$q_$c_$g = slab_b[turn][$q][$c].at[$g][place.x];
      $for s in 0..4 {
      rows.r$s_$g = fma(vec4f(t$q_$s[$c]), v$q_$c_$g, rows.r$s_$g);
      $}
      $}
      $}
      $}
    }
  }
  return rows;
}
