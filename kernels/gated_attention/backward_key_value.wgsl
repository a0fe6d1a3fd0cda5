// dk_j = sum over i >= j of dl_ij q_i / sqrt(D);  dv_j = sum over i >= j of m_ij s_ij dy_i. One invocation a key.
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
  let j = id.x;
  let head = id.y;
  let b = id.z;
  if (j >= T) { return; }
  let k_at = (b * T + j) * 3u * WIDTH + WIDTH + head * CHUNKS;
  let key = select(0u, stream_key(gate.seed, gate.step, gate.layer, gate.first_row + b * HEADS + head), NOISE);
  $for d in 0..CHUNKS {
  let k$d = qkv[k_at + $du];
  let v$d = qkv[k_at + WIDTH + $du];
  var dk$d = ELEMENT();
  var dv$d = ELEMENT();
  $}
  let edge = edge_scale[0] * gate.edge_weight;
  for (var i = j; i < T; i++) {
    let q_at = (b * T + i) * 3u * WIDTH + head * CHUNKS;
    let y_at = (b * T + i) * WIDTH + head * CHUNKS;
    let row = (b * HEADS + head) * T + i;
    var score = 0.0;
    var dy_v = 0.0;
    $for d in 0..CHUNKS {
    let q$d = qkv[q_at + $du];
    let dy$d = dy[y_at + $du];
    score += dot_element(q$d, k$d);
    dy_v += dot_element(dy$d, v$d);
    $}
    let l = score * SCALE;
    let s = exp(l - log_sum_exp[row]);
    var open = 1.0;
    var noisy = 0.0;
    var dl_edge = 0.0;
    if (GATED) {
      let g = l + gate.bias;
      noisy = noisy_logit(g, key, i, j);
      open = select(0.0, 1.0, noisy > 0.0);
      dl_edge = edge * edge_gradient(g);
    }
    let dl = score_gradient(s, open, noisy, dy_v, delta[row]) + dl_edge;
    let weight = open * s;
    $for d in 0..CHUNKS {
    dk$d += dl * q$d;
    dv$d += weight * dy$d;
    $}
  }
  $for d in 0..CHUNKS {
  dqkv[k_at + $du] = dk$d * SCALE;
  dqkv[k_at + WIDTH + $du] = dv$d;
  $}
}
