// forward.wgsl's y of new positions, whose keys and values, and those of all positions before, stand in a cache. A new
// query of a head to a workgroup, whose lanes take the keys in turn: once for the log-sum-exp, and again for y. Scores are
// summed as there, so that the same gates are open; tiled kernels round otherwise, and a gate within rounding of its threshold
// may differ.
//
// qkv           (batch, new position, H + 2 K, D), as heads.wgsl has it; of which the queries are read
// keys, values  (position, batch, key head, D)
// y             (batch, new position, head, D)
@group(0) @binding(0) var<uniform> cache: Cache;
@group(0) @binding(1) var<storage, read> qkv: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> keys: array<ELEMENT>;
@group(0) @binding(3) var<storage, read> values: array<ELEMENT>;
@group(0) @binding(4) var<storage, read_write> y: array<ELEMENT>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let head = group.y;
  let row = group.z * cache.count + group.x;
  let seen = cache.filled + group.x + 1u;
  let first = cache_at(0u, group.z, key_head_of(head));
  let q_at = query_at(row, head);
  $for d in 0..CHUNKS {
  let q$d = qkv[q_at + $du];
  var sum$d = ELEMENT();
  $}
  var highest = -3.0e38;
  var total = 0.0;
  for (var j = lane; j < seen; j += LANES) {
    let at = first + j * BATCH * KEY_HEADS * CHUNKS;
    var score = 0.0;
    $for d in 0..CHUNKS {
    score += dot_element(q$d, keys[at + $du]);
    $}
    let l = score * SCALE;
    let fall = exp(-abs(l - highest));
    total = select(total + fall, total * fall + 1.0, l > highest);
    highest = max(highest, l);
  }
  let most = max_over_lanes(lane, highest);
  let normaliser = most + log(sum_over_lanes(lane, total * exp(highest - most)));
  for (var j = lane; j < seen; j += LANES) {
    let at = first + j * BATCH * KEY_HEADS * CHUNKS;
    var score = 0.0;
    $for d in 0..CHUNKS {
    score += dot_element(q$d, keys[at + $du]);
    $}
    let l = score * SCALE;
    let weight = select(0.0, exp(l - normaliser), !GATED || l + cache.bias > 0.0);
    // A loop, because a CPU driver goes through a branch that no lane takes, and leaves a loop that none enters.
    for (var once = weight > 0.0; once; once = false) {
      $for d in 0..CHUNKS {
      sum$d += weight * values[at + $du];
      $}
    }
  }
  let y_at = result_at(row, head);
  $for d in 0..CHUNKS {
  let all$d = sum_of_elements(lane, sum$d);
  if (lane == 0u) { y[y_at + $du] = all$d; }
  $}
}
