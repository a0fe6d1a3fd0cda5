// dk_j = sum over i >= j of dl_ij q_i / sqrt(D);  dv_j = sum over i >= j of m_ij s_ij dy_i. KEYS keys to an invocation.
//
// qkv, dqkv    (batch, position, 3, head, D); writes the key and value thirds of dqkv
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
fn main(@builtin(global_invocation_id) id: vec3u) {
  let first = id.x * KEYS;
  let head = id.y;
  let b = id.z;
  if (first >= T) { return; }
  let last = min(first + KEYS, T) - 1u;
  let key = select(0u, stream_key(gate.seed, gate.step, gate.layer, gate.first_row + b * HEADS + head), NOISE);
  let edge = edge_scale[0] * gate.edge_weight;
  $for n in 0..KEYS {
  let j$n = min(first + $nu, last);
  let k_at$n = (b * T + j$n) * 3u * WIDTH + WIDTH + head * CHUNKS;
  $for d in 0..CHUNKS {
  let k$n_$d = qkv[k_at$n + $du];
  let v$n_$d = qkv[k_at$n + WIDTH + $du];
  var dk$n_$d = ELEMENT();
  var dv$n_$d = ELEMENT();
  $}
  $}
  for (var i = first; i < T; i++) {
    let q_at = (b * T + i) * 3u * WIDTH + head * CHUNKS;
    let y_at = (b * T + i) * WIDTH + head * CHUNKS;
    let row = (b * HEADS + head) * T + i;
    let normaliser = log_sum_exp[row];
    let delta_i = delta[row];
    let noise_row = random_row(key, i);
    $for n in 0..KEYS {
    var score$n = 0.0;
    var dy_v$n = 0.0;
    $}
    $for d in 0..CHUNKS {
    let q$d = qkv[q_at + $du];
    let dy$d = dy[y_at + $du];
    $for n in 0..KEYS {
    score$n += dot_element(q$d, k$n_$d);
    dy_v$n += dot_element(dy$d, v$n_$d);
    $}
    $}
    $for n in 0..KEYS {
    let l$n = score$n * SCALE;
    let edge$n = edge_backward(l$n, exp(l$n - normaliser), dy_v$n, delta_i, edge, noise_row, key, j$n);
    let dl$n = select(0.0, edge$n.dl, j$n <= i);
    let weight$n = select(0.0, edge$n.weight, j$n <= i);
    $}
    $for d in 0..CHUNKS {
    $for n in 0..KEYS {
    dk$n_$d += dl$n * q$d;
    dv$n_$d += weight$n * dy$d;
    $}
    $}
  }
  $for n in 0..KEYS {
  if (first + $nu <= last) {
    $for d in 0..CHUNKS {
    dqkv[k_at$n + $du] = dk$n_$d * SCALE;
    dqkv[k_at$n + WIDTH + $du] = dv$n_$d;
    $}
  }
  $}
}
