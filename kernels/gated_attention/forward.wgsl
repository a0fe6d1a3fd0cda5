// y_i = sum over j <= i of m_ij s_ij v_j, s the softmax over ALL causal keys; not renormalised over the open ones.
// Neither scores nor masks are stored. An invocation computes one query: it goes over the keys once for the query's
// log-sum-exp, and a second time, with scores computed anew, for y. That is cheaper than rescaling y whenever the running
// maximum moves.
//
// qkv          (batch, position, H + 2 K, D), as heads.wgsl has it
// y            (batch, position, head, D)
// log_sum_exp  (batch, head, query)
// row_sums     (batch, head, query) of: open probability, open gates as used, saturation, open gates without noise
@group(0) @binding(0) var<uniform> gate: Gate;
@group(0) @binding(1) var<storage, read> qkv: array<ELEMENT>;
@group(0) @binding(2) var<storage, read_write> y: array<ELEMENT>;
@group(0) @binding(3) var<storage, read_write> log_sum_exp: array<f32>;
@group(0) @binding(4) var<storage, read_write> row_sums: array<vec4f>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let head = group.y;
  let b = group.z;
  // Past the end stand copies of the last query, which are not stored: every lane loads for the others.
  let own = group.x * LANES + lane;
  let i = min(own, T - 1u);
  let keys = min((group.x + 1u) * LANES, T);
  let key_head = key_head_of(head);
  let q_at = query_at(b * T + i, head);
  let key = select(0u, stream_key(gate.seed, gate.step, gate.layer, gate.first_row + b * HEADS + head), NOISE);
  let noise_row = random_row(key, i);
  $for d in 0..CHUNKS {
  let q$d = qkv[q_at + $du];
  var sum$d = ELEMENT();
  $}
  var highest = -3.0e38;
  var total = 0.0;
  for (var j = 0u; j < keys; j++) {
    let k_at = key_at(b * T + j, key_head);
    var score = 0.0;
    $for p in 0..PARTS {
    let k_part$p = qkv[k_at + part($pu, lane)];
    $}
    $for d in 0..CHUNKS {
    score += dot_element(q$d, subgroupBroadcast(k_part$[$d / HANDS], $[$d % HANDS]u));
    $}
    let l = select(-3.0e38, score * SCALE, j <= i);
    let fall = exp(-abs(l - highest));
    total = select(total + fall, total * fall + 1.0, l > highest);
    highest = max(highest, l);
  }
  let normaliser = highest + log(total);
  var sums = vec4f();
  for (var j = 0u; j < keys; j++) {
    let k_at = key_at(b * T + j, key_head);
    var score = 0.0;
    $for p in 0..PARTS {
    let k_part$p = qkv[k_at + part($pu, lane)];
    $}
    $for d in 0..CHUNKS {
    score += dot_element(q$d, subgroupBroadcast(k_part$[$d / HANDS], $[$d % HANDS]u));
    $}
    let l = score * SCALE;
    var weight = select(0.0, exp(l - normaliser), j <= i);
    if (GATED) {
      let g = l + gate.bias;
      let odds = closed_odds(g);
      let open = is_open(g, noisy_odds(odds, noise_row, key, j));
      let excess = max(abs(g) - gate.saturation_bound, 0.0);
      let of_edge = vec4f(open_probability(odds), select(0.0, 1.0, open), excess * excess, select(0.0, 1.0, g > 0.0));
      sums += select(vec4f(), of_edge, j <= i);
      weight = select(0.0, weight, open);
    }
    // A value that no query of these lanes takes is not loaded. A loop, because a CPU driver goes through a branch that no
    // lane takes, and leaves a loop that none enters.
    for (var once = subgroupAny(weight > 0.0); once; once = false) {
      let v_at = value_at(b * T + j, key_head);
      $for p in 0..PARTS {
      let v_part$p = qkv[v_at + part($pu, lane)];
      $}
      $for d in 0..CHUNKS {
      sum$d += weight * subgroupBroadcast(v_part$[$d / HANDS], $[$d % HANDS]u);
      $}
    }
  }
  if (own < T) {
    let y_at = result_at(b * T + i, head);
    $for d in 0..CHUNKS {
    y[y_at + $du] = sum$d;
    $}
    let row = (b * HEADS + head) * T + i;
    log_sum_exp[row] = normaliser;
    if (!GATED) {
      let causal = f32(i + 1u);
      sums = vec4f(causal, causal, 0.0, causal);
    }
    row_sums[row] = sums;
  }
}
