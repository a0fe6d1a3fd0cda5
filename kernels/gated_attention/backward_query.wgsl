// dq_i = sum over j <= i of dl_ij k_j / sqrt(D), one invocation a query. Also delta_i = dy_i . y_i, which the
// kernel for keys and values reads.
//
// qkv, dqkv    (batch, position, 3, head, D); writes the query third of dqkv
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
fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.x;
  let head = id.y;
  let b = id.z;
  if (i >= T) { return; }
  let q_at = (b * T + i) * 3u * WIDTH + head * CHUNKS;
  let y_at = (b * T + i) * WIDTH + head * CHUNKS;
  let first_k = b * T * 3u * WIDTH + WIDTH + head * CHUNKS;
  let key = select(0u, stream_key(gate.seed, gate.step, gate.layer, gate.first_row + b * HEADS + head), NOISE);
  var delta_i = 0.0;
  $for d in 0..CHUNKS {
  let q$d = qkv[q_at + $du];
  let dy$d = dy[y_at + $du];
  delta_i += dot_element(dy$d, y[y_at + $du]);
  var dq$d = ELEMENT();
  $}
  let row = (b * HEADS + head) * T + i;
  delta[row] = delta_i;
  let normaliser = log_sum_exp[row];
  let edge = edge_scale[0] * gate.edge_weight;
  for (var j = 0u; j <= i; j++) {
    let k_at = first_k + j * 3u * WIDTH;
    var score = 0.0;
    var dy_v = 0.0;
    $for d in 0..CHUNKS {
    let k$d = qkv[k_at + $du];
    score += dot_element(q$d, k$d);
    dy_v += dot_element(dy$d, qkv[k_at + WIDTH + $du]);
    $}
    let l = score * SCALE;
    var open = 1.0;
    var noisy = 0.0;
    var dl_edge = 0.0;
    if (GATED) {
      let g = l + gate.bias;
      noisy = noisy_logit(g, key, i, j);
      open = select(0.0, 1.0, noisy > 0.0);
      dl_edge = edge * edge_gradient(g);
    }
    let dl = score_gradient(exp(l - normaliser), open, noisy, dy_v, delta_i) + dl_edge;
    $for d in 0..CHUNKS {
    dq$d += dl * k$d;
    $}
  }
  $for d in 0..CHUNKS {
  dqkv[q_at + $du] = dq$d * SCALE;
  $}
}
