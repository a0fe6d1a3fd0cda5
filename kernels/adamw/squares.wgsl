// partials[g] = sum of squares of the elements that workgroup g of GROUPS visits.
@group(0) @binding(0) var<storage, read> gradient: array<ELEMENT>;
@group(0) @binding(1) var<storage, read_write> partials: array<f32>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  var own = 0.0;
  for (var n = group.x * LANES + lane; n < ELEMENTS; n += GROUPS * LANES) {
    let element = gradient[n];
    own += sum_of(element * element);
  }
  let sum = sum_over_lanes(lane, own);
  if (lane == 0u) { partials[group.x] = sum; }
}
