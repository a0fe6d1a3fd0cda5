// dweight[n] += sum over rows of dy x inverse. One workgroup an element of a row.
@group(0) @binding(0) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(1) var<storage, read> statistics: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<ELEMENT>;
@group(0) @binding(3) var<storage, read_write> dweight: array<ELEMENT>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let n = group.x;
  var of_lane = ELEMENT();
  for (var row = lane; row < ROWS; row += LANES) {
    of_lane += dy[row * ELEMENTS + n] * (x[row * ELEMENTS + n] * statistics[row]);
  }
  let sum = element_over_lanes(lane, of_lane);
  if (lane == 0u) { dweight[n] += sum; }
}
