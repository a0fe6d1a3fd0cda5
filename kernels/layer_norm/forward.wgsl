// y = (x - mean) / sqrt(variance + epsilon) * weight + bias, over the last axis, with WEIGHT and BIAS; one workgroup a
// row. The variance is taken about the mean in a second pass, not as E[x^2] - mean^2, which cancels.
//
// x, y (row, ELEMENTS); statistics (row) of (mean, 1 / standard deviation)
@group(0) @binding(0) var<storage, read> x: array<ELEMENT>;
$if WEIGHT {
@group(0) @binding(1) var<storage, read> weight: array<ELEMENT>;
$}
$if BIAS {
@group(0) @binding(2) var<storage, read> bias: array<ELEMENT>;
$}
@group(0) @binding(3) var<storage, read_write> y: array<ELEMENT>;
@group(0) @binding(4) var<storage, read_write> statistics: array<vec2f>;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var row = group.x; row < ROWS; row += groups.x) {
    let at = row * ELEMENTS;
    var sum = 0.0;
    for (var n = lane; n < ELEMENTS; n += LANES) { sum += sum_of(x[at + n]); }
    let mean = sum_over_lanes(lane, sum) / f32(N);
    var squares = 0.0;
    for (var n = lane; n < ELEMENTS; n += LANES) {
      let centred = x[at + n] - mean;
      squares += sum_of(centred * centred);
    }
    let inverse = inverseSqrt(sum_over_lanes(lane, squares) / f32(N) + EPSILON);
    for (var n = lane; n < ELEMENTS; n += LANES) {
      var value = (x[at + n] - mean) * inverse;
      $if WEIGHT {
      value *= weight[n];
      $}
      $if BIAS {
      value += bias[n];
      $}
      y[at + n] = value;
    }
    if (lane == 0u) { statistics[row] = vec2f(mean, inverse); }
  }
}
