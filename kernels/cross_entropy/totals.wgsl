// totals += the sums over rows of (loss, correct, 0, counted). One workgroup.
@group(0) @binding(0) var<storage, read> rows: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> totals: array<vec4f>;

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32) {
  var own = vec4f();
  for (var row = lane; row < ROWS; row += LANES) { own += rows[row] * vec4f(1.0, 1.0, 0.0, 1.0); }
  let sum = sum_over_lanes(lane, own);
  if (lane == 0u) { totals[0] += sum; }
}
