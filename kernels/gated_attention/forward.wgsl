// y_i = sum over j <= i of m_ij s_ij v_j, s the softmax over ALL causal keys; not renormalised over the open ones.
// Neither scores nor masks are stored. One invocation computes QUERIES queries, so that a key that was loaded serves
// them all: it goes over the keys once for each query's log-sum-exp, and a second time, with scores computed anew, for
// y. That is cheaper than rescaling y whenever a running maximum moves.
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
  let first = id.x * QUERIES;
  let head = id.y;
  let b = id.z;
  if (first >= T) { return; }
  let last = min(first + QUERIES, T) - 1u;
  let first_k = b * T * 3u * WIDTH + WIDTH + head * CHUNKS;
  let key = select(0u, stream_key(gate.seed, gate.step, gate.layer, gate.first_row + b * HEADS + head), NOISE);
  $for n in 0..QUERIES {
  // Past the end stand copies of the last query, which are not stored.
  let i$n = min(first + $nu, last);
  let q_at$n = (b * T + i$n) * 3u * WIDTH + head * CHUNKS;
  $for d in 0..CHUNKS {
  let q$n_$d = qkv[q_at$n + $du];
  var sum$n_$d = ELEMENT();
  $}
  let noise_row$n = random_row(key, i$n);
  var highest$n = -3.0e38;
  var total$n = 0.0;
  var sums$n = vec4f();
  $}
  for (var j = 0u; j <= last; j++) {
    let k_at = first_k + j * 3u * WIDTH;
    $for n in 0..QUERIES {
    var score$n = 0.0;
    $}
    $for d in 0..CHUNKS {
    let k$d = qkv[k_at + $du];
    $for n in 0..QUERIES {
    score$n += dot_element(q$n_$d, k$d);
    $}
    $}
    $for n in 0..QUERIES {
    let l$n = select(-3.0e38, score$n * SCALE, j <= i$n);
    let fall$n = exp(-abs(l$n - highest$n));
    total$n = select(total$n + fall$n, total$n * fall$n + 1.0, l$n > highest$n);
    highest$n = max(highest$n, l$n);
    $}
  }
  $for n in 0..QUERIES {
  let normaliser$n = highest$n + log(total$n);
  $}
  for (var j = 0u; j <= last; j++) {
    let k_at = first_k + j * 3u * WIDTH;
    $for n in 0..QUERIES {
    var score$n = 0.0;
    $}
    $for d in 0..CHUNKS {
    let k$d = qkv[k_at + $du];
    $for n in 0..QUERIES {
    score$n += dot_element(q$n_$d, k$d);
    $}
    $}
    $for n in 0..QUERIES {
    let l$n = score$n * SCALE;
    var weight$n = select(0.0, exp(l$n - normaliser$n), j <= i$n);
    if (GATED) {
      let g = l$n + gate.bias;
      let odds = closed_odds(g);
      let open = is_open(g, noisy_odds(odds, noise_row$n, key, j));
      let excess = max(abs(g) - gate.saturation_bound, 0.0);
      let of_edge = vec4f(open_probability(odds), select(0.0, 1.0, open), excess * excess, select(0.0, 1.0, g > 0.0));
      sums$n += select(vec4f(), of_edge, j <= i$n);
      weight$n = select(0.0, weight$n, open);
    }
    $}
    // A value that no query of these lanes takes is not loaded: at few open edges 15 % of the time. A loop, because a
    // CPU driver goes through a branch that no lane takes, and leaves a loop that none enters.
    var taken = 0.0;
    $for n in 0..QUERIES {
    taken += weight$n;
    $}
    for (var once = taken > 0.0; once; once = false) {
      $for d in 0..CHUNKS {
      let v$d = qkv[k_at + WIDTH + $du];
      $for n in 0..QUERIES {
      sum$n_$d += weight$n * v$d;
      $}
      $}
    }
  }
  $for n in 0..QUERIES {
  if (first + $nu <= last) {
    let y_at = (b * T + i$n) * WIDTH + head * CHUNKS;
    $for d in 0..CHUNKS {
    y[y_at + $du] = sum$n_$d;
    $}
    let row = (b * HEADS + head) * T + i$n;
    log_sum_exp[row] = normaliser$n;
    if (!GATED) {
      let keys = f32(i$n + 1u);
      sums$n = vec4f(keys, keys, 0.0, keys);
    }
    row_sums[row] = sums$n;
  }
  $}
}
