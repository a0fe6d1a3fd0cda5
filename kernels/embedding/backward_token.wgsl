// dtoken_embedding[v] += sum of dx[p] over the positions p whose token is v, without atomics: positions come sorted by
// token, and each distinct token is one run, summed in order by one workgroup.
//
// order (position) positions sorted by token, then by position
// runs  (distinct token) of (token, first index in order, one past the last, 0); runs_count in runs[0].w
@group(0) @binding(0) var<storage, read> order: array<u32>;
@group(0) @binding(1) var<storage, read> runs: array<vec4u>;
@group(0) @binding(2) var<storage, read> dx: array<ELEMENT>;
@group(0) @binding(3) var<storage, read_write> dtoken_embedding: array<ELEMENT>;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var r = group.x; r < runs[0].w; r += groups.x) {
    let run = runs[r];
    let row = run.x - START;
    if (row >= COUNT) { continue; }
    for (var n = lane; n < ELEMENTS; n += LANES) {
      var sum = ELEMENT();
      for (var at = run.y; at < run.z; at++) { sum += dx[order[at] * ELEMENTS + n]; }
      dtoken_embedding[row * ELEMENTS + n] += sum;
    }
  }
}
