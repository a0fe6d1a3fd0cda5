// dq_i = sum over j <= i of dl_ij k_j / sqrt(D), a query to an invocation. Also delta_i = dy_i . y_i, which the kernel for
// keys and values reads.
//
// qkv, dqkv    (batch, position, H + 2 K, D), as heads.wgsl has it; writes the query heads of dqkv
// y, dy        (batch, position, head, D)
// log_sum_exp, delta (batch, head, query)
@group(0) @binding(0) var<uniform> gate: Gate;
@group(0) @binding(1) var<storage, read> qkv: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> y: array<ELEMENT>;
@group(0) @binding(3) var<storage, read> dy: array<ELEMENT>;
@group(0) @binding(4) var<storage, read> log_sum_exp: array<f32>;
@group(0) @binding(5) var<storage, read> edge_scale: array<f32>;
@group(0) @binding(6) var<storage, read_write> delta: array<f32>;
@group(0) @binding(7) var<storage, read_write> dqkv: array<ELEMENT>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let head = group.y;
  let b = group.z;
  let own = group.x * LANES + lane;
  let i = min(own, T - 1u);
  let keys = min((group.x + 1u) * LANES, T);
  let key_head = key_head_of(head);
  let q_at = query_at(b * T + i, head);
  let y_at = result_at(b * T + i, head);
  let row = (b * HEADS + head) * T + i;
  let key = select(0u, stream_key(gate.seed, gate.step, gate.layer, gate.first_row + b * HEADS + head), NOISE);
  let noise_row = random_row(key, i);
  let edge = edge_scale[0] * gate.edge_weight;
  let normaliser = log_sum_exp[row];
  var delta_i = 0.0;
  $for d in 0..CHUNKS {
  let q$d = qkv[q_at + $du];
  let dy$d = dy[y_at + $du];
  delta_i += dot_element(dy$d, y[y_at + $du]);
  var dq$d = ELEMENT();
  $}
  for (var j = 0u; j < keys; j++) {
    let k_at = key_at(b * T + j, key_head);
    let v_at = value_at(b * T + j, key_head);
    $for p in 0..PARTS {
    let k_part$p = qkv[k_at + part($pu, lane)];
    let v_part$p = qkv[v_at + part($pu, lane)];
    $}
    var score = 0.0;
    var dy_v = 0.0;
    $for d in 0..CHUNKS {
    let k$d = subgroupBroadcast(k_part$[$d / HANDS], $[$d % HANDS]u);
    score += dot_element(q$d, k$d);
    dy_v += dot_element(dy$d, subgroupBroadcast(v_part$[$d / HANDS], $[$d % HANDS]u));
    $}
    let l = score * SCALE;
    let of_edge = edge_backward(l, exp(l - normaliser), dy_v, delta_i, edge, noise_row, key, i, j);
    let dl = select(0.0, of_edge.dl, j <= i);
    $for d in 0..CHUNKS {
    dq$d += dl * k$d;
    $}
  }
  if (own < T) {
    delta[row] = delta_i;
    $for d in 0..CHUNKS {
    dqkv[q_at + $du] = dq$d * SCALE;
    $}
  }
}
