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

var<workgroup> of_lane: array<f32, 256>;

@compute @workgroup_size(16, 16)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
  @builtin(local_invocation_index) index: u32,
) {
  let place = Place(group.z, group.y, index, lane.x, lane.y);
  let first = group.x * SIDE;
  let last = min(first + SIDE, T) - 1u;
  let row_of_head = (place.batch * HEADS + place.head) * T;
  let stream = gate.first_row + place.batch * HEADS + place.head;
  let key = select(0u, stream_key(gate.seed, gate.step, gate.layer, stream), NOISE);
  let edge = edge_scale[0] * gate.edge_weight;
  // delta_i = dy_i . y_i: four invocations a row.
  let own = min(first + index / 4u, T - 1u);
  let at_own = result_at(place.batch * T + own, place.head);
  var dot_own = 0.0;
  for (var chunk = index % 4u; chunk < CHUNKS; chunk += 4u) {
    dot_own += dot_element(dy[at_own + chunk], y[at_own + chunk]);
  }
  of_lane[index] = dot_own;
  workgroupBarrier();
  if (index % 4u == 0u && first + index / 4u < T) {
    delta[row_of_head + own] = (of_lane[index] + of_lane[index + 1u]) + (of_lane[index + 2u] + of_lane[index + 3u]);
  }
  $for s in 0..4 {
  let i$s = first + 4u * lane.y + $su;
  let noise_row$s = random_row(key, i$s);
  let normaliser$s = log_sum_exp[row_of_head + min(i$s, T - 1u)];
  let lane$s = 16u * lane.y + 4u * $su;
  let delta$s = (of_lane[lane$s] + of_lane[lane$s + 1u]) + (of_lane[lane$s + 2u] + of_lane[lane$s + 3u]);
  $}
  var dq = Rows();
  for (var j0 = 0u; j0 <= last; j0 += SIDE) {
    let scores = products(QUERY, first, KEY, j0, place);
    let dy_v = products(GRADIENT, first, VALUE, j0, place);
    if (index == 0u) { atomicStore(&present, 0u); }
    var dl = Edges();
    $for s in 0..4 {
    $for c in 0..4 {
    if (j0 + 4u * lane.x + $cu <= i$s) {
      let l = scores.r$s[$c] * SCALE;
      let j = j0 + 4u * lane.x + $cu;
      dl.r$s[$c] = edge_backward(l, exp(l - normaliser$s), dy_v.r$s[$c], delta$s, edge, noise_row$s, key, j).dl;
    }
    $}
    $}
    workgroupBarrier();
    put(dl, place);
    workgroupBarrier();
    if (workgroupUniformLoad(&present) != 0u) { dq = add_product(KEY, j0, place, dq); }
  }
  $for s in 0..4 {
  if (i$s < T) {
    $for g in 0..GROUPS {
    if (lane.x + 16u * $gu < CHUNKS) {
      dqkv[query_at(place.batch * T + i$s, place.head) + lane.x + 16u * $gu] = dq.r$s_$g * SCALE;
    }
    $}
  }
  $}
}
