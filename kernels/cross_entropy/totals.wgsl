// totals += the sums over rows of (loss, correct, 0, counted). One workgroup, a tree of fixed shape.
@group(0) @binding(0) var<storage, read> rows: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> totals: array<vec4f>;

const LANES = 256u;
var<workgroup> partial: array<vec4f, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32) {
  var sum = vec4f();
  for (var row = lane; row < ROWS; row += LANES) { sum += rows[row] * vec4f(1.0, 1.0, 0.0, 1.0); }
  partial[lane] = sum;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { partial[lane] += partial[lane + half]; }
  }
  if (lane == 0u) { totals[0] += partial[0]; }
}
