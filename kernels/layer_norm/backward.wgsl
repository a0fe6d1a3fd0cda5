// With h = (x - mean) inverse and dh = dy weight:  dx = inverse (dh - mean(dh) - h mean(dh h)); one workgroup a row.
// Without WEIGHT, dh = dy.
// With RESIDUAL, the gradient that reaches x past this layer norm is added: dx = dresidual + the above.
//
// x (row, ELEMENTS), statistics as forward.wgsl wrote them; dy, dresidual, dx (gradient of each, row, ELEMENTS)
@group(0) @binding(0) var<storage, read> x: array<ELEMENT>;
$if WEIGHT {
@group(0) @binding(1) var<storage, read> weight: array<ELEMENT>;
$}
@group(0) @binding(2) var<storage, read> statistics: array<vec2f>;
@group(0) @binding(3) var<storage, read> dy: array<ELEMENT>;
@group(0) @binding(4) var<storage, read> dresidual: array<ELEMENT>;
@group(0) @binding(5) var<storage, read_write> dx: array<ELEMENT>;

fn dh_at(row_start: u32, n: u32) -> ELEMENT {
  var dh = dy[row_start + n];
  $if WEIGHT {
  dh *= weight[n];
  $}
  return dh;
}

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
    let mean = statistics[x_row].x;
    let inverse = statistics[x_row].y;
    var sums = vec2f();
    for (var n = lane; n < ELEMENTS; n += LANES) {
      let dh = dh_at(at, n);
      sums += vec2f(sum_of(dh), sum_of(dh * (x[x_at + n] - mean)) * inverse);
    }
    let means = pair_over_lanes(lane, sums) / f32(N);
    for (var n = lane; n < ELEMENTS; n += LANES) {
      let h = (x[x_at + n] - mean) * inverse;
      var value = inverse * (dh_at(at, n) - means.x - h * means.y);
      if (RESIDUAL) { value += dresidual[at + n]; }
      dx[at + n] = value;
    }
  }
}
