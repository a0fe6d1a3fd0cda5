// partials[g] = sum of squares of the elements that workgroup g of GROUPS visits, LOADS of them on their way at a time: a GPU
// that waits for each leaves most of its memory idle.
@group(0) @binding(0) var<storage, read> gradient: array<ELEMENT>;
@group(0) @binding(1) var<storage, read_write> partials: array<f32>;
const STRIDE = GROUPS * LANES;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  var own = 0.0;
  for (var n = group.x * LANES + lane; n < ELEMENTS; n += LOADS * STRIDE) {
    $for l in 0..LOADS {
    let element$l = gradient[min(n + $lu * STRIDE, ELEMENTS - 1u)];
    $}
    $for l in 0..LOADS {
    own += select(0.0, sum_of(element$l * element$l), n + $lu * STRIDE < ELEMENTS);
    $}
  }
  let sum = sum_over_lanes(lane, own);
  if (lane == 0u) { partials[group.x] = sum; }
}
