// logits -> dlogits in place: weight * scale * (softmax(logits) - onehot(target)), and 0 for a position that does not
// count and for the padding columns V to STRIDE. With EXTRA, a gradient from elsewhere is added.
struct Loss { weight: f32 }
@group(0) @binding(0) var<uniform> loss: Loss;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read> rows: array<vec4f>;
@group(0) @binding(3) var<storage, read> scale: array<f32>;
@group(0) @binding(4) var<storage, read> extra: array<f32>;
@group(0) @binding(5) var<storage, read_write> logits: array<f32>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let at = group.x * STRIDE;
  let target_token = targets[FIRST + group.x];
  let log_sum_exp = rows[FIRST + group.x].z;
  let weight = select(0.0, loss.weight * scale[0], target_token < V);
  for (var v = lane; v < STRIDE; v += LANES) {
    var gradient = 0.0;
    if (v < V) {
      gradient = weight * (exp(logits[at + v] - log_sum_exp) - select(0.0, 1.0, v == target_token));
      if (EXTRA) { gradient += extra[at + v]; }
    }
    logits[at + v] = gradient;
  }
}
