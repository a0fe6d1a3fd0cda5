// In place of scores the softmax over all causal keys, and the logits of the gates, of every query. What is masked has no
// weight; for keys behind the query that is 0, and the logit the least number.
//
// pattern, gates (batch, head, query, key)
struct Gate { bias: f32 }
@group(0) @binding(0) var<uniform> gate: Gate;
@group(0) @binding(1) var<storage, read_write> pattern: array<f32>;
@group(0) @binding(2) var<storage, read_write> gates: array<f32>;

const MASKED = -3.0e38;

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.x;
  if (i >= T) { return; }
  let row = ((id.z * HEADS + id.y) * T + i) * T;
  var highest = MASKED;
  var total = 0.0;
  for (var j = 0u; j <= i; j++) {
    let l = pattern[row + j];
    let fall = exp(-abs(l - highest));
    total = select(total + fall, total * fall + 1.0, l > highest);
    highest = max(highest, l);
  }
  let normaliser = highest + log(total);
  for (var j = 0u; j < T; j++) {
    let l = select(MASKED, pattern[row + j], j <= i);
    pattern[row + j] = select(0.0, exp(l - normaliser), l > MASKED);
    gates[row + j] = select(MASKED, select(1.0, l + gate.bias, GATED), j <= i);
  }
}
