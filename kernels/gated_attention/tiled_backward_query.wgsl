// backward_query.wgsl's result for 64 queries a workgroup, by tiles of 64 keys. A tile of which no edge has a gradient is
// not multiplied with its keys.
@group(0) @binding(0) var<uniform> gate: Gate;
@group(0) @binding(1) var<storage, read> qkv: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> y: array<ELEMENT>;
@group(0) @binding(3) var<storage, read> dy: array<ELEMENT>;
@group(0) @binding(4) var<storage, read> log_sum_exp: array<f32>;
@group(0) @binding(5) var<storage, read> edge_scale: array<f32>;
@group(0) @binding(6) var<storage, read_write> delta: array<f32>;
@group(0) @binding(7) var<storage, read_write> dqkv: array<ELEMENT>;

// Four parts of each row's delta.
var<workgroup> of_part: array<array<f32, 4>, SIDE>;

// delta of one of the 64 rows.
fn delta_of(row: u32) -> f32 {
  return (of_part[row][0] + of_part[row][1]) + (of_part[row][2] + of_part[row][3]);
}

// What is known of an invocation's four queries.
struct Queries { noise_row: vec4u, normaliser: vec4f, delta: vec4f }

// d(objective)/dl of an invocation's edges to keys j0 .. + 63.
fn edges_backward(
  scores: Edges,
  dy_v: Edges,
  queries: Queries,
  first: u32,
  j0: u32,
  place: Place,
  edge: f32,
  key: u32,
  unit: bool,
) -> Edges {
  var dl = Edges();
  $for s in 0..4 {
  let i$s = first + row_of(place, $su);
  $for j in 0..COLUMNS {
  $for c in 0..4 {
  let j$s_$j_$c = j0 + column_of(place, $ju, $cu);
  let l$s_$j_$c = scores.r$s_$j[$c] * SCALE;
  let of_edge$s_$j_$c = tiled_edge_backward(
    l$s_$j_$c,
    exp(l$s_$j_$c - queries.normaliser[$s]),
    dy_v.r$s_$j[$c],
    queries.delta[$s],
    edge,
    queries.noise_row[$s],
    key,
    i$s,
    j$s_$j_$c,
    unit,
  );
  dl.r$s_$j[$c] = select(0.0, of_edge$s_$j_$c.dl, j$s_$j_$c <= i$s);
  $}
  $}
  $}
  return dl;
}

@compute @workgroup_size(INVOCATIONS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32) {
  let place = place_of(group.y, group.x, index);
  let first = (TILES - 1u - group.z) * SIDE;
  let last = min(first + SIDE, T) - 1u;
  let row_of_head = (place.batch * HEADS + place.head) * T;
  let stream = gate.first_row + place.batch * HEADS + place.head;
  let key = select(0u, stream_key(gate.seed, gate.step, gate.layer, stream), NOISE);
  let edge = edge_scale[0] * gate.edge_weight;
  // delta_i = dy_i . y_i, summed up in four parts whatever number of invocations shares a row.
  let own = index / ROW_LANES;
  let i_own = min(first + own, T - 1u);
  let at_own = result_at(place.batch * T + i_own, place.head);
  for (var part = index % ROW_LANES; part < 4u; part += ROW_LANES) {
    var dot_own = 0.0;
    for (var chunk = part; chunk < CHUNKS; chunk += 4u) {
      dot_own += dot_element(dy[at_own + chunk], y[at_own + chunk]);
    }
    of_part[own][part] = dot_own;
  }
  workgroupBarrier();
  if (index % ROW_LANES == 0u && first + own < T) { delta[row_of_head + i_own] = delta_of(own); }
  var queries = Queries();
  $for s in 0..4 {
  let i$s = first + row_of(place, $su);
  queries.noise_row[$s] = random_row(key, i$s);
  queries.normaliser[$s] = log_sum_exp[row_of_head + min(i$s, T - 1u)];
  queries.delta[$s] = delta_of(row_of(place, $su));
  $}
  var dq = Rows();
  for (var j0 = 0u; j0 <= last; j0 += SIDE) {
    let scores = products(QUERY, first, KEY, j0, place);
    let dy_v = products(GRADIENT, first, VALUE, j0, place);
    if (index == 0u) { atomicStore(&present[0], 0u); }
    var dl = Edges();
    if (ROLLED) { dl = edges_backward(scores, dy_v, queries, first, j0, place, edge, key, is_unit()); }
    else if (is_unit()) { dl = edges_backward(scores, dy_v, queries, first, j0, place, edge, key, true); }
    else { dl = edges_backward(scores, dy_v, queries, first, j0, place, edge, key, false); }
    let keys = load_rows(KEY, j0, place);
    workgroupBarrier();
    put(dl, place);
    if (any_of(dl)) { atomicStore(&present[0], 1u); }
    if (workgroupUniformLoad(&present[0]) != 0u) { dq = add_product(KEY, j0, keys, place, dq); }
  }
  $for s in 0..4 {
  if (i$s < T) {
    $for g in 0..GROUPS {
    if (place.x + LANES_X * $gu < CHUNKS) {
      dqkv[query_at(place.batch * T + i$s, place.head) + place.x + LANES_X * $gu] = dq.r$s_$g * SCALE;
    }
    $}
  }
  $}
}
