// backward_key_value.wgsl's result for 64 keys a workgroup, by tiles of 64 queries from theirs on, of one query head
// after the other; here rows of a tile are keys and its columns queries. A tile of which no weight, or no edge's gradient,
// is other than zero is not multiplied.
@group(0) @binding(0) var<uniform> gate: Gate;
@group(0) @binding(1) var<storage, read> qkv: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> dy: array<ELEMENT>;
@group(0) @binding(3) var<storage, read> log_sum_exp: array<f32>;
@group(0) @binding(4) var<storage, read> delta: array<f32>;
@group(0) @binding(5) var<storage, read> edge_scale: array<f32>;
@group(0) @binding(6) var<storage, read_write> dqkv: array<ELEMENT>;

// d(objective)/dl of an invocation's edges, and what values were multiplied by.
struct EdgesBackward { dl: Edges, weight: Edges }

// Those from queries i_first .. + 63 to keys first .. + 63.
fn edges_backward(
  scores: Edges,
  dy_v: Edges,
  first: u32,
  i_first: u32,
  place: Place,
  edge: f32,
  key: u32,
  unit: bool,
) -> EdgesBackward {
  var result = EdgesBackward();
  let row_of_head = (place.batch * HEADS + place.head) * T;
  $for j in 0..COLUMNS {
  $for c in 0..4 {
  let query$j_$c = i_first + column_of(place, $ju, $cu);
  let row$j_$c = row_of_head + min(query$j_$c, T - 1u);
  let normaliser$j_$c = log_sum_exp[row$j_$c];
  let delta$j_$c = delta[row$j_$c];
  let noise_row$j_$c = random_row(key, query$j_$c);
  $for s in 0..4 {
  let j$s_$j_$c = first + row_of(place, $su);
  let l$s_$j_$c = scores.r$s_$j[$c] * SCALE;
  let of_edge$s_$j_$c = tiled_edge_backward(
    l$s_$j_$c,
    exp(l$s_$j_$c - normaliser$j_$c),
    dy_v.r$s_$j[$c],
    delta$j_$c,
    edge,
    noise_row$j_$c,
    key,
    query$j_$c,
    j$s_$j_$c,
    unit,
  );
  let seen$s_$j_$c = query$j_$c < T && j$s_$j_$c <= query$j_$c;
  result.dl.r$s_$j[$c] = select(0.0, of_edge$s_$j_$c.dl, seen$s_$j_$c);
  result.weight.r$s_$j[$c] = select(0.0, of_edge$s_$j_$c.weight, seen$s_$j_$c);
  $}
  $}
  $}
  return result;
}

@compute @workgroup_size(INVOCATIONS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32) {
  let key_head = group.x;
  let first = group.z * SIDE;
  let edge = edge_scale[0] * gate.edge_weight;
  var dk = Rows();
  var dv = Rows();
  for (var of_group = 0u; of_group < QUERIES_PER_KEY; of_group++) {
    let place = place_of(group.y, key_head * QUERIES_PER_KEY + of_group, index);
    let stream = gate.first_row + place.batch * HEADS + place.head;
    let key = select(0u, stream_key(gate.seed, gate.step, gate.layer, stream), NOISE);
    for (var i_first = first; i_first < T; i_first += SIDE) {
      let scores = products(KEY, first, QUERY, i_first, place);
      let dy_v = products(VALUE, first, GRADIENT, i_first, place);
      if (index < 2u) { atomicStore(&present[index], 0u); }
      var edges = EdgesBackward();
      if (ROLLED) { edges = edges_backward(scores, dy_v, first, i_first, place, edge, key, is_unit()); }
      else if (is_unit()) { edges = edges_backward(scores, dy_v, first, i_first, place, edge, key, true); }
      else { edges = edges_backward(scores, dy_v, first, i_first, place, edge, key, false); }
      let gradients = load_rows(GRADIENT, i_first, place);
      workgroupBarrier();
      put(edges.weight, place);
      if (any_of(edges.weight)) { atomicStore(&present[0], 1u); }
      if (workgroupUniformLoad(&present[0]) != 0u) { dv = add_product(GRADIENT, i_first, gradients, place, dv); }
      let queries = load_rows(QUERY, i_first, place);
      workgroupBarrier();
      put(edges.dl, place);
      if (any_of(edges.dl)) { atomicStore(&present[1], 1u); }
      if (workgroupUniformLoad(&present[1]) != 0u) { dk = add_product(QUERY, i_first, queries, place, dk); }
    }
  }
  let place = place_of(group.y, key_head, index);
  $for s in 0..4 {
  if (first + row_of(place, $su) < T) {
    let t = group.y * T + first + row_of(place, $su);
    $for g in 0..GROUPS {
    let chunk$g = place.x + LANES_X * $gu;
    if (chunk$g < CHUNKS) {
      dqkv[key_at(t, key_head) + chunk$g] = dk.r$s_$g * SCALE;
      dqkv[value_at(t, key_head) + chunk$g] = dv.r$s_$g;
    }
    $}
  }
  $}
}
