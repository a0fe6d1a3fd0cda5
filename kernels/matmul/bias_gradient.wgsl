// dbias[n] (+)= sum over m of dc[m,n]. One workgroup an element of a row: lanes stride over the rows.
@group(0) @binding(0) var<storage, read> dc: array<ELEMENT>;
@group(0) @binding(1) var<storage, read_write> dbias: array<ELEMENT>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let n = group.x;
  var own = ELEMENT();
  for (var m = lane; m < M; m += LANES) { own += dc[m * ELEMENTS + n]; }
  var sum = sum_over_lanes(lane, own);
  if (lane == 0u) {
    if (ACCUMULATE) { sum += dbias[n]; }
    dbias[n] = sum;
  }
}
