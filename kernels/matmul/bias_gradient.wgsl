// dbias[n] (+)= sum over m of dc[m,n]. One workgroup a column: lanes stride over the rows, then a tree of fixed shape.
@group(0) @binding(0) var<storage, read> dc: array<f32>;
@group(0) @binding(1) var<storage, read_write> dbias: array<f32>;

const LANES = 64u;
var<workgroup> partial: array<f32, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let n = group.x;
  var sum = 0.0;
  for (var m = lane; m < M; m += LANES) { sum += dc[m * N + n]; }
  partial[lane] = sum;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { partial[lane] += partial[lane + half]; }
  }
  if (lane == 0u) {
    if (ACCUMULATE) { partial[0] += dbias[n]; }
    dbias[n] = partial[0];
  }
}
