// With h = x inverse and dh = dy weight:  dx = inverse (dh - h mean(dh h)) in each group of queries or keys, dx = dy for
// values; one workgroup a group.
@group(0) @binding(0) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(3) var<storage, read> statistics: array<f32>;
@group(0) @binding(4) var<storage, read> dy: array<ELEMENT>;
@group(0) @binding(5) var<storage, read_write> dx: array<ELEMENT>;

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
      for (var n = lane; n < VALUES; n += LANES) { dx[at + n] = dy[at + n]; }
      continue;
    }
    let width = width_of(of_row);
    let inverse = statistics[row * GROUPS + of_row];
    var sum = 0.0;
    for (var n = lane; n < width; n += LANES) { sum += sum_of(dy[at + n] * weight_of(of_row, n) * x[at + n]); }
    let mean = sum_over_lanes(lane, sum) * inverse / f32(width * FLOATS);
    for (var n = lane; n < width; n += LANES) {
      dx[at + n] = inverse * (dy[at + n] * weight_of(of_row, n) - x[at + n] * inverse * mean);
    }
  }
}
