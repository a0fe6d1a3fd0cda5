// y = x / sqrt(mean(x^2) + epsilon) * weight, over the last axis; one workgroup a row.
//
// x, y (row, ELEMENTS); statistics (row) of 1 / root mean square
@group(0) @binding(0) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(1) var<storage, read> weight: array<ELEMENT>;
@group(0) @binding(2) var<storage, read_write> y: array<ELEMENT>;
@group(0) @binding(3) var<storage, read_write> statistics: array<f32>;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var row = group.x; row < ROWS; row += groups.x) {
    let at = row * ELEMENTS;
    var squares = 0.0;
    for (var n = lane; n < ELEMENTS; n += LANES) { squares += sum_of(x[at + n] * x[at + n]); }
    let inverse = inverseSqrt(sum_over_lanes(lane, squares) / f32(N) + EPSILON);
    for (var n = lane; n < ELEMENTS; n += LANES) { y[at + n] = x[at + n] * inverse * weight[n]; }
    if (lane == 0u) { statistics[row] = inverse; }
  }
}
