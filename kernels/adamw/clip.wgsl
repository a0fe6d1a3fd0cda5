// update = (global gradient norm, factor that clips it, 1 if the step is to be skipped, 0). A norm that is infinite or
// not a number, told by its bits since WGSL leaves NaN comparisons open, skips the step.
struct Clip { limit: f32 }
@group(0) @binding(0) var<uniform> clip: Clip;
@group(0) @binding(1) var<storage, read> partials: array<f32>;
@group(0) @binding(2) var<storage, read_write> update: array<f32>;

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32) {
  var own = 0.0;
  for (var n = lane; n < COUNT; n += LANES) { own += partials[n]; }
  let squares = sum_over_lanes(lane, own);
  if (lane == 0u) {
    let finite = (bitcast<u32>(squares) & 0x7f800000u) != 0x7f800000u;
    let norm = sqrt(squares);
    update[0] = norm;
    update[1] = min(1.0, clip.limit / max(norm, 1.0e-30));
    update[2] = select(1.0, 0.0, finite);
    update[3] = 0.0;
  }
}
