// dk_j = sum over i >= j of dl_ij q_i / sqrt(D);  dv_j = sum over i >= j of m_ij s_ij dy_i. A key to an invocation,
// which goes over the query heads that read it one after the other.
//
// qkv, dqkv    (batch, position, H + 2 K, D), as heads.wgsl has it; writes the key and value heads of dqkv
// dy           (batch, position, head, D)
// log_sum_exp, delta (batch, head, query); delta is what backward_query.wgsl wrote
@group(0) @binding(0) var<uniform> gate: Gate;
@group(0) @binding(1) var<storage, read> qkv: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> dy: array<ELEMENT>;
@group(0) @binding(3) var<storage, read> log_sum_exp: array<f32>;
@group(0) @binding(4) var<storage, read> delta: array<f32>;
@group(0) @binding(5) var<storage, read> edge_scale: array<f32>;
@group(0) @binding(6) var<storage, read_write> dqkv: array<ELEMENT>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let key_head = group.y;
  let b = group.z;
  let own = group.x * LANES + lane;
  let j = min(own, T - 1u);
  let k_at = key_at(b * T + j, key_head);
  let v_at = value_at(b * T + j, key_head);
  let edge = edge_scale[0] * gate.edge_weight;
  $for d in 0..CHUNKS {
  let k$d = qkv[k_at + $du];
  let v$d = qkv[v_at + $du];
  var dk$d = ELEMENT();
  var dv$d = ELEMENT();
  $}
  for (var of_group = 0u; of_group < QUERIES_PER_KEY; of_group++) {
    let head = key_head * QUERIES_PER_KEY + of_group;
    let key = select(0u, stream_key(gate.seed, gate.step, gate.layer, gate.first_row + b * HEADS + head), NOISE);
    for (var i = group.x * LANES; i < T; i++) {
      let q_at = query_at(b * T + i, head);
      let y_at = result_at(b * T + i, head);
      let row = (b * HEADS + head) * T + i;
      $for p in 0..PARTS {
      let q_part$p = qkv[q_at + part($pu, lane)];
      let dy_part$p = dy[y_at + part($pu, lane)];
      $}
      var score = 0.0;
      var dy_v = 0.0;
      $for d in 0..CHUNKS {
      let q$d = subgroupBroadcast(q_part$[$d / HANDS], $[$d % HANDS]u);
      let dy$d = subgroupBroadcast(dy_part$[$d / HANDS], $[$d % HANDS]u);
      score += dot_element(q$d, k$d);
      dy_v += dot_element(dy$d, v$d);
      $}
      let l = score * SCALE;
      let s = exp(l - log_sum_exp[row]);
      let of_edge = edge_backward(l, s, dy_v, delta[row], edge, random_row(key, i), key, i, j);
      let dl = select(0.0, of_edge.dl, j <= i);
      let weight = select(0.0, of_edge.weight, j <= i);
      $for d in 0..CHUNKS {
      dk$d += dl * q$d;
      dv$d += weight * dy$d;
      $}
    }
  }
  if (own < T) {
    $for d in 0..CHUNKS {
    dqkv[k_at + $du] = dk$d * SCALE;
    dqkv[v_at + $du] = dv$d;
    $}
  }
}
