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

@compute @workgroup_size(INVOCATIONS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32) {
  let key_head = group.y;
  let first = group.x * SIDE;
  let edge = edge_scale[0] * gate.edge_weight;
  var dk = Rows();
  var dv = Rows();
  for (var of_group = 0u; of_group < QUERIES_PER_KEY; of_group++) {
    let place = place_of(group.z, key_head * QUERIES_PER_KEY + of_group, index);
    let row_of_head = (place.batch * HEADS + place.head) * T;
    let stream = gate.first_row + place.batch * HEADS + place.head;
    let key = select(0u, stream_key(gate.seed, gate.step, gate.layer, stream), NOISE);
    for (var i_first = first; i_first < T; i_first += SIDE) {
      let scores = products(KEY, first, QUERY, i_first, place);
      let dy_v = products(VALUE, first, GRADIENT, i_first, place);
      if (index < 2u) { atomicStore(&present[index], 0u); }
      var dl = Edges();
      var weight = Edges();
      $for j in 0..COLUMNS {
      $for c in 0..4 {
      let query$j_$c = i_first + column_of(place, $ju, $cu);
      if (query$j_$c < T) {
        let normaliser = log_sum_exp[row_of_head + query$j_$c];
        let delta_i = delta[row_of_head + query$j_$c];
        let noise_row = random_row(key, query$j_$c);
        $for s in 0..4 {
        let j$s = first + row_of(place, $su);
        if (j$s <= query$j_$c) {
          let l = scores.r$s_$j[$c] * SCALE;
          let of_edge = edge_backward(l, exp(l - normaliser), dy_v.r$s_$j[$c], delta_i, edge, noise_row, key, j$s);
          dl.r$s_$j[$c] = of_edge.dl;
          weight.r$s_$j[$c] = of_edge.weight;
        }
        $}
      }
      $}
      $}
      workgroupBarrier();
      put(weight, place);
      if (any_of(weight)) { atomicStore(&present[0], 1u); }
      if (workgroupUniformLoad(&present[0]) != 0u) { dv = add_product(GRADIENT, i_first, place, dv); }
      workgroupBarrier();
      put(dl, place);
      if (any_of(dl)) { atomicStore(&present[1], 1u); }
      if (workgroupUniformLoad(&present[1]) != 0u) { dk = add_product(QUERY, i_first, place, dk); }
    }
  }
  let place = place_of(group.z, key_head, index);
  $for s in 0..4 {
  if (first + row_of(place, $su) < T) {
    let t = group.z * T + first + row_of(place, $su);
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
