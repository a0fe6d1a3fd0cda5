// y_i = sum over j <= i of m_ij s_ij v_j, s the softmax over ALL causal keys; not renormalised over the open ones.
// One invocation a query, with the running maximum of an online softmax; neither scores nor masks are stored.
//
// qkv          (batch, position, 3, head, D)
// y            (batch, position, head, D)
// log_sum_exp  (batch, head, query)
// row_sums     (batch, head, query) of: open probability, open gates as used, saturation, open gates without noise
@group(0) @binding(0) var<uniform> gate: Gate;
@group(0) @binding(1) var<storage, read> qkv: array<ELEMENT>;
@group(0) @binding(2) var<storage, read_write> y: array<ELEMENT>;
@group(0) @binding(3) var<storage, read_write> log_sum_exp: array<f32>;
@group(0) @binding(4) var<storage, read_write> row_sums: array<vec4f>;

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.x;
  let head = id.y;
  let b = id.z;
  if (i >= T) { return; }
  let q_at = (b * T + i) * 3u * WIDTH + head * CHUNKS;
  let first_k = b * T * 3u * WIDTH + WIDTH + head * CHUNKS;
  let key = select(0u, stream_key(gate.seed, gate.step, gate.layer, gate.first_row + b * HEADS + head), NOISE);
  $for d in 0..CHUNKS {
  let q$d = qkv[q_at + $du];
  var sum$d = ELEMENT();
  $}
  var highest = -3.0e38;
  var total = 0.0;
  var sums = vec4f();
  for (var j = 0u; j <= i; j++) {
    let k_at = first_k + j * 3u * WIDTH;
    var score = 0.0;
    $for d in 0..CHUNKS {
    score += dot_element(q$d, qkv[k_at + $du]);
    $}
    let l = score * SCALE;
    if (l > highest) {
      let shrink = exp(highest - l);
      total *= shrink;
      $for d in 0..CHUNKS {
      sum$d *= shrink;
      $}
      highest = l;
    }
    let weight = exp(l - highest);
    total += weight;
    var open = true;
    if (GATED) {
      let g = l + gate.bias;
      open = noisy_logit(g, key, i, j) > 0.0;
      let excess = max(abs(g) - gate.saturation_bound, 0.0);
      sums += vec4f(sigmoid(g), select(0.0, 1.0, open), excess * excess, select(0.0, 1.0, g > 0.0));
    }
    if (open) {
      $for d in 0..CHUNKS {
      sum$d += weight * qkv[k_at + WIDTH + $du];
      $}
    }
  }
  let y_at = (b * T + i) * WIDTH + head * CHUNKS;
  $for d in 0..CHUNKS {
  y[y_at + $du] = sum$d / total;
  $}
  let row = (b * HEADS + head) * T + i;
  log_sum_exp[row] = highest + log(total);
  if (!GATED) {
    let keys = f32(i + 1u);
    sums = vec4f(keys, keys, 0.0, keys);
  }
  row_sums[row] = sums;
}
