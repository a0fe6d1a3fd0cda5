// With h = x inverse and dh = dy weight:  dx = inverse (dh - h mean(dh h)); one workgroup a row.
// With RESIDUAL, the gradient that reaches x past this norm is added: dx = dresidual + the above.
//
// x (row, ELEMENTS), statistics as forward.wgsl wrote them; dy, dresidual, dx (gradient of each, row, ELEMENTS)
@group(0) @binding(0) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(1) var<storage, read> weight: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> statistics: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<ELEMENT>;
@group(0) @binding(4) var<storage, read> dresidual: array<ELEMENT>;
@group(0) @binding(5) var<storage, read_write> dx: array<ELEMENT>;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var row = group.x; row < GRADIENTS * ROWS; row += groups.x) {
    let at = row * ELEMENTS;
    let x_row = row % ROWS;
    let x_at = x_row * ELEMENTS;
    let inverse = statistics[x_row];
    var sum = 0.0;
    for (var n = lane; n < ELEMENTS; n += LANES) { sum += sum_of(dy[at + n] * weight[n] * x[x_at + n]); }
    let mean = sum_over_lanes(lane, sum) * inverse / f32(N);
    for (var n = lane; n < ELEMENTS; n += LANES) {
      var value = inverse * (dy[at + n] * weight[n] - x[x_at + n] * inverse * mean);
      if (RESIDUAL) { value += dresidual[at + n]; }
      dx[at + n] = value;
    }
  }
}
