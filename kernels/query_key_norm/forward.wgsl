// y = x / sqrt(mean(x^2) + epsilon) * weight in each group of queries or keys, values copied; one workgroup a group.
//
// x, y (row, COLUMNS); statistics (row, GROUPS) of 1 / root mean square
@group(0) @binding(0) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(3) var<storage, read_write> y: array<ELEMENT>;
@group(0) @binding(4) var<storage, read_write> statistics: array<f32>;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var part = group.x; part < ROWS * (GROUPS + 1u); part += groups.x) {
    let row = part / (GROUPS + 1u);
    let of_row = part % (GROUPS + 1u);
    let at = row * COLUMNS + first_of(of_row);
    if (of_row == GROUPS) {
      for (var n = lane; n < VALUES; n += LANES) { y[at + n] = x[at + n]; }
      continue;
    }
    let width = width_of(of_row);
    var squares = 0.0;
    for (var n = lane; n < width; n += LANES) { squares += sum_of(x[at + n] * x[at + n]); }
    let inverse = inverseSqrt(sum_over_lanes(lane, squares) / f32(width * FLOATS) + EPSILON);
    for (var n = lane; n < width; n += LANES) { y[at + n] = x[at + n] * inverse * weight_of(of_row, n); }
    if (lane == 0u) { statistics[row * GROUPS + of_row] = inverse; }
  }
}
