// For each row of a block of logits: loss = log sum exp - logit of the target. One workgroup a row.
//
// logits (row of the block, STRIDE), of which the first V columns count; targets, rows (position in the batch); the
// block's first row is position FIRST. rows holds (loss, 1 if no logit exceeds the target's, log sum exp, 1 if the
// position counts); a target of 0xffffffff does not count.
@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> rows: array<vec4f>;

var<workgroup> partial: array<f32, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let at = group.x * STRIDE;
  var highest = -3.0e38;
  for (var v = lane; v < V; v += LANES) { highest = max(highest, logits[at + v]); }
  partial[lane] = highest;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { partial[lane] = max(partial[lane], partial[lane + half]); }
  }
  workgroupBarrier();
  highest = partial[0];
  workgroupBarrier();
  var sum = 0.0;
  for (var v = lane; v < V; v += LANES) { sum += exp(logits[at + v] - highest); }
  partial[lane] = sum;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { partial[lane] += partial[lane + half]; }
  }
  if (lane == 0u) {
    let log_sum_exp = highest + log(partial[0]);
    let target_token = targets[FIRST + group.x];
    var row = vec4f(0.0, 0.0, log_sum_exp, 0.0);
    if (target_token < V) {
      let logit = logits[at + target_token];
      row = vec4f(log_sum_exp - logit, select(0.0, 1.0, logit >= highest), log_sum_exp, 1.0);
    }
    rows[FIRST + group.x] = row;
  }
}
