// dweight[n] += sum over rows of dy h; with BIAS, dbias[n] += sum over rows of dy. One workgroup an element of a row.
@group(0) @binding(0) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(1) var<storage, read> statistics: array<vec2f>;
@group(0) @binding(2) var<storage, read> dy: array<ELEMENT>;
@group(0) @binding(3) var<storage, read_write> dweight: array<ELEMENT>;
$if BIAS {
@group(0) @binding(4) var<storage, read_write> dbias: array<ELEMENT>;
$}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let n = group.x;
  var of_weight = ELEMENT();
  var of_bias = ELEMENT();
  for (var row = lane; row < ROWS; row += LANES) {
    let h = (x[row * ELEMENTS + n] - statistics[row].x) * statistics[row].y;
    let gradient = dy[row * ELEMENTS + n];
    of_weight += gradient * h;
    of_bias += gradient;
  }
  let weight_sum = element_over_lanes(lane, of_weight);
  if (lane == 0u) { dweight[n] += weight_sum; }
  $if BIAS {
  let bias_sum = element_over_lanes(lane, of_bias);
  if (lane == 0u) { dbias[n] += bias_sum; }
  $}
}
