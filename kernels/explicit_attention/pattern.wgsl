// The softmax over all causal keys, and which gates are open, of every query; 0 for keys behind it. Scores are summed as
// in the gated attention that stores neither, so that the same gates are open.
//
// qkv (batch, position, H + 2 K, D), as heads.wgsl has it; pattern, gates (batch, head, query, key)
struct Gate { bias: f32 }
@group(0) @binding(0) var<uniform> gate: Gate;
@group(0) @binding(1) var<storage, read> qkv: array<ELEMENT>;
@group(0) @binding(2) var<storage, read_write> pattern: array<f32>;
@group(0) @binding(3) var<storage, read_write> gates: array<f32>;

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.x;
  let head = id.y;
  let b = id.z;
  if (i >= T) { return; }
  let q_at = query_at(b * T + i, head);
  let row = ((b * HEADS + head) * T + i) * T;
  var highest = -3.0e38;
  var total = 0.0;
  for (var j = 0u; j <= i; j++) {
    let k_at = key_at(b * T + j, key_head_of(head));
    var score = 0.0;
    for (var d = 0u; d < CHUNKS; d++) { score += dot_element(qkv[q_at + d], qkv[k_at + d]); }
    let l = score * SCALE;
    let fall = exp(-abs(l - highest));
    total = select(total + fall, total * fall + 1.0, l > highest);
    highest = max(highest, l);
    pattern[row + j] = l;
  }
  let normaliser = highest + log(total);
  for (var j = 0u; j < T; j++) {
    let l = select(-3.0e38, pattern[row + j], j <= i);
    pattern[row + j] = select(0.0, exp(l - normaliser), j <= i);
    gates[row + j] = select(0.0, 1.0, j <= i && (!GATED || l + gate.bias > 0.0));
  }
}
