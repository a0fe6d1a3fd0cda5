// For each row of logits: loss = log sum exp - logit of the target. One row at a time for each workgroup, one sweep by
// the online form: a running maximum, and a sum that shrinks whenever it rises.
//
// With GRADIENT a second sweep turns the row, while it is still near, into
//     dlogits = weight * scale * (softmax(logits) - onehot(target)),
// 0 for a position that does not count and for the padding columns V to 4 STRIDE4. With WEIGHTED, each position's weight
// is also multiplied by its own; with EXTRA, a gradient from elsewhere is added.
//
// logits, extra (row, STRIDE4) of vec4. rows holds (loss, 1 if no logit exceeds the target's, log sum exp, 1 if the
// position counts); a target of 0xffffffff does not count.
struct Loss { weight: f32 }
@group(0) @binding(0) var<uniform> loss: Loss;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
$if GRADIENT {
@group(0) @binding(2) var<storage, read> scale: array<f32>;
$}
$if EXTRA {
@group(0) @binding(3) var<storage, read> extra: array<vec4f>;
$}
@group(0) @binding(4) var<storage, read_write> rows: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> logits: array<vec4f>;
$if WEIGHTED {
@group(0) @binding(6) var<storage, read> weights: array<f32>;
$}

fn columns(v: u32) -> vec4u { return 4u * v + vec4u(0u, 1u, 2u, 3u); }

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var row = group.x; row < arrayLength(&rows); row += groups.x) {
    let at = row * STRIDE4;
    var highest = -3.0e38;
    var sum = 0.0;
    for (var v = lane; v < STRIDE4; v += LANES) {
      let values = select(vec4f(-3.0e38), logits[at + v], columns(v) < vec4u(V));
      let higher = max(highest, max(max(values.x, values.y), max(values.z, values.w)));
      sum = sum * exp(highest - higher) + dot(exp(values - higher), vec4f(1.0));
      highest = higher;
    }
    let highest_of_all = max_over_lanes(lane, highest);
    let log_sum_exp = highest_of_all + log(sum_over_lanes(lane, sum * exp(highest - highest_of_all)));
    let target_token = targets[row];
    if (lane == 0u) {
      var result = vec4f(0.0, 0.0, log_sum_exp, 0.0);
      if (target_token < V) {
        let logit = logits[at + target_token / 4u][target_token % 4u];
        result = vec4f(log_sum_exp - logit, select(0.0, 1.0, logit >= highest_of_all), log_sum_exp, 1.0);
      }
      rows[row] = result;
    }
    $if GRADIENT {
    var weight = select(0.0, loss.weight * scale[0], target_token < V);
    $if WEIGHTED {
    weight *= weights[row];
    $}
    // The target's logit is read above, before it is overwritten here.
    storageBarrier();
    for (var v = lane; v < STRIDE4; v += LANES) {
      let onehot = select(vec4f(), vec4f(1.0), columns(v) == vec4u(target_token));
      var gradient = weight * (exp(logits[at + v] - log_sum_exp) - onehot);
      $if EXTRA {
      gradient += extra[at + v];
      $}
      logits[at + v] = select(vec4f(), gradient, columns(v) < vec4u(V));
    }
    $}
  }
}
