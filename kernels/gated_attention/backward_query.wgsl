// dq_i = sum over j <= i of dl_ij k_j / sqrt(D), QUERIES queries to an invocation. Also delta_i = dy_i . y_i, which the
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
  let first = id.x * QUERIES;
  let head = id.y;
  let b = id.z;
  if (first >= T) { return; }
  let last = min(first + QUERIES, T) - 1u;
  let first_k = b * T * 3u * WIDTH + WIDTH + head * CHUNKS;
  let key = select(0u, stream_key(gate.seed, gate.step, gate.layer, gate.first_row + b * HEADS + head), NOISE);
  let edge = edge_scale[0] * gate.edge_weight;
  $for n in 0..QUERIES {
  let i$n = min(first + $nu, last);
  let q_at$n = (b * T + i$n) * 3u * WIDTH + head * CHUNKS;
  let y_at$n = (b * T + i$n) * WIDTH + head * CHUNKS;
  let row$n = (b * HEADS + head) * T + i$n;
  var delta$n = 0.0;
  $for d in 0..CHUNKS {
  let q$n_$d = qkv[q_at$n + $du];
  let dy$n_$d = dy[y_at$n + $du];
  delta$n += dot_element(dy$n_$d, y[y_at$n + $du]);
  var dq$n_$d = ELEMENT();
  $}
  delta[row$n] = delta$n;
  let normaliser$n = log_sum_exp[row$n];
  let noise_row$n = random_row(key, i$n);
  $}
  for (var j = 0u; j <= last; j++) {
    let k_at = first_k + j * 3u * WIDTH;
    $for n in 0..QUERIES {
    var score$n = 0.0;
    var dy_v$n = 0.0;
    $}
    $for d in 0..CHUNKS {
    let k$d = qkv[k_at + $du];
    let v$d = qkv[k_at + WIDTH + $du];
    $for n in 0..QUERIES {
    score$n += dot_element(q$n_$d, k$d);
    dy_v$n += dot_element(dy$n_$d, v$d);
    $}
    $}
    $for n in 0..QUERIES {
    let l$n = score$n * SCALE;
    let edge$n = edge_backward(l$n, exp(l$n - normaliser$n), dy_v$n, delta$n, edge, noise_row$n, key, j);
    let dl$n = select(0.0, edge$n.dl, j <= i$n);
    $}
    $for d in 0..CHUNKS {
    $for n in 0..QUERIES {
    dq$n_$d += dl$n * k$d;
    $}
    $}
  }
  $for n in 0..QUERIES {
  if (first + $nu <= last) {
    $for d in 0..CHUNKS {
    dqkv[q_at$n + $du] = dq$n_$d * SCALE;
    $}
  }
  $}
}
