// The scaled score of every query and key; the least number for keys behind the query. Scores are summed as in
// gated_attention/forward.wgsl, so that the same gates are open; tiled kernels round otherwise, and a gate within rounding of
// its threshold may differ.
//
// qkv (batch, position, H + 2 K, D), as heads.wgsl has it; scores (batch, head, query, key)
@group(0) @binding(0) var<storage, read> qkv: array<ELEMENT>;
@group(0) @binding(1) var<storage, read_write> scores: array<f32>;

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.x;
  let head = id.y;
  let b = id.z;
  if (i >= T) { return; }
  let q_at = query_at(b * T + i, head);
  let row = ((b * HEADS + head) * T + i) * T;
  for (var j = 0u; j < T; j++) {
    let k_at = key_at(b * T + j, key_head_of(head));
    var score = 0.0;
    for (var d = 0u; d < CHUNKS; d++) { score += dot_element(qkv[q_at + d], qkv[k_at + d]); }
    scores[row + j] = select(-3.0e38, score * SCALE, j <= i);
  }
}
